"""Shared parts of both trainings: threads, checkpoints, the training log, and the export to LiteRT."""

import csv
import io
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..context import Context
from ..errors import ConfigError, WorkFailed

LOG = logging.getLogger("wm")
TOLERANCE = 1e-5
"""Largest deviation of an exported network from the trained one, relative to values above 1."""


def policy(precision: str) -> str:
    """Return Keras' policy for layers that compute with that precision and keep float32 weights."""
    return precision if precision == "float32" else f"mixed_{precision}"


def scaled(optimizer: keras.optimizers.Optimizer, precision: str) -> keras.optimizers.Optimizer:
    """Return the optimizer; for float16 with loss scaling (`scale_loss`), since small gradients would vanish."""
    return keras.optimizers.LossScaleOptimizer(optimizer) if precision == "float16" else optimizer


def prepare(threads: int, log: logging.Logger = LOG) -> None:
    """Fix TensorFlow's threads, because their number changes the order of sums; log a GPU, used or unused.

    Raise WorkFailed if TensorFlow already runs with another number of threads.
    """
    config = tf.config
    if (config.threading.get_intra_op_parallelism_threads(), config.threading.get_inter_op_parallelism_threads()) != (
        threads,
        threads,
    ):
        try:
            config.threading.set_intra_op_parallelism_threads(threads)
            config.threading.set_inter_op_parallelism_threads(threads)
        except RuntimeError:
            raise WorkFailed(f"TensorFlow runs already, with other than {threads} threads, in this process") from None
    if gpus := config.list_physical_devices("GPU"):
        config.experimental.enable_op_determinism()
        names = [config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus]
        log.info("computes on %s", ", ".join(names))
    elif why := why_no_gpu(tf.test.is_built_with_cuda()):
        log.warning("this machine has a GPU, and TensorFlow computes on the CPU: %s", why)


def why_no_gpu(built_with_cuda: bool, device: Path = Path("/dev/nvidia0")) -> str:
    """Return why TensorFlow does not find this machine's GPU; empty if the machine has none."""
    if not device.exists():
        return ""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides it"
    if not built_with_cuda:
        return "it is built for CPUs; pip install 'tensorflow[and-cuda]'"
    return "it does not find CUDA's libraries or a driver that is new enough; nvidia-smi"


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
        return self._ctx.pulse.stop.is_set() or time.monotonic() - self._saved >= self._ctx.checkpoint_seconds

    def stop(self, step: int, save: Callable[[], None]) -> None:
        """Raise Stopped if the process must stop, after saving unsaved steps; for callers that wait."""
        if self._ctx.pulse.stop.is_set() and step > self.step:
            save()
        self._ctx.pulse.check()

    def save(self, step: int, extra: Mapping[str, Any]) -> None:
        arrays = {f"variable{i:03d}": v.numpy() for i, v in enumerate(self._variables)}
        require_finite(self._ctx, step, "a weight", *arrays.values())
        arrays["training.csv"] = np.frombuffer(self.log.text().encode(), np.uint8)
        self._ctx.checkpoints.save(step, {**arrays, **extra})
        self.step = step
        self._saved = time.monotonic()


def convert(function: Any) -> bytes:
    """Return the `.tflite` of a concrete function."""
    absl = logging.getLogger("absl")
    level = absl.level
    absl.setLevel(logging.ERROR)  # it recommends a second argument, which would silently drop the weights
    try:
        return bytes(tf.lite.TFLiteConverter.from_concrete_functions([function]).convert())
    finally:
        absl.setLevel(level)


def export_tflite(
    path: Path, function: Any, open_network: Callable[[Path], Any], inputs: Sequence[np.ndarray[Any, Any]]
) -> None:
    """Convert, write, and run the network on `inputs`. Raise WorkFailed if it deviates from TensorFlow."""
    path.write_bytes(convert(function))
    expected = [np.asarray(tensor) for tensor in tf.nest.flatten(function(*map(tf.constant, inputs)))]
    played = open_network(path).run(*inputs)
    deviation = float(np.max([_deviation(*pair) for pair in zip(played, expected, strict=False)]))
    if len(played) != len(expected) or not deviation <= 1:
        raise WorkFailed(
            f"{path.name} plays otherwise than it was trained: it deviates {deviation:.3g} times as much as is allowed",
            next="pip show tensorflow ai-edge-litert",
        )


def _deviation(played: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    """Return the largest deviation in units of the tolerance: one grey level, or TOLERANCE."""
    if played.shape != expected.shape or played.dtype != expected.dtype:
        return float("inf")
    difference = np.abs(played.astype(np.float64) - expected)
    if expected.dtype == np.uint8:
        return float(difference.max())
    return float((difference / (TOLERANCE * np.maximum(1, np.abs(expected)))).max())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
