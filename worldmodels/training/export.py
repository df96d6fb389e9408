"""Export of trained networks to LiteRT."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ..errors import WorkFailed

TOLERANCE = 1e-5
"""Largest deviation of an exported network from the trained one, relative to values above 1."""


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
    computed = open_network(path).run(*inputs)
    deviation = float(np.max([_deviation(*pair) for pair in zip(computed, expected, strict=False)]))
    if len(computed) != len(expected) or not deviation <= 1:
        raise WorkFailed(
            f"{path.name} differs in LiteRT and TensorFlow by {deviation:.3g} times as much as is allowed",
            next="pip show tensorflow ai-edge-litert",
        )


def _deviation(computed: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    """Return the largest deviation in units of the tolerance: one grey level, or TOLERANCE."""
    if computed.shape != expected.shape or computed.dtype != expected.dtype:
        return float("inf")
    difference = np.abs(computed.astype(np.float64) - expected)
    if expected.dtype == np.uint8:
        return float(difference.max())
    return float((difference / (TOLERANCE * np.maximum(1, np.abs(expected)))).max())
