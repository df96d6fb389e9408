"""Checkpoints and logs of both trainings."""

import csv
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ..context import Context
from ..errors import ConfigError, WorkFailed


def warm_start(model: keras.Model, path: Path, setting: str) -> None:
    """Load an earlier iteration's weights; raise ConfigError if they belong to another network."""
    try:
        model.load_weights(path)
    except ValueError as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"{setting}.warm_start: {path.name} holds the weights of another network ({reason})",
            next=f"wm run {setting} -o {setting}.warm_start=false",
        ) from None


def require_finite(ctx: Context, step: int, name: str, *values: Any) -> None:
    """Raise WorkFailed if a value, array or number, is not finite: later steps could not repair that."""
    if all(np.isfinite(value).all() for value in values):
        return
    setting = f"{ctx.stage}.learning_rate"
    rate = getattr(ctx.config, ctx.stage).learning_rate
    raise WorkFailed(
        f"{ctx.run}/iter-{ctx.iteration}/{ctx.stage}: {name} of step {step} is not finite: {setting} = {rate:g} is too"
        " high",
        next=f"wm run {ctx.stage} --run {ctx.run} --iteration {ctx.iteration} -o {setting}={rate / 10:g}",
    )


class Meter:
    """Units per second, smoothed over the last steps."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._seconds = self._units = 0.0

    def __call__(self, units: int) -> float:
        now = time.monotonic()
        self._seconds = 0.95 * self._seconds + now - self._last
        self._units = 0.95 * self._units + units
        self._last = now
        return self._units / max(self._seconds, 1e-9)


class Log:
    """`training.csv`, written row by row; checkpoints contain it, so that no attempt's rows are lost or doubled."""

    def __init__(self, ctx: Context, columns: Sequence[str], text: str = "") -> None:
        self._ctx = ctx
        self._path = ctx.telemetry / "training.csv"
        self._columns = [*columns, "seconds"]
        self._path.write_text(text or ",".join(self._columns) + "\n")
        past = list(csv.DictReader(io.StringIO(text)))
        self._began = time.monotonic() - (float(past[-1]["seconds"]) if past else 0.0)

    def row(self, **values: float) -> None:
        values["seconds"] = round(time.monotonic() - self._began, 1)
        with self._path.open("a") as file:
            file.write(",".join(f"{values[c]:.6g}" if c in values else "" for c in self._columns) + "\n")
        self._ctx.publish("training.csv")

    def text(self) -> str:
        return self._path.read_text()


class Checkpoint:
    """State after a step, saved every `ctx.checkpoint_seconds`. The time of saving never changes results.

    `save` raises WorkFailed if a variable is not finite: training could not continue from such a state.
    """

    def __init__(self, ctx: Context, variables: Sequence[Any], columns: Sequence[str]) -> None:
        self._ctx = ctx
        self._variables = list(variables)
        self._saved = time.monotonic()
        found = self._fitting(ctx.checkpoints.load())
        self.step, arrays = found or (0, {})
        """The last step that was saved."""
        text = bytes(arrays.pop("training.csv", b"")).decode()
        self.log = Log(ctx, columns, text)
        for index, variable in enumerate(self._variables if found else ()):
            variable.assign(arrays.pop(f"variable{index:03d}"))
        self.extra = arrays
        """The arrays that `save` received beside the variables; empty at the beginning."""
        if found:
            ctx.log.info("going on from step %d", self.step)

    def _fitting(self, found: tuple[int, dict[str, Any]] | None) -> tuple[int, dict[str, Any]] | None:
        """Return the state if it fits these variables; else None, with a warning for a state that does not fit."""
        if found is None:
            return None
        step, arrays = found
        there = [arrays.get(f"variable{index:03d}") for index in range(len(self._variables))]
        if all(a is not None and a.shape == tuple(v.shape) for a, v in zip(there, self._variables, strict=True)):
            return found
        self._ctx.log.warning("the checkpoint of step %d is another network's; training begins anew", step)
        return None

    def due(self) -> bool:
        """Return whether it is time to save, or the process must stop."""
        return self._ctx.reporter.stop.is_set() or time.monotonic() - self._saved >= self._ctx.checkpoint_seconds

    def stop(self, step: int, save: Callable[[], None]) -> None:
        """Raise Stopped if the process must stop, after saving unsaved steps; for callers that wait."""
        if self._ctx.reporter.stop.is_set() and step > self.step:
            save()
        self._ctx.reporter.check()

    def save(self, step: int, extra: Mapping[str, Any]) -> None:
        arrays = {f"variable{i:03d}": v.numpy() for i, v in enumerate(self._variables)}
        require_finite(self._ctx, step, "a weight", *arrays.values())
        arrays["training.csv"] = np.frombuffer(self.log.text().encode(), np.uint8)
        self._ctx.checkpoints.save(step, {**arrays, **extra})
        self.step = step
        self._saved = time.monotonic()


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
