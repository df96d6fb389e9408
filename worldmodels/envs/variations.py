"""Variations of an environment: what a controller meets that its training did not show.

A variation wraps lanes. The same track and actions give the same episode, as without it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .base import Bools, Floats, Frames, Lanes

NOISE = 12.0  # grey levels, standard deviation
TINT = 0.25  # of a colour channel, at most
BAR = slice(20, 24)  # rows of the 64, across the road ahead of CarRacing's car


class Varied:
    """Lanes that change another's frames or actions; subclasses override `drawn` or `acted`, or both."""

    def __init__(self, lanes: Lanes) -> None:
        self.count = lanes.count
        self._lanes: Any = lanes
        self._chance: dict[int, np.random.Generator] = {}

    def begin(self, lane: int, chance: np.random.Generator) -> None:
        """Prepare an episode that has just begun; `chance` follows from its track."""

    def drawn(self, lane: int, frame: Frames) -> Frames:
        """Return what the controller sees instead of the lane's frame [64, 64, 3]."""
        return frame

    def acted(self, actions: Floats) -> Floats:
        """Return what the environment does instead of the actions [n, A]."""
        return actions

    def start(self, lane: int, track: int) -> Frames:
        frame = self._lanes.start(lane, track)
        self._chance[lane] = np.random.default_rng(track)
        self.begin(lane, self._chance[lane])
        return self.drawn(lane, frame)

    def step(self, lanes: Sequence[int], actions: Floats) -> tuple[Frames, Floats, Bools]:
        frames, rewards, terminated = self._lanes.step(lanes, self.acted(actions))
        return np.stack([self.drawn(*pair) for pair in zip(lanes, frames, strict=True)]), rewards, terminated

    def progress(self, lane: int) -> tuple[int, int]:
        done: tuple[int, int] = self._lanes.progress(lane)
        return done

    def picture(self, lane: int) -> Frames:
        picture: Frames = self._lanes.picture(lane)
        return picture

    def close(self) -> None:
        self._lanes.close()


class Noise(Varied):
    """Adds Gaussian noise to every pixel and channel."""

    def drawn(self, lane: int, frame: Frames) -> Frames:
        noise = self._chance[lane].normal(0, NOISE, frame.shape)
        return np.clip(np.rint(frame + noise), 0, 255).astype(np.uint8)


class Tint(Varied):
    """Multiplies each colour channel by a factor of its own, constant during an episode."""

    def __init__(self, lanes: Lanes) -> None:
        super().__init__(lanes)
        self._factors = np.ones((lanes.count, 3))

    def begin(self, lane: int, chance: np.random.Generator) -> None:
        self._factors[lane] = chance.uniform(1 - TINT, 1 + TINT, 3)

    def drawn(self, lane: int, frame: Frames) -> Frames:
        tinted: Frames = np.clip(np.rint(frame * self._factors[lane]), 0, 255).astype(np.uint8)
        return tinted


class Bar(Varied):
    """Covers four rows of every frame with black."""

    def drawn(self, lane: int, frame: Frames) -> Frames:
        frame = frame.copy()
        frame[BAR] = 0
        return frame


PICTURES = {
    f"pixel noise of {NOISE:g} grey levels": Noise,
    f"colours changed by up to {TINT:.0%}": Tint,
    "a black bar across the picture": Bar,
}
"""The variations that every environment has."""
