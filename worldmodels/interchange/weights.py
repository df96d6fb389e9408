"""V's and M's weights from their committed HDF5 files, without TensorFlow.

A store is not trusted. Only datasets of the expected name, shape and type are read: no link, no external or virtual
file, no filter, so that a file can neither name other files of this machine nor grow when it is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import stored
from ..artifacts import Artifact
from ..config import Memory, Vae
from ..errors import CorruptArtifact, lacking

Weights = dict[str, NDArray[np.float32]]
ACTIONS = 3


@dataclass(frozen=True)
class Network:
    """The weights of V or M by short name, and the sizes that their shapes follow from."""

    sizes: Mapping[str, int]
    weights: Weights


def vision(artifact: Artifact) -> Network:
    """Return V's weights; kernels have Keras' axes (height, width, in, out).

    Raise CorruptArtifact for a file that is none of V's, ConfigError if h5py is not installed.
    """
    sizes = _sizes(artifact, "vae.json")
    z, width = _whole(artifact, sizes, "z", _most(Vae, "z")), sizes.get("width")
    if not isinstance(width, (int, float)) or not 0 < width <= _most(Vae, "width"):
        raise _damaged(artifact, f"vae.json: width is {width!r:.50}")
    conv = [max(1, round(width * channels)) for channels in (32, 64, 128, 256)]
    back = [max(1, round(width * channels)) for channels in (128, 64, 32)]
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {}
    for i, (inputs, outputs) in enumerate(zip([3, *conv], conv, strict=False)):
        wanted |= _layer(f"conv{i + 1}", f"convolutions/conv2d{f'_{i}' if i else ''}", (4, 4, inputs, outputs))
    wanted |= _layer("moments", "layers/dense", (4 * conv[-1], 2 * z))
    wanted |= _layer("dense", "dense", (z, 4 * conv[-1]))
    wanted["deconv1.kernel"] = "deconv1/vars/0", (4 * conv[-1], 25 * back[0])
    wanted["deconv1.bias"] = "vars/0", (back[0],)
    for i, (size, inputs, outputs) in enumerate(zip((5, 6, 6), back, [*back[1:], 3], strict=True)):
        place = f"deconvolutions/conv2d_transpose{f'_{i}' if i else ''}"
        wanted |= _layer(f"deconv{i + 2}", place, (size, size, outputs, inputs), outputs)
    return Network({"z": z, "flat": 4 * conv[-1], "grid": back[0]}, _read(artifact, "vae.weights.h5", wanted))


def memory(artifact: Artifact) -> Network:
    """Return M's weights; the LSTM's gates have Keras' order: input, forget, candidate, output.

    Raise the errors of `vision`.
    """
    sizes = _sizes(artifact, "memory.json")
    hidden, mixtures = (_whole(artifact, sizes, name, _most(Memory, name)) for name in ("hidden", "mixtures"))
    z = _whole(artifact, sizes, "z", _most(Vae, "z"))
    wanted = {
        "lstm.kernel": ("layers/lstm/cell/vars/0", (z + ACTIONS, 4 * hidden)),
        "lstm.recurrent": ("layers/lstm/cell/vars/1", (hidden, 4 * hidden)),
        "lstm.bias": ("layers/lstm/cell/vars/2", (4 * hidden,)),
        **_layer("density", "density", (hidden, 3 * z * mixtures)),
    }
    return Network({"z": z, "hidden": hidden, "mixtures": mixtures}, _read(artifact, "memory.weights.h5", wanted))


def _layer(name: str, place: str, shape: tuple[int, ...], bias: int = 0) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {f"{name}.kernel": (f"{place}/vars/0", shape), f"{name}.bias": (f"{place}/vars/1", (bias or shape[-1],))}


def _sizes(artifact: Artifact, file: str) -> dict[str, Any]:
    label = f"{artifact.name}: {file}"
    found: dict[str, Any] = stored.parse(artifact.path(file).read_bytes(), stored.ANYTHING, label, "wm verify")
    return found


def _most(section: type[Any], setting: str) -> int:
    """Return the largest value that a setting accepts."""
    return max(int(bound.le) for bound in section.model_fields[setting].metadata if hasattr(bound, "le"))


def _whole(artifact: Artifact, sizes: Mapping[str, Any], name: str, most: int) -> int:
    value = sizes.get(name)
    if not isinstance(value, int) or not 1 <= value <= most:
        raise _damaged(artifact, f"{name} is {value!r:.50}, not a number from 1 to {most}")
    return value


def _read(artifact: Artifact, file: str, wanted: Mapping[str, tuple[str, tuple[int, ...]]]) -> Weights:
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise lacking("the export of networks", error.name) from error
    path = artifact.path(file)
    try:
        with h5py.File(path, "r") as weights:
            return {name: _dataset(h5py, weights, place, shape) for name, (place, shape) in wanted.items()}
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise _damaged(artifact, f"{file}: {error}") from error


def _dataset(h5py: Any, file: Any, place: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the array at `place`, by hard links only; raise ValueError unless it is a plain float32 of that shape."""
    at = file
    for part in place.split("/"):
        if not isinstance(at, h5py.Group) or not isinstance(at.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{place} is a link, or missing")
        at = at[part]
    if not isinstance(at, h5py.Dataset) or at.external or at.is_virtual or at.chunks:
        raise ValueError(f"{place} is no plain array")
    if at.shape != shape or at.dtype != np.float32:
        raise ValueError(f"{place} is {at.dtype} {at.shape}, not float32 {shape}")
    found = np.asarray(at[()])
    if not np.isfinite(found).all():
        raise ValueError(f"{place} has a number that is not finite")
    return found


def _damaged(artifact: Artifact, reason: str) -> CorruptArtifact:
    return CorruptArtifact(f"{artifact.name}: {reason}", next=artifact.files.next)
