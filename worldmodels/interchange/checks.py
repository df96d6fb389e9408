"""Real inputs, and the committed LiteRT networks' outputs for them, that exported files must reproduce."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..api import Run, Which
from ..artifacts import Artifact
from ..envs.preprocess import RAW, SEEN_ROWS
from ..errors import WorkFailed
from ..networks import Decoder, Dream, Encoder, Step
from ..rollouts.episodes import Episode
from . import files

FRAMES = 64
"""Frames of a stored episode that a check runs on."""
TOLERANCE = 1e-4
"""Largest deviation from LiteRT, relative to values above 1. Measured: 3e-6; a wrong weight gives more than 1e-2."""
MOST_PIXELS = 1e-3
"""Largest share of pixels that may deviate by a grey level: rounding does so in a few of a million."""
Arrays = Sequence[NDArray[Any]]


@dataclass(frozen=True)
class Written:
    """A file that an export wrote, and what is to be said of it."""

    path: Path
    words: str = ""


class Reference:
    """A run's V, M and C on LiteRT, and their outputs on the first frames of its first episode."""

    def __init__(self, run: Run, which: Which = "mean") -> None:
        """Refer to a run and a controller; nothing is read yet."""
        self.run, self.which = run, which

    @cached_property
    def vae(self) -> Artifact:
        return self.run.driven_by("vae")

    @cached_property
    def memory(self) -> Artifact:
        return self.run.driven_by("memory")

    @cached_property
    def episode(self) -> Episode:
        found = next(self.run.episodes())
        return Episode(found.frames[:FRAMES], found.actions[:FRAMES], found.rewards[:FRAMES], found.track, False)

    @cached_property
    def inputs(self) -> dict[str, NDArray[Any]]:
        """Return frames [T, 64, 64, 3], and z, a, h, c of each step [T, ...], as M follows the episode."""
        frames, actions = self.episode.frames, self.episode.actions
        z, _ = Encoder(self.vae.path("encoder.tflite"))(frames)
        step = Step(self.memory.path("step.tflite"))
        states = [np.zeros((2, 1, step.hidden), np.float32)]
        for t in range(len(z) - 1):
            states.append(np.stack(step(z[t : t + 1], actions[t : t + 1], *states[-1])))
        h, c = np.concatenate(states, axis=1)
        return {"frames": frames, "z": z, "a": actions, "h": h, "c": c}

    def outputs(self, network: str) -> list[NDArray[Any]]:
        """Return what the committed network ("encoder", "decoder", "step", "dream") gives for the inputs."""
        x = self.inputs
        if network == "encoder":
            return list(Encoder(self.vae.path("encoder.tflite"))(x["frames"]))
        if network == "decoder":
            return [Decoder(self.vae.path("decoder.tflite"))(x["z"])]
        opened = {"step": Step, "dream": Dream}[network](self.memory.path(f"{network}.tflite"))
        return opened.run(x["z"], x["a"], x["h"], x["c"])

    def drive(self, act: Callable[[NDArray[np.uint8]], NDArray[np.float32]]) -> float:
        """Return the deviation of a policy's actions, on frames of CarRacing's size: the episode's, and noise."""
        policy = self.run.policy(self.which)
        noise = np.random.default_rng(0).integers(0, 256, (8, *RAW), np.uint8)
        raw = np.concatenate([enlarged(self.episode.frames), noise])
        return max(deviation([act(frame)], [policy.act(frame)]) for frame in raw)


def enlarged(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return frames [T, 96, 96, 3] that `envs.preprocess.shrink` turns into these [T, 64, 64, 3], bit for bit."""
    from ..envs.preprocess import FIRST_ROW

    rows = np.searchsorted(FIRST_ROW, np.arange(SEEN_ROWS), side="right") - 1
    columns = np.array([2 * (i // 3) + (i % 3 == 2) for i in range(RAW[1])])
    found = np.zeros((len(frames), *RAW), np.uint8)
    found[:, :SEEN_ROWS] = frames[:, rows][:, :, columns]
    return found


def deviation(found: Arrays, expected: Arrays) -> float:
    """Return the largest deviation, relative to values above 1.

    For pixels, one grey level counts as the tolerance, and so does a share of MOST_PIXELS that deviate. The deviation
    is infinite for arrays of another number, type or shape.
    """
    if [(a.shape, a.dtype) for a in found] != [(b.shape, b.dtype) for b in expected]:
        return float("inf")
    return max(_deviation(a, b) for a, b in zip(found, expected, strict=True))


def _deviation(found: NDArray[Any], expected: NDArray[Any]) -> float:
    apart = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    if expected.dtype == np.uint8:
        return float(max(apart.max(), (apart > 0).mean() / MOST_PIXELS) * TOLERANCE)
    return float((apart / np.maximum(1, np.abs(expected))).max())


def write(path: Path, save: Callable[[Path], object], measure: Callable[[Path], float]) -> Written:
    """Save a file, and give it its name if `measure` finds at most the tolerance; an earlier file is replaced.

    Raise WorkFailed for a larger deviation, StoreError if the folder cannot be written.
    """
    found = 0.0

    def check(unchecked: Path) -> None:
        nonlocal found
        found = measure(unchecked)
        if not found <= TOLERANCE:
            raise WorkFailed(
                f"{path.name} computes otherwise than the committed networks: it deviates by {found:.3g}, and"
                f" {TOLERANCE:g} is allowed",
                next="pip show onnxruntime keras ai-edge-litert",
            )

    files.replace(path, save, check)
    pixels = path.name.startswith("decoder")
    return Written(path, "within one grey level" if pixels else f"deviates by {found:.1e} from the committed network")
