"""Conversion of rendered pictures to the networks' frames: one filter for rollouts, training and evaluation."""

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]

RAW = (96, 96, 3)
SIZE = 64
SEEN_ROWS = 84  # the rows below show gauges, which would reveal the speed
_CHUNK = 8  # frames per pass: their intermediates fit into the L2 cache

_RGB = np.dtype("V3")  # moving a pixel as one item is several times faster than as three bytes


def _cell_edges(inputs: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the first and last input of every output cell; an input belongs to the cell that holds its centre."""
    cell = np.ceil((np.arange(inputs) + 0.5) * SIZE / inputs).astype(int) - 1  # a centre on an edge: the lower cell
    return np.searchsorted(cell, np.arange(SIZE)), np.searchsorted(cell, np.arange(SIZE), side="right") - 1


FIRST_ROW, LAST_ROW = _cell_edges(SEEN_ROWS)


def shrink(raw: Frames) -> Frames:
    """Shrink uint8 [N, 96, 96, 3] to uint8 [N, 64, 64, 3]: the upper 84 rows, averaged.

    The box filter uses whole pixels: each input pixel belongs to exactly one output pixel, which is the mean of its 1,
    2 or 4 inputs, rounded half up. Pillow's BOX resize gives the same up to its rounding after each direction (1 of
    255), and is three times slower. Exact area weights add new colours along every edge and take a third more bytes
    when stored.
    """
    out = np.empty((len(raw), SIZE * SIZE // 2, 2), _RGB)
    for i in range(0, len(raw), _CHUNK):
        _shrink(raw[i : i + _CHUNK], out[i : i + _CHUNK])
    return out.view(np.uint8).reshape(-1, SIZE, SIZE, 3)


def _shrink(raw: Frames, out: NDArray[np.void]) -> None:
    """Average columns in groups of three: the first two give one output pixel, the third gives the next one alone."""
    x = raw[:, :SEEN_ROWS].reshape(len(raw), SEEN_ROWS, -1)  # [N, 84, 96·3]
    rows = np.add(x.take(FIRST_ROW, axis=1), x.take(LAST_ROW, axis=1), dtype=np.uint16).ravel()  # twice the mean
    pair = np.empty_like(rows)
    np.add(rows[:-3], rows[3:], out=pair[:-3])  # a pixel and its right neighbour; used where both are in one row
    pair[-3:] = 0
    for i, (total, bits, pixel) in enumerate(((pair, 2, 0), (rows, 1, 2))):
        total += 1 << (bits - 1)
        total >>= bits
        out[:, :, i] = total.astype(np.uint8).view(_RGB).reshape(len(raw), -1, 3)[:, :, pixel]
