"""`wm track`: curves, scores and settings of runs for other tools."""

import math
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wm import options
from wm.out import echo

if TYPE_CHECKING:
    from worldmodels.board.watching import Watch
    from worldmodels.tracking.following import Tracker


@click.command()
@options.of_runs()
@click.option("--tensorboard", "folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Write TensorBoard's event files there, in a folder for each run and iteration.")  # fmt: skip
@click.option("--mlflow", "uri", metavar="URI", help="Write runs of MLflow there: http://host:5000, or a folder.")
@click.option("--once", is_flag=True, help="Write what is there, and end; by default, follow until Ctrl-C.")
def track(given: options.RunOptions, folder: Path | None, uri: str | None, once: bool) -> None:
    """Write the curves of a store's runs for TensorBoard or MLflow.

    That is the curves of V, M and C that `wm board` draws, all of their points, the scores, and the settings as
    hyperparameters. The command reads the store only. It may be stopped and started again: it writes each point once.
    If a stage was made again, its iteration's file or MLflow run is replaced by a new one.

    \b
    wm track --tensorboard ./tb
    wm track demo --tensorboard ./tb --once
    wm track --store s3://bucket/prefix --mlflow http://mlflow.example:5000
    """
    from wm.board import watched
    from worldmodels.config import resolve
    from worldmodels.errors import MissingInput

    if not folder and not uri:
        raise click.UsageError("say where to: --tensorboard DIR, --mlflow URI, or both")
    watch = watched(given, resolve(None, (), ())[0], points=math.inf)
    with ExitStack() as held:
        trackers = [held.enter_context(closing(each)) for each in _trackers(watch, folder, uri)]
        if once:
            if not _write(watch, trackers, always=True):
                run = f" {given.run_name}" if given.run_name else ""
                raise MissingInput(f"there is no run{run} in {given.store_uri}", next="wm ls")
            return
        echo(f"{watch.store_of_user.uri}: followed until Ctrl-C; runs go on")
        while True:
            _write(watch, trackers)
            time.sleep(watch.seconds)


def _trackers(watch: "Watch", folder: Path | None, uri: str | None) -> "list[Tracker]":
    """Return the trackers for a folder and a URI; raise ConfigError if the package of one is not installed."""
    from worldmodels.errors import lacking

    made: list[Tracker] = []
    try:
        if folder:
            watch.refuse_inside(folder, "wm track --tensorboard ./tb")
            from worldmodels.tracking.event_files import EventFiles

            made.append(EventFiles(folder))
        if uri:
            from worldmodels.tracking.mlflow_runs import MlflowRuns

            made.append(MlflowRuns(uri, watch.store_of_user.uri))
    except ModuleNotFoundError as error:
        raise lacking("`wm track`", error.name) from error
    return made


def _write(watch: "Watch", trackers: "list[Tracker]", *, always: bool = False) -> int:
    """Write new points; return the number of iterations in the store. `always`: print also if there are none."""
    from worldmodels.tracking.following import look

    pictures = 0
    for picture in look(watch):
        pictures += 1
        count = max(tracker.write(picture) for tracker in trackers)
        if count or always:
            echo(f"{picture.name}: {count} new point{'s' * (count != 1)}")
    return pictures
