"""Room for arrays that one thread makes and another drops, while others stay.

An allocator keeps what lies between arrays that stay, for the thread that it once gave it to: with glibc, training on
ten times as many latents took half as much memory again. A mapping goes back to the system with its array.
"""

import contextlib
import math
import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

# A process has some 65,000 mappings at most; smaller arrays fill gaps well.
LEAST_BYTES = 2**18
HUGE_BYTES = 2**22


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """As `numpy.empty`, in a mapping of its own if it is large."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < LEAST_BYTES:
        return np.empty(shape, dtype)
    room = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= HUGE_BYTES:
        # A kernel without (AttributeError: macOS): faults then take a third of the time that decoding does.
        with contextlib.suppress(OSError, AttributeError):
            room.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(room, dtype).reshape(shape)


def copy(array: NDArray[Any]) -> NDArray[Any]:
    found = empty(array.shape, array.dtype)
    found[...] = array
    return found
