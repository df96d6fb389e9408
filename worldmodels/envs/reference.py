"""Environment slots with the reference renderer: Gymnasium's CarRacing with its own state picture."""

from collections.abc import Sequence

import gymnasium
import numpy as np

from .base import Bools, Floats, Frames
from .physics import EnvironmentPerLane
from .preprocess import shrink


class GymnasiumLanes(EnvironmentPerLane):
    """`base.Lanes` with the environments that `gymnasium.make` returns."""

    def start(self, lane: int, track: int) -> Frames:
        self._end(lane)
        # A new one: after a reset, Box2D keeps an order of bodies that affects its solver.
        self._envs[lane] = env = gymnasium.make("CarRacing-v3")
        raw, _ = env.reset(seed=track)
        frame: Frames = shrink(raw[None])[0]
        return frame

    def step(self, lanes: Sequence[int], actions: Floats) -> tuple[Frames, Floats, Bools]:
        results = [self._envs[lane].step(action) for lane, action in zip(lanes, actions, strict=True)]
        raw, rewards, terminated, _, _ = zip(*results, strict=True)
        return shrink(np.stack(raw)), np.array(rewards, np.float32), np.array(terminated, np.bool_)
