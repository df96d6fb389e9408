"""The schedule of a worker's exchange thread within a generation."""

import math

from .pace import Pace
from .runtime import Runtime

LONGEST_PAUSE = 10.0


class Turns:
    """Times in one generation: the next request for its successor, search for blocks, look of the leader."""

    def __init__(self, host: Runtime, pace: Pace, began: float, *, loose: bool) -> None:
        """Create the schedule; `loose`: there are blocks that every worker may claim."""
        self._host, self._pace, self._began, self._loose = host, pace, began, loose
        now = host.now()
        self._hungry = False
        self._idle: float | None = None  # time at which the worker became idle
        self._question = self._search = now + pace.look
        self._look = now
        self._cost = 0.0

    def note(self, *, playing: bool, hungry: bool) -> None:
        """Update the schedule with this worker's state.

        While it drives, a successor cannot follow before the expected end. It needs more work only if it is `hungry`:
        too few episodes are in progress.
        """
        now = self._host.now()
        if playing:
            self._idle = None
            if math.isfinite(self._end):
                self._question = max(self._question, self._end)
        elif self._idle is None:
            self._idle = now
            self._question = now + self._pace.pause(self._elapsed, 0.0, self._cost)
        if hungry and not self._hungry and self._search > now:
            self._search = now if self._loose else self._late
        self._hungry = hungry

    def to_ask(self) -> bool:
        return self._host.now() >= self._question

    def asked(self, seconds: float) -> None:
        """Record a request of `seconds` that found no successor."""
        now = self._host.now()
        self._cost = seconds
        if self._idle is None:
            self._question = now + self._pace.look
        else:
            self._question = now + self._pace.pause(self._elapsed, now - self._idle, seconds)

    def to_search(self) -> bool:
        return self._hungry and self._host.now() >= self._search

    def searched(self) -> None:
        self._search = self._host.now() + self._pace.timing.look

    def to_look(self) -> bool:
        return self._host.now() >= self._look

    def looked(self, seconds: float) -> None:
        """Schedule the next look in `seconds`."""
        self._look = self._host.now() + seconds

    def pause(self, *, leading: bool, silence: float) -> float:
        """Return the seconds to the next of these times; `silence`: seconds until the leader must be checked."""
        moments = [self._look] if leading else [self._question]
        if self._hungry:
            moments.append(self._search)
        until = min(moments) - self._host.now()
        return max(0.001, min(until, LONGEST_PAUSE if leading else silence, LONGEST_PAUSE))

    @property
    def _elapsed(self) -> float:
        return self._host.now() - self._began

    @property
    def _end(self) -> float:
        return self._began + self._pace.expected

    @property
    def _late(self) -> float:
        return self._began + self._pace.late + 0.01
