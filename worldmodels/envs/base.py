"""Environments in slots: the interface of one to policies, trainings and scores.

A *lane* is an environment slot: it holds one episode. A *track* is the seed of an episode's environment. Lanes have no
time limit; the caller ends episodes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from .. import parts
from ..errors import ConfigError

FRAME_SHAPE = (64, 64, 3)
"""The shape of every environment's frames: V's layers fit no other (paper, appendix A.1)."""

Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


class Lanes(Protocol):
    """A set of environment slots; a lane's results do not depend on the other lanes."""

    count: int

    def start(self, lane: int, track: int) -> Frames:
        """Begin an episode of `track` in `lane` and return its first frame [64, 64, 3].

        It replaces the lane's previous episode, if there is one. The same track and actions give the same episode.
        """

    def step(self, lanes: Sequence[int], actions: Floats) -> tuple[Frames, Floats, Bools]:
        """Take actions [n, A] in those lanes; return frames [n, 64, 64, 3], rewards [n], terminated [n].

        A lane whose episode has terminated must be started again before it steps. A positive reward means progress:
        `controller.patience` counts the steps without one.
        """

    def progress(self, lane: int) -> tuple[int, int]:
        """Return how many parts of its task the lane's episode has completed, and of how many (at least 1)."""

    def picture(self, lane: int) -> Frames:
        """Draw the lane's episode for people [H, W, 3], without changing the episode."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class EnvSpec:
    """An environment, as everything knows it that drives in it or learns from it; a value of the setting `env`.

    To write one, define its `Lanes`, and in the same module an EnvSpec that `parts.ENVIRONMENTS` names. The module must
    import nothing heavy, because a machine that trains M may lack the simulator; `make` may. For two actions in
    [-1, 1], it is

        def random_actions(rng: np.random.Generator, steps: int, hold: float) -> Floats:
            return np.repeat(rng.uniform(-1, 1, (steps, 2)), round(hold), axis=0)[:steps].astype(np.float32)

        SPEC = EnvSpec(2, np.tanh, random_actions, lambda renderer, lanes: MyLanes(lanes))
    """

    actions: int
    """A, the length of an action."""

    squash: Callable[[Floats], Floats]
    """Maps a controller's raw outputs [L, A] to actions [L, A] in their ranges, each number by itself."""

    random_actions: Callable[[np.random.Generator, int, float], Floats]
    """Draws actions [steps, A] with (rng, steps, hold), each held for `hold` steps on average."""

    make: Callable[[str, int], Lanes]
    """Creates lanes with (renderer, number); call `lanes`, which checks the renderer."""

    renderers: tuple[str, ...] = ("fast",)
    """Renderers of its frames: fast, and gymnasium if there is a reference to compare scores with."""

    steps_per_second: int = 50

    variations: Mapping[str, Callable[[Lanes], Lanes]] = field(default_factory=dict)
    """Further variations for `wm evaluate --vary`, beside those of all environments (`variations.py`)."""

    def lanes(self, renderer: str, count: int) -> Lanes:
        """Create `count` lanes. Raise ConfigError for a renderer that the environment lacks."""
        if renderer not in self.renderers:
            known = ", ".join(self.renderers)
            raise ConfigError(f"there is no renderer {renderer!r} in this environment; renderers: {known}", "wm config")
        return self.make(renderer, count)


def spec(env: str) -> EnvSpec:
    """Return the environment of that name. Raise ConfigError, with the known names, if there is none."""
    return cast(EnvSpec, parts.load(parts.ENVIRONMENTS, env))


def describe(env: str, renderer: str) -> dict[str, str]:
    """Return the facts that comparable scores share: the environment, Gymnasium's version and the renderer."""
    return {"env": env, "gymnasium": version("gymnasium"), "renderer": renderer}
