"""Pauses and time limits of a generation. No result depends on them."""

import math
from dataclasses import dataclass
from statistics import median

from .blocks import Block
from .records import Generation

SPARE = 1.15  # factor on the expected time of a claim
DOUBLINGS = 10  # of that time, at most: a foreign claim may have any number
QUESTIONS = 400.0  # requests per second, by all idle workers together
PATIENCE = 0.05  # pause per time waited, so that a worker waits little longer than needed
CROWD = 64  # workers; with more, each one looks and asks less often
STANDBYS = 2  # workers behind the leader that are ready to lead at once
TURNS = 15  # the rest of a longer line commits after as many turns, all at once


@dataclass(frozen=True)
class Timing:
    """Intervals and time limits, in seconds.

    turn     a worker may commit the next generation so long after the one before it in line
    spare    added to a claim's limit, for requests
    overdue  a claim's limit as long as no speed is measured
    poll     shortest pause between two requests of an idle worker
    look     longest one
    """

    turn: float = 2.0
    spare: float = 1.0
    overdue: float = 60.0
    poll: float = 0.02
    look: float = 1.0

    def wait(self, waited: float, workers: int) -> float:
        """Return the pause before the next request of one of `workers`, which has been idle for `waited` seconds."""
        return min(self.look, max(self.poll, workers / QUESTIONS, PATIENCE * waited))

    def delay(self, rank: int) -> float:
        """Return the seconds after which the worker at place `rank` in line (0 leads) commits."""
        return self.turn * min(rank, TURNS)


class Pace:
    """The pace of generation `now` for processes with so many environment slots.

    `longest`: steps that a training episode may last. `rank`: the worker's place in line. `expected`: seconds of the
    generation; 0 if no speed is measured.
    """

    def __init__(self, now: Generation, slots: int, longest: int, timing: Timing, rank: int) -> None:
        self.timing, self._leads = timing, rank == 0
        self.rest = timing.turn if rank <= STANDBYS else math.inf  # a listing after that time, even with nothing to do
        self.workers = len(now.alive)
        self.look = timing.look * max(1.0, self.workers / CROWD)
        self._lengths = now.lengths
        self._others = slots * now.lengths.training + longest  # steps that may come before a block's last one
        self._rate = median(now.speeds.values()) if now.speeds else 0.0
        self.expected = now.work / sum(now.speeds.values()) if now.speeds else 0.0

    def limit(self, block: Block, claims: int) -> float:
        """Return the seconds after which a block's last one of `claims` claims has expired.

        The limit doubles with each claim, so that a slow worker can finish a block at last.
        """
        seconds = (self._lengths.steps(block) + self._others) / self._rate if self._rate else self.timing.overdue
        return (self.timing.spare + SPARE * seconds) * 2.0 ** min(claims - 1, DOUBLINGS)

    def pause(self, elapsed: float, idle: float | None) -> float:
        """Return the pause before this worker's next request, `elapsed` seconds after the generation began.

        The leader collects results. Another worker, which is idle for `idle` seconds, or drives (None), asks for the
        next generation.
        """
        ahead = self.expected - elapsed
        if self._leads:
            return max(self.timing.wait(-ahead, workers=1), ahead / 4)
        if idle is None:
            return max(self.look, ahead)
        return min(self.timing.look, max(self.timing.wait(idle, self.workers), ahead / 4))
