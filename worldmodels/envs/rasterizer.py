"""The fast renderer: it draws the 64 x 64 frame of CarRacing's state, compiled by numba.

Gymnasium 1.4.0 draws polygons on 1000 x 800 pixels (`CarRacing._render`) and shrinks the picture to 96 x 96;
`preprocess.shrink` makes 64 x 64 of its upper 84 rows. This module draws the same polygons in the same order, as
indices of a palette, at those of the 1000 x 800 pixels that lie on a grid of 4 x 4 samples per pixel of the 96 x 96
picture.

A frame's bytes are the same on all processors of one architecture and in every batch: the arithmetic is IEEE double
precision without contraction, and all sines come from a table of integers.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compiled import compiled, part
from .preprocess import FIRST_ROW, LAST_ROW, SEEN_ROWS, SIZE

WIDTH, HEIGHT = 1000, 800  # pixels that Gymnasium draws on
STATE = 96  # side of Gymnasium's state picture
SAMPLES = 4  # along each side of a pixel of the state picture
COLUMNS, LINES = STATE * SAMPLES, SEEN_ROWS * SAMPLES
EDGE = 0.625  # pixels added to each side: 0.5 by rounding, the rest by the smoothed outline on average

METRE, ZOOM = 6.0, 2.7  # pixels per metre at full zoom: METRE * ZOOM
FIELD, PATCH = 2000 / METRE, 100 / METRE  # metres: half of the field's side, the side of a patch of grass
LARGEST = 12.0  # metres: more than the radius of any polygon except the field

# Indices of COLOURS; 3 to 5 are road. NumPy's integers, because numba would compile a function per Python integer.
OUTSIDE, GROUND, GRASS, ROAD, WHITE_KERB, RED_KERB, TYRE, RIM, HULL = np.array([0, 1, 2, 3, 6, 7, 8, 9, 10])
COLOURS = (
    (0, 0, 0), (102, 204, 102), (102, 230, 102), (102, 102, 102), (104, 104, 104), (107, 107, 107),
    (255, 255, 255), (255, 0, 0), (0, 0, 0), (77, 77, 77), (204, 0, 0),
)  # fmt: skip

Doubles = NDArray[np.float64]
Bytes = NDArray[np.uint8]


def _palette() -> Any:
    """Pack red, green and blue in 16 bits each, so that one addition sums all three. smoothscale darkens by 2."""
    red, green, blue = np.maximum(np.array(COLOURS) - 2, 0).astype(np.uint64).T
    return red | green << np.uint64(16) | blue << np.uint64(32)


def _samples(pixels: int, cells: int, used: int) -> NDArray[np.int64]:
    """Return the pixel that each of the first `used` samples takes; each of `cells` cells has SAMPLES samples."""
    return np.floor((np.arange(used) + 0.5) * pixels / (cells * SAMPLES)).astype(np.int64)


_PALETTE = _palette()
_ROUNDING = np.uint64(0x000C_000C_000C)  # 12 of 16: smoothscale darkens mixed pixels less than plain ones
_HALF_OF_TWO, _HALF_OF_FOUR = np.uint64(0x0001_0001_0001), np.uint64(0x0002_0002_0002)
_BYTES, _BYTE, _FOUR_TIMES = np.uint64(0x00FF_00FF_00FF), np.uint32(0xFF), np.uint32(0x01010101)
_LINE_Y = _samples(HEIGHT, STATE, LINES)
_LINE = np.searchsorted(_LINE_Y, np.arange(HEIGHT + 1))  # first sample line at or below a pixel's row
_COLUMN = np.searchsorted(_samples(WIDTH, STATE, COLUMNS), np.arange(WIDTH + 1))
_LAST_Y = int(_LINE_Y[-1])
_TURN = 4096
_ONE = 65536
_SINE = np.round(np.sin(np.arange(_TURN) * (2 * math.pi / _TURN)) * _ONE).astype(np.int64)
_ROWS = np.stack([FIRST_ROW, LAST_ROW], axis=1)  # of the 96 x 96 picture, for each row of the frame

# Metres, around the body's position (`car_dynamics`: WHEEL_W, WHEEL_R, HULL_POLY1 to 4).
WHEEL_WIDTH, WHEEL_RADIUS = 0.28, 0.54
_WHEEL = np.array([(-0.28, 0.54), (0.28, 0.54), (0.28, -0.54), (-0.28, -0.54)])
_HULL = (
    np.array([(-1.2, 2.6), (1.2, 2.6), (1.2, 2.2), (-1.2, 2.2)]),
    np.array([(-0.3, 2.4), (0.3, 2.4), (0.4, 0.4), (-0.4, 0.4)]),
    np.array([(0.5, 0.4), (1, -0.2), (1, -0.8), (0.4, -1.8), (-0.4, -1.8), (-1, -0.8), (-1, -0.2), (-0.5, 0.4)]),
    np.array([(-1.0, -2.4), (1.0, -2.4), (1.0, -1.8), (-1.0, -1.8)]),
)

# A body: x, y in metres, sine and cosine of its angle. The state: hull, four wheels, their four phases, the time.
BODY, BODIES = 4, 5
PHASES = BODY * BODIES
TIME = PHASES + 4
STATE_SIZE = TIME + 1


@part
def _polygon(canvas: Bytes, index: int, points: Doubles, camera: Doubles, scratch: Doubles) -> None:
    """Fill a convex polygon of the world [n, 2] in metres, its border included."""
    corners = scratch[2, : 2 * len(points)].reshape(len(points), 2)
    _project(points, camera, corners)
    _fill(canvas, index, corners, scratch[0], scratch[1])


@part
def _project(points: Doubles, camera: Doubles, corners: Doubles) -> None:
    """Convert points [n, 2] of the world to corners [n, 2]: the pixels that Gymnasium computes, rows from the top."""
    x0, y0, sine, cosine, zoom = camera[0], camera[1], camera[2], camera[3], camera[4]
    for i in range(len(points)):
        x, y = (points[i, 0] - x0) * zoom, (points[i, 1] - y0) * zoom
        corners[i, 0] = int(x * cosine + y * sine + WIDTH / 2)
        corners[i, 1] = HEIGHT - 1 - int(y * cosine - x * sine + HEIGHT / 4)


@part
def _fill(canvas: Bytes, index: int, corners: Doubles, low: Doubles, high: Doubles) -> None:
    """Fill a convex polygon of pixels [n, 2]; `low` and `high` [LINES] are buffers for the ends of its lines."""
    top, bottom = float(HEIGHT), -1.0
    for i in range(len(corners)):
        top, bottom = min(top, corners[i, 1]), max(bottom, corners[i, 1])
    if top > _LAST_Y or bottom < 0:
        return
    first, end = _LINE[int(max(top, 0.0))], _LINE[int(min(bottom, _LAST_Y)) + 1]
    for line in range(first, end):
        low[line], high[line] = 1e9, -1e9
    for i in range(len(corners)):
        x1, y1, x2, y2 = corners[i - 1, 0], corners[i - 1, 1], corners[i, 0], corners[i, 1]
        if y1 > y2:
            x1, y1, x2, y2 = x2, y2, x1, y1
        if y2 < 0 or y1 > _LAST_Y:
            continue
        slope = (x2 - x1) / (y2 - y1) if y2 > y1 else 0.0
        for line in range(_LINE[int(max(y1, 0.0))], _LINE[int(min(y2, _LAST_Y)) + 1]):
            x = x1 + (_LINE_Y[line] - y1) * slope
            low[line], high[line] = min(low[line], x), max(high[line], x)
    for line in range(first, end):
        left, right = max(low[line] - EDGE + 1, 0.0), min(high[line] + EDGE + 1, float(WIDTH))
        if left < right:
            canvas[line, _COLUMN[int(left)] : _COLUMN[int(right)]] = index


@part
def _visible(x: float, y: float, camera: Doubles) -> bool:
    """Return whether a polygon with its middle at x, y can reach the picture."""
    x, y = x - camera[0], y - camera[1]
    right, up = (x * camera[3] + y * camera[2]) * camera[4], (y * camera[3] - x * camera[2]) * camera[4]
    margin = LARGEST * camera[4]
    return bool(abs(right) < WIDTH / 2 + margin and -HEIGHT / 4 - margin < up < HEIGHT * 3 / 4 + margin)


@part
def _rectangle(points: Doubles, x: float, y: float, half_width: float, half_height: float) -> None:
    """Write the corners of the rectangle around x, y to `points` [4, 2]."""
    for i in range(4):
        points[i, 0] = x + (half_width if i in (1, 2) else -half_width)
        points[i, 1] = y + (half_height if i < 2 else -half_height)


@part
def _draw_ground(canvas: Bytes, camera: Doubles, points: Doubles, scratch: Doubles) -> None:
    """Draw the field, which is black outside, and its patches of grass."""
    canvas[:] = OUTSIDE
    _rectangle(points, 0.0, 0.0, FIELD, FIELD)
    _polygon(canvas, GROUND, points, camera, scratch)
    for column in range(-20, 20, 2):
        for row in range(-20, 20, 2):
            x, y = PATCH * (column + 0.5), PATCH * (row + 0.5)
            if _visible(x, y, camera):
                _rectangle(points, x, y, PATCH / 2, PATCH / 2)
                _polygon(canvas, GRASS, points, camera, scratch)


@part
def _draw_road(
    canvas: Bytes, camera: Doubles, polygons: Doubles, kinds: NDArray[np.int64], colours: Doubles, scratch: Doubles
) -> None:
    """Draw tiles and kerbs [n, 4, 2] in order; kind: a coloured tile's number, or minus a kerb's palette index."""
    for i in range(len(kinds)):
        quad = polygons[i]
        if _visible((quad[0, 0] + quad[2, 0]) / 2, (quad[0, 1] + quad[2, 1]) / 2, camera):
            index = -kinds[i]
            if index <= 0:
                grey = colours[kinds[i], 0]
                index = ROAD + (grey >= 104) + (grey >= 107)
            _polygon(canvas, index, quad, camera, scratch)


@part
def _place(shape: Doubles, body: Doubles, points: Doubles) -> None:
    """Move a shape's corners [n, 2] from the origin to the body's position and angle; write them to `points`."""
    for i in range(len(shape)):
        x, y = shape[i, 0], shape[i, 1]
        points[i, 0] = body[0] + x * body[3] - y * body[2]
        points[i, 1] = body[1] + x * body[2] + y * body[3]


@part
def _stripe(phase: float, shape: Doubles) -> bool:
    """Write the light stripe of a wheel that has turned by `phase` (`Car.draw`) to `shape` [4, 2].

    Return False if the stripe is on the far side.
    """
    turned = int(np.floor(phase * (_TURN / (2 * math.pi)))) % _TURN
    ahead = (turned + int(1.2 * (_TURN / (2 * math.pi)))) % _TURN
    sine1, sine2 = _SINE[turned], _SINE[ahead]
    if sine1 > 0 and sine2 > 0:
        return False
    cosine1, cosine2 = _SINE[(turned + _TURN // 4) % _TURN], _SINE[(ahead + _TURN // 4) % _TURN]
    if sine1 > 0:
        cosine1 = _ONE if cosine1 > 0 else -_ONE
    if sine2 > 0:
        cosine2 = _ONE if cosine2 > 0 else -_ONE
    _rectangle(shape, 0.0, 0.0, WHEEL_WIDTH, 0.0)
    shape[:2, 1], shape[2:, 1] = WHEEL_RADIUS * cosine1 / _ONE, WHEEL_RADIUS * cosine2 / _ONE
    return True


@part
def _draw_car(canvas: Bytes, camera: Doubles, state: Doubles, scratch: Doubles) -> None:
    """Draw the wheels with their stripes, then the hull."""
    points, stripe = np.empty((8, 2)), np.empty((4, 2))
    for wheel in range(4):
        body = state[BODY * (wheel + 1) : BODY * (wheel + 2)]
        _place(_WHEEL, body, points)
        _polygon(canvas, TYRE, points[:4], camera, scratch)
        if _stripe(state[PHASES + wheel], stripe):
            _place(stripe, body, points)
            _polygon(canvas, RIM, points[:4], camera, scratch)
    for shape in _HULL:
        _place(shape, state[:BODY], points)
        _polygon(canvas, HULL, points[: len(shape)], camera, scratch)


@part
def _pixel(words: NDArray[np.uint32], line: int, column: int) -> Any:
    """Return a pixel of Gymnasium's picture: the mean of its 4 x 4 samples' colours, packed as in `_PALETTE`."""
    first = words[line, column]
    if (
        first == words[line + 1, column] == words[line + 2, column] == words[line + 3, column]
        and first == (first & _BYTE) * _FOUR_TIMES
    ):
        return _PALETTE[first & _BYTE]
    total = _ROUNDING
    for row in range(SAMPLES):
        word = words[line + row, column]
        for _ in range(SAMPLES):
            total += _PALETTE[word & _BYTE]
            word >>= np.uint32(8)
    return (total >> np.uint64(4)) & _BYTES


@part
def _average(words: NDArray[np.uint32], sums: NDArray[np.uint64], frame: Bytes) -> None:
    """Average samples, four to a word [LINES, STATE], to the frame [SIZE, SIZE, 3].

    Rounding takes place at the same steps as in Gymnasium and `shrink`.
    """
    for row in range(SIZE):
        upper, lower = _ROWS[row, 0], _ROWS[row, 1]  # of Gymnasium's picture: two rows, or one that counts twice
        for column in range(STATE):
            pixel = _pixel(words, upper * SAMPLES, column)
            sums[column] = pixel + (_pixel(words, lower * SAMPLES, column) if lower > upper else pixel)
        for third in range(STATE // 3):
            pair = sums[3 * third] + sums[3 * third + 1] + _HALF_OF_FOUR
            single = sums[3 * third + 2] + _HALF_OF_TWO
            for channel in range(3):
                frame[row, 2 * third, channel] = (pair >> np.uint64(16 * channel + 2)) & _BYTES
                frame[row, 2 * third + 1, channel] = (single >> np.uint64(16 * channel + 1)) & _BYTES


@compiled
def render(
    slots: NDArray[np.int64],
    states: Doubles,
    polygons: Doubles,
    kinds: NDArray[np.int64],
    counts: NDArray[np.int64],
    colours: Doubles,
    canvas: Bytes,
    frames: Bytes,
) -> None:
    """Draw the frames [n, 64, 64, 3] of the environments `slots` [n].

    Each environment has a state [STATE_SIZE]; tiles and kerbs [·, 4, 2] in drawing order, metres, with their kinds [·]
    and their count; and tile colours [·, 3]. `canvas` [LINES, COLUMNS] is a buffer to draw in.
    """
    words, sums, camera = canvas.view(np.uint32), np.empty(STATE, np.uint64), np.empty(5)
    points, scratch = np.empty((4, 2)), np.empty((3, LINES))
    for n in range(len(slots)):
        slot, state = slots[n], states[slots[n]]
        count, time = counts[slot], state[TIME]
        camera[:BODY] = state[:BODY]
        camera[BODY] = 0.1 * METRE * max(1 - time, 0.0) + ZOOM * METRE * min(time, 1.0)
        _draw_ground(canvas, camera, points, scratch)
        _draw_road(canvas, camera, polygons[slot, :count], kinds[slot, :count], colours[slot], scratch)
        _draw_car(canvas, camera, state, scratch)
        _average(words, sums, frames[n])
