"""Artifacts out of a store and into one: `wm get`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wm import options
from wm.formatting import size
from wm.out import echo

if TYPE_CHECKING:
    from worldmodels.api import Which


@click.command()
@click.argument("artifact")
@click.argument("file", required=False, default="")
@options.of_run()
@click.option("--to", "folder", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER",
              help="Where the files go; by default a folder named by the stage.")  # fmt: skip
def get(artifact: str, file: str, given: options.RunOptions, folder: Path | None) -> None:
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

    store, name = given.store, name_of(artifact, given)
    found = artifacts.manifests(store, name)
    if not found:
        raise MissingInput(f"{name} is not committed in {given.store_uri}", next=f"wm ls {name.run}")
    chosen = copies.parts(artifacts.load(store, name, found[-1], Path(tempfile.gettempdir())), file)
    target = folder or Path(name.stage)
    with bar(name.stage, sum(part.size for part in chosen), size) as advance:
        made = copies.get(chosen, target, advance)
    rest = f"; {len(chosen) - len(made)} there already" if len(made) < len(chosen) else ""
    what = chosen[0].path if len(chosen) == 1 else f"{len(chosen)} files"
    echo(f"{what}, {size(sum(part.size for part in chosen))}, of {name} {found[-1]['digest'][:12]}: in {target}{rest}")


FORMATS = ("onnx", "keras", "minari", "npz")


@click.command()
@options.of_runs(options.evolved_iteration)
@click.option("--format", "formats", multiple=True, type=click.Choice(FORMATS), default=("onnx",), show_default=True,
              help="May be repeated. onnx and keras: the networks; minari and npz: the rollouts.")  # fmt: skip
@options.controller
@click.option("--to", "folder", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER",
              help="Where the files go; by default export/RUN.")  # fmt: skip
def export(given: options.RunOptions, formats: tuple[str, ...], which: "Which", folder: Path | None) -> None:
    """Write a run's networks, policy or rollouts for other tools.

    onnx: V, M, and the whole policy in one file, policy.onnx: (frame, h, c) -> (action, h, c). keras: V and M as plain
    Keras models. Each file must compute, on stored frames, what the committed networks compute, before it gets its
    name. minari and npz: the rollouts, for other learners. MODEL_CARD.md describes the networks, their data and their
    scores. Earlier files in FOLDER are replaced. docs/formats.md describes all of them.

    \b
    wm export demo
    wm export demo --format onnx --format keras --to exported
    wm export demo --format minari --controller best
    """
    from worldmodels import api
    from worldmodels.interchange import exporting

    target = folder or Path("export", given.run)
    run = api.open(given.store_uri).run(given.run, given.iteration)
    for written in exporting.export(run, target, formats, which):
        echo(f"{written.path}: {written.words}" if written.words else written.path)


@click.command("import")
@click.argument("source")
@options.gathered(options.run, options.store, options.settings)
def import_rollouts(source: str, given: options.RunOptions) -> None:
    """Store episodes from elsewhere as the rollouts of a new run.

    SOURCE is an .npz file, a folder of them, or a Minari data set of CarRacing (its folder, or its id). Frames are
    96x96 or 64x64 pixels, actions continuous. The rollouts are marked as imported, with the SHA-256 of their content;
    `wm run` then trains V and M on them. After a kill, or damage, the same command completes or repairs them. A run
    that has other rollouts is a conflict (exit code 10). docs/formats.md describes the arrays.

    \b
    wm import drives.npz --run human
    wm import CarRacing/human-v0 --run human --preset laptop
    """
    import shlex

    from wm.progress import bar, status
    from worldmodels import planning
    from worldmodels.interchange import importing, sources

    run_name = given.run_name
    if not run_name:
        raise click.UsageError("Missing option '--run': the name of the run that gets the rollouts.")
    store, opened = given.store, sources.open_source(source)
    with status() as show:
        show(f"reading {source}")
        found = sources.survey(opened)
    asked, _ = given.resolve()
    more = importing.overrides(found, asked.rollouts.shard_episodes)
    config, origins = replace(given, overrides=(*given.overrides, *more)).resolve()
    again = shlex.join(["wm", "import", source, "--run", f"{run_name}-2"])
    with planning.lock(store, run_name, 5.0), bar("import", found.count, "{:.0f}".format) as advance:
        done = 0

        def report(episodes: int) -> None:
            nonlocal done
            advance(episodes - done)
            done = episodes

        manifest = importing.bring(store, run_name, config, opened, again, report)
        planning.store_config(store, run_name, 1, config, origins)
    echo(f"{found.count} episodes, {found.steps} steps: {manifest['artifact']} {manifest['digest'][:12]}")
    echo(f"next: {options.complete('wm run vae latents memory')}")


@click.command()
@options.of_runs(options.evolved_iteration, options.pretrained)
@click.option("--seed", default=300_000_000, show_default=True, type=click.IntRange(0, 2**31 - 1), metavar="N",
              help="The track: a Gymnasium seed. Training never uses those from 300000000 on.")  # fmt: skip
@options.controller
@click.option("--steps", default=1000, show_default=True, type=click.IntRange(1, 10_000), metavar="N", help="At most.")
@click.option("--to", "file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="By default RUN-SEED.webp; or a name that ends with .mp4.")  # fmt: skip
def drive(given: options.RunOptions, seed: int, which: "Which", steps: int, file: Path | None) -> None:
    """Film a drive on a track.

    The film, an animated WebP or an mp4 in real time, shows the track, the frame that C sees, V's reconstruction of it,
    M's prediction of it from the step before, the controls and the score.

    \b
    wm drive --pretrained
    wm drive demo --seed 42 --controller best --to best.mp4
    """
    from wm.progress import bar
    from worldmodels import api
    from worldmodels.interchange import drives, files, filming

    target, last = file or Path(f"{given.run}-{seed}.webp"), None
    if target.suffix not in filming.FORMATS:
        raise click.BadParameter(
            f"{str(file)!r}: a film's name ends with {' or '.join(filming.FORMATS)}", param_hint="--to"
        )
    filming.check(target)
    run = api.open(given.store_uri).run(given.run, given.iteration)
    with bar("drive", steps, "{:.0f}".format) as advance:

        def report(view: drives.View) -> None:
            nonlocal last
            last = view
            advance(1)

        views = filming.drive(run, which, seed, steps)
        title, rate = f"{given.run}, {which}, seed {seed}", filming.steps_per_second(run)
        files.replace(target, lambda path: filming.film(views, title, rate, path, report))
    assert last
    echo(f"{target}: score {last.score:.1f} after {last.step} steps, {size(target.stat().st_size)}")
