"""Common part of `wm run` and `wm submit`: from a command's arguments to a plan."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from wm import machine, options
from wm.evaluate import spread
from wm.out import echo

if TYPE_CHECKING:
    from worldmodels.config import Config, Origins
    from worldmodels.planning import PlannedStage, Task
    from worldmodels.store import Store
    from worldmodels.stored import Scores

UNTIL_C = ("rollouts", "vae", "latents", "memory", "controller")
"""Stages of an iteration that another follows: only the last one's C is scored."""

WORDS = {
    "committed": "nothing to do",
    "missing": "to do",
    "differs": "differs",
    "follows": "would be redone",
    "damaged": "damaged",
}


@dataclass(frozen=True)
class Selection:
    """Stages of one run and iteration, under one config."""

    given: options.RunOptions
    config: "Config"
    origins: "Origins"
    chosen: tuple[str, ...]

    @property
    def tasks(self) -> "list[Task]":
        """Return the tasks of the chosen stages and of their inputs."""
        from worldmodels import stages
        from worldmodels.planning import Task

        order = list(stages.STAGES)
        last = max(order.index(stage) for stage in self.chosen)
        return [Task(self.given.run, self.given.iteration, stage, self.config) for stage in order[: last + 1]]

    @property
    def asked_for(self) -> "list[Task]":
        """Return the tasks of the chosen stages."""
        return [task for task in self.tasks if task.stage in self.chosen]

    def remember(self) -> None:
        """Store this config, which later commands on the run use."""
        from worldmodels import planning

        planning.store_config(self.given.store, self.given.run, self.given.iteration, self.config, self.origins)


def begin(selections: Sequence[Selection], *, redo: bool) -> "list[PlannedStage]":
    """Plan the steps; raise Conflict if they would undo an artifact, and all other errors that can be foreseen."""
    from worldmodels import planning

    store, names = selections[0].given.store, {task.name for each in selections for task in each.asked_for}
    steps = planning.plan(store, [task for each in selections for task in each.tasks], verify=redo)
    unfit = [step for step in steps if not redo or step.task.name not in names]
    planning.refuse(unfit, "" if redo else shlex.join([*options.same_command(), "--redo"]))
    chosen = [step for step in steps if step.task.name in names]
    planning.check(store, chosen, steps)
    return chosen


def show(selections: Sequence[Selection], *, redo: bool, as_json: bool = False) -> None:
    """Print the plan without executing it, and an estimate of its time, disk and memory."""
    from worldmodels import planning
    from worldmodels.artifacts import provenance
    from worldmodels.planning import estimate

    names = {task.name for each in selections for task in each.asked_for}
    steps = planning.plan(selections[0].given.store, [task for each in selections for task in each.tasks], verify=redo)
    if as_json:
        rows = [
            {"iteration": each.task.iteration, "stage": each.task.stage, "state": each.state,
             "asked_for": each.task.name in names, "reasons": list(each.reasons)}
            for each in steps
        ]  # fmt: skip
        machine.document(stages=rows)
        return
    to_do = [step.task for step in steps if step.task.name in names and step.state != "committed"]
    for step in steps:
        if len(selections) > 1 and step.task.stage == "rollouts":
            echo(f"iteration {step.task.iteration}")
        note = "" if step.task.name in names else "  (not asked for)"
        echo(
            f"{step.task.stage:12}{WORDS[step.state]}{note}"
            + "".join(f"\n{'':12}  {reason}" for reason in step.reasons)
        )
    if to_do:
        echo(str(estimate.needs(to_do, provenance.cores())))


def select(names: Sequence[str], given: options.RunOptions) -> Selection:
    """Return the selection of a command's arguments; raise ConfigError if a stage or a setting does not exist."""
    from worldmodels import stages

    chosen = tuple(stages.stage(name).name for name in names) or tuple(stages.STAGES)
    config, origins = given.resolve()
    return Selection(given, config, origins, chosen)


def select_iterations(names: Sequence[str], given: options.RunOptions, iterations: int | None) -> list[Selection]:
    """Return the stages of one iteration, or of all: each up to its controller, and the last up to its report."""
    if names or options.typed("iteration"):
        if iterations:
            raise click.UsageError("--iterations goes with whole runs; name neither stages nor --iteration with it")
        return [select(names, given)]
    last = iterations or given.resolve()[0].iterations
    before = [select(UNTIL_C, replace(given, iteration=i)) for i in range(1, last)]
    return [*before, select((), replace(given, iteration=last))]


def label(task: "Task") -> str:
    """Return the task's stage, with the number of its iteration after the first."""
    return task.stage if task.iteration == 1 else f"{task.stage} {task.iteration}"


def conclude(store: "Store", tasks: "Iterable[Task]", *, as_json: bool = False) -> None:
    """Print the score and the report's place, if their stages were chosen."""
    from worldmodels import artifacts, planning

    for task in tasks:
        manifest = planning.find(store, task.name, task.config)
        if manifest is None:
            continue
        if task.stage == "evaluate":
            scores = artifacts.stored_scores(store, manifest)
            if as_json:
                machine.event("result", work=str(task.name), score=scores)
            else:
                _print_scores(scores, manifest["inputs"])
        if task.stage == "report":
            page = f"{store.uri.rstrip('/')}/{task.name.key('live', 'report.html')}"
            if as_json:
                machine.event("result", work=str(task.name), report=page)
            else:
                echo(f"report: {page}")


def _print_scores(scores: "Scores", digests: Mapping[str, str]) -> None:
    """Print the score, and its difference to unmodified Gymnasium; `digests` are those of the evaluation's inputs."""
    first, last = scores["scores"][0]["track"], scores["scores"][-1]["track"]
    inputs = dict.fromkeys(("controller", "vae", "memory"), "?")
    inputs |= {key.partition("/")[2]: digest[:12] for key, digest in digests.items()}
    echo(
        f"score: {scores['mean']:.1f} ± {scores['std']:.1f} of the mean of controller {inputs['controller']} (V"
        f" {inputs['vae']}, M {inputs['memory']}) over {scores['tracks']} fresh tracks"
        f" (Gymnasium seeds {first} to {last}; {spread(scores)})"
    )
    if there := scores.get("reference"):
        low, high = there["difference_interval"]
        echo(
            f"the first {there['tracks']} on unmodified Gymnasium: {there['mean']:.1f} instead of"
            f" {there['fast_mean']:.1f}, difference {there['difference']:+.1f}"
            f" (95 % interval {low:+.1f} to {high:+.1f})"
        )
