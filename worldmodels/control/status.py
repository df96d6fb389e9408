"""The leader's status during a generation: one small object that it overwrites.

It is also a lease: while it changes, a worker leads. Results do not depend on it: two workers may lead, and only the
first commit counts.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from .. import stored
from ..context import Workspace
from .members import Members
from .pace import STEP, Pace
from .runtime import Runtime

KEY = "status"


@dataclass(frozen=True)
class Status:
    """`elapsed`: seconds since the generation began; `seen`: `elapsed` at the leader's last look.

    `done`: its finished blocks, bit i for block i. `claims`: the number of claims of each unfinished block; `void`:
    those of them that no worker drives any more. `figures`: for users, see `describe`.
    """

    leader: int
    incarnation: str
    beat: int
    generation: int
    elapsed: float
    seen: float
    done: int = 0
    claims: Mapping[int, int] = field(default_factory=dict)
    void: tuple[int, ...] = ()
    figures: Mapping[str, float | None] = field(default_factory=dict)

    def encode(self) -> bytes:
        return json.dumps({**asdict(self), "done": f"{self.done:x}"}).encode()

    @cached_property
    def finished(self) -> frozenset[int]:
        """Return `done` as a set."""
        return frozenset(i for i in range(self.done.bit_length()) if self.done >> i & 1)

    @classmethod
    @lru_cache(maxsize=2)
    def decode(cls, data: bytes | None) -> "Status | None":
        """Decode a status; return None if there is none or it cannot be read: it is only advice."""
        value = stored.advice(data, stored.STATUS)
        if value is None:
            return None
        claims = {int(block): count for block, count in value["claims"].items()}
        return cls(**{**value, "done": int(value["done"], 16), "claims": claims, "void": tuple(value["void"])})


class Watch:
    """This worker's knowledge of the leader."""

    def __init__(self, area: Workspace, members: Members, host: Runtime) -> None:
        self.leading = False
        self.latest: Status | None = None
        self._area, self._members, self._host = area, members, host
        self._order: tuple[int, ...] = ()
        self._turn = 0.0
        self._heard = 0.0
        self._published = -1e9
        self._beats = 0

    def begin(self, order: tuple[int, ...], pace: Pace, *, joining: bool = False) -> None:
        """Begin to watch a generation with the workers `order`, the one that committed it first.

        A process that is `joining` has just started; it lets a worker that already leads continue.
        """
        me = self._members.worker
        self._order = order
        rank = order.index(me) if me in order else len(order) + me % pace.timing.crowd
        self._turn = pace.turn(max(0, rank - 1))
        # Workers far behind in the line watch from the expected end of the generation on.
        self._heard = self._host.now() + (pace.expected if rank > STEP and math.isfinite(pace.expected) else 0.0)
        self.leading = rank == 0
        if joining:
            self.look()
            self.leading = self.leading and (self.latest is None or self.latest.leader == me)

    @property
    def rank(self) -> int:
        """Return the place in line for leading; 0 leads."""
        return self._order.index(self._members.worker) if self._members.worker in self._order else len(self._order)

    def look(self) -> None:
        """Read the leader's status, in one request."""
        found = Status.decode(self._area.get(KEY))
        if found and (self.latest is None or _signature(found) != _signature(self.latest)):
            if found.leader != self._members.worker or found.incarnation != self._members.incarnation:
                self._heard = self._host.now()
            self.latest = found

    @property
    def silence(self) -> float:
        """Return the seconds until this worker must check whether the leader is gone."""
        return self._heard + self._turn - self._host.now()

    def leads(self) -> bool:
        """Return whether this worker leads. Read the status only after a long silence; take over if it lasts."""
        if not self.leading and self.silence <= 0:
            before = self._heard
            self.look()
            if self._heard > before:  # a new status; its age gives the time
                self._heard = max(before, self._heard - (self._area.age(KEY) or 0.0))
            self.leading = self.silence <= 0
            self._published = -1e9
        return self.leading

    def due(self, pace: Pace) -> bool:
        return self._host.now() - self._published >= pace.beat

    def publish(self, **content: Any) -> None:
        """Write the status as the leader; stop leading instead if a worker earlier in the line also leads."""
        self.look()
        there, now = self.latest, self._host.now()
        if there and there.leader in self._order[: self.rank] and self._heard > self._published > 0:
            self.leading = False
            return
        self._published = now
        self._beats += 1
        mine = Status(self._members.worker, self._members.incarnation, self._beats, **content)
        self._area.put(KEY, mine.encode())
        self.latest = mine


def _signature(status: Status) -> tuple[int, str, int]:
    return status.leader, status.incarnation, status.beat
