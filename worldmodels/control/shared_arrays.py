"""Arrays that an evolution's first worker computes and all its workers use: objects of its workspace."""

from collections.abc import Callable, Mapping

import numpy as np

from .. import npz
from ..context import Context
from ..errors import CorruptArtifact
from .records import arrays

MOST = 1e6  # of any number: z, h and parameters are of order 1


def obtain(
    ctx: Context, key: str, shapes: Mapping[str, tuple[int, ...]], make: Callable[[], Mapping[str, np.ndarray]]
) -> list[np.ndarray]:
    """Return the arrays float64 of these `shapes`: the evolution's, those of the evolution it continues, or new ones.

    The first worker that has them creates the object `key`. Raise CorruptArtifact if it is damaged.
    """
    start = ctx.config.controller.start_from
    data = ctx.workspace.get(key)
    if data is None and start is not None:
        data = ctx.workspace.parent(start).get(key)
    if data is None:
        data = arrays(make())
    return decode(data if ctx.workspace.create(key, data) else ctx.workspace.get(key) or b"", key, shapes)


def decode(data: bytes, key: str, shapes: Mapping[str, tuple[int, ...]]) -> list[np.ndarray]:
    """Decode arrays float64 of these shapes; raise CorruptArtifact if the bytes are others."""
    try:
        found = npz.load(data, *shapes)
        for name, shape in shapes.items():
            array = found[name]
            if array.shape != shape or array.dtype != np.float64 or not (np.abs(array) <= MOST).all():
                raise ValueError(f"{name} is not {shape} numbers of at most {MOST:g}")
    except ValueError as error:
        raise CorruptArtifact(
            f"controller: {key} cannot be read ({error}); remove it below the stage's folder, and the next "
            "worker makes it again",
            next="wm run controller",
        ) from error
    return [found[name] for name in shapes]
