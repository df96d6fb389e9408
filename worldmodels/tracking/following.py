"""The content that trackers write about one iteration of a run, and the interface of a tracker."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..board.details import PANELS
from ..board.reading import Iteration
from ..board.watching import Watch
from ..config import Config
from ..config.base import flatten
from ..errors import StoreError

Curve = dict[int, float]
"""Values by step, in order; a value has the precision of float32, which all tools keep."""
SCORES = ("mean", "std", "laps")


@dataclass(frozen=True)
class Picture:
    """An iteration at one moment: the settings that decide its results, and its curves by `<stage>/<column>`."""

    run: str
    iteration: int
    settings: Mapping[str, Any]
    curves: Mapping[str, Curve]
    ended: bool

    @property
    def name(self) -> str:
        return f"{self.run}/iter-{self.iteration}"


class Tracker(Protocol):
    """Writes pictures to another tool."""

    def write(self, picture: Picture) -> int:
        """Write the points that the tool does not have yet, and return their number.

        If it has other points than the picture for the same steps, a stage was made again: begin anew.
        """

    def close(self) -> None:
        """Release files and locks."""


def look(watch: Watch) -> Iterator[Picture]:
    """Read what may have changed in the store; yield each iteration that has settings. Raise StoreError."""
    watch.look(everything=True)
    if watch.error:
        raise StoreError(watch.error)
    for id, iteration in watch.iterations.items():
        if iteration.settled:
            yield _picture(iteration, watch.details.get(id, {}).get("curves", {}))


def _picture(iteration: Iteration, tables: Mapping[str, Mapping[str, list[float | None]]]) -> Picture:
    assert iteration.settled
    curves: dict[str, Curve] = {}
    for panel in PANELS:
        table = tables.get(panel.stage, {})
        for line in panel.lines:
            if curve := _curve(table.get(panel.x, []), table.get(line.column, [])):
                curves[f"{panel.stage}/{line.column}"] = curve
    if iteration.score:
        curves |= {f"evaluate/{key}": {iteration.number: _single(iteration.score[key])} for key in SCORES}
    ended = all(stage.state == "committed" for stage in iteration.stages.values())
    return Picture(iteration.run, iteration.number, _settings(iteration.settled), curves, ended)


def _settings(config: Config) -> dict[str, Any]:
    """Return the settings that decide results, by their full names, without those that are not set."""
    settings = flatten(config.model_dump(exclude={"execution", "kubernetes"}))
    return {key: value if isinstance(value, (bool, int, float, str)) else json.dumps(value)
            for key, value in settings if value is not None}  # fmt: skip


def _curve(steps: list[float | None], values: list[float | None]) -> Curve:
    pairs = zip(steps, values, strict=False)
    return {int(step): _single(value) for step, value in pairs if step is not None and value is not None}


def _single(value: float) -> float:
    return float(np.float32(value))


def missing(there: Mapping[str, Curve], wanted: Mapping[str, Curve]) -> dict[str, Curve] | None:
    """Return the wanted points that are not there; None if other points are there for the same steps.

    A training that resumes from a checkpoint writes its last rows again, so its table is shorter for a while: points
    after the end of the wanted curve are no contradiction.
    """
    found: dict[str, Curve] = {}
    for name, curve in there.items():
        new = wanted.get(name, {})
        last = max(new, default=-1)
        if any(step <= last and new.get(step) != value for step, value in curve.items()):
            return None
    for name, curve in wanted.items():
        more = {step: value for step, value in curve.items() if step not in there.get(name, {})}
        if more:
            found[name] = more
    return found
