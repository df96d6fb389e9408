"""Who is alive: heartbeats of the workers that meet in an area. They only advise; no result rests on them."""

import json
import threading
import time
import uuid
from dataclasses import dataclass

from ..errors import StoreError
from ..task import Area


@dataclass(frozen=True)
class Timing:
    """How workers watch each other, in seconds. Never changes a result.

    heartbeat  between two heartbeats
    fresh      a worker is alive if its heartbeat is younger
    takeover   how long each worker waits for the one before it to lead
    overdue    a block claimed for longer (and for four times the slowest own block) is played by somebody else too
    poll       least pause between two questions to the store while there is nothing to play
    look       pause between two looks at the others' results while there is
    """

    heartbeat: float = 3.0
    fresh: float = 15.0
    takeover: float = 5.0
    overdue: float = 60.0
    poll: float = 0.02
    look: float = 1.0


class Members:
    """This worker's heartbeat, and the others'. A claim names a worker and its incarnation: one process's life."""

    def __init__(self, area: Area, worker: int, timing: Timing) -> None:
        self.worker = worker
        self.rate = 0.0
        self.watching = False
        self._area = area
        self._timing = timing
        self._incarnation = uuid.uuid4().hex
        self._lives: dict[tuple[int, str], tuple[float, bool]] = {}
        self._alive: tuple[float, list[int]] = (-1e9, [])
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self.beat()
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def beat(self) -> None:
        self._area.put(f"workers/{self.worker}", self._signed(rate=round(self.rate, 1)))

    def claim(self) -> bytes:
        """What this worker writes into a claim."""
        return self._signed()

    def lives(self, claim: bytes) -> bool:
        """Does the process that wrote this claim still run?"""
        value = json.loads(claim)
        who = (int(value["worker"]), str(value["incarnation"]))
        asked, answer = self._lives.get(who, (-1e9, False))
        if time.monotonic() - asked > self._timing.heartbeat / 2:
            beat = self._area.get(f"workers/{who[0]}")
            answer = beat is not None and json.loads(beat)["incarnation"] == who[1] and self._fresh(who[0])
            self._lives[who] = (time.monotonic(), answer)
        return answer

    def alive(self) -> list[int]:
        """Workers with a fresh heartbeat, this one included, in order; as known a few seconds ago.

        With `watching` set the heartbeat's thread keeps this up to date, so that nobody waits for it.
        """
        if time.monotonic() - self._alive[0] > 2 * self._timing.heartbeat:
            self._refresh()
        return self._alive[1]

    def _refresh(self) -> None:
        workers = {int(key.rpartition("/")[2]) for key in self._area.keys("workers/")} | {self.worker}
        self._alive = (time.monotonic(), sorted(w for w in workers if w == self.worker or self._fresh(w)))

    def _fresh(self, worker: int) -> bool:
        age = self._area.age(f"workers/{worker}")
        return age is not None and age < self._timing.fresh

    def _signed(self, **more: float) -> bytes:
        return json.dumps({"worker": self.worker, "incarnation": self._incarnation, **more}).encode()

    def _run(self) -> None:
        while not self._stop.wait(self._timing.heartbeat):
            try:
                self.beat()
                if self.watching:
                    self._refresh()
            except StoreError:
                continue  # the exchange itself will say so if it lasts
