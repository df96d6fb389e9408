"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from worldmodels.config import Config, Origins
    from worldmodels.store import Store

F = TypeVar("F", bound=Callable[..., Any])
DEFAULT_RUN = "demo"


def store(command: F) -> F:
    return click.option(
        "--store",
        "store_uri",
        envvar="WM_STORE",
        default="./runs",
        show_default=True,
        metavar="URI",
        help="Where artifacts live: a folder, or s3://bucket/prefix.",
    )(command)


def run(command: F) -> F:
    return click.option(
        "--run",
        "run_name",
        envvar="WM_RUN",
        metavar="NAME",
        help=f"The run; by default the preset's name, or {DEFAULT_RUN}.",
    )(command)


def iteration(command: F) -> F:
    return click.option(
        "--iteration",
        type=click.IntRange(1, 99),
        default=1,
        show_default=True,
        metavar="N",
        help="The first starts from random driving; later ones from the controller before.",
    )(command)


def settings(command: F) -> F:
    command = click.option(
        "-o",
        "--override",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="One setting, like vae.epochs=2; may be repeated.",
    )(command)
    command = click.option(
        "--config",
        "files",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="A TOML file of settings; may be repeated.",
    )(command)
    return click.option(
        "--preset", metavar="NAME", help="demo, laptop or paper; by default what the run was started with, or demo."
    )(command)


def as_json(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")(command)


def resolve(
    opened: "Store",
    run_name: str | None,
    iteration: int,
    preset: str | None,
    files: tuple[Path, ...],
    overrides: tuple[str, ...],
) -> "tuple[str, Config, Origins]":
    """The run's name and its config: what it was started with before, unless a preset is named."""
    from worldmodels import config
    from worldmodels.executors import pipeline

    name = run_name or preset or DEFAULT_RUN
    stored = None
    for i in (iteration, iteration - 1):
        if i and stored is None and (found := pipeline.stored_config(opened, name, i)):
            stored = (found["config"], found["origins"])
    resolved, origins = config.resolve(preset, files, overrides, iteration=iteration, stored=stored)
    return name, resolved, origins
