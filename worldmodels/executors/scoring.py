"""Scores a committed controller on tracks of one's choosing, over all cores; commits nothing."""

import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from .. import artifacts, evaluation, runner
from ..artifacts import Artifact, Name
from ..errors import MissingInput
from ..store import Store


def score(store: Store, run: str, iteration: int, tracks: list[int], renderer: str, workers: int) -> dict[str, Any]:
    """The mean controller's scores as in an evaluation's scores.json. MissingInput if a part of it is not committed."""
    with tempfile.TemporaryDirectory(prefix="wm-evaluate-") as scratch:
        vae, memory, controller = (
            _latest(store, Name(run, iteration, stage), Path(scratch)) for stage in ("vae", "memory", "controller")
        )
        paths = [str(vae.path("encoder.tflite")), str(memory.path("step.tflite")), str(controller.path("mean.npy"))]
        count = min(workers or runner.cores(), len(tracks))
        with ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _quiet) as pool:
            parts = pool.map(_score, [paths] * count, [tracks[i::count] for i in range(count)], [renderer] * count)
            scores = [row for part in parts for row in part]
    return evaluation.summary(sorted(scores, key=lambda row: row.track), renderer)


def _score(paths: list[str], tracks: list[int], renderer: str) -> list[Any]:
    from ..networks import Encoder, Step

    encoder, step = Encoder(paths[0]), Step(paths[1])
    return evaluation.score(encoder, step, np.load(paths[2]), tracks, renderer)


def _quiet() -> None:
    """LiteRT greets every process on standard error; exceptions come back another way."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _latest(store: Store, name: Name, scratch: Path) -> Artifact:
    found = artifacts.manifests(store, name)
    if not found:
        raise MissingInput(f"{name} is not committed in {store.uri}", next=f"wm run --run {name.run}")
    return artifacts.load(store, name, found[-1], scratch)
