"""Pauses and deadlines of a generation, from its rates and its number of workers.

All of it is advice: no result depends on it.
"""

import math
from dataclasses import dataclass
from statistics import median

from .records import Generation


@dataclass(frozen=True)
class Timing:
    """Intervals and timeouts between workers, in seconds.

    heartbeat  between two heartbeats of a worker, in a small group
    fresh      a worker is alive if its heartbeat is younger; also in a small group
    takeover   a leader that was silent for this long is replaced
    overdue    a block is late after this time, as long as no rate is measured
    poll       least pause between two requests of an idle worker
    look       pause between two looks at other workers' progress, for up to `crowd` workers
    """

    heartbeat: float = 3.0
    fresh: float = 15.0
    takeover: float = 5.0
    overdue: float = 60.0
    poll: float = 0.02
    look: float = 1.0
    crowd: int = 64


QUESTIONS = 400.0  # requests per second, by all waiting workers together
LATE = 1.1
SPARE_SECONDS = 0.5  # added to an expected time, for starts and latency
PATIENCE = 0.05  # pause per time waited, so that a worker waits little longer than needed
COST = 2.0  # pause per duration of a request: requests take at most a third of the time
LEADS = 20.0  # the leader may read this many times as often, because all wait for it
LOOKS = 20  # looks of the leader in a long generation
PROBES = 12  # a listing costs as much as this many requests for one object
FEW = 4  # workers in a small group
HEARTBEATS = 10  # of a worker in a generation, at most
STEP = 16  # this many workers take their turns within one `takeover`; later turns follow faster


@dataclass(frozen=True)
class Pace:
    """The pace of one generation: its `expected` seconds (inf: unknown), and those after which blocks are `late`."""

    timing: Timing
    workers: int
    expected: float = math.inf
    late: float = math.inf

    @classmethod
    def of(cls, now: Generation, longest: int, timing: Timing) -> "Pace":
        """Return the pace of generation `now`; `longest`: steps that an episode may last."""
        workers = len(now.alive)
        if not now.speeds:
            return cls(timing, workers, late=timing.overdue)
        expected = now.work / sum(now.speeds.values())
        speeds = sorted(now.speeds.values())
        usual = median(speeds)
        slow = max(speeds[len(speeds) // 10], usual / 2)  # slower workers must not delay the others
        unlucky = longest / slow - now.lengths.training / usual
        return cls(timing, workers, expected, LATE * (expected + max(0.0, unlucky)) + SPARE_SECONDS)

    @property
    def stretch(self) -> float:
        """Return the factor by which heartbeats are rarer, and valid for longer, than `timing` gives.

        It grows with the square root of the number of workers: a small group soon notices a missing heartbeat, and a
        large group writes little in all. A generation has at most HEARTBEATS of them.
        """
        long = self.expected / HEARTBEATS / self.timing.heartbeat if math.isfinite(self.expected) else 1.0
        return max(1.0, math.sqrt(self.workers / FEW), long)

    @property
    def beat(self) -> float:
        """Return the seconds between two statuses of the leader."""
        return self.timing.takeover / 5

    @property
    def look(self) -> float:
        return self.timing.look * max(1.0, self.workers / self.timing.crowd)

    def next_look(self, elapsed: float, missing: int, cost: float) -> float:
        """Return the seconds to the leader's next look; `cost`: seconds that the last one took."""
        if math.isfinite(self.expected) and (ahead := self.expected - elapsed) > 0:
            most = max(2 * self.timing.look, self.expected / LOOKS)
            return max(self.pause(elapsed, 0.0, cost / LEADS, askers=1), min(ahead / 4, most))
        if math.isinf(self.expected) and missing > PROBES:
            return self.timing.look
        return self.pause(elapsed, max(0.0, elapsed - self.expected), cost / LEADS, askers=1)

    def is_late(self, elapsed: float, holders: int) -> bool:
        """Return whether a block begun by `holders` workers should begin once more; each one doubles the time limit."""
        return elapsed > self.late * 2.0 ** max(0, holders - 1)

    def pause(self, elapsed: float, waited: float, cost: float, askers: int | None = None) -> float:
        """Return the pause before the next request of a worker that is idle for `waited` seconds.

        `cost`: seconds that its last request took. `askers`: the number of workers with the same request; by default
        all.
        """
        least = max(self.timing.poll, (askers or self.workers) / QUESTIONS, COST * cost, PATIENCE * waited)
        ahead = self.expected - elapsed  # shorter towards the expected end
        return min(self.timing.look, max(least, ahead / 4 if math.isfinite(ahead) else 0.0))

    def turn(self, rank: int) -> float:
        """Return the leader's silence, in seconds, after which the `rank`-th worker behind it takes over."""
        takeover = self.timing.takeover
        return takeover * (1 + min(rank, STEP) / STEP + max(0, rank - STEP) / STEP**2)
