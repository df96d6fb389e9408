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
    """A killed writer's remains that are no object. `key` may be a lock's name; `size` in bytes is 0 if unknown."""

    kind: Literal["temporary file", "unfinished upload", "ended lock"]
    key: str
    size: int
    modified: float
    id: str = ""


class Store(Protocol):
    """Names that begin with a dot are the store's own (locks, files being written): they are never listed.

    Every method raises CorruptArtifact where there is something that no store writes, a link for instance.
    """

    uri: str
    publish_seconds: float
    """Least pause between two `follow`s of one text: what a write costs decides it."""
    local: bool
    """Whether its objects are files of this machine, so that copies of them would save nothing."""

    def get(self, key: str) -> bytes | None:
        """Return the object's bytes, or None if absent; raise CorruptArtifact if they are more than GET_BYTES."""

    def receive(self, key: str, sink: IO[bytes]) -> bool:
        """Write the object's bytes into `sink` as they arrive, from its beginning again if need be; False if absent."""

    def put(self, key: str, data: bytes) -> None:
        """Write, or overwrite as one step."""

    def create(self, key: str, data: bytes) -> bool:
        """Write only if nothing is there; False if something was."""

    def upload(self, key: str, path: Path) -> None:
        """Write a file's content."""

    def follow(self, key: str, data: bytes) -> None:
        """Write a growing text so that `tail -f` of a stored file goes on."""

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Every object whose key starts with `prefix`, in key order."""

    def folders(self, prefix: str) -> list[str]:
        """Names directly below `prefix` (which ends in `/` or is empty) that have objects below them."""

    def modified(self, key: str) -> float | None:
        """When the object was written, by the store's clock (Unix seconds); None if it is not there."""

    def delete(self, key: str) -> None:
        """Remove; no error if it is not there."""

    def delete_many(self, keys: Iterable[str]) -> None:
        """Remove them all, and folders that become empty. The StoreError of a refusal names the first key refused."""

    def leftovers(self, prefix: str) -> Iterator[Leftover]:
        """List killed writers' remains below `prefix`; active writers have some too, so check the age."""

    def discard(self, leftover: Leftover) -> None:
        """Remove; no error if it is gone, or a lock and held again."""

    def now(self) -> float:
        """Return the store's clock in Unix seconds."""

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Hold `name` alone until the block ends or the process dies; Busy if another process has it."""


def hidden(key: str) -> bool:
    """Whether a key, or a folder's name, is the store's own."""
    return key.rpartition("/")[2].startswith(".")


class _Bounded:
    """A file that takes no more than `limit` bytes, and tells of each time that some come."""

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
    """`sink`, raising the error instead of taking more than `limit` bytes; `heard` is called when some arrive."""
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
