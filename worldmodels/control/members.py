"""Who is alive: heartbeats of the workers that meet in a workspace. They only advise; no result rests on them."""

import json
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from .. import stored
from ..context import Workspace
from ..errors import StoreError
from ..stored import BEAT
from .pace import Timing
from .runtime import Joinable, Runtime

WORKER = re.compile(r"workers/([0-9]{1,6})")
READ_AT_ONCE = 64  # heartbeats at each look
STRIKES = 2


@dataclass(frozen=True)
class Beat:
    """A heartbeat: who wrote it, how fast that worker plays (steps/s), and when, by the store's clock."""

    incarnation: str
    rate: float
    written: float


def holder(claim: bytes | None) -> tuple[int, str]:
    """The worker and the incarnation that wrote a claim; nobody if there is none."""
    value = stored.advice(claim, BEAT)
    return (value["worker"], value["incarnation"]) if value else (-2, "")


class Members:
    """This worker's heartbeat, and the others'. A claim names a worker and its incarnation: one process's life.

    With `stretch`, heartbeats are so much rarer and count for so much longer.
    """

    def __init__(self, area: Workspace, worker: int, timing: Timing, host: Runtime) -> None:
        self.worker = worker
        self.incarnation = uuid.uuid4().hex
        self.rate = 0.0
        self.stretch = 1.0
        self.watching = False  # the heartbeat's thread keeps itself informed of the others
        self._area, self._timing, self._host = area, timing, host
        self._beats: dict[int, Beat] = {}
        self._fresh: set[int] = set()
        self._strikes: dict[int, list[float]] = {}  # when others had to play a worker's blocks, in a row
        self._suspects: dict[int, float] = {}
        self._refreshed = -1e9
        self._stop = host.event()
        self._thread: Joinable | None = None

    def start(self) -> None:
        self.beat()
        self._thread = self._host.start(self._run, "heartbeat")

    def stop(self) -> None:
        self._stop.set()
        if self._thread and self._thread.is_alive():
            self._thread.join(timeout=5)

    def beat(self) -> None:
        self._area.put(f"workers/{self.worker}", self._signed(rate=round(self.rate, 1)))

    def claim(self) -> bytes:
        """What this worker writes into a claim."""
        return self._signed()

    def alive(self) -> dict[int, float]:
        """Workers with a fresh heartbeat and their steps per second (0: not known), this one included, in order.

        Without those that left their blocks to others and have been silent since.
        """
        if self._host.now() - self._refreshed > 2 * self._timing.heartbeat:
            self.refresh()
        found = {w: self._rate(w) for w in self._fresh if w not in self._suspects}
        return dict(sorted({**found, self.worker: self.rate}.items()))

    def lives(self, worker: int, incarnation: str = "") -> bool:
        """Does that worker run, in that incarnation, as far as the last `refresh` tells?"""
        if worker == self.worker:
            return incarnation in ("", self.incarnation)
        beat = self._beats.get(worker)
        return worker in self._fresh and (not incarnation or beat is None or beat.incarnation == incarnation)

    def suspect(self, workers: Iterable[int], seconds: float) -> None:
        """Others began what these were to play in the generation that began `seconds` ago.

        Whoever has that happen STRIKES times in a row, and is not heard of meanwhile, counts as gone until it is heard.
        """
        began = self._area.now() - seconds
        self._strikes = {w: [*self._strikes.get(w, ()), began] for w in workers if w != self.worker}
        for worker, times in self._strikes.items():
            written = self._beats[worker].written if worker in self._beats else 0.0
            if len(times) >= STRIKES and written < times[-STRIKES]:
                self._suspects[worker] = written

    def refresh(self) -> None:
        """One listing, and the heartbeats that are new since the last one, some at a time."""
        beats = self._area.written("workers/").items()
        written = {int(found[1]): at for key, at in beats if (found := WORKER.fullmatch(key))}
        oldest = self._area.now() - self._timing.fresh * self.stretch
        fresh = {worker for worker, at in written.items() if at > oldest}
        new = [w for w in fresh if w not in self._beats or self._beats[w].written < written[w]]
        new = sorted(new, key=lambda w: self._beats[w].written if w in self._beats else 0.0)[:READ_AT_ONCE]
        for worker, data in zip(new, self._host.map(lambda w: self._area.get(f"workers/{w}"), new), strict=True):
            if value := stored.advice(data, BEAT):
                self._beats[worker] = Beat(value["incarnation"], value.get("rate", 0.0), written[worker])
        self._fresh = fresh
        self._suspects = {w: at for w, at in self._suspects.items() if w in fresh and written[w] <= at}
        self._refreshed = self._host.now()

    def _rate(self, worker: int) -> float:
        beat = self._beats.get(worker)
        return beat.rate if beat else 0.0

    def _signed(self, **more: float) -> bytes:
        return json.dumps({"worker": self.worker, "incarnation": self.incarnation, **more}).encode()

    def _run(self) -> None:
        beaten = self._host.now()
        while not self._stop.wait(self._timing.heartbeat):
            try:
                if self._host.now() - beaten >= self._timing.heartbeat * self.stretch * 0.99:
                    beaten = self._host.now()
                    self.beat()
                if self.watching:
                    self.refresh()
            except StoreError:
                continue  # the exchange itself will say so if it lasts
