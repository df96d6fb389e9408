"""The closed loop (observe, act, step) in all lanes at once; a lane starts a new episode as soon as one ends."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..envs import FRAME_SHAPE, Lanes
from ..errors import WorkFailed
from .episodes import Episode


@dataclass(frozen=True)
class EpisodeSpec:
    """An episode to drive. `key` identifies it for the caller."""

    key: Any
    track: int
    parameters: NDArray[np.float32] | None = None  # [P] of the controller; None if none drives


@dataclass(frozen=True)
class EpisodeResult:
    spec: EpisodeSpec
    score: float  # sum of rewards
    steps: int
    terminated: bool  # by the environment
    done: int  # parts of the task
    total: int
    episode: Episode | None  # None if not recorded

    @property
    def complete(self) -> bool:
        return self.done == self.total


class EpisodeFailed(WorkFailed):
    """The simulator could not begin an episode; a retry would fail the same way."""

    def __init__(self, spec: EpisodeSpec, reason: Exception) -> None:
        super().__init__(f"track {spec.track} cannot be driven: {type(reason).__name__}: {reason}")
        self.spec = spec


class Policy(Protocol):
    """Chooses the actions in all lanes at once; a lane's action must not depend on the other lanes."""

    def begin(self, lane: int, spec: EpisodeSpec) -> None:
        """Prepare for a new episode in that lane."""

    def act(self, lanes: Sequence[int], frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return actions [n, A] for the frames [n, 64, 64, 3] of those lanes."""


def play(
    lanes: Lanes,
    policy: Policy,
    next_episode: Callable[[], EpisodeSpec | None],
    *,
    steps: int,
    patience: int = 0,
    record: bool = False,
    on_step: Callable[[int], None] | None = None,
) -> Iterator[EpisodeResult]:
    """Drive specs until `next_episode` returns None while no lane is active; yield each result as its episode ends.

    An episode ends when the environment terminates it, after `steps` steps, or (patience > 0) after `patience` steps
    without a positive reward. `on_step` receives the number of steps just taken, once for all active lanes. A result
    depends only on its spec and the policy, never on the number of lanes or the order of specs. Raise EpisodeFailed if
    an episode cannot begin.
    """
    runs: dict[int, _Run] = {}
    seen = np.empty((lanes.count, *FRAME_SHAPE), np.uint8)
    while True:
        for lane in range(lanes.count):
            if lane not in runs:
                spec = next_episode()
                if spec is None:
                    break
                runs[lane] = _Run(spec, steps, record)
                try:
                    seen[lane] = lanes.start(lane, spec.track)
                except Exception as error:
                    raise EpisodeFailed(spec, error) from error
                policy.begin(lane, spec)
        if not runs:
            return
        active = sorted(runs)
        frames = seen[active]
        actions = policy.act(active, frames)
        seen[active], rewards, terminated = lanes.step(active, actions)
        if on_step is not None:
            on_step(len(active))
        for i, lane in enumerate(active):
            run = runs[lane]
            run.add(frames[i], actions[i], float(rewards[i]))
            if terminated[i] or run.steps == steps or (patience and run.steps - run.rewarded >= patience):
                del runs[lane]
                yield run.outcome(bool(terminated[i]), lanes.progress(lane))


class _Run:
    """An episode in progress."""

    def __init__(self, spec: EpisodeSpec, steps: int, record: bool) -> None:
        self.spec = spec
        self.steps = 0
        self.score = 0.0
        self.rewarded = 0  # the last step with a positive reward
        self._frames = np.empty((steps, *FRAME_SHAPE), np.uint8) if record else None
        self._actions: list[NDArray[np.float32]] = []
        self._rewards: list[float] = []

    def add(self, frame: NDArray[np.uint8], action: NDArray[np.float32], reward: float) -> None:
        if self._frames is not None:
            self._frames[self.steps] = frame
            self._actions.append(action)
            self._rewards.append(reward)
        self.steps += 1
        self.score += reward
        if reward > 0:
            self.rewarded = self.steps

    def outcome(self, terminated: bool, progress: tuple[int, int]) -> EpisodeResult:
        episode = None
        if self._frames is not None:
            actions, rewards = np.array(self._actions, np.float32), np.array(self._rewards, np.float32)
            episode = Episode(self._frames[: self.steps], actions, rewards, self.spec.track, terminated)
        return EpisodeResult(self.spec, self.score, self.steps, terminated, *progress, episode)
