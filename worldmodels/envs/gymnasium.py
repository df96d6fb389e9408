"""The reference engine: Gymnasium's CarRacing without wrappers, on EnvPool's tracks."""

import gc
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from .base import Bools, Floats, Frames
from .preprocess import shrink

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws to memory; it must not look for a display
os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

from gymnasium.envs.box2d.car_racing import CarRacing


class GymnasiumLanes:
    """See `base.Lanes`."""

    def __init__(self, lanes: int) -> None:
        self.count = lanes
        self._envs: list[Any] = [None] * lanes

    def start(self, lane: int, track: int) -> Frames:
        self._release(lane)
        # A new one: after a reset the old world would keep an order of bodies that the solver can feel.
        self._envs[lane] = env = CarRacing()
        env._np_random = EnvPoolDraws(track)
        raw, _ = env.reset()
        frame: Frames = shrink(raw[None])[0]
        return frame

    def step(self, lanes: Sequence[int], actions: Floats) -> tuple[Frames, Floats, Bools]:
        results = [self._envs[lane].step(action) for lane, action in zip(lanes, actions, strict=True)]
        raw, rewards, terminated, _, _ = zip(*results, strict=True)
        return shrink(np.stack(raw)), np.array(rewards, np.float32), np.array(terminated, np.bool_)

    def tiles(self, lane: int) -> tuple[int, int]:
        env = self._envs[lane]
        return env.tile_visited_count, len(env.track)

    def render(self, lane: int) -> Frames:
        """What a person would see of the lane's episode [400, 600, 3]; changes nothing in it."""
        picture: Frames = self._envs[lane]._render("rgb_array")
        return picture

    def close(self) -> None:
        for lane in range(self.count):
            self._release(lane)

    def _release(self, lane: int) -> None:
        """Free the episode's world, which Box2D's references back to Python would keep alive for good."""
        env, self._envs[lane] = self._envs[lane], None
        if env is not None:
            env.world.contactListener = env.world.contactListener_bug_workaround = None
            for body in env.world.bodies:
                body.userData = None
            env.close()
            del env
            gc.collect()  # some 10 ms, in an episode's seconds


class EnvPoolDraws:
    """Stands in for NumPy's Generator where CarRacing draws a track: EnvPool's std::mt19937 and its uniform doubles."""

    def __init__(self, track: int) -> None:
        self._raw = np.random.RandomState(track)._bit_generator.random_raw

    def uniform(self, low: float, high: float) -> float:
        a, b = int(self._raw()), int(self._raw())
        return low + (high - low) * ((a + b * 2**32) / 2**64)
