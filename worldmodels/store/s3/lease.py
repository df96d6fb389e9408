"""A lock in a bucket: a small object that its holder rewrites periodically. Without renewal, the lease expires.

All times are the server's: the lease's modification time and the Date of responses. A holder that was paused for longer
than the lease notices at its next beat that another process holds it. Writes of both are safe, because artifacts are
created once. So the lease only keeps users from starting the same run twice.
"""

import contextlib
import json
import logging
import shlex
import threading
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ... import stored
from ...errors import Busy, StoreError
from .. import process_identity

if TYPE_CHECKING:
    from .store import S3Store, Stored

log = logging.getLogger("wm.store")
# A killed holder blocks other machines for at most so long; a process of its own machine can see that it has ended.
LEASE_SECONDS = 60.0
BEATS = 4


@contextlib.contextmanager
def hold(store: "S3Store", name: str, seconds: float) -> Iterator[None]:
    """Hold `name` alone until the `with` block ends; raise Busy if another process holds it."""
    lease = Lease(store, name, seconds)
    lease.take()
    thread = threading.Thread(target=lease.keep, name="lease", daemon=True)
    thread.start()
    try:
        yield
    except StoreError:
        lease.stop.set()  # the store is out of reach: the lease expires
        raise
    finally:
        if not lease.stop.is_set():
            lease.stop.set()
            thread.join(timeout=5)
            lease.release()


class Lease:
    def __init__(self, store: "S3Store", name: str, seconds: float) -> None:
        folder, slash, last = name.rpartition("/")
        self.stop = threading.Event()
        self._store, self._name, self._seconds = store, name, seconds
        self._key = f"{folder}{slash}.{last}.lock"
        self._id = uuid.uuid4().hex
        self._beat = 0
        self._tag = ""

    def take(self) -> None:
        while not self._tag:
            self._tag = self._store.write_if(self._key, self._text(), IfNoneMatch="*") or self._take_over() or ""
        self._check_conditions()

    def _check_conditions(self) -> None:
        """Raise StoreError if the server creates an existing object: two writers could then overwrite one artifact."""
        self._beat += 1
        if self._store.write_if(self._key, self._text(), IfNoneMatch="*"):
            self.release()
            raise StoreError(
                f"store {self._store.uri}: the server overlooks If-None-Match, so what is created once could be"
                " overwritten",
                next=f"wm doctor --store {self._store.uri}",
            )

    def _take_over(self) -> str | None:
        """Replace an ended lease and return the new tag, None if the lease is gone; raise Busy if it has not ended."""
        there = self._store.read(self._key)
        if there is None:
            return None
        left = _parsed(there).get("seconds", self._seconds) - (self._store.now() - there.modified)
        if left >= 0 and not process_identity.ended(_parsed(there)):
            raise self._busy(there, left)
        tag = self._store.write_if(self._key, self._text(), IfMatch=there.tag)
        now = self._store.read(self._key)  # for servers that ignore conditions
        if now and not (tag and self._is_ours(now)):
            raise self._busy(now, self._seconds)
        return tag if now else None

    def keep(self) -> None:
        """Renew the lease until `stop` is set or another holder has it."""
        while not self.stop.wait(self._seconds / BEATS):
            self._beat += 1  # other bytes, another tag: a process that read the lease before cannot take it over
            with contextlib.suppress(StoreError):  # a later beat may reach the store
                tag = self._store.write_if(self._key, self._text(), IfMatch=self._tag)
                if tag is None and (there := self._store.read(self._key)) and self._is_ours(there):
                    tag = there.tag  # an earlier beat did arrive
                if tag is None:
                    log.error("the lease on %s in %s was taken over: this process was silent for %.0f s",
                              self._name, self._store.uri, self._seconds)  # fmt: skip
                    return
                self._tag = tag

    def release(self) -> None:
        with contextlib.suppress(StoreError):
            there = self._store.read(self._key)
            if there and self._is_ours(there):
                self._store.delete(self._key)

    def _text(self) -> bytes:
        words = {"holder": self._id, "beat": self._beat, "seconds": self._seconds}
        return json.dumps(words | process_identity.signature()).encode()

    def _is_ours(self, there: "Stored") -> bool:
        return _parsed(there).get("holder") == self._id

    def _busy(self, there: "Stored", left: float) -> Busy:
        holder = _parsed(there)
        return Busy(
            f"another `wm` command works on {self._name} in {self._store.uri}: process {holder.get('process')} on"
            f" {holder.get('host')}; if that is dead, its lease ends in {left:.0f} s",
            next=f"wm logs --run {self._name} -f --store {shlex.quote(self._store.uri)}",
        )


def _parsed(there: "Stored") -> dict[str, Any]:
    """Return the lease as its holder wrote it; empty if it is malformed."""
    return stored.advice(there.data, stored.LEASE) or {}
