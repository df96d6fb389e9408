"""Artifacts out of a store and into one: `wm get`."""

from pathlib import Path

import click

from wm import options
from wm.formatting import size
from wm.out import echo


@click.command()
@click.argument("artifact")
@click.argument("file", required=False, default="")
@options.run
@options.store
@options.iteration
@click.option("--to", "folder", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER",
              help="Where the files go; by default a folder named by the stage.")  # fmt: skip
def get(artifact: str, file: str, run_name: str | None, store_uri: str, iteration: int, folder: Path | None) -> None:
    """Copy an artifact's files out of a store.

    Without FILE, all of them: results, telemetry, and each shard's below shard-<index>/. FILE is one file or one shard.
    Each copy is checked by its SHA-256 before it gets its name. Of several extents, the newest is taken. Files that are
    there already stay: equal ones are skipped, others stop the command (exit code 43). docs/formats.md describes them.

    \b
    wm get controller mean.npy
    wm get demo/iter-1/rollouts shard-00000 --to data
    wm get vae --store s3://bucket/prefix
    """
    import tempfile

    from wm.inspection import name_of
    from wm.progress import bar
    from worldmodels import artifacts
    from worldmodels.errors import MissingInput
    from worldmodels.interchange import copies
    from worldmodels.store import open_store

    store = open_store(store_uri)
    name = name_of(artifact, run_name, iteration)
    found = artifacts.manifests(store, name)
    if not found:
        raise MissingInput(f"{name} is not committed in {store_uri}", next=f"wm ls {name.run}")
    chosen = copies.parts(artifacts.load(store, name, found[-1], Path(tempfile.gettempdir())), file)
    target = folder or Path(name.stage)
    with bar(name.stage, sum(part.size for part in chosen), size) as advance:
        made = copies.get(chosen, target, advance)
    rest = f"; {len(chosen) - len(made)} there already" if len(made) < len(chosen) else ""
    what = chosen[0].path if len(chosen) == 1 else f"{len(chosen)} files"
    echo(f"{what}, {size(sum(part.size for part in chosen))}, of {name} {found[-1]['digest'][:12]}: in {target}{rest}")
