"""The reading half of a store, which counts requests and what they cost."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import IO

from ..store import Entry, Store, read

READ_PRICE, LIST_PRICE = 0.0004 / 1000, 0.005 / 1000
"""Dollars for a GET or HEAD, and for a listing of at most PAGE keys (AWS S3, first 50 TB, us-east-1)."""
PAGE = 1000
MINUTE = 60.0


class Metered:
    """Reads a store. It has no method that writes, so its users cannot disturb a run."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self.uri, self.publish_seconds, self.local = store.uri, store.publish_seconds, store.local
        self.reads = self.lists = 0
        self._store, self._clock, self._lock = store, clock, threading.Lock()
        self._latest: deque[tuple[float, int, int]] = deque()

    def get(self, key: str) -> bytes | None:
        return read(self, key)  # type: ignore[arg-type]  # it only receives

    def receive(self, key: str, sink: IO[bytes]) -> bool:
        self._count(reads=1)
        return self._store.receive(key, sink)

    def modified(self, key: str) -> float | None:
        self._count(reads=1)
        return self._store.modified(key)

    def entries(self, prefix: str) -> Iterator[Entry]:
        found = list(self._store.entries(prefix))
        self._count(lists=1 + max(0, len(found) - 1) // PAGE)
        return iter(found)

    def folders(self, prefix: str) -> list[str]:
        found = self._store.folders(prefix)
        self._count(lists=1 + max(0, len(found) - 1) // PAGE)
        return found

    def now(self) -> float:
        return self._store.now()

    def minute(self) -> tuple[int, int]:
        """Return the reads and the listings of the last minute."""
        with self._lock:
            while self._latest and self._latest[0][0] < self._clock() - MINUTE:
                self._latest.popleft()
            return sum(reads for _, reads, _ in self._latest), sum(lists for _, _, lists in self._latest)

    def _count(self, reads: int = 0, lists: int = 0) -> None:
        with self._lock:
            self.reads += reads
            self.lists += lists
            self._latest.append((self._clock(), reads, lists))


def price(reads: float, lists: float) -> float:
    """Return the price of requests in dollars."""
    return reads * READ_PRICE + lists * LIST_PRICE
