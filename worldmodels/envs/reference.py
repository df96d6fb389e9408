"""The reference renderer: Gymnasium's CarRacing as `gymnasium.make` gives it, with its own state picture."""

import gc
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from .base import ENV_ID, Bools, Floats, Frames
from .car_racing import release
from .preprocess import shrink


class GymnasiumLanes:
    """See `base.Lanes`."""

    def __init__(self, lanes: int) -> None:
        self.count = lanes
        self._envs: list[Any] = [None] * lanes

    def start(self, lane: int, track: int) -> Frames:
        self._release(lane)
        # A new one: after a reset the Box2D world keeps an order of bodies that its solver can feel.
        self._envs[lane] = env = gymnasium.make(ENV_ID)
        raw, _ = env.reset(seed=track)
        frame: Frames = shrink(raw[None])[0]
        return frame

    def step(self, lanes: Sequence[int], actions: Floats) -> tuple[Frames, Floats, Bools]:
        results = [self._envs[lane].step(action) for lane, action in zip(lanes, actions, strict=True)]
        raw, rewards, terminated, _, _ = zip(*results, strict=True)
        return shrink(np.stack(raw)), np.array(rewards, np.float32), np.array(terminated, np.bool_)

    def tiles(self, lane: int) -> tuple[int, int]:
        env = self._envs[lane].unwrapped
        return env.tile_visited_count, len(env.track)

    def close(self) -> None:
        for lane in range(self.count):
            self._release(lane)

    def _release(self, lane: int) -> None:
        env, self._envs[lane] = self._envs[lane], None
        if env is not None:
            release(env.unwrapped)
            del env
            gc.collect()  # some 10 ms, in an episode's seconds
