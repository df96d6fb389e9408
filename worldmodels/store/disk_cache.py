"""A process's files on the local disk: a temporary folder, and in it a bounded cache of a bucket's objects."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from ..errors import StoreError

ALIVE = ".alive"
NEW_SECONDS = 60.0


@contextlib.contextmanager
def scratch(name: str, place: Path | None = None) -> Iterator[Path]:
    """Make a temporary folder and remove it after the `with` block; after a kill, the next call removes it.

    The folder is in `place`, or in the machine's folder for temporary files (TMPDIR).
    """
    place = place or Path(tempfile.gettempdir())
    _remove_orphans(place)
    with (
        tempfile.TemporaryDirectory(prefix=f"wm-{name}-", dir=place, ignore_cleanup_errors=True) as folder,
        open(Path(folder, ALIVE), "w") as alive,
    ):
        with contextlib.suppress(OSError):  # a file system without locks: then `_remove_orphans` cannot lock it either
            fcntl.flock(alive, fcntl.LOCK_EX)
        yield Path(folder)


def _remove_orphans(place: Path) -> None:
    """Remove this user's folders that no process has locked. New folders stay: their locks may follow."""
    for path in place.glob(f"wm-*/{ALIVE}"):
        with contextlib.suppress(OSError):
            status = path.stat()
            if status.st_uid != os.getuid() or time.time() - status.st_mtime < NEW_SECONDS:
                continue
            with open(path) as alive:
                fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.parent)


class Disk:
    """Copies of objects in `folder`, at most `limit` bytes; the least recently used go first. Threads may share them.

    A thread can read a removed copy to its end: the name goes first, the bytes when the reader closes the file.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._kept: OrderedDict[str, int] = OrderedDict()  # key -> bytes
        self._used = 0
        self._closed = False
        self._lock = threading.Lock()

    def __enter__(self) -> "Disk":
        return self

    def __exit__(self, *_: object) -> None:
        """Stop writing, so that the folder can be removed while other threads still read ahead."""
        with self._lock:
            self._closed = True

    def get(self, key: str) -> bytes | None:
        """Return the copy, or None if there is none."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            try:
                file = open(self._path(key), "rb")  # noqa: SIM115 - read without the lock
            except FileNotFoundError:  # removed by another process
                self._drop(key)
                return None
        with file:
            return file.read()

    def put(self, key: str, data: bytes) -> None:
        """Keep a copy unless it exceeds the limit; raise StoreError if the disk has less space than the limit."""
        with self._lock:
            self._drop(key)
            if self._closed or len(data) > self._limit:
                return
            while self._used + len(data) > self._limit:
                self._drop(next(iter(self._kept)))
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._path(key).write_bytes(data)
            except OSError as error:
                self._path(key).unlink(missing_ok=True)
                raise StoreError(
                    f"cannot keep a copy of {key} in {self._folder}: {error.strerror or error}; "
                    f"{self._used >> 20} of execution.disk_mb = {self._limit >> 20} MB are in use there",
                    next=f"wm run -o execution.disk_mb={self._used >> 21}",  # half of the bytes that fitted
                ) from error
            self._kept[key] = len(data)
            self._used += len(data)

    def _drop(self, key: str) -> None:
        size = self._kept.pop(key, None)
        if size is not None:
            self._used -= size
            self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / hashlib.sha256(key.encode()).hexdigest()
