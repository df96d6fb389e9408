"""The environment CarRacing-v3, with either of two renderers.

There is one simulator, Gymnasium's. A track is a Gymnasium seed, so users can drive track n without `wm`:

    env = gymnasium.make("CarRacing-v3")
    observation, info = env.reset(seed=n)
    observation, reward, terminated, truncated, info = env.step(action)

Both renderers start from that: the same actions earn the same rewards, bit for bit, and the 64 x 64 frames differ by
0.1 grey levels on average. An action is (steering in [-1, 1], gas and brake in [0, 1]). Each tile of the track that the
car visits for the first time earns a reward, so tiles are the parts of the task. An episode terminates when all tiles
are visited, or when the car leaves the field (reward -100).
"""

import numpy as np

from .base import EnvSpec, Floats, Lanes
from .variations import Varied

GRIP, GAS = 0.8, 0.8  # factors of the variations


def make(renderer: str, lanes: int) -> Lanes:
    """Create `lanes` lanes with the renderer "fast" (this project's) or "gymnasium" (the reference, 40 times slower).

    Raise ConfigError if CarRacing cannot be imported, or if it is not the supported version.
    """
    if renderer == "gymnasium":
        from .reference import GymnasiumLanes

        return GymnasiumLanes(lanes)
    from .fast import FastLanes  # on demand, because numba takes 0.25 s

    return FastLanes(lanes)


def squash(raw: Floats) -> Floats:
    """Return (steering, gas, brake) = (tanh, (tanh + 1) / 2, clip(tanh, 0, 1)) of raw outputs [L, 3]."""
    out: Floats = np.tanh(raw)
    out[:, 1] = (out[:, 1] + 1) / 2
    out[:, 2] = np.clip(out[:, 2], 0, 1)
    return out


def random_actions(rng: np.random.Generator, steps: int, hold: float) -> Floats:
    """Draw actions [steps, 3], each held for a geometric number of steps with mean `hold`.

    White noise keeps the car shaking near its start, so actions are held. Each episode draws the amount of gas (mostly
    little: the car stays on the road for a while, then reaches the field) and the strength of steering.
    """
    gas, hardness, lean = 0.1 + 0.7 * rng.random() ** 2, rng.uniform(0.03, 0.5), rng.normal(0, 0.02)
    changes = rng.random(steps) < 1 / hold
    changes[0] = True
    n = int(changes.sum())
    kind = rng.random(n)  # 4 of 5 give gas, 1 of 16 brakes, the others coast
    steering = np.clip(rng.normal(lean, hardness, n), -1, 1)
    driving = np.where(kind < 0.8, np.clip(rng.normal(gas, 0.7 * gas, n), 0, 1), 0)
    braking = np.where(kind > 15 / 16, rng.uniform(0, 0.6, n), 0)
    held = np.stack([steering, driving, braking], axis=1).astype(np.float32)
    return np.asarray(held[np.cumsum(changes) - 1])


class LessGrip(Varied):
    """Reduces the friction of the road; Gymnasium's grass keeps its 0.6."""

    def begin(self, lane: int, chance: np.random.Generator) -> None:
        self._lanes.set_grip(lane, GRIP)


class LessGas(Varied):
    """Reduces every action's gas."""

    def acted(self, actions: Floats) -> Floats:
        return actions * np.array([1, GAS, 1], np.float32)


SPEC = EnvSpec(
    actions=3,
    squash=squash,
    random_actions=random_actions,
    make=make,
    renderers=("fast", "gymnasium"),
    variations={f"{GRIP:.0%} of the grip": LessGrip, f"{GAS:.0%} of the gas": LessGas},
)
