"""Policies: random actions, or the trained networks."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..envs import EnvSpec
from ..errors import CorruptArtifact
from .driver import Driver
from .player import EpisodeSpec

Floats = NDArray[np.float32]


class RandomPolicy:
    """Random actions that depend only on (seed, iteration, the spec's key: an episode's number)."""

    def __init__(self, env: EnvSpec, seed: int, iteration: int, steps: int, hold: float) -> None:
        self._env = env
        self._seed = (seed, iteration)
        self._steps = steps
        self._hold = hold
        self._plans: dict[int, Floats] = {}
        self._at: dict[int, int] = {}

    def begin(self, lane: int, spec: EpisodeSpec) -> None:
        rng = np.random.default_rng((*self._seed, int(spec.key)))
        self._plans[lane] = self._env.random_actions(rng, self._steps, self._hold)
        self._at[lane] = -1

    def act(self, lanes: Sequence[int], frames: NDArray[np.uint8]) -> Floats:
        actions = np.empty((len(lanes), self._env.actions), np.float32)
        for i, lane in enumerate(lanes):
            self._at[lane] += 1
            actions[i] = self._plans[lane][self._at[lane]]
        return actions


class WorldPolicy:
    """V, M and C (paper, section 3): z is the encoder's mean, h_t follows from (z, a) of step t - 1, and h_0 = 0."""

    def __init__(self, driver: Driver, lanes: int) -> None:
        self._driver = driver
        hidden = driver.step.hidden
        self._h, self._c = np.zeros((lanes, hidden), np.float32), np.zeros((lanes, hidden), np.float32)
        self._parameters = np.zeros((lanes, driver.controller.parameters), np.float32)

    def begin(self, lane: int, spec: EpisodeSpec) -> None:
        if spec.parameters is None:
            raise ValueError(f"spec {spec.key!r} has no controller parameters")
        self._h[lane] = self._c[lane] = 0
        if spec.parameters.shape != self._parameters.shape[1:]:
            raise CorruptArtifact(
                f"a controller of {spec.parameters.shape} parameters cannot drive with V and M, which take"
                f" {self._parameters.shape[1]}",
                next="wm verify",
            )
        self._parameters[lane] = spec.parameters

    def act(self, lanes: Sequence[int], frames: NDArray[np.uint8]) -> Floats:
        rows = list(lanes)
        z, _ = self._driver.encoder(frames)  # [n, Z]
        h, c = self._h[rows], self._c[rows]  # [n, H]
        actions = self._driver.controller.act(self._parameters[rows], z, h)
        self._h[rows], self._c[rows] = self._driver.step(z, actions, h, c)
        return actions
