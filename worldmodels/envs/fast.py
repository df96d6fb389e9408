"""Environment slots with the fast renderer: Gymnasium's CarRacing except for the state picture."""

import functools
import gc
from collections.abc import Sequence

import numpy as np

from .base import Bools, Floats, Frames
from .physics import MOST_TILES, CachedCarRacing, EnvironmentPerLane, generate
from .preprocess import SIZE
from .rasterizer import COLUMNS, LINES, STATE_SIZE, render

MOST_POLYGONS = 2 * MOST_TILES  # each tile has at most one kerb


class FastLanes(EnvironmentPerLane):
    """`base.Lanes` with the fast renderer."""

    def __init__(self, lanes: int) -> None:
        super().__init__(lanes)
        self._states = np.zeros((lanes, STATE_SIZE))
        self._polygons = np.zeros((lanes, MOST_POLYGONS, 4, 2))  # zeros take no memory before they are written
        self._kinds = np.zeros((lanes, MOST_POLYGONS), np.int64)
        self._counts = np.zeros(lanes, np.int64)
        self._colours = np.zeros((lanes, MOST_TILES, 3))
        self._canvas = np.empty((LINES, COLUMNS), np.uint8)
        _keep_imports_out_of_garbage_collection()

    def start(self, lane: int, track: int) -> Frames:
        self._end(lane)
        self._envs[lane] = env = CachedCarRacing(self._colours[lane])
        env.start(track)
        drawn = generate(track)
        self._counts[lane] = n = len(drawn.kinds)
        self._polygons[lane, :n], self._kinds[lane, :n] = drawn.polygons, drawn.kinds
        frame: Frames = self._render([lane])[0]
        return frame

    def step(self, lanes: Sequence[int], actions: Floats) -> tuple[Frames, Floats, Bools]:
        rewards, terminated = np.empty(len(lanes), np.float32), np.empty(len(lanes), np.bool_)
        for i, lane in enumerate(lanes):
            _, rewards[i], terminated[i], _, _ = self._envs[lane].step(actions[i])
        return self._render(lanes), rewards, terminated

    def _render(self, lanes: Sequence[int]) -> Frames:
        """Draw the frames [n, 64, 64, 3] of those lanes."""
        for lane in lanes:
            self._states[lane] = _state(self._envs[lane])
        frames = np.empty((len(lanes), SIZE, SIZE, 3), np.uint8)
        render(
            np.array(lanes),
            self._states,
            self._polygons,
            self._kinds,
            self._counts,
            self._colours,
            self._canvas,
            frames,
        )
        return frames


@functools.cache
def _keep_imports_out_of_garbage_collection() -> None:
    """Exclude all modules imported so far from garbage collection.

    Episodes create so many objects that Python would otherwise search these modules every 30 starts, for 150 ms.
    """
    gc.collect()
    gc.freeze()


def _state(env: CachedCarRacing) -> list[float]:
    """Return the state that the renderer draws [STATE_SIZE]."""
    values: list[float] = []
    for body in (env.car.hull, *env.car.wheels):
        transform = body.transform
        position, rotation = transform.position, transform.R
        values += (position.x, position.y, rotation.s, rotation.c)
    return [*values, *(wheel.phase for wheel in env.car.wheels), env.t]
