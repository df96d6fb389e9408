"""When to ask, how long to wait, and when somebody is late: follows from a generation's rates and workers.

All of it is advice: no result rests on it.
"""

import math
from dataclasses import dataclass
from statistics import median

from .records import Generation


@dataclass(frozen=True)
class Timing:
    """How workers watch each other, in seconds.

    heartbeat  between two heartbeats of a worker, when there are few of them
    fresh      a worker is alive if its heartbeat is younger; also when there are few
    takeover   a leader that was silent for that long is replaced
    overdue    a block is late after that, as long as no rate is measured
    poll       least pause between two questions to the store while there is nothing to play
    look       pause between two looks at what others do, for up to `crowd` workers
    """

    heartbeat: float = 3.0
    fresh: float = 15.0
    takeover: float = 5.0
    overdue: float = 60.0
    poll: float = 0.02
    look: float = 1.0
    crowd: int = 64


QUESTIONS = 400.0  # a second, by all waiting workers together
LATE = 1.1
SPARE_SECONDS = 0.5  # of an expected time: starts, answers
PATIENCE = 0.05  # ask again after a twentieth of the time waited: so nobody waits much longer than needed
COST = 2.0  # ask for at most a third of the time, whatever a question costs
LEADS = 20.0  # times as often as others may the leader ask: all wait for it
LOOKS = 20  # of the leader in a long generation
PROBES = 12  # a listing costs as much as so many questions for one object
FEW = 4  # workers
HEARTBEATS = 10
STEP = 16  # so many workers step in one after the other within `takeover`; then all others, soon


@dataclass(frozen=True)
class Pace:
    """Of one generation. `expected`: seconds that it takes if all goes well (inf: unknown); `late`: and if not."""

    timing: Timing
    workers: int
    expected: float = math.inf
    late: float = math.inf

    @classmethod
    def of(cls, now: Generation, longest: int, timing: Timing) -> "Pace":
        """`longest`: steps that an episode may last."""
        workers = len(now.alive)
        if not now.speeds:
            return cls(timing, workers, late=timing.overdue)
        expected = now.work / sum(now.speeds.values())
        speeds = sorted(now.speeds.values())
        usual = median(speeds)
        slow = max(speeds[len(speeds) // 10], usual / 2)  # slower ones must not make all others wait
        unlucky = longest / slow - now.lengths.training / usual
        return cls(timing, workers, expected, LATE * (expected + max(0.0, unlucky)) + SPARE_SECONDS)

    @property
    def stretch(self) -> float:
        """How much rarer heartbeats are than `timing` says, and how much longer they count.

        With the root of the number of workers, so that one is missed soon in a small group, and all together write
        little in a large one; and not more than HEARTBEATS in a generation.
        """
        long = self.expected / HEARTBEATS / self.timing.heartbeat if math.isfinite(self.expected) else 1.0
        return max(1.0, math.sqrt(self.workers / FEW), long)

    @property
    def beat(self) -> float:
        """Seconds between two notes of the leader."""
        return self.timing.takeover / 5

    @property
    def look(self) -> float:
        return self.timing.look * max(1.0, self.workers / self.timing.crowd)

    def next_look(self, elapsed: float, missing: int, cost: float) -> float:
        """Seconds to the leader's next look, when so many blocks are missing and the last one took `cost` seconds."""
        if math.isfinite(self.expected) and (ahead := self.expected - elapsed) > 0:
            most = max(2 * self.timing.look, self.expected / LOOKS)
            return max(self.pause(elapsed, 0.0, cost / LEADS, askers=1), min(ahead / 4, most))
        if math.isinf(self.expected) and missing > PROBES:
            return self.timing.look
        return self.pause(elapsed, max(0.0, elapsed - self.expected), cost / LEADS, askers=1)

    def is_late(self, elapsed: float, holders: int) -> bool:
        """Whether a block that so many have begun should be begun once more; every next time takes twice as long."""
        return elapsed > self.late * 2.0 ** max(0, holders - 1)

    def pause(self, elapsed: float, waited: float, cost: float, askers: int | None = None) -> float:
        """Before the next question of a worker that has had nothing to do for `waited` seconds; `cost`: of the last.

        `askers`: how many ask the same question; by default all workers.
        """
        least = max(self.timing.poll, (askers or self.workers) / QUESTIONS, COST * cost, PATIENCE * waited)
        ahead = self.expected - elapsed  # soon enough to be there when it ends
        return min(self.timing.look, max(least, ahead / 4 if math.isfinite(ahead) else 0.0))

    def turn(self, rank: int) -> float:
        """Silence of the leader after which the `rank`-th worker behind it steps in."""
        takeover = self.timing.takeover
        return takeover * (1 + min(rank, STEP) / STEP + max(0, rank - STEP) / STEP**2)
