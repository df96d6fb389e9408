"""`wm sweep`: the product of lists of values, each combination an ordinary run on this machine."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wm import following, machine, options
from wm.out import echo
from wm.sweeping import How, Sweep, failure, work
from worldmodels import durations
from worldmodels.terminal import plain

if TYPE_CHECKING:
    from worldmodels.sweeps import Row, SweepPlan

STATES = {"missing": "to do", "differs": "differ", "follows": "would be redone"}
Published = Mapping[str, tuple[float, float]] | None
"""Published scores, mean and standard deviation, by the words of a value."""


def name(default: str) -> Callable[..., Any]:
    return click.option(
        "--run",
        "run_name",
        envvar="WM_RUN",
        metavar="NAME",
        help=f"The begin of all runs' names; by default {default}.",
    )


def preset(default: str | None) -> Callable[..., Any]:
    return click.option(
        "--preset",
        default=default,
        metavar="NAME",
        help=f"demo, laptop or paper; by default {default or 'that of the study'}, even for runs that exist.",
    )


def how(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of `How`."""
    for flag, words in (
        ("--table", "Print the table of what is committed, and do nothing."),
        ("--dry-run", "Print runs, shared stages, hours and price, and do nothing."),
        ("--redo", "Make again what no longer fits or is damaged."),
        ("--cluster", "Let Jobs on Kubernetes do the stages, one after the other."),
    ):
        command = click.option(flag, is_flag=True, help=words)(command)
    return options.as_json(command)


def page(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--page", type=click.Path(path_type=Path, dir_okay=False, writable=True), metavar="FILE", callback=_in_a_folder,
        help="Write the tables and a figure as an HTML page.",
    )(command)  # fmt: skip


def _in_a_folder(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Refuse a file that cannot be made before the sweep begins, which may take hours."""
    if path and not os.access(path.parent, os.W_OK | os.X_OK):
        raise click.BadParameter(f"{path}: {path.parent} is not a folder that you may write to")
    return path


def workers(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--workers", type=click.IntRange(0, 256), metavar="N", help="Processes; 0 or nothing: one per core."
    )(command)


@click.command()
@click.argument("names", nargs=-1, metavar="[STAGE]...", shell_complete=options.complete_stage)
@options.gathered(name("the preset's name"), options.store, options.iteration, preset("demo"), options.overrides)
@workers
@page
@following.notify
@how
def sweep(
    names: tuple[str, ...], given: options.RunOptions, workers: int | None, page: Path | None, url: str, **how: bool
) -> None:
    """Run every combination of several values, and compare the runs.

    `-o key=a,b` gives a setting several values; a list in brackets is one. Each combination is an ordinary run, named
    by the sweep and its values, as in demo-sigma0.05-seed1. Equal artifacts are made once and copied to the other runs,
    also from the run that has the sweep's own name. The command prints runs, hours and price first (kubernetes.prices),
    and a table at the end. It works on one run after the other: on this machine, or with --cluster as Jobs, which go on
    when it is stopped. A run that fails does not stop the others. The same command resumes; with more values, it adds
    runs.

    \b
    wm sweep -o seed=1,2,3 -o controller.sigma=0.05,0.1 --dry-run
    wm sweep -o seed=1,2,3 -o controller.sigma=0.05,0.1
    wm sweep -o seed=1,2,3 -o controller.sigma=0.05,0.1 --table
    """
    from worldmodels import config
    from worldmodels.sweeps import combined, split

    given = with_workers(given, workers)
    fixed, axes = split(given.overrides)

    def resolve(overrides: tuple[str, ...]) -> "tuple[config.Config, config.Origins]":
        return config.resolve(given.preset, given.files, overrides, iteration=given.iteration)

    def write(rows: "Sequence[Row]") -> None:
        if page:
            write_page(page, f"Sweep {given.run}", rows)

    carry_out(Sweep.of(names, given, combined(given.run, fixed, axes, resolve)), How(**how, url=url), None, write)


def with_workers(given: options.RunOptions, workers: int | None) -> options.RunOptions:
    if workers is None:
        return given
    return replace(given, overrides=(*given.overrides, f"execution.workers={workers}"))


def carry_out(wanted: Sweep, how: How, published: Published, then: "Callable[[Sequence[Row]], None]") -> None:
    """Print the plan, do it, print the tables with published scores beside them, and hand the rows on to `then`.

    After that, raise an error if runs failed.
    """
    from worldmodels import sweeps

    following.check(how.url)
    if how.table:
        rows = wanted.rows()
        print_table(rows, published, as_document=how.as_json)
        then(rows)
        return
    planned = sweeps.plan(wanted.store, wanted.tasks, wanted.asked_for, wanted.given.run)
    _print_plan(wanted, planned, how)
    if how.dry_run:
        return
    failed = work(wanted, how)
    rows = wanted.rows()
    if how.as_json:
        machine.event("table", **_document(rows))
    else:
        print_table(rows, published)
    then(rows)
    if failed:
        raise failure(failed, len(wanted.runs))


def _print_plan(wanted: Sweep, planned: "SweepPlan", how: How) -> None:
    from wm.selection import label

    words, figures = _costs(planned, on_cluster=how.cluster)
    counts = {state: planned.count(state) for state in ("shared", "committed")}
    if how.as_json:
        values = {run.name: run.values for run in wanted.runs}
        rows = [
            {"run": run, "values": values[run],
             "stages": [{"iteration": e.step.task.iteration, "stage": e.step.task.stage, "state": e.state,
                         "source": e.source} for e in each]}
            for run, each in planned.runs.items()
        ]  # fmt: skip
        fields = {"runs": rows, "to_do": len(planned.todo), **counts, **figures}
        if how.dry_run:
            machine.document(**fields)
        else:
            machine.event("plan", **fields)
        return
    for run, each in planned.runs.items():
        echo(run)
        for state, source in dict.fromkeys((stage.state, stage.source) for stage in each):
            names = " ".join(label(s.step.task) for s in each if (s.state, s.source) == (state, source))
            echo(f"  {names}: {f'as in {source}' if source else STATES.get(state, state)}")
    total = f"{len(planned.todo)} stages to do, {counts['shared']} shared, {counts['committed']} committed"
    echo(f"{len(planned.runs)} runs: {total}\n{words}")


def _costs(planned: "SweepPlan", *, on_cluster: bool) -> tuple[str, dict[str, Any]]:
    """Return the estimate of hours and price as a sentence, and as fields for programs."""
    from worldmodels.artifacts import provenance

    if on_cluster:
        hours, price, unknown = planned.pod_hours()
        words = f"about {hours:.2g} pod-hours" + (f", price {price:.2g}" if price else "")
        rest = f"; the hours of {' and '.join(unknown)} on GPUs are unknown" if unknown else ""
        return words + rest, {"pod_hours": hours, "price": price, "unknown": unknown}
    cores, price = provenance.cores(), planned.local_price()
    core_hours, hours = planned.core_hours(), planned.hours(cores)
    where = f"{durations.words(3600 * hours)} on the {cores} cores of this machine"
    words = f"about {core_hours:.2g} core-hours, {where}" + (f", price {price:.2g}" if price else "")
    return words, {"core_hours": core_hours, "hours": hours, "cores": cores, "price": price}


def print_table(rows: "Sequence[Row]", published: Published = None, *, as_document: bool = False) -> None:
    """Print the tables: as text, or as a JSON document."""
    from worldmodels import sweeps

    if as_document:
        machine.document(**_document(rows))
        return
    for cells in sweeps.tables(rows, published):
        lines = [[plain(text) for text in line] for line in ([cells.title, *cells.head[1:]], *cells.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        echo()
        for first, *others in lines:
            padded = (f"{text:>{width}}" for text, width in zip(others, widths[1:], strict=True))
            echo("  ".join((f"{first:{widths[0]}}", *padded)))


def write_page(path: Path, title: str, rows: "Sequence[Row]", note: str = "", published: Published = None) -> None:
    """Write the page of the rows; raise ConfigError if the file cannot be written."""
    from worldmodels.errors import ConfigError
    from worldmodels.sweeps.page import html

    try:
        path.write_text(html(title, rows, note=note, published=published), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--page {path} cannot be written: {error.strerror}", next=f"ls -ld {path.parent}") from error
    echo(f"page: {path}", err=machine.wanted())


def _document(rows: "Sequence[Row]") -> dict[str, Any]:
    from worldmodels import sweeps

    groups = [
        {"values": each.values, "means": each.means, "mean": each.mean, "std": each.deviation}
        for each in sweeps.groups(rows)
    ]
    return {"runs": [asdict(row) for row in rows], "groups": groups}
