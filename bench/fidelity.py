"""Is the fast renderer Gymnasium's?  python bench/fidelity.py STORE RUN [SEEDS]

Whole episodes on SEEDS tracks (20) in three ways of driving: at random; by the run's mean controller, which sees the
fast renderer's frames; and at full gas straight on, off the field. The same actions go to unmodified `gymnasium.make`.
Prints for each way the rewards, ends and tiles that differ (none may), and how much the 64 x 64 frames differ.
"""

import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import gymnasium
import numpy as np

from worldmodels import artifacts
from worldmodels.artifacts import Name
from worldmodels.config import Architecture
from worldmodels.envs.car_racing import make, random_actions
from worldmodels.envs.preprocess import shrink
from worldmodels.networks import Encoder, Step
from worldmodels.rollouts.driver import Driver
from worldmodels.rollouts.player import EpisodeSpec
from worldmodels.rollouts.policies import WorldPolicy
from worldmodels.store import open_store

STEPS = 1000
Act = Callable[[int, np.ndarray], np.ndarray]


def driver(way: str, seed: int, files: list[str]) -> Act:
    """(step, frame) -> action."""
    if way == "random":
        plan = random_actions(np.random.default_rng(seed), STEPS, 8.0)
        return lambda t, frame: plan[t]
    if way == "off the field":
        return lambda t, frame: np.array([0, 1, 0], np.float32)
    policy = WorldPolicy(Driver.of("CarRacing-v3", Architecture(), Encoder(files[0]), Step(files[1])), 1)
    policy.begin(0, EpisodeSpec(0, seed, np.load(files[2])))
    return lambda t, frame: policy.act([0], frame[None])[0]


def episode(way: str, seed: int, files: list[str]) -> dict[str, float]:
    """Drive one episode on both: steps, whether the lap was completed, what differs, and the frames' differences."""
    fast, reference, act = make("fast", 1), gymnasium.make("CarRacing-v3"), driver(way, seed, files)
    frame, raw = fast.start(0, seed), reference.reset(seed=seed)[0]
    levels, unequal, t = [], 0, 0
    for t in range(STEPS):
        levels.append(np.abs(frame.astype(int) - shrink(raw[None])[0]).mean())
        action = act(t, frame)
        frames, rewards, ends = fast.step([0], action[None])
        raw, reward, terminated, _, _ = reference.step(action)
        tiles = reference.unwrapped.tile_visited_count, len(reference.unwrapped.track)
        unequal += (rewards[0], ends[0], fast.progress(0)) != (np.float32(reward), terminated, tiles)
        frame = frames[0]
        if terminated:
            break
    visited, total = fast.progress(0)
    return {
        "steps": t + 1, "unequal": unequal, "lap": visited == total, "mean": float(np.mean(levels)),
        "worst": float(np.max(levels)),
    }  # fmt: skip


def main(uri: str, run: str, seeds: int = 20) -> None:
    with tempfile.TemporaryDirectory() as scratch, ProcessPoolExecutor() as pool:
        files = []
        for stage, file in (("vae", "encoder.tflite"), ("memory", "step.tflite"), ("controller", "mean.npy")):
            name, store = Name(run, 1, stage), open_store(uri)
            files.append(
                str(artifacts.load(store, name, artifacts.manifests(store, name)[-1], Path(scratch)).path(file))
            )
        for way in ("random", "controller", "off the field"):
            found = list(pool.map(episode, [way] * seeds, range(seeds), [files] * seeds))
            steps, unequal = sum(f["steps"] for f in found), sum(f["unequal"] for f in found)
            mean = np.average([f["mean"] for f in found], weights=[f["steps"] for f in found])
            print(
                f"{way:14} {seeds} seeds, {steps:6,.0f} steps, {sum(f['lap'] for f in found):2.0f} laps: "
                f"{unequal:.0f} steps differ in reward, end or tiles; frames differ by {mean:.3f} grey levels, "
                f"the worst by {max(f['worst'] for f in found):.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
