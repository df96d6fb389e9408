"""Work that a stage has begun and not committed, as the store shows it; for commands that only read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from .. import config, durations, planning, stages
from ..artifacts import Name
from ..context import Context
from ..control import Description, describe
from ..errors import ConfigError, Conflict, CorruptArtifact, MissingInput
from ..store import Store
from .tasks import Task, TaskState

SILENT_SECONDS = 60.0  # without a new claim or result: no worker counts as active


@dataclass(frozen=True)
class Underway:
    """A task whose inputs are committed."""

    state: TaskState

    def evolution(self) -> Description | None:
        """Return the progress of the evolution; None before its first generation, or if that is damaged."""
        try:
            return describe(self.state.workspace, self.state.task.config.controller)
        except CorruptArtifact:
            return None

    def shards(self) -> tuple[int, int]:
        """Return the shards that a sharded stage has made, failed ones included, and those that it shall make."""
        outlook = cast(Context, self.state.outlook(Path()))
        stage = self.state.task.stage
        total = len(Context.sources(outlook)) if stage == "latents" else stages.stage(stage).count(outlook)
        return sum(1 for _ in self.state.store.entries(self.state.identity.work_key("shards/"))), total


def find(store: Store, name: Name) -> Underway | None:
    """Return the task of the run's last start; None if it has not begun or another version of `wm` began it."""
    try:
        if not (stored := planning.stored_config(store, name.run, name.iteration)):
            return None
        settled, _ = config.resolve(iteration=name.iteration, stored=(stored["config"], stored["origins"]))
        return of(store, Task(name.run, name.iteration, name.stage, settled))
    except (ConfigError, CorruptArtifact):
        return None


def of(store: Store, task: Task) -> Underway | None:
    """Return the task with its inputs; None if one of them is not committed, damaged, or of another environment."""
    state = TaskState(store, task)
    try:
        _ = state.inputs
    except (MissingInput, Conflict, CorruptArtifact):
        return None
    return Underway(state)


def alive(evolution: Mapping[str, Any]) -> bool:
    """Return whether workers drive for the evolution; its figures are those of `control.Description`."""
    return bool(evolution["silent"] < SILENT_SECONDS)


def words(evolution: Mapping[str, Any]) -> str:
    """Return a line with an evolution's generation, scores and speed; figures that are None are left out."""
    parts = [f"generation {evolution['generation']} of {evolution['generations']}, {evolution['done']:.0%} done"]
    numbers = (("best", ".0f"), ("mean", ".1f"), ("validation", ".1f"), ("sigma", ".3f"))
    parts += [f"{name} {evolution[name]:{form}}" for name, form in numbers if evolution[name] is not None]
    if not alive(evolution):
        return "  ".join([*parts, f"silent for {durations.words(evolution['silent'])}"])
    count = evolution["workers"]
    parts.append(f"{count} worker{'s' * (count != 1)}, {evolution['rate'] or 0:.0f} steps/s")
    return "  ".join(parts + ([f"{durations.clock(evolution['left'])} left"] if evolution["left"] is not None else []))
