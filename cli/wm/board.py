"""`wm board`: a web page about runs."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from wm import options
from wm.out import echo

if TYPE_CHECKING:
    from worldmodels.board.watching import Watch
    from worldmodels.config import Config

DEADLINE_SECONDS = 30.0  # of a bucket that does not answer: the page shows the error, and the next look tries again


@click.command()
@options.of_runs(options.overrides)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="A port of 127.0.0.1; 0: a free one."
)
@click.option("--open", "opened", is_flag=True, help="Open the page in a browser.")
@click.option(
    "--write", "folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
    help="Write the page as static files instead, with all curves and films.",
)  # fmt: skip
def board(given: options.RunOptions, port: int, opened: bool, folder: Path | None) -> None:
    """Show the runs of a store on a web page, while they go on.

    The page shows states, curves, workers, films, and costs where kubernetes.prices has some. It is for this machine
    only, at an address with a random token. The command reads the store only, and only while a browser shows the page.
    There, C or your arrow keys drive a car live, on a track or in M's dream. Ctrl-C ends the board; runs go on.

    \b
    wm board
    wm board demo --open
    wm board --store package:
    wm board --store s3://bucket/prefix --config cluster.toml
    wm board --write ./board
    """
    from worldmodels.config import resolve
    from worldmodels.errors import lacking

    try:
        from worldmodels.board import server, writing
    except ModuleNotFoundError as error:
        raise lacking("the board", error.name) from error
    config, _ = resolve(None, given.files, given.overrides)
    watch = watched(given, config)
    if folder:
        echo(f"{folder}/index.html: {writing.write(watch, folder) / 1e6:.1f} MB with its files")
        return
    with server.listen(port) as found:
        served, address = server.serve(watch, found)
        watch.start()
        echo(f"{watch.store_of_user.uri}: {address}\nCtrl-C ends the board; runs go on")
        if opened:
            click.launch(address)
        served.serve_forever()
        raise KeyboardInterrupt  # it returns upon Ctrl-C only


def watched(given: options.RunOptions, prices: "Config", points: float | None = None) -> "Watch":
    """Return what reads the store again and again, with its runs found; raise MissingInput if there is no folder."""
    from worldmodels.board import details, watching
    from worldmodels.errors import MissingInput
    from worldmodels.store import open_store

    bucket = {"deadline": DEADLINE_SECONDS} if given.store_uri.startswith("s3://") else {}
    store = open_store(given.store_uri, **bucket)
    root = getattr(store, "root", None)
    if root is not None and not root.is_dir():
        raise MissingInput(f"there is no folder {given.store_uri}", next="wm run --preset demo")
    watch = watching.Watch(store, prices, given.run_name or "", points=points or details.POINTS)
    watch.find()
    return watch
