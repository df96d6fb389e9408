"""One interface to CarRacing-v3 with either renderer of its state picture.

There is one simulator, Gymnasium's. A *lane* holds one episode. A *track* is a Gymnasium seed, so that anyone drives
track n without `wm`:

    env = gymnasium.make("CarRacing-v3")
    observation, info = env.reset(seed=n)
    observation, reward, terminated, truncated, info = env.step(action)

Both renderers begin from that: the same actions earn the same rewards, bit for bit, and the 64 x 64 frames differ by
0.1 grey levels on average. No lane has a time limit; the player decides.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

ENV_ID = "CarRacing-v3"

Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


class Lanes(Protocol):
    """Episodes side by side; a lane's results do not depend on the other lanes."""

    count: int

    def start(self, lane: int, track: int) -> Frames:
        """Begin an episode of `track` in `lane`, whatever was there before -> its first frame [64, 64, 3]."""

    def step(self, lanes: Sequence[int], actions: Floats) -> tuple[Frames, Floats, Bools]:
        """Take actions [n, 3] in those lanes -> frames [n, 64, 64, 3], rewards [n], terminated [n].

        Terminated: all tiles visited, or off the field (reward -100). That lane must be started again before it steps.
        """

    def tiles(self, lane: int) -> tuple[int, int]:
        """Tell the (tiles visited, tiles of the track) of the lane's episode."""

    def close(self) -> None: ...


def make(renderer: str, lanes: int) -> Lanes:
    """Make `lanes` lanes with the renderer "fast" (ours) or "gymnasium" (its own, the reference, some 40 times slower).

    Raises ConfigError for another name, and where Gymnasium's CarRacing does not work or is not the supported one.
    """
    if renderer == "fast":
        from .fast import FastLanes  # imported where it is wanted: numba takes a quarter of a second

        return FastLanes(lanes)
    if renderer == "gymnasium":
        from .reference import GymnasiumLanes

        return GymnasiumLanes(lanes)
    raise ConfigError(f"there is no renderer {renderer!r}; renderers: fast, gymnasium", next="wm config")


def describe(renderer: str) -> dict[str, str]:
    """Name what makes scores comparable: the environment, Gymnasium's version and the renderer."""
    return {"env": ENV_ID, "gymnasium": version("gymnasium"), "renderer": renderer}
