"""One interface to CarRacing-v3 with either renderer of its state picture.

There is one simulator, Gymnasium's. A *lane* is an environment slot: it holds one episode. A *track* is a Gymnasium
seed, so users can drive track n without `wm`:

    env = gymnasium.make("CarRacing-v3")
    observation, info = env.reset(seed=n)
    observation, reward, terminated, truncated, info = env.step(action)

Both renderers start from that: the same actions earn the same rewards, bit for bit, and the 64 x 64 frames differ by
0.1 grey levels on average. Lanes have no time limit; the caller ends episodes.
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
    """A set of environment slots; a lane's results do not depend on the other lanes."""

    count: int

    def start(self, lane: int, track: int) -> Frames:
        """Begin an episode of `track` in `lane` and return its first frame [64, 64, 3].

        It replaces the lane's previous episode, if there is one.
        """

    def step(self, lanes: Sequence[int], actions: Floats) -> tuple[Frames, Floats, Bools]:
        """Take actions [n, 3] in those lanes; return frames [n, 64, 64, 3], rewards [n], terminated [n].

        An episode terminates when all tiles are visited or the car leaves the field (reward -100). Its lane must be
        started again before it steps.
        """

    def tiles(self, lane: int) -> tuple[int, int]:
        """Return (tiles visited, tiles of the track) of the lane's episode."""

    def close(self) -> None: ...


def make(renderer: str, lanes: int) -> Lanes:
    """Create `lanes` lanes with the renderer "fast" (this project's) or "gymnasium" (the reference, 40 times slower).

    Raise ConfigError for another name, if CarRacing cannot be imported, or if it is not the supported version.
    """
    if renderer == "fast":
        from .fast import FastLanes  # on demand, because numba takes 0.25 s

        return FastLanes(lanes)
    if renderer == "gymnasium":
        from .reference import GymnasiumLanes

        return GymnasiumLanes(lanes)
    raise ConfigError(f"there is no renderer {renderer!r}; renderers: fast, gymnasium", next="wm config")


def describe(renderer: str) -> dict[str, str]:
    """Return the facts that comparable scores share: the environment, Gymnasium's version and the renderer."""
    return {"env": ENV_ID, "gymnasium": version("gymnasium"), "renderer": renderer}
