"""Scores of a committed controller on tracks that the caller chooses, over all cores, without a commit."""

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import artifacts, evaluation, npz, planning
from ..artifacts import Artifact, Name, provenance
from ..config import Architecture
from ..envs import Lanes, spec
from ..envs.variations import PICTURES
from ..errors import CorruptArtifact, MissingInput
from ..evaluation import TrackScore
from ..rollouts.stage import load_parameters
from ..store import Store

PLAIN = "plain"


def score(
    store: Store,
    run: str,
    iteration: int,
    tracks: list[int],
    renderer: str,
    workers: int,
    which: str | int = "mean",
    *,
    vary: bool = False,
) -> dict[str, Any]:
    """Score a controller with the V and M that it was evolved with; return the figures of an evaluation's scores.json.

    `which` is "mean", "best", or the generation whose mean is scored; `scored` of the result names the parameters, and
    C, V and M by digest. With `vary`, `variations` has the same figures for each variation of the environment, and the
    difference to the plain scores. Raise MissingInput if one of C, V and M is missing or deleted.
    """
    with tempfile.TemporaryDirectory(prefix="wm-evaluate-") as scratch:
        controller = _latest(store, Name(run, iteration, "controller"), Path(scratch))
        vae, memory = (network(store, controller, stage, Path(scratch)) for stage in ("vae", "memory"))
        parameters = Path(scratch, "parameters.npy")
        np.save(parameters, load_parameters(controller, which, "wm evaluate --controller {}"))
        means = npz.read(controller.path("generations.npz"), "mean", dimensions=2)
        generation = which if isinstance(which, int) else len(means)
        scored = {
            "artifact": str(controller.name),
            "parameters": "best" if which == "best" else "mean",
            "generation": generation,
            **{part.stage: part.digest for part in (controller, vae, memory)},
        }
        paths = [str(vae.path("encoder.tflite")), str(memory.path("step.tflite")), str(parameters)]
        count = min(workers or provenance.cores(), len(tracks))
        names = [PLAIN, *(variations(controller.env) if vary else ())]
        one = partial(_score, paths, controller.env, controller.architecture, renderer)
        with ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _quiet) as pool:
            parts = {n: [pool.submit(one, tracks[i::count], n) for i in range(count)] for n in names}
            found = {n: sorted((row for part in each for row in part.result()), key=lambda row: row.track)
                     for n, each in parts.items()}  # fmt: skip

    def summary(rows: list[TrackScore]) -> dict[str, Any]:
        return evaluation.summary(rows, controller.env, renderer)

    plain = found.pop(PLAIN)
    varied = {n: summary(rows) | evaluation.difference(plain, rows) for n, rows in found.items()}
    return {"scored": scored, **summary(plain), **({"variations": varied} if vary else {})}


def variations(env: str) -> dict[str, Callable[[Lanes], Lanes]]:
    """Return the variations of an environment: those of all, and its own."""
    return {**PICTURES, **spec(env).variations}


def _score(
    paths: list[str], env: str, architecture: Architecture, renderer: str, tracks: list[int], variation: str
) -> list[TrackScore]:
    from ..networks import Encoder, Step
    from ..rollouts.driver import Driver

    driver = Driver.of(env, architecture, Encoder(paths[0]), Step(paths[1]))
    vary = {PLAIN: lambda lanes: lanes, **variations(env)}[variation]
    return evaluation.score(driver, npz.read(Path(paths[2])), tracks, renderer, vary=vary)


def _quiet() -> None:
    """Discard standard error, where LiteRT writes a notice per process; exceptions do not need it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _latest(store: Store, name: Name, scratch: Path) -> Artifact:
    found = artifacts.manifests(store, name)
    if not found:
        raise MissingInput(f"{name} is not committed in {store.uri}", next=f"wm run --run {name.run}")
    return artifacts.load(store, name, found[-1], scratch)


def network(store: Store, controller: Artifact, stage: str, scratch: Path) -> Artifact:
    """Return V or M that the controller's manifest names, even if another has replaced it since then.

    Raise MissingInput if it is gone, CorruptArtifact if it is damaged.
    """
    name = Name(controller.name.run, controller.name.iteration, stage)
    digest = controller.manifest["inputs"].get(name.input, "")
    manifest = planning.by_digest(store, name, digest)
    file = {"vae": "encoder.tflite", "memory": "step.tflite"}[stage]
    try:
        if manifest:
            found = artifacts.load(store, name, manifest, scratch)
            found.path(file)
            return found
    except CorruptArtifact:
        if any(digest == current["digest"] for current in artifacts.manifests(store, name)):
            raise
    raise MissingInput(
        f"{controller.name} {controller.digest[:12]} was evolved with {name} {digest[:12]}, which is gone",
        next=planning.renew_command(controller.name),
    )
