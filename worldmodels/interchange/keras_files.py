"""V and M as plain Keras models, each loaded again and checked before its file gets its name.

The models have standard layers only, so `keras.saving.load_model` opens them where this project is not installed.
"""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import lacking
from . import checks, weights
from .checks import Reference, Written
from .weights import ACTIONS, Network


def write(reference: Reference, folder: Path) -> Iterator[Written]:
    """Write encoder.keras, decoder.keras and memory.keras.

    Raise ConfigError if Keras or TensorFlow is not installed, WorkFailed if a file computes otherwise than the
    committed networks.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no notices
    try:
        import keras
        import tensorflow  # noqa: F401 - Keras' backend
    except ModuleNotFoundError as error:
        raise lacking("the export to Keras", error.name) from error
    vision, memory = weights.vision(reference.vae), weights.memory(reference.memory)
    x = reference.inputs
    sequence = [x["z"][:, None], x["a"][:, None], x["h"], x["c"]]  # one step of each row
    next_h, next_c, *mixture = reference.outputs("dream")
    pixels = [reference.outputs("decoder")[0]]
    for name, model, inputs, expected, finish in (
        ("encoder.keras", _encoder(keras, vision), x["frames"], reference.outputs("encoder"), _same),
        ("decoder.keras", _decoder(keras, vision), x["z"], pixels, _levels),
        ("memory.keras", _memory(keras, memory), sequence, [*(m[:, None] for m in mixture), next_h, next_c], _same),
    ):
        measure = partial(_deviation, keras, inputs=inputs, expected=expected, finish=finish)
        yield checks.write(folder / name, model.save, measure)


def _deviation(
    keras: Any, path: Path, inputs: Any, expected: list[NDArray[Any]], finish: Callable[[Any], NDArray[Any]]
) -> float:
    found = keras.saving.load_model(path, compile=False)(inputs)
    return checks.deviation([finish(each) for each in (found if isinstance(found, list) else [found])], expected)


def _same(tensor: Any) -> NDArray[Any]:
    return np.asarray(tensor)


def _levels(tensor: Any) -> NDArray[Any]:
    return np.round(np.asarray(tensor) * 255).astype(np.uint8)


def _encoder(keras: Any, network: Network) -> Any:
    """Return frames uint8 [B, 64, 64, 3] -> mean, log_variance [B, Z]."""
    layers, w, z = keras.layers, network.weights, network.sizes["z"]
    frames = keras.Input((64, 64, 3), dtype="uint8", name="frames")
    x, made = layers.Rescaling(1 / 255)(frames), {}
    for i in range(1, 5):
        name = f"conv{i}"
        made[name] = layers.Conv2D(w[f"{name}.bias"].size, 4, strides=2, activation="relu", name=name)
        x = made[name](x)
    x = layers.Flatten()(x)
    outputs = [layers.Dense(z, name=name) for name in ("mean", "log_variance")]
    model = keras.Model(frames, [layer(x) for layer in outputs], name="encoder")
    for name, layer in made.items():
        layer.set_weights([w[f"{name}.kernel"], w[f"{name}.bias"]])
    for layer, part in zip(outputs, (slice(0, z), slice(z, 2 * z)), strict=True):
        layer.set_weights([w["moments.kernel"][:, part], w["moments.bias"][part]])
    return model


def _decoder(keras: Any, network: Network) -> Any:
    """Return z [B, Z] -> frames float32 [B, 64, 64, 3] in 0..1, with the paper's four transposed convolutions."""
    layers, w, sizes = keras.layers, network.weights, network.sizes
    z = keras.Input((sizes["z"],), name="z")
    dense = layers.Dense(sizes["flat"], name="dense")
    x, made = layers.Reshape((1, 1, sizes["flat"]))(dense(z)), {}
    for i, size in enumerate((5, 5, 6, 6), 1):
        name, last = f"deconv{i}", i == 4
        activation = "sigmoid" if last else "relu"
        channels = w[f"{name}.bias"].size
        made[name] = layers.Conv2DTranspose(channels, size, strides=2, activation=activation, name=name)
        x = made[name](x)
    model = keras.Model(z, x, name="decoder")
    dense.set_weights([w["dense.kernel"], w["dense.bias"]])
    first = w["deconv1.kernel"].reshape(sizes["flat"], 5, 5, sizes["grid"]).transpose(1, 2, 3, 0)
    for name, layer in made.items():
        layer.set_weights([first if name == "deconv1" else w[f"{name}.kernel"], w[f"{name}.bias"]])
    return model


def _memory(keras: Any, network: Network) -> Any:
    """Return z [B, T, Z], a [B, T, 3], h, c [B, H] -> logits, mu, log_sigma [B, T, Z, K], and the last h, c."""
    layers, w = keras.layers, network.weights
    z, hidden, mixtures = (network.sizes[name] for name in ("z", "hidden", "mixtures"))
    inputs = [
        keras.Input((None, z), name="z"), keras.Input((None, ACTIONS), name="a"),
        keras.Input((hidden,), name="h"), keras.Input((hidden,), name="c"),
    ]  # fmt: skip
    lstm = layers.LSTM(hidden, return_sequences=True, return_state=True, name="lstm")
    hs, h, c = lstm(layers.Concatenate()(inputs[:2]), initial_state=inputs[2:])
    names = ("logits", "mu", "log_sigma")
    density = [layers.Dense(z * mixtures, name=f"{name}_flat") for name in names]
    shaped = [layers.Reshape((-1, z, mixtures), name=n)(d(hs)) for n, d in zip(names, density, strict=True)]
    model = keras.Model(inputs, [*shaped, h, c], name="memory")
    lstm.set_weights([w["lstm.kernel"], w["lstm.recurrent"], w["lstm.bias"]])
    parts = zip(np.split(w["density.kernel"], 3, axis=1), np.split(w["density.bias"], 3), strict=True)
    for layer, part in zip(density, parts, strict=True):
        layer.set_weights(list(part))
    return model
