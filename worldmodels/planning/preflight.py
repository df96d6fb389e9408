"""Checks of a stage's settings and inputs before the command retires an artifact or begins a stage.

The models in `config/models.py` check settings alone. The checks here depend on other artifacts and on installed
packages.
"""

import contextlib
import importlib.util

from .. import stages, stored
from ..context import Outlook, chosen_episodes
from ..errors import ConfigError, MissingInput, lacking


def check(outlook: Outlook) -> None:
    """Raise the error with which the task would end, if it can be detected in advance."""
    if text := stages.stage(outlook.stage).check:
        with contextlib.suppress(ModuleNotFoundError):  # a machine that only submits has fewer packages
            stages.function(text)(outlook)


def installed(stage: str) -> None:
    """Raise ConfigError if a package that the stage needs is missing on this machine."""
    for package in stages.stage(stage).packages:
        if importlib.util.find_spec(package) is None:
            raise lacking(stage, package)


def rollouts(outlook: Outlook) -> None:
    which = outlook.config.rollouts.controller
    if which == "imported":
        raise MissingInput(
            f"the rollouts of {outlook.run} were imported, and are gone or damaged: the same import restores them",
            next=f"wm import SOURCE --run {outlook.run}",
        )
    if isinstance(which, int) and "controller" in outlook.inputs:
        from ..rollouts.stage import load_parameters

        load_parameters(outlook.inputs["controller"][-1], which)


def latents(outlook: Outlook) -> None:
    config = outlook.config
    there = outlook.inputs.get("rollouts", ())
    found = False
    for artifact in there:
        size = artifact.shard_episodes
        episodes = chosen_episodes(config.latents.episodes, size)
        found = found or any(shard.index * size in episodes for shard in artifact.shards)
    if not any(artifact.name.iteration == outlook.iteration for artifact in there):  # the command makes it first
        episodes = chosen_episodes(config.latents.episodes, config.rollouts.shard_episodes)
        found = found or episodes.start < config.rollouts.episodes
    if not found:
        raise ConfigError(
            f"latents.episodes = {config.latents.episodes}: no stored episode is among these",
            next="wm run latents -o latents.episodes=all",
        )


def vae(outlook: Outlook) -> None:
    config = outlook.config.vae
    if config.warm_start and "vae" in outlook.inputs:
        _same_network(outlook, "vae", z=config.z, width=config.width)


def memory(outlook: Outlook) -> None:
    config = outlook.config.memory
    if config.warm_start and "memory" in outlook.inputs:
        _same_network(outlook, "memory", z=outlook.config.vae.z, hidden=config.hidden, mixtures=config.mixtures)


def _same_network(outlook: Outlook, stage: str, **sizes: float) -> None:
    """Raise ConfigError if the weights of the warm start belong to a network of other sizes."""
    file, data = f"{stage}.json", outlook.inputs[stage][-1].path(f"{stage}.json").read_bytes()
    there = stored.parse(data, stored.ANYTHING, f"{outlook.inputs[stage][-1].name}: {file}", "wm verify")
    if differing := [
        f"{name} was {there.get(name)} and is now {size}" for name, size in sizes.items() if there.get(name) != size
    ]:
        raise ConfigError(
            f"{stage}.warm_start: the weights of {outlook.inputs[stage][-1].name} are another network's:"
            f" {'; '.join(differing)}",
            next=f"wm run {stage} -o {stage}.warm_start=false",
        )


def controller(outlook: Outlook) -> None:
    from ..envs import spec
    from ..networks import build

    config, start = outlook.config, outlook.config.controller.start_from
    length = build(spec(config.env), config.controller, config.vae.z, config.memory.hidden).parameters
    if length > stored.MOST_PARAMETERS:
        raise ConfigError(
            f"controller.hidden = {config.controller.hidden}: C would have {length} parameters, more than the"
            f" {stored.MOST_PARAMETERS} that an evolution can have",
            next="wm run controller -o controller.hidden=40",
        )
    most = config.vae.z + config.memory.hidden
    if config.controller.components > most:
        raise ConfigError(
            f"controller.components = {config.controller.components}: z and h have {most} numbers together",
            next=f"wm run controller -o controller.components={most}",
        )
    for before in outlook.inputs.get("controller", ()):
        if (there := before.architecture.changed()) != (here := config.controller.changed()):
            raise ConfigError(
                f"controller.warm_start: {before.name} has {there or 'a linear C of z and h'}, and C would have"
                f" {here or 'a linear one'}",
                next="wm run controller -o controller.warm_start=false",
            )
    if start is None:
        return
    if outlook.workspace is None:
        raise MissingInput(
            f"controller.start_from = {start}: V or M is made first, and no evolution with them can have begun",
            next="wm run controller -o controller.start_from=none",
        )
    from ..control.replay import ancestry
    from ..control.stage import settings

    ancestry(outlook.workspace, settings(config, length))
