"""The files that a manifest or a shard's record names, each checked while it is read."""

import hashlib
import io
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from ..errors import CorruptArtifact, MissingInput, StoreError
from ..store import Store, bounded
from ..store.causes import explain
from ..store.disk_cache import Disk
from ..stored import File
from .names import digest

Files = dict[str, File]


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Reading:
    """How stored files are read: folder for copies, disk cache for files that are read again, callback per chunk."""

    scratch: Path
    disk: Disk | None = None
    heard: Callable[[], None] = lambda: None


@dataclass
class FileSet:
    """Stored files by logical name; each read is checked against the manifest's SHA-256.

    `path` and `read` raise MissingInput if the manifest names no such file, CorruptArtifact if its bytes are gone or
    changed, StoreError if the store or the disk fails.
    """

    store: Store
    reading: Reading
    label: str
    files: Files
    next: str
    _verified: dict[str, Path] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """Return the path of a copy in scratch that stays until the attempt ends.

        The copy gets this name after the check; its folder is named by its SHA-256.
        """
        if name in self._verified:
            return self._verified[name]
        entry, scratch = self._entry(name), self.reading.scratch
        target = scratch / str(entry["sha256"]) / PurePosixPath(name).name
        part = scratch / f".{entry['sha256']}.{uuid.uuid4().hex}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.save(name, part)
            os.replace(part, target)
        except OSError as error:
            reason, command = explain(error, str(scratch))
            raise StoreError(
                f"store {self.store.uri}: cannot copy {entry['key']} to {scratch}: {reason}", next=command
            ) from error
        finally:
            part.unlink(missing_ok=True)
        self._verified[name] = target
        return target

    def save(self, name: str, path: Path) -> None:
        """Write the content to a new file and check it; the file remains if the check raises CorruptArtifact."""
        entry = self._entry(name)
        with open(path, "xb") as file:
            if not self.store.receive(entry["key"], self._arriving(file, entry)):
                raise self._gone(entry)
            size = file.tell()
        self._check(entry, size, sha256(path) if size == entry["size"] else "")

    def read(self, name: str) -> bytes:
        """Return the content. A bucket's files are also cached on disk while it has room; each read is checked."""
        entry, disk = self._entry(name), self.reading.disk
        key = entry["key"]
        if disk and (copy := disk.get(key)) is not None and digest(copy) == entry["sha256"]:
            self.reading.heard()
            return copy
        arriving = io.BytesIO()
        if not self.store.receive(key, self._arriving(arriving, entry)):
            raise self._gone(entry)
        data = arriving.getvalue()
        self._check(entry, len(data), digest(data))
        if disk:
            disk.put(key, data)
        return data

    def _entry(self, name: str) -> File:
        entry = self.files.get(name)
        if entry is None:
            raise MissingInput(
                f"{self.label} has no file {name!r}; it has {', '.join(sorted(self.files))}", next=self.next
            )
        return entry

    def _arriving(self, sink: IO[bytes], entry: File) -> IO[bytes]:
        """Return `sink`, limited to the manifest's size: more bytes raise CorruptArtifact."""
        words = f"{self.label}: {entry['key']} has more than the {entry['size']} bytes that it had"
        return bounded(sink, entry["size"], CorruptArtifact(words, next=self.next), self.reading.heard)

    def _gone(self, entry: File) -> CorruptArtifact:
        return CorruptArtifact(f"{self.label}: the file {entry['key']} is gone from {self.store.uri}", next=self.next)

    def _check(self, entry: File, size: int, found: str) -> None:
        if size != entry["size"]:
            raise CorruptArtifact(f"{self.label}: {entry['key']} has {size} bytes, not {entry['size']}", next=self.next)
        if found != entry["sha256"]:
            raise CorruptArtifact(
                f"{self.label}: {entry['key']} has changed since it was committed (SHA-256)", next=self.next
            )
