"""`wm run`: runs stages on this machine."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from wm import options
from wm.out import echo
from worldmodels.stages import STAGES

if TYPE_CHECKING:
    from wm.selection import Selection
    from worldmodels.planning import PlannedStage, Task

UNTIL_C = ("rollouts", "vae", "latents", "memory", "controller")
"""Stages of an iteration that another follows: only the last one's C is scored."""


@click.command()
@click.argument("names", nargs=-1, metavar="[STAGE]...", shell_complete=options.complete_stage)
@options.of_run(options.settings)
@options.iterations
@click.option("--workers", type=click.IntRange(0, 256), metavar="N", help="Processes; 0 or nothing: one per core.")
@click.option("--redo", is_flag=True, help="Make again what no longer fits or is damaged, and what follows from it.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@options.as_json
def run(
    names: tuple[str, ...],
    given: options.RunOptions,
    iterations: int | None,
    workers: int | None,
    redo: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run stages on this machine, by default all of them.

    Committed stages are skipped, unfinished ones resumed.

    \b
    Stages: STAGES

    \b
    wm run --preset demo                     from nothing to a car that drives
    wm run controller -o controller.generations=40
    wm run --iteration 2                     drive with the controller, collect, retrain
    wm run --preset laptop --iterations 3    all of three iterations
    """
    from wm.selection import begin, conclude, show

    if workers is not None:
        given = replace(given, overrides=(*given.overrides, f"execution.workers={workers}"))
    wanted = _selections(names, given, iterations)
    if dry_run:
        show(wanted, redo=redo, as_json=as_json)
        return
    with given.store.lock(given.run):
        steps = begin(wanted, redo=redo)
        _work(wanted, steps, redo=redo, as_json=as_json)
    conclude(given.store, [step.task for step in steps], as_json=as_json)


run.help = (run.help or "").replace("STAGES", " ".join(STAGES))


def _selections(names: tuple[str, ...], given: options.RunOptions, iterations: int | None) -> "list[Selection]":
    """Return the stages of one iteration, or of all: each up to its controller, and the last up to its report."""
    from wm.selection import select

    if names or options.typed("iteration"):
        if iterations:
            raise click.UsageError("--iterations goes with whole runs; name neither stages nor --iteration with it")
        return [select(names, given)]
    last = iterations or given.resolve()[0].iterations
    before = [select(UNTIL_C, replace(given, iteration=i)) for i in range(1, last)]
    return [*before, select((), replace(given, iteration=last))]


def _work(wanted: "Sequence[Selection]", steps: "list[PlannedStage]", *, redo: bool, as_json: bool) -> None:
    """Execute the steps. Store the settings once it is certain that the work can begin."""
    from wm.machine import Events
    from wm.progress import Screen
    from worldmodels import planning
    from worldmodels.executors import local
    from worldmodels.planning import preflight

    for step in steps:
        if step.state != "committed":
            preflight.installed(step.task.stage)
    done = all(step.state == "committed" for step in steps)
    if done:
        for each in wanted:
            each.remember()
    if done and not as_json:
        echo(f"{steps[0].task.run}: everything is committed; nothing to do")
        return
    with Events() if as_json else Screen() as screen:
        for step in steps:
            if step.state == "committed":
                screen.say(f"{_label(step.task)}: committed already")

        @contextmanager
        def watch(task: "Task") -> "Iterator[Callable[[local.Snapshot], None]]":
            given = next(each for each in wanted if each.given.iteration == task.iteration)
            given.remember()
            with screen.stage(_label(task)) as report:
                yield report

        given = wanted[0].given
        executor = local.LocalExecutor(given.store_uri, screen.say)
        planning.execute(given.store, steps, executor, watch, redo=redo)


def _label(task: "Task") -> str:
    return task.stage if task.iteration == 1 else f"{task.stage} {task.iteration}"
