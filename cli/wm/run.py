"""`wm run`: runs stages on this machine."""

from collections.abc import Callable, Iterator
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


@click.command()
@click.argument("names", nargs=-1, metavar="[STAGE]...", shell_complete=options.complete_stage)
@options.of_run(options.settings)
@click.option("--workers", type=click.IntRange(0, 256), metavar="N", help="Processes; 0 or nothing: one per core.")
@click.option("--redo", is_flag=True, help="Make again what no longer fits or is damaged, and what follows from it.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@options.as_json
def run(
    names: tuple[str, ...],
    given: options.RunOptions,
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
    """
    from wm.selection import conclude, select

    if workers is not None:
        given = replace(given, overrides=(*given.overrides, f"execution.workers={workers}"))
    wanted = select(names, given)
    if dry_run:
        wanted.show(redo=redo, as_json=as_json)
        return
    with wanted.given.store.lock(wanted.tasks[0].name.run):
        steps = wanted.begin(redo=redo)
        _work(wanted, steps, redo=redo, as_json=as_json)
    conclude(wanted.given.store, [step.task for step in steps], as_json=as_json)


run.help = (run.help or "").replace("STAGES", " ".join(STAGES))


def _work(wanted: "Selection", steps: "list[PlannedStage]", *, redo: bool, as_json: bool) -> None:
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
        wanted.remember()
    if done and not as_json:
        echo(f"{steps[0].task.run}: everything is committed; nothing to do")
        return
    with Events() if as_json else Screen() as screen:
        for step in steps:
            if step.state == "committed":
                screen.say(f"{step.task.stage}: committed already")

        @contextmanager
        def watch(task: "Task") -> "Iterator[Callable[[local.Snapshot], None]]":
            wanted.remember()
            with screen.stage(task.stage) as report:
                yield report

        executor = local.LocalExecutor(wanted.given.store_uri, screen.say)
        planning.execute(wanted.given.store, steps, executor, watch, redo=redo)
