"""Gymnasium's CarRacing: unchanged physics and rules, no state picture, and each track generated once."""

from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from .rasterizer import COLOURS, RED_KERB, WHITE_KERB
from .simulator import Box2D, CarRacing

TRACKS_KEPT = 256  # about 200 kB each; all candidates of a generation drive the same few
MOST_TILES = 2500  # `CarRacing._create_track` stops there


class UndrawnCarRacing(CarRacing):  # type: ignore[misc]
    """CarRacing that makes no state picture: `reset` and `step` return None in its place."""

    def _render(self, mode: str) -> Any:
        return None if mode == "state_pixels" else super()._render(mode)


@dataclass(frozen=True)
class Track:
    """The track that CarRacing generates from a seed: N tiles, and P polygons (tiles and kerbs in drawing order)."""

    points: list[tuple[float, float, float, float]]  # alpha, beta, x, y of the tiles
    shapes: list[Any]  # Box2D's polygons of the tiles
    colours: NDArray[np.float64]  # [N, 3] of the tiles before a wheel touches them
    polygons: NDArray[np.float64]  # [P, 4, 2], metres
    kinds: NDArray[np.int64]  # [P]: a tile's number, or minus a kerb's index in the palette


@lru_cache(TRACKS_KEPT)
def generate(seed: int) -> Track:
    """Generate the track that `gymnasium.make("CarRacing-v3").reset(seed=seed)` generates."""
    env = UndrawnCarRacing()
    _free_world(env)
    env.fd_tile = SimpleNamespace(shape=SimpleNamespace())  # only the geometry is needed, no bodies
    env.world = SimpleNamespace(CreateStaticBody=lambda fixtures: SimpleNamespace(fixtures=[SimpleNamespace()]))
    env.road_poly = []
    gymnasium.Env.reset(env, seed=seed)
    while not env._create_track():
        pass
    number = {id(tile.color): tile.idx for tile in env.road}
    kerbs = {COLOURS[kerb]: -kerb for kerb in (WHITE_KERB, RED_KERB)}
    corners = [polygon for polygon, colour in env.road_poly if id(colour) in number]
    return Track(
        points=env.track,
        shapes=[Box2D.b2PolygonShape(vertices=polygon) for polygon in corners],
        colours=np.array([tile.color for tile in env.road]),
        polygons=np.array([polygon for polygon, _ in env.road_poly]),
        kinds=np.array([number[id(c)] if id(c) in number else kerbs[c] for _, c in env.road_poly]),
    )


class CachedCarRacing(UndrawnCarRacing):
    """CarRacing on cached tracks; its tiles keep their colours in `colours` [MOST_TILES, 3].

    Use a new instance for each episode: after a reset, Box2D keeps an order of bodies that affects its solver.
    """

    def __init__(self, colours: NDArray[np.float64]) -> None:
        super().__init__()
        self._colours = colours

    def start(self, seed: int) -> None:
        """Begin the episode that `gymnasium.make("CarRacing-v3").reset(seed=seed)` begins."""
        self._track = generate(seed)
        self.reset(seed=seed)

    def _create_track(self) -> bool:
        """Create the same bodies in the same order as CarRacing."""
        found, body, fixture = self._track, Box2D.b2BodyDef(), Box2D.b2FixtureDef()
        self._colours[: len(found.points)] = found.colours
        self.track, self.road = found.points, []
        for number, shape in enumerate(found.shapes):
            fixture.shape = shape
            shape.thisown = True  # the assignment clears it, and the shape would never be freed
            tile = self.world.CreateBody(body)
            tile.CreateFixture(fixture).sensor = True
            tile.userData = tile
            tile.color = self._colours[number]
            tile.road_visited, tile.road_friction, tile.idx = False, 1.0, number
            self.road.append(tile)
        self.road_poly = [
            (polygon, self._colours[kind] if kind >= 0 else COLOURS[-kind])
            for polygon, kind in zip(found.polygons.tolist(), found.kinds.tolist(), strict=True)
        ]
        return True


class EnvironmentPerLane:
    """The part of `base.Lanes` that both renderers share: each episode has its own environment."""

    def __init__(self, lanes: int) -> None:
        self.count = lanes
        self._envs: list[Any] = [None] * lanes

    def progress(self, lane: int) -> tuple[int, int]:
        """Return (tiles visited, tiles of the track)."""
        env = self._envs[lane].unwrapped
        return env.tile_visited_count, len(env.track)

    def set_grip(self, lane: int, factor: float) -> None:
        """Set the friction of the episode's road, in units of Gymnasium's."""
        for tile in self._envs[lane].unwrapped.road:
            tile.road_friction = factor

    def picture(self, lane: int) -> NDArray[np.uint8]:
        """Draw the lane's episode for people [400, 600, 3], as Gymnasium does, without changing the episode."""
        picture: NDArray[np.uint8] = self._envs[lane].unwrapped._render("rgb_array")
        return picture

    def close(self) -> None:
        for lane in range(self.count):
            self._end(lane)

    def _end(self, lane: int) -> None:
        """End the lane's episode, if there is one."""
        env, self._envs[lane] = self._envs[lane], None
        if env is not None:
            _free(env.unwrapped)


def _free(env: Any) -> None:
    """Free an environment and its Box2D world."""
    _free_world(env)
    env.close()
    env.__dict__.clear()


def _free_world(env: Any) -> None:
    """Drop the references from Box2D to Python, which would keep the world in memory."""
    env.world.contactListener = env.world.contactListener_bug_workaround = None
    for body in env.world.bodies:
        body.userData = None
