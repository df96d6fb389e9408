"""`wm run`: runs stages on this machine."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from wm import following, options
from wm.out import echo
from worldmodels.stages import STAGES

if TYPE_CHECKING:
    from wm.selection import Selection
    from worldmodels.executors.budget import Limits
    from worldmodels.executors.notices import Notifier
    from worldmodels.planning import PlannedStage, Task

UNTIL_C = ("rollouts", "vae", "latents", "memory", "controller")
"""Stages of an iteration that another follows: only the last one's C is scored."""


@click.command()
@click.argument("names", nargs=-1, metavar="[STAGE]...", shell_complete=options.complete_stage)
@options.of_run(options.settings)
@options.iterations
@click.option("--workers", type=click.IntRange(0, 256), metavar="N", help="Processes; 0 or nothing: one per core.")
@click.option("--redo", is_flag=True, help="Make again what no longer fits or is damaged, and what follows from it.")
@following.limits
@following.notify
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@options.as_json
def run(
    names: tuple[str, ...],
    given: options.RunOptions,
    iterations: int | None,
    workers: int | None,
    redo: bool,
    max_hours: float | None,
    max_cost: float | None,
    url: str,
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
    limits = following.limited(max_hours, max_cost, wanted[0].config.kubernetes.prices)
    if dry_run:
        following.check(url)
        show(wanted, redo=redo, as_json=as_json)
        return
    with following.telling(url, given) as notifier:
        with given.store.lock(given.run):
            steps = begin(wanted, redo=redo)
            _work(wanted, steps, limits, notifier, redo=redo, as_json=as_json)
        notifier.finished([step.task.name for step in steps])
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


def _work(
    wanted: "Sequence[Selection]",
    steps: "list[PlannedStage]",
    limits: "Limits",
    notifier: "Notifier",
    *,
    redo: bool,
    as_json: bool,
) -> None:
    """Execute the steps. Store the settings once it is certain that the work can begin."""
    from wm.machine import Events
    from wm.progress import Screen
    from worldmodels import planning
    from worldmodels.artifacts import provenance
    from worldmodels.executors import budget, local, notices

    if _done(wanted, steps) and not as_json:
        echo(f"{steps[0].task.run}: everything is committed; nothing to do")
        return
    with Events() if as_json else Screen() as screen:
        for step in steps:
            if step.state == "committed":
                screen.say(f"{_label(step.task)}: committed already")

        given = wanted[0].given
        cores, meter = provenance.cores(), budget.Meter(given.store, given.run, limits, "", screen.say)

        @contextmanager
        def watch(task: "Task") -> "Iterator[Callable[[local.Snapshot], None]]":
            chosen = next(each for each in wanted if each.given.iteration == task.iteration)
            limit = notices.patience(task)
            with (
                meter.stage(task.name),
                notifier.stage(task.name),
                screen.stage(task.stage if as_json else _label(task)) as report,
            ):
                chosen.remember()

                def both(snapshot: local.Snapshot) -> None:
                    notifier.saw(snapshot, limit, "no progress")
                    report(snapshot)

                yield both

        executor = local.LocalExecutor(given.store_uri, screen.say, check=lambda: meter.tick(cores))
        planning.execute(given.store, steps, executor, watch, redo=redo)


def _done(wanted: "Sequence[Selection]", steps: "list[PlannedStage]") -> bool:
    """Return whether all steps are committed; then store the settings. Raise ConfigError if a package is missing."""
    from worldmodels.planning import preflight

    for step in steps:
        if step.state != "committed":
            preflight.installed(step.task.stage)
    if any(step.state != "committed" for step in steps):
        return False
    for each in wanted:
        each.remember()
    return True


def _label(task: "Task") -> str:
    return task.stage if task.iteration == 1 else f"{task.stage} {task.iteration}"
