"""One interface to the engines that simulate CarRacing-v3.

A *lane* holds one episode. A *track* is a seed of EnvPool's generator, on both engines: EnvPool draws the road from it,
and the Gymnasium engine is given the same draws. The same actions then earn the same rewards (to 4 decimals) and show
the same picture (to about 3 grey levels, the two rasterise differently). No lane has a time limit; the player decides.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

ENV_ID = "CarRacing-v3"

Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


class Lanes(Protocol):
    """Episodes side by side on one engine; a lane's results do not depend on the other lanes."""

    count: int

    def start(self, lane: int, track: int) -> Frames:
        """A new episode of `track` in `lane`, whatever was there before -> its first frame [64, 64, 3]."""

    def step(self, lanes: Sequence[int], actions: Floats) -> tuple[Frames, Floats, Bools]:
        """actions [n, 3] of those lanes -> frames [n, 64, 64, 3], rewards [n], terminated [n].

        Terminated: all tiles visited, or off the field (reward -100). That lane must be started again before it steps.
        """

    def tiles(self, lane: int) -> tuple[int, int]:
        """(tiles visited, tiles of the track) of the lane's episode; known from its first step on."""

    def close(self) -> None: ...


def describe(engine: str) -> dict[str, str]:
    """What a score or a recording must name to be compared: engine, environment and the engine's version."""
    return {"engine": engine, "env": ENV_ID, "version": version(engine)}
