"""Options that several commands share.

A command gets the options that choose a store, a run and its settings as one object:

    @click.command()
    @options.of_run(options.settings)
    @options.as_json
    def config(given: RunOptions, as_json: bool) -> None: ...
"""

import functools
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click
from click.core import ParameterSource

from wm.out import echo

if TYPE_CHECKING:
    from worldmodels.api import Which
    from worldmodels.config import Config, Origins
    from worldmodels.config.cluster import ClusterSettings
    from worldmodels.executors.kubernetes.client import KubernetesClient
    from worldmodels.store import Store

F = TypeVar("F", bound=Callable[..., Any])
DEFAULT_RUN = "demo"
OF_PIPELINES = ("submit", "attach", "cancel", "logs")
ON_CLUSTERS = ("submit", "attach", "scale", "cancel", "logs", "status")


@dataclass(frozen=True)
class RunOptions:
    """Values of the options that choose a store, a run, an iteration and settings."""

    store_uri: str
    run_name: str | None = None
    iteration: int = 1  # 0, until `gathered` replaces it: the last one with a controller
    preset: str | None = None
    files: tuple[Path, ...] = ()
    overrides: tuple[str, ...] = ()

    @property
    def run(self) -> str:
        """Return the run's name; without --run, the preset's."""
        return self.run_name or self.preset or DEFAULT_RUN

    @functools.cached_property
    def store(self) -> "Store":
        from worldmodels.store import open_store

        return open_store(self.store_uri)

    def resolve(self) -> "tuple[Config, Origins]":
        """Return the config of the run's last start, or of the preset if one is named, and each value's origin."""
        from worldmodels import config, planning

        stored = None
        for i in (self.iteration, self.iteration - 1):
            if i and stored is None and (found := planning.stored_config(self.store, self.run, i)):
                stored = (found["config"], found["origins"])
        resolved, origins = config.resolve(
            self.preset, self.files, self.overrides, iteration=self.iteration, stored=stored
        )
        if stored and click.get_current_context().info_name in ON_CLUSTERS:
            _say_what_is_ignored(stored[0], resolved, self.run)
        return resolved, origins


def gathered(*options: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add these options, in this order; pass the values of RunOptions' fields as one object, the argument `given`."""
    names = {field.name for field in fields(RunOptions)}

    def add(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def call(**values: Any) -> None:
            if values.pop("pretrained", False):
                values |= _packaged()
            given = RunOptions(**{name: values.pop(name) for name in names & values.keys()})
            command(given=given if given.iteration else replace(given, iteration=_last(given)), **values)

        return functools.reduce(lambda inner, option: option(inner), reversed(options), call)

    return add


def _last(given: RunOptions) -> int:
    from worldmodels import artifacts

    return artifacts.last_evolved(given.store, given.run)


def of_run(*more: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add --run, --store, --iteration and `more`, as `gathered` does."""
    return gathered(run, store, iteration, *more)


def of_runs(*more: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the optional argument RUN, --store and `more`, as `gathered` does."""
    argument = click.argument("run_name", envvar="WM_RUN", required=False, metavar="[RUN]")
    return gathered(argument, store, *more)


def pretrained(command: F) -> F:
    """Add --pretrained, which replaces --run, --store and --iteration."""
    return click.option("--pretrained", is_flag=True, help="Take the trained model that the package brings.")(command)


def _packaged() -> dict[str, Any]:
    """Return the values of RunOptions for the package's model; raise UsageError if the user typed another run."""
    from worldmodels.store import PackagedStore, packaged

    context = click.get_current_context()
    for name, typed in (("run_name", "a run"), ("store_uri", "--store"), ("iteration", "--iteration")):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--pretrained names a run of its own; leave out {typed}, or --pretrained.")
    return {"store_uri": packaged.ADDRESS, "run_name": packaged.RUN, "iteration": PackagedStore().iteration}


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


def evolved_iteration(command: F) -> F:
    return click.option(
        "--iteration",
        type=click.IntRange(1, 99),
        metavar="N",
        callback=lambda context, parameter, value: value or 0,
        help="By default, the last one whose controller is committed.",
    )(command)


def iterations(command: F) -> F:
    return click.option(
        "--iterations",
        type=click.IntRange(1, 99),
        metavar="N",
        help="How many, one after the other; by default as many as the preset has.",
    )(command)


def typed(name: str) -> bool:
    """Return whether the user typed that option of the current command."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def settings(command: F) -> F:
    return preset(overrides(command))


def overrides(command: F) -> F:
    """Add the options for settings on top of the run's own."""
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
        envvar="WM_CONFIG",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="A TOML file of settings; may be repeated.",
    )(command)
    return command


def preset(command: F) -> F:
    return click.option(
        "--preset", metavar="NAME", help="demo, laptop or paper; by default what the run was started with, or demo."
    )(command)


def stage(command: F) -> F:
    """Add the argument for a stage, or for the pipeline where the command accepts it."""
    return click.argument("stage_name", metavar="STAGE", shell_complete=complete_stage)(command)


def complete_stage(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """List the stages, and `pipeline` where the command accepts it, for the completion of a shell."""
    from worldmodels import stages

    names = [*stages.STAGES, "pipeline"] if ctx.info_name in OF_PIPELINES else list(stages.STAGES)
    return [name for name in names if name.startswith(incomplete)]


def stage_or_pipeline(name: str) -> str:
    """Return the name; raise ConfigError if there is no such stage."""
    from worldmodels import stages

    return name if name == "pipeline" else stages.stage(name).name


def controller(command: F) -> F:
    """Add --controller: "mean", "best", or the number of a generation, passed as `which`."""
    return click.option(
        "--controller",
        "which",
        default="mean",
        show_default=True,
        metavar="WHICH",
        callback=lambda context, parameter, value: _which(value),
        help="mean, best (the luckiest candidate), or N: the mean after generation N.",
    )(command)


def _which(text: str) -> "Which":
    if text in ("mean", "best"):
        return cast("Which", text)
    if not re.fullmatch("[1-9][0-9]{0,5}", text):
        raise click.BadParameter(f"{text!r} is not mean, best or the number of a generation", param_hint="--controller")
    return int(text)


def as_json(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")(command)


def _say_what_is_ignored(stored: Mapping[str, Any], resolved: "Config", run: str) -> None:
    """Print the settings where to compute that an earlier version stored with the run and that differ here."""
    from worldmodels import config

    names = config.names()
    typed, there = (dict(config.flatten(tree, names)) for tree in (resolved.model_dump(), stored))
    ignored = [key for key in names if config.personal(key) and key in there and there[key] != typed[key]]
    if ignored:
        echo(
            f"wm: {', '.join(ignored)}: stored with run {run} by an earlier version, and not used; say where to compute"
            " with --config FILE, -o or WM_CONFIG",
            err=True,
        )


def complete(hint: str, **instead: Any) -> str:
    """Return the hint with the options that the user typed: run, store, iteration and settings.

    Values from the environment are left out, since they hold for the next command as well. `instead` has values for
    parameters of the command that replace the typed ones.
    """
    from worldmodels import hints

    context = click.get_current_context()
    typed = {
        name: value
        for name, value in context.params.items()
        if value and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    } | {name: value for name, value in instead.items() if value}
    if typed.get("pretrained"):
        typed |= _packaged()
    run = instead.get("run_name") or typed.get("run_name") or context.params.get("run_name") or typed.get("preset")
    by_environment = "run_name" not in instead and (
        context.get_parameter_source("run_name") is ParameterSource.ENVIRONMENT
    )
    given: dict[str, list[str]] = {
        hints.RUN: [run] if run and run != DEFAULT_RUN and not by_environment else [],
        hints.STORE: [typed[name] for name in ("store_uri", "source_uri") if name in typed],
        hints.ITERATION: [str(typed["iteration"])] if typed.get("iteration", 1) != 1 else [],
        hints.PRESET: [typed["preset"]] if "preset" in typed else [],
        hints.CONFIG: [str(path) for path in typed.get("files", ())],
        hints.OVERRIDE: list(typed.get("overrides", ())),
        hints.WORKERS: [str(typed["workers"])] if "workers" in typed else [],
        hints.ITERATIONS: [str(typed["iterations"])] if "iterations" in typed else [],
    }
    if context.info_name == "submit":
        hint = hint.replace("wm run", "wm submit")
    if context.info_name in ("sweep", "study") and "--run" not in hint:  # `wm run` takes no lists of values
        hint = hint.replace(
            "wm run", " ".join(("wm", context.info_name, context.params.get("study_name", ""))).rstrip()
        )
    if hint.startswith(("-o ", "--max-")):  # one more option for the same command
        words = shlex.split(hint)
        return shlex.join([*same_command(*(word for word in words if word.startswith("--max-"))), *words])
    return hints.complete(hint, given)


def same_command(*without: str) -> list[str]:
    """Return the words that the user typed, without some options, and without --notify: its URL may be a secret."""
    words, kept = iter(sys.argv[1:]), ["wm"]
    for word in words:
        name, equals, _ = word.partition("=")
        if name not in ("--notify", *without):
            kept.append(word)
        elif not equals:
            next(words, "")
    return kept


def cluster(settings: "ClusterSettings", first_seconds: float = 5.0) -> "KubernetesClient":
    """Return a client of the settings' cluster, which must respond first within `first_seconds`.

    Raise ClusterError if no cluster is known, ConfigError if the package is not installed.
    """
    from functools import partial

    from worldmodels.errors import lacking

    try:
        from worldmodels.executors.kubernetes import client as kubernetes
    except ModuleNotFoundError as error:
        raise lacking("a cluster", error.name) from error

    def say(words: str) -> None:
        echo(f"wm: {words}", err=True)

    connect = partial(kubernetes.connect, settings.context)
    return kubernetes.KubernetesClient(connect, settings.namespace, say=say, first_seconds=first_seconds)
