"""Copies of a bucket's objects on a local disk, in bounded room."""

import hashlib
import threading
from collections import OrderedDict
from pathlib import Path

from ..errors import StoreError


class Disk:
    """Copies by key in `folder`, `limit` bytes of them at most: the least recently used go first. Threads may share it.

    A copy that goes while somebody reads it stays readable to its end: its name goes first, its bytes with the reader.
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
        """Nothing is written from now on, so that the folder can be removed while somebody still reads ahead."""
        with self._lock:
            self._closed = True

    def get(self, key: str) -> bytes | None:
        """The copy as the disk has it, or None if there is none."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            try:
                file = open(self._path(key), "rb")  # noqa: SIM115 - read without the lock
            except FileNotFoundError:  # somebody tidied up
                self._drop(key)
                return None
        with file:
            return file.read()

    def put(self, key: str, data: bytes) -> None:
        """Keep a copy if the limit allows it at all. Raises StoreError if the disk has less room than the limit."""
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
                    next=f"df -h {self._folder}, and wm run -o execution.disk_mb=… (0: keep none)",
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
