"""Table of all stages, from which the settings of Jobs, the CLI, the executors, the docs and the tests are derived.

Functions of stages are strings, so that this module imports neither TensorFlow nor NumPy. docs/extending.md shows how
to add a stage.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from .errors import ConfigError, among

if TYPE_CHECKING:
    from .config import Config
    from .context import Context

NO_INPUTS = ("random", "imported")
"""Values of `rollouts.controller` that need no earlier iteration."""

Kind = Literal["single", "sharded", "exchange"]
Inputs = list[tuple[str, int]]

# Steps, frames and images per second on one core of a 2-core AMD EPYC, both cores busy.
RANDOM_STEPS, CLOSED_LOOP_STEPS, GYMNASIUM_STEPS = 2400.0, 2500.0, 110.0
ENCODED_FRAMES, PREDICTED_FRAMES = 4000.0, 6000.0
IMAGES = 200.0  # of a VAE of width 1, forward and backward; 2.6 times as many at width 0.5
WIDTH_EXPONENT = -1.4
FRAME_BYTES = 1000.0  # compressed: 810 of random driving, 1,140 of a C that drives well
C_BYTES = 867 * 4  # one candidate of the linear C
SURVIVAL = 0.67  # of the longest episode, for training episodes that patience may end early (mean of 4,800)


@dataclass(frozen=True)
class Stage:
    """All facts about one stage. `entrypoint`, `collect` and `check` are `module:function`.

    Attributes:
        entrypoint: the stage's work, with the signature of its `kind` (see `context.py`).
        inputs: returns (stage, iteration) of every artifact that the one of an iteration is made from, oldest first;
            raises ConfigError if the iteration cannot have these.
        core_seconds: returns the seconds that one core needs, an order of magnitude.
        stored_bytes: returns the size of the artifact and its workspace, an order of magnitude.
        sections: the sections of the config that decide the result.
        count: returns the number of shards.
        collect: runs after all shards.
        check: raises the errors of a task that can be foreseen, from its `Outlook`.
        packages: packages that the stage needs and only some images have.
        resources: what one pod requests, where it differs from the defaults of `kubernetes.resources`.
        pods: the default of `kubernetes.pods`; a stage of one pod has no such setting.
        pods_are: the description of that setting.
        rounds: the folder of the workspace in which each round of the work has a folder.
        resumes: patterns of the workspace's other objects from which work continues, in the order of their creation.
            Every stage continues from its shards and checkpoints.
    """

    name: str
    kind: Kind
    entrypoint: str
    summary: str
    inputs: "Callable[[Config, int], Inputs]"
    core_seconds: "Callable[[Config], float]"
    stored_bytes: "Callable[[Config], float]" = lambda config: 10e6
    sections: tuple[str, ...] = ()
    count: "Callable[[Context], int]" = lambda ctx: 0
    collect: str = ""
    check: str = ""
    gpu: bool = False
    packages: tuple[str, ...] = ()
    resources: Mapping[str, str] = field(default_factory=dict)
    pods: int = 1
    pods_are: str = ""
    rounds: str = ""
    resumes: tuple[str, ...] = ()


def _rollouts_inputs(config: "Config", iteration: int) -> Inputs:
    if config.rollouts.controller in NO_INPUTS:
        return []
    if iteration == 1:
        raise ConfigError(
            f"rollouts.controller = {config.rollouts.controller!r} in iteration 1: no controller exists before it",
            next="wm run --iteration 2",
        )
    return _driver(iteration - 1)


def _rollouts(which: str, iteration: int) -> Inputs:
    return [("rollouts", i) for i in range(iteration if which == "latest" else 1, iteration + 1)]


def _warm(stage: str, wanted: bool, iteration: int) -> Inputs:
    return [(stage, iteration - 1)] if wanted and iteration > 1 else []


def _controller_inputs(config: "Config", iteration: int) -> Inputs:
    own, c = [("vae", iteration), ("memory", iteration)], config.controller
    if c.warm_start and c.network == "layers" and iteration > 1:
        return [*_driver(iteration - 1), ("rollouts", iteration), *own]
    return [*own, *([("latents", iteration)] if c.components else [])]


def _driver(iteration: int) -> Inputs:
    return [(name, iteration) for name in ("vae", "memory", "controller")]


def _frames(config: "Config") -> int:
    return config.rollouts.episodes * config.rollouts.steps


def _evolution_seconds(config: "Config") -> float:
    c = config.controller
    survival = SURVIVAL if c.patience else 1.0
    last = [(level.tracks or c.tracks) * (level.steps or c.steps) for level in c.growth[-1:]]
    each = (c.tracks * c.steps + sum(last)) / (1 + len(last))  # half of them at the first level, half at the last
    trained = c.generations * c.population * each * survival
    validated = c.generations // c.evaluate_every * c.evaluate_tracks * 1000 if c.evaluate_every else 0
    return (trained + validated) / {"fast": CLOSED_LOOP_STEPS, "gymnasium": GYMNASIUM_STEPS}[c.renderer]


def _evaluation_seconds(config: "Config") -> float:
    e = config.evaluate
    return e.steps * (e.tracks / CLOSED_LOOP_STEPS + min(e.reference_tracks, e.tracks) / GYMNASIUM_STEPS)


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            name="rollouts",
            kind="sharded",
            entrypoint="worldmodels.rollouts.stage:shards",
            summary="drive and store episodes",
            sections=("rollouts",),
            inputs=_rollouts_inputs,
            check="worldmodels.planning.preflight:rollouts",
            count=lambda ctx: ctx.config.rollouts.episodes // ctx.config.rollouts.shard_episodes,
            core_seconds=lambda c: _frames(c) / RANDOM_STEPS,
            stored_bytes=lambda c: _frames(c) * FRAME_BYTES,
            resources={"memory": "1Gi"},
            pods=4,
            pods_are="pods that drive",
        ),
        Stage(
            name="vae",
            kind="single",
            entrypoint="worldmodels.vision.train:train",
            summary="train V, which sees",
            sections=("vae",),
            inputs=lambda c, i: [*_rollouts(c.vae.episodes, i), *_warm("vae", c.vae.warm_start, i)],
            check="worldmodels.planning.preflight:vae",
            gpu=True,
            packages=("tensorflow",),
            core_seconds=lambda c: c.vae.epochs * _frames(c) / (IMAGES * c.vae.width**WIDTH_EXPONENT),
            resources={"cpu": "2", "memory": "8Gi", "disk": "20Gi"},
        ),
        Stage(
            name="latents",
            kind="sharded",
            entrypoint="worldmodels.vision.latents:shards",
            summary="encode every stored frame",
            sections=("latents",),
            inputs=lambda c, i: [*_rollouts(c.latents.iterations, i), ("vae", i)],
            check="worldmodels.planning.preflight:latents",
            count=lambda ctx: len(ctx.sources()),
            core_seconds=lambda c: _frames(c) / ENCODED_FRAMES,
            stored_bytes=lambda c: _frames(c) * (2 * c.vae.z + 3) * 4,
            resources={"memory": "1Gi"},
            pods=4,
            pods_are="pods that encode",
        ),
        Stage(
            name="memory",
            kind="single",
            entrypoint="worldmodels.memory.train:train",
            summary="train M, which predicts",
            sections=("memory",),
            inputs=lambda c, i: [("latents", i), *_warm("memory", c.memory.warm_start, i)],
            check="worldmodels.planning.preflight:memory",
            gpu=True,
            packages=("tensorflow",),
            core_seconds=lambda c: c.memory.epochs * _frames(c) / PREDICTED_FRAMES * (c.memory.hidden / 256) ** 2,
            resources={"cpu": "2", "memory": "8Gi", "disk": "20Gi"},
        ),
        Stage(
            name="controller",
            kind="exchange",
            entrypoint="worldmodels.control.stage:work",
            summary="evolve C, which drives",
            sections=("controller",),
            inputs=_controller_inputs,
            check="worldmodels.planning.preflight:controller",
            packages=("cma",),
            core_seconds=_evolution_seconds,
            stored_bytes=lambda c: 1.5 * c.controller.generations * c.controller.population * C_BYTES,
            resources={"memory": "1Gi", "disk": "2Gi"},
            pods=4,
            pods_are="pods of the evolution",
            rounds="generations/",
            resumes=(r"(inputs|settings|components|start)", r"generations/\d+/params", r"final/.*"),
        ),
        Stage(
            name="evaluate",
            kind="sharded",
            entrypoint="worldmodels.evaluation.stage:shards",
            summary="score the mean controller on fresh tracks",
            sections=("evaluate",),
            inputs=lambda c, i: _driver(i),
            count=lambda ctx: ctx.config.evaluate.tracks // ctx.config.evaluate.shard_tracks,
            collect="worldmodels.evaluation.stage:collect",
            core_seconds=_evaluation_seconds,
            resources={"memory": "1Gi", "disk": "2Gi"},
            pods=4,
            pods_are="pods that score",
        ),
        Stage(
            name="report",
            kind="single",
            entrypoint="worldmodels.reports.stage:write",
            summary="write one HTML page about the run",
            inputs=lambda c, i: [(name, i) for name in STAGES if name != "report"],
            packages=("jinja2", "matplotlib"),
            core_seconds=lambda c: 60.0,
        ),
    )
}


def stage(name: str) -> Stage:
    """Return the stage of that name. Raise ConfigError, with the closest name, if there is none."""
    if name not in STAGES:
        raise ConfigError(f"there is no stage {name!r}; {among(name, STAGES)}", next="wm run --help")
    return STAGES[name]


def function(text: str) -> Callable[..., Any]:
    """Import the function `module:function`."""
    module, _, name = text.partition(":")
    return cast(Callable[..., Any], getattr(importlib.import_module(module), name))
