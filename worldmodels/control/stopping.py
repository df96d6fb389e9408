"""Progress and cost of an evolution, committed with every generation, and its stopping criteria."""

import math
from dataclasses import dataclass, replace

HOUR = 3600.0


@dataclass(frozen=True)
class RunStats:
    """Progress and cost of one workspace's generations so far.

    Only `since` can decrease, so bisection finds the first generation that reaches a goal, also long after.

    best     highest validation score of the mean; -inf before the first
    since    generations since then
    longest  the most generations that passed, from one best to a later score that was not better
    seconds  of work, without pauses of the whole evolution
    cores    core seconds: `seconds` times the number of active workers
    """

    best: float = -math.inf
    since: int = 0
    longest: int = 0
    seconds: float = 0.0
    cores: float = 0.0

    def after(self, validation: float, seconds: float, workers: int) -> "RunStats":
        """Return the stats one generation later; its `validation` score is nan if it had none."""
        spent = replace(self, seconds=self.seconds + seconds, cores=self.cores + seconds * workers)
        if validation > self.best:
            return replace(spent, best=validation, since=0)
        since = self.since + 1 if self.best > -math.inf else 0
        longest = self.longest if math.isnan(validation) else max(self.longest, since)
        return replace(spent, since=since, longest=longest)


@dataclass(frozen=True)
class StoppingCriteria:
    """The criteria that end an evolution before its last generation; None: no criterion."""

    target: float | None = None  # validation score of the mean
    stagnation: int | None = None  # generations without a better one
    core_hours: float | None = None
    wall_hours: float | None = None

    def reached(self, stats: RunStats) -> str:
        """Return why the evolution ends here, in words; empty if it continues."""
        if self.target is not None and stats.best >= self.target:
            return f"controller.target = {self.target:g}: the mean scored {stats.best:.1f} on validation tracks"
        if self.stagnation is not None and stats.longest >= self.stagnation:
            words = f"no validation score above {stats.best:.1f} for {stats.longest} generations"
            return f"controller.stagnation = {self.stagnation}: {words}"
        if self.core_hours is not None and stats.cores >= self.core_hours * HOUR:
            return f"controller.core_hours = {self.core_hours:g} are spent"
        if self.wall_hours is not None and stats.seconds >= self.wall_hours * HOUR:
            return f"controller.wall_hours = {self.wall_hours:g} are spent"
        return ""
