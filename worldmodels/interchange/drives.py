"""A drive, step by step: the car on its track or in M's dream, and what V and M make of it."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..api import Prediction, Run, Which
from ..envs import FRAME_SHAPE, spec
from ..errors import MissingInput
from ..networks import sample

Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """One step: the frame, V's and M's versions of it [64, 64, 3], the action [A], the score.

    `picture` is for people. It is None in a dream, and if the step was taken without one: drawing it takes most of a
    step's time.
    """

    picture: Frames | None
    frame: Frames
    reconstruction: Frames
    prediction: Frames
    action: Floats
    step: int
    score: float


class _Memory(NamedTuple):
    """M's state h and c [1, H], and the z [1, Z] that it expects next."""

    h: Floats
    c: Floats
    expected: Floats


class _Taken(NamedTuple):
    """A step of V, M and C: the action [1, A], V's pictures of z and of the z expected, and M afterwards."""

    action: Floats
    drawn: Frames
    mixture: tuple[Floats, Floats, Floats]
    memory: _Memory


class Drive:
    """A car on a track, which C drives, or the caller of `step` and `dream` with actions of their own.

    Close it after use. It changes nothing in the store.
    """

    def __init__(self, run: Run, which: Which | None, track: int) -> None:
        """Put the car on the track of that seed. Without `which`, there is no C, and the run needs none.

        Raise MissingInput if a network or C is not committed, ConfigError without the simulator's packages.
        """
        self._driver = None if which is None else run.driver()
        self._parameters = None if which is None else run.parameters(which)[None]
        self._encode, self._decode, self._imagine = run.encode, run.decode, run.dreamer
        self.env, self.track = spec(run.driven_by("vae").env), track
        z, zero = run.encode(np.zeros((1, *FRAME_SHAPE), np.uint8))[0], np.zeros((1, run.dreamer.hidden), np.float32)
        run.decode(z)  # the drive's first step shall find every network read and checked
        self._memory = _Memory(zero, zero, np.zeros_like(z))
        self._dreamt: tuple[Floats, _Memory] | None = None
        self._rng = np.random.default_rng(track)
        self._lanes = self.env.lanes("fast", 1)
        self._frame = self._lanes.start(0, track)
        self.steps, self.score, self.ended = 0, 0.0, False

    def step(self, action: Floats | None = None, *, picture: bool = True) -> View:
        """Take a step on the track with the action [A], or with C's. A dream ends: the car is where it was before.

        Raise MissingInput if there is neither an action nor a C.
        """
        self._dreamt = None
        z, _ = self._encode(self._frame[None])
        taken, seen = self._take(z, self._memory, action), self._frame
        self._memory = taken.memory
        shown = self._lanes.picture(0) if picture else None
        (self._frame,), (reward,), (ended,) = self._lanes.step([0], taken.action)
        self.steps, self.score, self.ended = self.steps + 1, self.score + float(reward), bool(ended)
        return self._view(taken, shown, seen)

    def dream(self, action: Floats | None = None, *, temperature: float = 1.0) -> View:
        """Take a step in M's dream with the action [A], or with C's.

        The dream begins where the car is. Each next z is drawn from M's prediction (Ha & Schmidhuber 2018, section 4);
        M predicts no reward, so step and score stay. The view's frame is the last one of the track.
        """
        z, memory = self._dreamt or (self._encode(self._frame[None])[0], self._memory)
        taken = self._take(z, memory, action)
        self._dreamt = sample(*taken.mixture, self._rng, temperature), taken.memory
        return self._view(taken, None, self._frame)

    def close(self) -> None:
        self._lanes.close()

    def _take(self, z: Floats, memory: _Memory, action: Floats | None) -> _Taken:
        h, c, expected = memory
        chosen = self._act(z, h) if action is None else action[None]
        drawn = self._decode(np.concatenate([z, expected]))
        next_h, next_c, logits, mu, log_sigma = self._imagine(z, chosen, h, c)
        expected = Prediction(h, logits, mu, log_sigma).mean
        if self._driver:  # scores are those of M's step, whose last bits may differ
            next_h, next_c = self._driver.step(z, chosen, h, c)
        return _Taken(chosen, drawn, (logits, mu, log_sigma), _Memory(next_h, next_c, expected))

    def _act(self, z: Floats, h: Floats) -> Floats:
        if self._driver is None or self._parameters is None:
            raise MissingInput("no controller drives here: the drive began without one", next="wm run controller")
        action: Floats = self._driver.controller.act(self._parameters, z, h)
        return action

    def _view(self, taken: _Taken, picture: Frames | None, frame: Frames) -> View:
        reconstruction, prediction = taken.drawn
        return View(picture, frame, reconstruction, prediction, taken.action[0], self.steps, self.score)
