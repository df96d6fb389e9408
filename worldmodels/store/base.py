"""The protocol of a store. Keys are `/`-separated; readers see an object whole or not at all."""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Protocol, cast

from ..errors import CorruptArtifact

GET_BYTES = 2**28
"""The most that `get` reads into memory, in bytes; `receive` reads more."""


@dataclass(frozen=True)
class Entry:
    """One stored object: its key, size in bytes, and modification time by the store's clock (Unix seconds)."""

    key: str
    size: int
    modified: float


@dataclass(frozen=True)
class Leftover:
    """Remains of a killed writer that are not an object.

    `key` is a file's key or a lock's name; `size` in bytes is 0 if unknown; `id` is an unfinished upload's.
    """

    kind: Literal["temporary file", "unfinished upload", "ended lock"]
    key: str
    size: int
    modified: float
    id: str = ""


class Store(Protocol):
    """A folder or a bucket that holds objects by key.

    Names that begin with a dot are reserved for the store (locks, files being written); `entries` and `folders` omit
    them. Every method raises CorruptArtifact if it meets something that no store writes, such as a symbolic link.

    To write one, define these methods and return it from `open_store` for its addresses (docs/extending.md). The tests
    in tests/test_store.py check each promise; tests/test_extending_parts.py has a small one, in a dict.
    """

    uri: str
    publish_seconds: float
    """Least pause in seconds between two `follow` calls for one text; it depends on the price of a write."""
    local: bool
    """Whether objects are files of this machine, so that a local cache would save nothing."""

    def get(self, key: str) -> bytes | None:
        """Return the object's bytes, or None if absent; raise CorruptArtifact if they are more than GET_BYTES."""

    def receive(self, key: str, sink: IO[bytes]) -> bool:
        """Write the object's bytes into `sink` as they arrive, rewinding it if need be; return False if absent."""

    def put(self, key: str, data: bytes) -> None:
        """Write or overwrite the object atomically."""

    def create(self, key: str, data: bytes) -> bool:
        """Write the object if it is absent; return False if it exists."""

    def upload(self, key: str, path: Path) -> None:
        """Write a local file's content as the object."""

    def copy(self, source: str, target: str) -> None:
        """Make `target` an object with the content of `source`, which must exist; later writes to one spare the other.

        The content does not pass through this machine. In a folder, both are names of one file until a write.
        """

    def follow(self, key: str, data: bytes) -> None:
        """Write a growing text; in a folder, a `tail -f` of its file continues."""

    def entries(self, prefix: str) -> Iterator[Entry]:
        """List every object whose key starts with `prefix`, in key order."""

    def folders(self, prefix: str) -> list[str]:
        """List the names directly below `prefix` (which ends in `/` or is empty) that have objects below them."""

    def modified(self, key: str) -> float | None:
        """Return when the object was written, by the store's clock (Unix seconds); None if it is absent."""

    def delete(self, key: str) -> None:
        """Remove the object if it exists."""

    def delete_many(self, keys: Iterable[str]) -> None:
        """Remove the objects, and folders that become empty; raise StoreError for the first key that is refused."""

    def leftovers(self, prefix: str) -> Iterator[Leftover]:
        """List killed writers' remains below `prefix`; active writers have some too, so check the age."""

    def discard(self, leftover: Leftover) -> None:
        """Remove the leftover; do nothing if it is gone, or if it is a lock that a process holds again."""

    def now(self) -> float:
        """Return the store's clock in Unix seconds."""

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Hold `name` alone until the `with` block ends or the process dies; raise Busy if another process holds it."""


def hidden(key: str) -> bool:
    """Return whether a key, or a folder's name, is reserved for the store."""
    return key.rpartition("/")[2].startswith(".")


class _Bounded:
    """A writable file that raises `error` beyond `limit` bytes and calls `heard` at each write."""

    def __init__(self, sink: IO[bytes], limit: int, error: CorruptArtifact, heard: Callable[[], None]) -> None:
        self._sink, self._limit, self._error, self._heard = sink, limit, error, heard

    def write(self, data: Any) -> int:
        self._heard()
        if self._sink.tell() + len(data) > self._limit:
            raise self._error
        return self._sink.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)


def bounded(sink: IO[bytes], limit: int, error: CorruptArtifact, heard: Callable[[], None] = lambda: None) -> IO[bytes]:
    """Wrap `sink`: raise `error` instead of writing more than `limit` bytes, and call `heard` at each write."""
    return cast(IO[bytes], _Bounded(sink, limit, error, heard))


def read(store: Store, key: str, limit: int = GET_BYTES) -> bytes | None:
    """Return the object's bytes, or None if absent; raise CorruptArtifact if they are more than `limit`."""
    sink = io.BytesIO()
    return sink.getvalue() if store.receive(key, bounded(sink, limit, too_large(store, key, limit))) else None


def too_large(store: Store, key: str, limit: int) -> CorruptArtifact:
    return CorruptArtifact(
        f"{key} in {store.uri} has more than the {limit} bytes that are read of it",
        next=f"wm verify --store {store.uri}",
    )
