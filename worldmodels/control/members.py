"""Heartbeats of the workers in a workspace. They are only advice: no result depends on them."""

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
READ_AT_ONCE = 64  # heartbeats per refresh
STRIKES = 2


@dataclass(frozen=True)
class Beat:
    """A heartbeat: the process that wrote it, that worker's steps/s, and the time, by the store's clock."""

    incarnation: str
    rate: float
    written: float


def holder(claim: bytes | None) -> tuple[int, str]:
    """Return the worker and the incarnation that wrote a claim; (-2, "") if there is none."""
    value = stored.advice(claim, BEAT)
    return (value["worker"], value["incarnation"]) if value else (-2, "")


class Members:
    """Heartbeats of this worker and of the others. A claim names a worker and its incarnation, one process.

    `stretch` makes heartbeats rarer and valid for longer by this factor.
    """

    def __init__(self, area: Workspace, worker: int, timing: Timing, host: Runtime) -> None:
        self.worker = worker
        self.incarnation = uuid.uuid4().hex
        self.rate = 0.0
        self.stretch = 1.0
        self.watching = False  # the heartbeat thread also reads other workers' heartbeats
        self._area, self._timing, self._host = area, timing, host
        self._beats: dict[int, Beat] = {}
        self._fresh: set[int] = set()
        self._strikes: dict[int, list[float]] = {}  # when other workers had to take a worker's blocks, in a row
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
        """Return the content of this worker's claims."""
        return self._signed()

    def alive(self) -> dict[int, float]:
        """Return workers with a fresh heartbeat and their steps per second (0: unknown), this one included, in order.

        Workers whose blocks were left to other workers, and that have been silent since, are excluded.
        """
        if self._host.now() - self._refreshed > 2 * self._timing.heartbeat:
            self.refresh()
        found = {w: self._rate(w) for w in self._fresh if w not in self._suspects}
        return dict(sorted({**found, self.worker: self.rate}.items()))

    def lives(self, worker: int, incarnation: str = "") -> bool:
        """Return whether that worker runs, in that incarnation, according to the last `refresh`."""
        if worker == self.worker:
            return incarnation in ("", self.incarnation)
        beat = self._beats.get(worker)
        return worker in self._fresh and (not incarnation or beat is None or beat.incarnation == incarnation)

    def suspect(self, workers: Iterable[int], seconds: float) -> None:
        """Record that other workers began blocks of `workers` in the generation that began `seconds` ago.

        A worker counts as gone after STRIKES such generations in a row without a heartbeat, until its next heartbeat.
        """
        began = self._area.now() - seconds
        self._strikes = {w: [*self._strikes.get(w, ()), began] for w in workers if w != self.worker}
        for worker, times in self._strikes.items():
            written = self._beats[worker].written if worker in self._beats else 0.0
            if len(times) >= STRIKES and written < times[-STRIKES]:
                self._suspects[worker] = written

    def refresh(self) -> None:
        """Read one listing, and some of the heartbeats that are new since the last one."""
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
                continue  # if it lasts, the exchange raises it
