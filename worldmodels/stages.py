"""Table of all stages, from which the CLI, the executors, the docs and the tests are derived.

Entrypoints are strings, so that this module imports neither TensorFlow nor NumPy.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .config import Config
from .context import Context
from .errors import ConfigError

Kind = Literal["single", "sharded", "exchange"]


@dataclass(frozen=True)
class Stage:
    """One stage: `entrypoint` is `module:function` with the signature of its `kind` (see `context.py`).

    `count` returns the number of shards. `packages` are those that the stage needs and only some images have.
    """

    name: str
    kind: Kind
    entrypoint: str
    summary: str
    sections: tuple[str, ...]
    count: Callable[[Context], int] = lambda ctx: 0
    collect: str = ""
    gpu: bool = False
    packages: tuple[str, ...] = ()

    def inputs(self, config: Config, iteration: int) -> list[tuple[str, int]]:
        """Return (stage, iteration) of every artifact that this one is made from, oldest first."""
        return _inputs(self.name, config, iteration)


STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            name="rollouts",
            kind="sharded",
            entrypoint="worldmodels.rollouts.stage:shards",
            summary="drive and store episodes",
            sections=("rollouts",),
            count=lambda ctx: ctx.config.rollouts.episodes // ctx.config.rollouts.shard_episodes,
        ),
        Stage(
            name="vae",
            kind="single",
            entrypoint="worldmodels.vision.train:train",
            summary="train V, which sees",
            sections=("vae",),
            gpu=True,
            packages=("tensorflow",),
        ),
        Stage(
            name="latents",
            kind="sharded",
            entrypoint="worldmodels.vision.latents:shards",
            summary="encode every stored frame",
            sections=("latents",),
            count=lambda ctx: len(ctx.sources()),
        ),
        Stage(
            name="memory",
            kind="single",
            entrypoint="worldmodels.memory.train:train",
            summary="train M, which predicts",
            sections=("memory",),
            gpu=True,
            packages=("tensorflow",),
        ),
        Stage(
            name="controller",
            kind="exchange",
            entrypoint="worldmodels.control.stage:work",
            summary="evolve C, which drives",
            sections=("controller",),
            packages=("cma",),
        ),
        Stage(
            name="evaluate",
            kind="sharded",
            entrypoint="worldmodels.evaluation.stage:shards",
            summary="score the mean controller on fresh tracks",
            sections=("evaluate",),
            count=lambda ctx: ctx.config.evaluate.tracks // ctx.config.evaluate.shard_tracks,
            collect="worldmodels.evaluation.stage:collect",
        ),
        Stage(
            name="report",
            kind="single",
            entrypoint="worldmodels.reports.stage:write",
            summary="write one HTML page about the run",
            sections=(),
            packages=("jinja2", "matplotlib"),
        ),
    )
}


def stage(name: str) -> Stage:
    """Return the stage of that name. Raise ConfigError, with the closest name, if there is none."""
    if name not in STAGES:
        close = difflib.get_close_matches(name, STAGES, n=1, cutoff=0.4)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"there is no stage {name!r}{hint}; stages: {', '.join(STAGES)}", next="wm run --help")
    return STAGES[name]


def _inputs(name: str, config: Config, iteration: int) -> list[tuple[str, int]]:
    previous = iteration - 1
    so_far = range(1, iteration + 1)
    chosen = {"all": so_far, "latest": range(iteration, iteration + 1)}
    if name == "rollouts":
        if config.rollouts.controller == "random":
            return []
        return [(stage, previous) for stage in ("vae", "memory", "controller")]
    if name == "vae":
        warm = [("vae", previous)] if config.vae.warm_start and previous else []
        return [("rollouts", i) for i in chosen[config.vae.episodes]] + warm
    if name == "latents":
        return [("rollouts", i) for i in chosen[config.latents.iterations]] + [("vae", iteration)]
    if name == "memory":
        warm = [("memory", previous)] if config.memory.warm_start and previous else []
        return [("latents", iteration)] + warm
    if name == "controller":
        return [("vae", iteration), ("memory", iteration)]
    if name == "evaluate":
        return [(stage, iteration) for stage in ("vae", "memory", "controller")]
    return [(stage, iteration) for stage in STAGES if stage != "report"]


def downstream(name: str) -> list[str]:
    """List that stage and every later one of its iteration that is made from it, in order."""
    config, reached = Config(), {name}
    for other in STAGES.values():
        if any(stage in reached and iteration == 2 for stage, iteration in other.inputs(config, 2)):
            reached.add(other.name)
    return [other for other in STAGES if other in reached]
