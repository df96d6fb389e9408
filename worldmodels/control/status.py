"""What the leader tells the others while a generation is under way: one small object that it writes again and again.

It is a lease as well: while it changes, somebody leads. Nothing rests on it: two may lead, and only the first to commit
counts.
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
    """`elapsed`: seconds since the generation began; `seen`: when the leader had its last look, so counted.

    `done`: its finished blocks, bit i for block i. `claims`: how often each unfinished block was claimed; `void`: those
    of them that nobody plays any more. `figures`: for people, see `describe`.
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
        """`done` as a set."""
        return frozenset(i for i in range(self.done.bit_length()) if self.done >> i & 1)

    @classmethod
    @lru_cache(maxsize=2)
    def decode(cls, data: bytes | None) -> "Status | None":
        """None if there is none, or none that can be read: it is only advice."""
        value = stored.advice(data, stored.STATUS)
        if value is None:
            return None
        claims = {int(block): count for block, count in value["claims"].items()}
        return cls(**{**value, "done": int(value["done"], 16), "claims": claims, "void": tuple(value["void"])})


class Watch:
    """Who leads, as far as this worker has heard."""

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
        """A generation whose workers are `order`, the one that committed it first, begins to be watched.

        `joining`: this process has just started; whoever it finds leading is left to it.
        """
        me = self._members.worker
        self._order = order
        rank = order.index(me) if me in order else len(order) + me % pace.timing.crowd
        self._turn = pace.turn(max(0, rank - 1))
        # Far behind in the line there is nothing to watch for before the generation should be over.
        self._heard = self._host.now() + (pace.expected if rank > STEP and math.isfinite(pace.expected) else 0.0)
        self.leading = rank == 0
        if joining:
            self.look()
            self.leading = self.leading and (self.latest is None or self.latest.leader == me)

    @property
    def rank(self) -> int:
        """Place in line for leading; 0 leads."""
        return self._order.index(self._members.worker) if self._members.worker in self._order else len(self._order)

    def look(self) -> None:
        """Read what the leader says. One question."""
        found = Status.decode(self._area.get(KEY))
        if found and (self.latest is None or _signature(found) != _signature(self.latest)):
            if found.leader != self._members.worker or found.incarnation != self._members.incarnation:
                self._heard = self._host.now()
            self.latest = found

    @property
    def silence(self) -> float:
        """Seconds until it is this worker's turn to ask after the leader."""
        return self._heard + self._turn - self._host.now()

    def leads(self) -> bool:
        """Does this worker lead? Asks only when the leader has been silent for long; then steps in."""
        if not self.leading and self.silence <= 0:
            before = self._heard
            self.look()
            if self._heard > before:  # it spoke since, but when?
                self._heard = max(before, self._heard - (self._area.age(KEY) or 0.0))
            self.leading = self.silence <= 0
            self._published = -1e9
        return self.leading

    def due(self, pace: Pace) -> bool:
        return self._host.now() - self._published >= pace.beat

    def publish(self, **content: Any) -> None:
        """Say that this worker leads, and what it knows; unless somebody before it in the line says so too."""
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
