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
    from wm.machine import Events
    from wm.progress import Screen
    from wm.selection import Selection
    from worldmodels.executors.budget import Limits
    from worldmodels.executors.notices import Notifier
    from worldmodels.planning import PlannedStage, Task, TaskState


@click.command()
@click.argument("names", nargs=-1, metavar="[STAGE]...", shell_complete=options.complete_stage)
@options.of_run(options.settings)
@options.iterations
@click.option("--workers", type=click.IntRange(0, 256), metavar="N", help="Processes; 0 or nothing: one per core.")
@click.option("--redo", is_flag=True, help="Make again what no longer fits or is damaged, and what follows from it.")
@following.limits
@following.notify
@click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")
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
    from wm.selection import begin, conclude, select_iterations, show

    if workers is not None:
        given = replace(given, overrides=(*given.overrides, f"execution.workers={workers}"))
    wanted = select_iterations(names, given, iterations)
    limits = following.limited(max_hours, max_cost, wanted[0].config.kubernetes.prices)
    if dry_run:
        following.check(url)
        show(wanted, redo=redo, as_json=as_json)
        return
    with following.notifying(url, given) as notifier:
        with given.store.lock(given.run):
            steps = begin(wanted, redo=redo)
            _work(wanted, steps, limits, notifier, redo=redo, as_json=as_json)
        notifier.finished([step.task.name for step in steps])
    conclude(given.store, [step.task for step in steps], as_json=as_json)


run.help = (run.help or "").replace("STAGES", " ".join(STAGES))


def _work(
    wanted: "Sequence[Selection]",
    steps: "list[PlannedStage]",
    limits: "Limits",
    notifier: "Notifier",
    *,
    redo: bool,
    as_json: bool,
) -> None:
    """Execute the steps, or say that all are committed."""
    from wm.machine import Events
    from wm.progress import Screen

    if not as_json and all(step.state == "committed" for step in steps):
        _remember(wanted)
        echo(f"{steps[0].task.run}: everything is committed; nothing to do")
        return
    with Events() if as_json else Screen() as screen:
        execute(wanted, steps, screen, limits, notifier, redo=redo)


def execute(
    wanted: "Sequence[Selection]",
    steps: "list[PlannedStage]",
    screen: "Events | Screen",
    limits: "Limits",
    notifier: "Notifier",
    *,
    redo: bool,
    adopt: "Callable[[TaskState], bool]" = lambda found: False,
) -> None:
    """Execute the steps on this machine, and show their progress; `adopt` is that of `planning.execute`.

    Store the settings once it is certain that the work can begin. Raise ConfigError if a package is missing.
    """
    from wm.machine import Events
    from wm.selection import label
    from worldmodels import planning
    from worldmodels.artifacts import provenance
    from worldmodels.executors import budget, local, notices
    from worldmodels.planning import preflight

    for step in steps:
        if step.state != "committed":
            preflight.installed(step.task.stage)
    if all(step.state == "committed" for step in steps):
        _remember(wanted)
    for step in steps:
        if step.state == "committed":
            screen.say(f"{label(step.task)}: committed already")

    given = wanted[0].given
    cores, meter = provenance.cores(), budget.Meter(given.store, given.run, limits, "", screen.say)

    @contextmanager
    def watch(task: "Task") -> "Iterator[Callable[[local.Snapshot], None]]":
        chosen = next(each for each in wanted if each.given.iteration == task.iteration)
        limit = notices.patience(task)
        words = task.stage if isinstance(screen, Events) else label(task)
        with meter.stage(task.name), notifier.stage(task.name), screen.stage(words) as report:
            chosen.remember()

            def both(snapshot: local.Snapshot) -> None:
                notifier.saw(snapshot, limit, "no progress")
                report(snapshot)

            yield both

    executor = local.LocalExecutor(given.store_uri, screen.say, check=lambda: meter.tick(cores))
    planning.execute(given.store, steps, executor, watch, redo=redo, adopt=adopt)


def _remember(wanted: "Sequence[Selection]") -> None:
    for each in wanted:
        each.remember()
