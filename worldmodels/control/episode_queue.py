"""Queue between a process's two threads: episodes to drive in one direction, blocks' results in the other."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..rollouts.player import EpisodeSpec
from .records import BlockResult
from .runtime import Runtime

STUCK_SECONDS = 60.0
RATE_SECONDS = 30.0


class Superseded(Exception):
    """Other workers have done the blocks in progress; the next generation exists."""


class Closed(Exception):
    """This process ends."""


@dataclass(frozen=True)
class Limits:
    """Limits of an episode: environment steps, and steps without a new tile (0: no limit)."""

    steps: int
    patience: int


class FinishedEpisode(Protocol):
    """An episode's result, as the player returns it."""

    @property
    def spec(self) -> EpisodeSpec: ...
    @property
    def score(self) -> float: ...
    @property
    def steps(self) -> int: ...


class EpisodeQueue:
    """Episodes of one generation at a time. A spec's key is (generation, block, position in the block)."""

    def __init__(self, runtime: Runtime) -> None:
        self.generation = 0
        self._runtime = runtime
        self._changed = runtime.condition()
        self._news = False
        self._queue: deque[tuple[Limits, EpisodeSpec]] = deque()
        self._open: dict[int, list[tuple[float, int] | None]] = {}  # results of each block in progress
        self._results: deque[tuple[int, BlockResult]] = deque()
        self._playing = 0
        self._error: BaseException | None = None
        self._ended = False
        self._closed = False
        self._awake = self._runtime.now()

    # For the main thread.

    def wait(self, tick: Callable[[], None]) -> Limits | None:
        """Wait for specs and return the limits of the next one; return None when the evolution is finished.

        Call `tick` about once a second, unless the exchange thread is stuck: then the process must count as stalled.
        """
        while True:
            with self._changed:
                self._check()
                if self._ended:
                    return None
                if self._queue:
                    self._playing = self.generation
                    return self._queue[0][0]
                self._changed.wait(1.0)
            if self._runtime.now() - self._awake < STUCK_SECONDS:
                tick()

    def next_episode(self, limits: Limits) -> EpisodeSpec | None:
        """Return the next episode under these limits, or None if there is none now. Raise Superseded."""
        self.check()
        with self._changed:
            if not self._queue or self._queue[0][0] != limits:
                return None
            return self._queue.popleft()[1]

    def check(self) -> None:
        """Raise Superseded, or the exchange thread's error, if any; call this after every step."""
        self._check()
        if self._playing != self.generation:
            raise Superseded

    def finished(self, episode: FinishedEpisode) -> None:
        """Record an episode's result."""
        generation, index, position = episode.spec.key
        with self._changed:
            block = self._open.get(index)
            if generation != self.generation or block is None:
                return
            block[position] = (float(episode.score), int(episode.steps))
            done = [result for result in block if result is not None]
            if len(done) == len(block):
                del self._open[index]
                result = BlockResult(tuple(score for score, _ in done), tuple(steps for _, steps in done))
                self._results.append((index, result))
            self._notify()

    def close(self) -> None:
        """Make the exchange thread end."""
        with self._changed:
            self._closed = True
            self._notify()

    # For the exchange thread.

    def begin(self, generation: int) -> None:
        """Begin a generation; drop what is left of the previous one."""
        with self._changed:
            self.generation = generation
            self._queue.clear()
            self._open.clear()
            self._results.clear()
            self._notify()

    def add(self, index: int, limits: Limits, specs: Sequence[EpisodeSpec]) -> None:
        """Add a block's episodes."""
        with self._changed:
            self._open[index] = [None] * len(specs)
            self._queue.extend((limits, spec) for spec in specs)
            self._notify()

    def take(self) -> tuple[int, BlockResult] | None:
        """Return the index and the result of a finished block, or None."""
        with self._changed:
            return self._results.popleft() if self._results else None

    def outstanding(self) -> int:
        """Return the number of episodes added and not finished."""
        with self._changed:
            return sum(block.count(None) for block in self._open.values())

    def pause(self, seconds: float) -> None:
        """Wait until something changes, at most `seconds`. Raise Closed."""
        self.tick()
        with self._changed:
            if not self._news and not self._closed:
                self._changed.wait(seconds)
            self._news = False

    def tick(self) -> None:
        """Record that the exchange thread is active. Raise Closed."""
        self._awake = self._runtime.now()
        if self._closed:
            raise Closed

    def end(self, error: BaseException | None = None) -> None:
        """End the queue: no spec will follow; the main thread raises `error`."""
        with self._changed:
            self.generation = -1
            self._error, self._ended = error, True
            self._notify()

    def _notify(self) -> None:
        self._news = True
        self._changed.notify_all()

    def _check(self) -> None:
        if self._error:
            raise self._error


class Speed:
    """Environment steps per second of driving, weighted by exp(-age / RATE_SECONDS). Waiting does not count."""

    def __init__(self, runtime: Runtime) -> None:
        self.rate = 0.0
        self._runtime = runtime
        self._last = runtime.now()
        self._spent = self._steps = 0.0

    def begin(self) -> None:
        """Restart the clock after a pause."""
        self._last = self._runtime.now()

    def add(self, steps: int) -> None:
        now = self._runtime.now()
        spent, self._last = now - self._last, now
        kept = math.exp(-spent / RATE_SECONDS)
        self._steps = kept * self._steps + steps
        self._spent = kept * self._spent + spent
        if self._spent >= 1.0:
            self.rate = self._steps / self._spent
