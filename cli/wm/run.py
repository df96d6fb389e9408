"""`wm run`: the main job."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wm import options

if TYPE_CHECKING:
    from worldmodels.executors.pipeline import Step
    from worldmodels.store import Store


@click.command()
@click.argument("names", nargs=-1, metavar="[STAGE]...")
@options.run
@options.store
@options.iteration
@options.settings
@click.option("--workers", type=click.IntRange(0, 256), metavar="N", help="Processes; 0 or nothing: one per core.")
@click.option("--redo", is_flag=True, help="Make again what no longer fits or is damaged, and what follows from it.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
def run(
    names: tuple[str, ...],
    run_name: str | None,
    store_uri: str,
    iteration: int,
    preset: str | None,
    files: tuple[Path, ...],
    overrides: tuple[str, ...],
    workers: int | None,
    redo: bool,
    dry_run: bool,
) -> None:
    """Run stages, by default all of them in order; skip what is committed, resume what is not.

    \b
    Stages: rollouts vae latents memory controller evaluate report

    \b
    wm run --preset demo                     from nothing to a car that drives
    wm run controller -o controller.generations=40
    wm run --iteration 2                     drive with the controller, collect, retrain
    """
    from worldmodels import stages
    from worldmodels.executors import pipeline
    from worldmodels.runner import Task
    from worldmodels.store import open_store

    chosen = [stages.stage(name).name for name in names] or list(stages.STAGES)
    if workers is not None:
        overrides = (*overrides, f"execution.workers={workers}")
    store = open_store(store_uri)
    name, config, origins = options.resolve(store, run_name, iteration, preset, files, overrides)
    last = max(list(stages.STAGES).index(stage) for stage in chosen)
    tasks = [Task(name, iteration, stage, config) for stage in list(stages.STAGES)[: last + 1]]
    if dry_run:
        _print_plan(pipeline.plan(store, tasks, verify=redo), set(chosen))
        return
    with store.lock(tasks[0].name.run):
        steps = pipeline.plan(store, tasks, verify=redo)
        wanted = [step for step in steps if step.task.stage in chosen]
        unfit = [step for step in steps if not redo or step.task.stage not in chosen]
        pipeline.refuse(unfit, "" if redo else shlex.join(["wm", *sys.argv[1:], "--redo"]))
        pipeline.store_config(store, name, iteration, config, origins)
        _work(store, store_uri, wanted, redo)
    _conclude(store, store_uri, wanted)


def _work(store: "Store", store_uri: str, steps: "list[Step]", redo: bool) -> None:
    from wm.progress import Screen
    from worldmodels.executors import local, pipeline

    if all(step.state == "committed" for step in steps):
        click.echo(f"{steps[0].task.run}: everything is committed; nothing to do")
        return
    with Screen() as screen:
        for step in steps:
            if step.state == "committed":
                screen.say(f"{step.task.stage}: committed already")

        def one(task: Any) -> None:
            with screen.stage(task.stage) as report:
                local.run(store_uri, task, report)

        pipeline.execute(store, steps, one, redo=redo)


def _print_plan(steps: "list[Step]", chosen: set[str]) -> None:
    words = {
        "committed": "nothing to do",
        "missing": "to do",
        "differs": "differs",
        "follows": "would be redone",
        "damaged": "damaged",
    }
    for step in steps:
        note = "" if step.task.stage in chosen else "  (not asked for)"
        click.echo(
            f"{step.task.stage:12}{words[step.state]}{note}"
            + "".join(f"\n{'':12}  {reason}" for reason in step.reasons)
        )


def _conclude(store: "Store", store_uri: str, steps: "list[Step]") -> None:
    """The score and the report, if they are among what was asked for."""
    import json
    import tempfile

    from worldmodels import artifacts, runner

    for step in steps:
        manifest = runner.find(store, step.task.name, step.task.config)
        if manifest is None:
            continue
        if step.task.stage == "evaluate":
            with tempfile.TemporaryDirectory() as scratch:
                artifact = artifacts.load(store, step.task.name, manifest, Path(scratch))
                s = json.loads(artifact.path("scores.json").read_text())
            low, high = s["interval"]
            click.echo(
                f"score: {s['mean']:.1f} ± {s['std']:.1f} over {s['tracks']} fresh {s['engine']} tracks"
                f" (95 % interval of the mean {low:.1f} to {high:.1f}; {s['laps']} laps completed)"
            )
        if step.task.stage == "report":
            click.echo(f"report: {store_uri.rstrip('/')}/{step.task.name.key('live', 'report.html')}")
