"""The checks for every kind of store: all guarantees that artifacts, locks and `wm gc` need."""

import contextlib
import hashlib
import os
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from ..errors import Busy
from ..store import Store
from .checks import Check, Finding, fail, ok, warn
from .parallel import THREADS, each

# The checks write only below this and a random name; the dot keeps it from being listed as a run.
CORNER = ".wm-doctor-"
SKEW_SECONDS = 300.0
ROUNDS, RACES = 5, 2  # in SeaweedFS, the losers of a race wait for a second
SMALL_BYTES, LARGE_BYTES = 1024, 16 * 2**20 + 1  # one byte more than a single request writes
ANOTHER_STORE = "wm doctor --store DIR"


class StoreChecks:
    """The checks that every kind of store must pass."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self.store, self.clock = store, clock
        self.corner = f"{CORNER}{uuid.uuid4().hex}/"

    def key(self, name: str) -> str:
        return self.corner + name

    def checks(self) -> list[Check]:
        there = [check.name for check in self.place()]
        return [
            *self.place(),
            Check("absent key", self.absent, (there[-1],)),
            Check("write", self.write, (there[-1],)),
            Check("read", self.read, ("write",)),
            Check("delete", self.delete, ("write",)),
            Check("clock", self.clocks, ("write",)),
            Check("read after write", self.consistent, ("read", "delete")),
            Check("create once", self.once, ("read",)),
            Check("lock", self.lock, ("create once", "delete")),
            *self.special(),
            Check("create race", self.race, ("create once",)),
            Check("small objects", self.small, ("read",)),
            Check("large objects", self.large, ("read",)),
            Check("cleared away", self.clear, ("write",)),
        ]

    def place(self) -> list[Check]:
        """Return the checks whether the store exists; all other checks need the last of these."""
        raise NotImplementedError

    def special(self) -> list[Check]:
        """Return the checks for this kind of store only."""
        return []

    def absent(self) -> Finding:
        if self.store.get(self.key("absent")) is not None:
            return fail("a key that was never written has content", ANOTHER_STORE)
        return ok("a key that is not there is said to be absent")

    def write(self) -> Finding:
        self.store.put(self.key("object"), b"content")
        return ok("objects may be written")

    def read(self) -> Finding:
        there, found = self.store.get(self.key("object")), [e.size for e in self.store.entries(self.key("object"))]
        if (there, found) != (b"content", [7]):
            return fail(f"7 bytes were written; read were {there!r}, listed were sizes {found}", ANOTHER_STORE)
        return ok("objects may be read, and are listed")

    def delete(self) -> Finding:
        keys = [self.key(f"delete/{i}") for i in range(3)]
        for key in keys:
            self.store.put(key, b"")
        self.store.delete(keys[0])
        self.store.delete_many(keys)
        left = [entry.key for entry in self.store.entries(self.key("delete/"))]
        return fail(f"deleted, and still there: {', '.join(left)}", ANOTHER_STORE) if left else ok("singly and in bulk")

    def clocks(self) -> Finding:
        skew = self.server_time() - self.clock()
        if abs(skew) > SKEW_SECONDS:
            words = (
                f"the store's clock is {abs(skew) / 60:.0f} min {'ahead of' if skew > 0 else 'behind'} this machine's"
            )
            return warn(f"{words}; signatures fail at 15 min", "timedatectl")
        return ok(f"the store's and this machine's differ by {abs(skew):.0f} s")

    def server_time(self) -> float:
        key = self.key("clock")
        self.store.put(key, b"")
        return self.store.modified(key) or 0.0

    def consistent(self) -> Finding:
        key = self.key("again")
        for i in range(ROUNDS):
            data = str(i).encode()
            self.store.put(key, data)
            if self.store.get(key) != data or not list(self.store.entries(key)):
                return fail("what was just written is not read, or not listed", ANOTHER_STORE)
            self.store.delete(key)
            if self.store.get(key) is not None or list(self.store.entries(key)):
                return fail("what was just deleted is still read, or listed", ANOTHER_STORE)
        return ok(f"{ROUNDS} of {ROUNDS} writes and deletes were seen at once")

    def once(self) -> Finding:
        key = self.key("once")
        first, second = self.store.create(key, b"first"), self.store.create(key, b"second")
        if not first:
            return fail("a key that is not there is said to be taken", ANOTHER_STORE)
        if second or self.store.get(key) != b"first":
            return fail("a second creation replaced the first (is If-None-Match overlooked?): artifacts could be mixed",
                        ANOTHER_STORE)  # fmt: skip
        return ok("a second creation is refused, and the first stays")

    def race(self) -> Finding:
        for number in range(RACES):
            key, start = self.key(f"race/{number}"), threading.Barrier(THREADS)

            def create(who: int, key: str = key, start: threading.Barrier = start) -> int | None:
                start.wait(30)
                return who if self.store.create(key, str(who).encode()) else None

            won = [who for who in each(create, range(THREADS)) if who is not None]
            if len(won) != 1 or self.store.get(key) != str(won[0]).encode():
                return fail(f"of {THREADS} creations at once {len(won)} won: artifacts could be mixed", ANOTHER_STORE)
        return ok(f"of {THREADS} at once exactly one wins, {RACES} times")

    def lock(self) -> Finding:
        key = self.key("lock")
        for _ in range(2):
            with self.store.lock(key), contextlib.suppress(Busy), self.store.lock(key):
                return fail("two had it at once: two commands could work on one run", ANOTHER_STORE)
        return ok("held alone, and given back")

    def small(self) -> Finding:
        key, data = self.key("small"), os.urandom(SMALL_BYTES)
        writing = statistics.median(_seconds(lambda: self.store.put(key, data)) for _ in range(2 * ROUNDS))
        reading = statistics.median(_seconds(lambda: self.store.get(key)) for _ in range(2 * ROUNDS))
        return ok(f"a write takes {1000 * writing:.1f} ms, a read {1000 * reading:.1f} ms (median of {2 * ROUNDS})")

    def large(self) -> Finding:
        with tempfile.TemporaryDirectory(prefix="wm-doctor-") as scratch:
            data = os.urandom(LARGE_BYTES)
            (Path(scratch) / "large").write_bytes(data)
            up = _seconds(lambda: self.store.upload(self.key("large"), Path(scratch) / "large"))
            began = time.perf_counter()
            there = self.store.get(self.key("large")) or b""
            down = time.perf_counter() - began
        if hashlib.sha256(there).digest() != hashlib.sha256(data).digest():
            return fail(f"{len(data)} bytes were written in parts, and came back as {len(there)} others", ANOTHER_STORE)
        size = len(data) / 1e6
        return ok(f"up {size / up:.0f} MB/s, down {size / down:.0f} MB/s ({size:.0f} MB)")

    def clear(self) -> Finding:
        self.store.delete_many([entry.key for entry in self.store.entries(self.corner)])
        return ok("nothing of these checks is left")


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
