"""What both trainings share: threads, checkpoints, the training log, and the way from TensorFlow to what plays."""

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
"""Largest deviation of a network that plays from the one that was trained, relative to values above 1."""


def policy(precision: str) -> str:
    """Keras' name for layers that compute with that precision and keep float32 weights."""
    return precision if precision == "float32" else f"mixed_{precision}"


def scaled(optimizer: keras.optimizers.Optimizer, precision: str) -> keras.optimizers.Optimizer:
    """The optimizer, with a scale for the loss where small gradients would vanish; `scale_loss` applies it."""
    return keras.optimizers.LossScaleOptimizer(optimizer) if precision == "float16" else optimizer


def prepare(threads: int, log: logging.Logger = LOG) -> None:
    """Fix TensorFlow's threads: with another number, sums are added in another order. Tells on what it computes."""
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
    """Why TensorFlow sees none, though this machine has one; empty if it has none."""
    if not device.exists():
        return ""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides it"
    if not built_with_cuda:
        return "it is built for CPUs; pip install 'tensorflow[and-cuda]'"
    return "it does not find CUDA's libraries or a driver that is new enough; nvidia-smi"


def warm_start(model: keras.Model, path: Path, setting: str) -> None:
    """Load an earlier iteration's weights; ConfigError if they are another network's."""
    try:
        model.load_weights(path)
    except ValueError as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"{setting}.warm_start: {path.name} holds the weights of another network ({reason})",
            next=f"wm run {setting} -o {setting}.warm_start=false",
        ) from None


def require_finite(ctx: Context, step: int, name: str, *values: Any) -> None:
    """Raise WorkFailed if one of the values, arrays or numbers, is not finite: no later step could mend that."""
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
    """`training.csv`: written row by row, carried by checkpoints, so that no attempt's rows are lost or doubled."""

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
    """State after a step, saved every `ctx.checkpoint_seconds`. When it is saved never changes what is computed.

    No state is saved from which nothing can follow: WorkFailed if a variable is not finite.
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
        """What `save` was given beside the variables; empty at the beginning."""
        if found:
            ctx.log.info("going on from step %d", self.step)

    def _fitting(self, found: tuple[int, dict[str, Any]] | None) -> tuple[int, dict[str, Any]] | None:
        """The state if it is one of these variables; None, with a warning, if it is another's or damaged."""
        if found is None:
            return None
        step, arrays = found
        there = [arrays.get(f"variable{index:03d}") for index in range(len(self._variables))]
        if all(a is not None and a.shape == tuple(v.shape) for a, v in zip(there, self._variables, strict=True)):
            return found
        self._ctx.log.warning("the checkpoint of step %d is another network's; training begins anew", step)
        return None

    def due(self) -> bool:
        """It is time, or the process was asked to stop."""
        return self._ctx.pulse.stop.is_set() or time.monotonic() - self._saved >= self._ctx.checkpoint_seconds

    def stop(self, step: int, save: Callable[[], None]) -> None:
        """For whoever waits: if the process was asked to stop, save what was not saved yet, and raise Stopped."""
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
    """The `.tflite` of a concrete function."""
    absl = logging.getLogger("absl")
    level = absl.level
    absl.setLevel(logging.ERROR)  # it recommends a second argument, with which the weights would silently be left out
    try:
        return bytes(tf.lite.TFLiteConverter.from_concrete_functions([function]).convert())
    finally:
        absl.setLevel(level)


def export_tflite(
    path: Path, function: Any, open_network: Callable[[Path], Any], inputs: Sequence[np.ndarray[Any, Any]]
) -> None:
    """Convert, write, and play it as it will be played. Raises WorkFailed if it deviates from TensorFlow."""
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
    """In units of what is allowed: one grey level, or TOLERANCE."""
    if played.shape != expected.shape or played.dtype != expected.dtype:
        return float("inf")
    difference = np.abs(played.astype(np.float64) - expected)
    if expected.dtype == np.uint8:
        return float(difference.max())
    return float((difference / (TOLERANCE * np.maximum(1, np.abs(expected)))).max())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
