"""A folder as store."""

import contextlib
import errno
import fcntl
import itertools
import os
import re
import shlex
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from ..errors import Busy, StoreError
from .base import Entry, Leftover, hidden
from .causes import NOT_OFFERED, explain

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}")

CHUNK_BYTES = 2**20


class LocalStore:
    """A folder. Files appear by link or rename, after fsync, so a reader never sees a part of one.

    Folders are fsynced as well, so that what is committed survives a power failure on every file system.
    """

    publish_seconds = 2.0
    local = True

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.uri = str(root)

    def get(self, key: str) -> bytes | None:
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._error("read", key, error) from error

    def receive(self, key: str, sink: IO[bytes]) -> bool:
        try:
            with open(self._path(key), "rb") as file:
                shutil.copyfileobj(file, sink, CHUNK_BYTES)
            return True
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise self._error("read", key, error) from error

    def put(self, key: str, data: bytes) -> None:
        with self._errors("write", key), self._temporary(key, data) as temporary:
            os.replace(temporary, self._path(key))
            _sync_folder(self._path(key).parent)

    def create(self, key: str, data: bytes) -> bool:
        if self._path(key).exists():
            return False
        with self._errors("write", key), self._temporary(key, data) as temporary:
            try:
                os.link(temporary, self._path(key))
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno in (*NOT_OFFERED, errno.EPERM):
                    raise self._lacking("hard links, so nothing can be created exactly once", error) from error
                raise
            for folder in self._path(key).parents:  # whoever made the upper ones may not have fsynced them yet
                _sync_folder(folder)
                if folder == self.root:
                    break
            return True

    def upload(self, key: str, path: Path) -> None:
        with self._errors("write", key):
            target = self._path(key)
            _make_folder(target.parent)
            temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
            try:
                shutil.copyfile(path, temporary)
                _sync(temporary)
                os.replace(temporary, target)
                _sync_folder(target.parent)
            finally:
                temporary.unlink(missing_ok=True)

    def fetch(self, key: str, scratch: Path) -> Path | None:
        path = self._path(key)
        return path if path.is_file() else None

    def follow(self, key: str, data: bytes) -> None:
        with self._errors("write", key):
            path = self._path(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a+b") as file:
                file.seek(0)
                old = file.read()
                if data.startswith(old):
                    file.write(data[len(old) :])
                else:
                    file.truncate(0)
                    file.write(data)

    def entries(self, prefix: str) -> Iterator[Entry]:
        yield from sorted((e for e in self._files(prefix) if not hidden(e.key)), key=lambda entry: entry.key)

    def _files(self, prefix: str) -> Iterator[Entry]:
        """Every file whose key starts with `prefix`, the store's own too; enters no folder where none can be."""
        above, _, begin = prefix.rpartition("/")
        top = self._path(above)
        for parent, folders, names in os.walk(top, onerror=self._unlisted):
            if Path(parent) == top:
                folders[:] = [name for name in folders if name.startswith(begin)]
                names = [name for name in names if name.startswith(begin)]
            for path in (Path(parent, name) for name in names):
                key = path.relative_to(self.root).as_posix()
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise self._error("read", key, error) from error
                yield Entry(key, status.st_size, status.st_mtime)

    def _unlisted(self, error: OSError) -> None:
        """What cannot be listed must not look empty: somebody may take what it names for garbage."""
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise self._error("list", Path(error.filename).relative_to(self.root).as_posix(), error) from error

    def folders(self, prefix: str) -> list[str]:
        try:
            return sorted(p.name for p in self._path(prefix).iterdir() if p.is_dir() and not hidden(p.name))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._error("read", prefix, error) from error

    def modified(self, key: str) -> float | None:
        try:
            return self._path(key).stat().st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._error("read", key, error) from error

    def delete(self, key: str) -> None:
        with self._errors("delete", key):
            self._path(key).unlink(missing_ok=True)

    def delete_many(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.delete(key)
            with contextlib.suppress(OSError):  # not empty
                for folder in self._path(key).parents:
                    if folder == self.root:
                        break
                    folder.rmdir()

    def leftovers(self, prefix: str) -> Iterator[Leftover]:
        for entry in self._files(prefix):
            if TEMPORARY.fullmatch(entry.key.rpartition("/")[2]):
                yield Leftover("temporary file", entry.key, entry.size, entry.modified)

    def discard(self, leftover: Leftover) -> None:
        self.delete(leftover.key)

    def now(self) -> float:
        return time.time()

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        with self._errors("write", name):
            path = self._path(name).with_name(f".{name.rpartition('/')[2]}.lock")
            _make_folder(path.parent)
            file = open(path, "a")  # noqa: SIM115 - held for the whole block
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy(
                    f"another `wm` command works on {name} in {self.uri}",
                    next=f"wm logs --run {name} -f --store {shlex.quote(self.uri)}",
                ) from None
            except OSError as error:
                raise self._lacking("locks, so two commands could work on one run", error) from error
            yield

    def _path(self, key: str) -> Path:
        return self.root / key

    @contextlib.contextmanager
    def _temporary(self, key: str, data: bytes) -> Iterator[Path]:
        target = self._path(key)
        _make_folder(target.parent)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            temporary.write_bytes(data)
            _sync(temporary)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _errors(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._error(verb, key, error) from error

    def _error(self, verb: str, key: str, error: OSError) -> StoreError:
        reason, command = explain(error, self.uri)
        return StoreError(f"store {self.uri}: cannot {verb} {key}: {reason}", next=command)

    def _lacking(self, what: str, error: OSError) -> StoreError:
        """The error for a file system that no store can be on."""
        return StoreError(
            f"store {self.uri}: its file system has no {what} ({error.strerror or error}); use a folder on another one",
            next=f"findmnt -T {shlex.quote(self.uri)}",
        )


def _make_folder(path: Path) -> None:
    """Make a folder and those above it, so that they survive a power failure."""
    missing = list(itertools.takewhile(lambda folder: not folder.is_dir(), (path, *path.parents)))
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        _sync_folder(folder.parent)


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_OFFERED:  # some network file systems keep folders safe themselves
            raise
    finally:
        os.close(descriptor)
