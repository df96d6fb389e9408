"""Stand-ins that tests hand to stages: artifacts that are folders, and a context that lives in one."""

import io
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from worldmodels.config import Architecture, resolve
from worldmodels.context import Checkpoints, Context, ProgressReporter
from worldmodels.rollouts.driver import Driver
from worldmodels.rollouts.episodes import Episode, encode
from worldmodels.store import LocalStore


@dataclass(frozen=True)
class FolderShard:
    index: int
    folder: Path
    repair: str = ""

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()


@dataclass(frozen=True)
class FolderArtifact:
    folder: Path
    shards: tuple[FolderShard, ...] = ()
    architecture: Architecture = field(default_factory=Architecture)
    env: str = "CarRacing-v3"

    def path(self, name: str) -> Path:
        return self.folder / name

    def read(self, name: str) -> bytes:
        return self.path(name).read_bytes()


def folder_shards(folder: Path, contents: list[dict[str, bytes]]) -> FolderArtifact:
    shards = tuple(FolderShard(i, folder / str(i)) for i in range(len(contents)))
    for shard, files in zip(shards, contents, strict=True):
        shard.folder.mkdir(parents=True)
        for name, data in files.items():
            (shard.folder / name).write_bytes(data)
    return FolderArtifact(folder, shards)


def episode(rng: np.random.Generator, length: int, track: int = 0) -> Episode:
    """Frames with something to learn: a coloured square that the actions move."""
    actions = rng.uniform(-1, 1, (length, 3)).astype(np.float32)
    frames = np.full((length, 64, 64, 3), 60, np.uint8)
    for t, x in enumerate(np.clip(24 + np.cumsum(4 * actions[:, 0]), 0, 48).astype(int)):
        frames[t, 20:36, x : x + 16] = (200, 40 + track, 20)
    return Episode(frames, actions, np.zeros(length, np.float32), track, False)


def rollouts(folder: Path, shards: int = 2, episodes: int = 2, length: int = 20) -> FolderArtifact:
    rng = np.random.default_rng(0)
    made = [[episode(rng, length, 10 * i + j) for j in range(episodes)] for i in range(shards)]
    return folder_shards(folder, [encode(shard) for shard in made])


def context(folder: Path, stage: str, overrides: dict[str, Any], **inputs: Any) -> Context:
    """A Context in `folder`; made again in the same folder, it finds its checkpoints."""
    for name in ("results", "telemetry"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    log = logging.getLogger("test")
    return Context(
        config=resolve("demo", overrides=[f"{key}={value}" for key, value in overrides.items()])[0],
        run="tiny", iteration=1, stage=stage,
        inputs={name: value if isinstance(value, tuple) else (value,) for name, value in inputs.items()},
        results=folder / "results", telemetry=folder / "telemetry",
        checkpoints=Checkpoints(LocalStore(folder / "store"), "checkpoints", log),
        workspace=None, worker=0, workers=1, lanes=1, log=log, reporter=ProgressReporter(log),
    )  # fmt: skip


def fix_threads() -> None:
    """Before anything runs on TensorFlow: a process has one number of threads, and stages insist on theirs."""
    from worldmodels.training.devices import prepare

    prepare(2)


class Killed(BaseException):
    """An error that no code catches."""


def kill_after(ctx: Context, steps: int) -> Context:
    """The process dies at the end of that step, whatever it is doing."""
    reporter = ctx.reporter

    def deadly(done: float, *rest: Any) -> None:
        reporter(done, *rest)
        if done >= steps:
            raise Killed

    deadly.stop, deadly.touch, deadly.check = reporter.stop, reporter.touch, reporter.check
    ctx.reporter = deadly
    return ctx


def not_finite(ctx: Context) -> list[str]:
    """The arrays of a stage's checkpoints that hold what is not finite."""
    found = []
    for key in ctx.checkpoints._keys():
        with np.load(io.BytesIO(ctx.checkpoints._store.get(key))) as arrays:
            found += [f"{key}: {name}" for name in arrays.files if not np.isfinite(arrays[name]).all()]
    return found


def results(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "results").iterdir())}


class EncoderFn:
    """V of three pixels; takes a file's path like the real one, and does not read it."""

    z = 3

    def __init__(self, *_: object) -> None: ...

    def __call__(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z = frames.reshape(len(frames), -1)[:, 3000:3003].astype(np.float32) / 255
        return z, z


class RecurrentFn:
    """M of two numbers."""

    hidden = 2

    def __init__(self, *_: object) -> None: ...

    def __call__(self, z: np.ndarray, a: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return h * 0.5 + a[:, :2], c


def driver(architecture: Architecture = Architecture()) -> Driver:  # noqa: B008 - frozen
    """V and M of a few numbers, and a C of that architecture."""
    return Driver.of("CarRacing-v3", architecture, EncoderFn(), RecurrentFn())
