"""`wm study`: sweeps with fixed lists, next to published scores."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wm import following, options
from wm.sweep import carry_out, how, name, page, preset, with_workers, workers, write_page
from wm.sweeping import How, Sweep

if TYPE_CHECKING:
    from worldmodels.config import Config, Origins


@click.command()
@click.argument("study_name", metavar="STUDY")
@options.gathered(name("the study's name"), options.store, preset(None), options.overrides)
@workers
@page
@following.notify
@how
def study(
    study_name: str,
    given: options.RunOptions,
    workers: int | None,
    page: Path | None,
    url: str,
    **how: bool,
) -> None:
    """Run a study: a sweep with fixed lists, next to published scores.

    It ends in the table of `wm sweep` and writes a page with the table and a figure, by default STUDY.html. Runs,
    options and resuming are as with `wm sweep`; `-o seed=1,2,3,4` replaces a list of the study, and other lists are
    added.

    \b
    paper-table: z alone, z with a hidden layer, z and h, z and h with an untrained M; preset laptop, three seeds

    \b
    wm study paper-table --dry-run
    wm study paper-table --preset demo -o seed=1,2
    """
    from worldmodels import config, sweeps

    wanted = sweeps.study(study_name)
    given = replace(given, preset=given.preset or wanted.preset, run_name=given.run_name or wanted.name)
    given = with_workers(given, workers)
    fixed, axes = sweeps.split(given.overrides)
    given, fixed = replace(given, overrides=(*wanted.fixed, *given.overrides)), (*wanted.fixed, *fixed)
    own = {axis.key: axis for axis in (*wanted.axes, *axes)}

    def resolve(overrides: tuple[str, ...]) -> "tuple[Config, Origins]":
        return config.resolve(given.preset, given.files, overrides)

    runs = sweeps.combined(given.run, fixed, tuple(own.values()), resolve)

    def write(rows: "Sequence[sweeps.Row]") -> None:
        write_page(page or Path(f"{given.run}.html"), wanted.title, rows, wanted.note, wanted.published)

    carry_out(Sweep.of((), given, runs), How(**how, url=url), wanted.published, write)
