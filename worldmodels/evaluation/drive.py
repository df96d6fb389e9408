"""One drive as an animated picture."""

import io
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..envs.base import Bools, EnvSpec, Floats, Frames
from ..rollouts.driver import Driver
from ..rollouts.player import EpisodeSpec, play
from ..rollouts.policies import WorldPolicy

WIDTH = 300
LARGEST = 2_000_000


class Camera:
    """One lane that records every `every`-th picture for people, WIDTH pixels wide."""

    def __init__(self, env: EnvSpec, every: int) -> None:
        self.count = 1
        self.pictures: list[Image.Image] = []
        self._lanes = env.lanes("fast", 1)
        self._every = every
        self._steps = 0

    def start(self, lane: int, track: int) -> Frames:
        return self._lanes.start(lane, track)

    def step(self, lanes: Sequence[int], actions: Floats) -> tuple[Frames, Floats, Bools]:
        result = self._lanes.step(lanes, actions)
        if self._steps % self._every == 0:
            self.pictures.append(_resized(self._lanes.picture(lanes[0])))
        self._steps += 1
        return result

    def progress(self, lane: int) -> tuple[int, int]:
        return self._lanes.progress(lane)

    def picture(self, lane: int) -> Frames:
        return self._lanes.picture(lane)

    def close(self) -> None:
        self._lanes.close()


def film(
    driver: Driver,
    parameters: NDArray[np.float32],
    track: int,
    steps: int,
    every: int = 4,
    on_step: Callable[[int], None] | None = None,
) -> bytes:
    """Return an animated WebP of parameters [P] driving a track, in real time.

    The quality falls, from 60 down to 5, until it has at most LARGEST bytes.
    """
    camera = Camera(driver.env, every)
    specs = iter([EpisodeSpec(0, track, parameters)])
    try:
        for _ in play(camera, WorldPolicy(driver, 1), lambda: next(specs, None), steps=steps, on_step=on_step):
            pass
    finally:
        camera.close()
    for quality in (60, 40, 20, 5):
        data = _webp(camera.pictures, every * 1000 // driver.env.steps_per_second, quality)
        if len(data) <= LARGEST:
            break
    return data


def _resized(picture: Frames) -> Image.Image:
    height, width = picture.shape[:2]
    return Image.fromarray(picture).resize((WIDTH, WIDTH * height // width), Image.Resampling.BILINEAR)


def _webp(pictures: list[Image.Image], milliseconds: int, quality: int) -> bytes:
    buffer = io.BytesIO()
    first, *rest = pictures
    first.save(
        buffer,
        "WEBP",
        save_all=True,
        append_images=rest,
        duration=milliseconds,
        loop=0,
        quality=quality,
        method=2,
    )
    return buffer.getvalue()
