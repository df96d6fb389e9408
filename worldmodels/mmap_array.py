"""Arrays in memory mappings of their own, for large arrays that one thread makes and another frees.

An allocator keeps freed memory between the remaining arrays, for the thread that requested it: with glibc, training on
ten times as many latents took 1.5 times the memory. A mapping returns to the system with its array.
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
    """Return an array as `numpy.empty` does, in a mapping of its own if it has LEAST_BYTES or more."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < LEAST_BYTES:
        return np.empty(shape, dtype)
    room = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= HUGE_BYTES:
        # Some systems lack huge pages (AttributeError: macOS): page faults then take a third of the time of decoding.
        with contextlib.suppress(OSError, AttributeError):
            room.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(room, dtype).reshape(shape)


def copy(array: NDArray[Any]) -> NDArray[Any]:
    found = empty(array.shape, array.dtype)
    found[...] = array
    return found
