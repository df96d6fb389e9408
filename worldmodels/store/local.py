"""The store in a folder."""

import contextlib
import errno
import fcntl
import itertools
import os
import re
import shlex
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from ..errors import Busy, CorruptArtifact, StoreError
from .base import Entry, Leftover, hidden, read
from .causes import NOT_OFFERED, explain

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}")

CHUNK_BYTES = 2**20
DEEPEST = 32
KINDS = {stat.S_IFDIR: "a folder", stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


class LocalStore:
    """A store in a folder. Files appear by link or rename, after fsync, so readers never see a partial file.

    Folders are fsynced as well, so that committed files survive a power failure on every file system.
    """

    publish_seconds = 2.0
    local = True

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.uri = str(root)

    def get(self, key: str) -> bytes | None:
        return read(self, key)

    def receive(self, key: str, sink: IO[bytes]) -> bool:
        try:
            file = self._open(key, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise self._error("read", key, error) from error
        with file:
            while True:
                with self._errors("read", key):
                    data = file.read(CHUNK_BYTES)
                if not data:
                    return True
                sink.write(data)

    def put(self, key: str, data: bytes) -> None:
        self._write(key, lambda file: file.write(data))

    def create(self, key: str, data: bytes) -> bool:
        if self._status(key) is not None:
            return False
        with self._errors("write", key), self._place(key, make=True) as (folder, name):
            with _temporary(folder, name, lambda file: file.write(data)) as temporary:
                try:
                    os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
                except FileExistsError:
                    return False
                except OSError as error:
                    if error.errno in (*NOT_OFFERED, errno.EPERM):
                        raise self._lacking("hard links, so nothing can be created exactly once", error) from error
                    raise
            _sync_folder(folder)
        folders = self._parts(key)[:-1]
        for depth in range(len(folders)):  # another process may have made upper ones and not fsynced them yet
            with self._errors("write", key), self._folder("/".join(folders[:depth])) as folder:
                _sync_folder(folder)
        return True

    def upload(self, key: str, path: Path) -> None:
        with open(path, "rb") as source:
            self._write(key, lambda file: shutil.copyfileobj(source, file, CHUNK_BYTES))

    def _write(self, key: str, fill: Callable[[IO[bytes]], object]) -> None:
        with (
            self._errors("write", key),
            self._place(key, make=True) as (folder, name),
            _temporary(folder, name, fill) as temporary,
        ):
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            _sync_folder(folder)

    def copy(self, source: str, target: str) -> None:
        self._status(source)  # raises an error for a link, a pipe or a device
        with (
            self._errors("copy", source),
            self._place(source) as (there, file),
            self._place(target, make=True) as (folder, name),
        ):
            temporary = _temporary_name(name)
            try:  # writes replace a file, so the other name keeps the content
                os.link(file, temporary, src_dir_fd=there, dst_dir_fd=folder, follow_symlinks=False)
                os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
                _sync_folder(folder)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=folder)

    def follow(self, key: str, data: bytes) -> None:
        there = self._status(key)
        if there is None or there.st_nlink > 1:  # a hard link: the file at its other name must not change
            self.put(key, data)
            return
        with self._errors("write", key), self._open(key, os.O_RDWR | os.O_APPEND) as file:
            old = file.read(len(data) + 1)
            if data.startswith(old):
                file.write(data[len(old) :])
            else:
                file.truncate(0)
                file.write(data)

    def entries(self, prefix: str) -> Iterator[Entry]:
        yield from sorted((e for e in self._files(prefix) if not hidden(e.key)), key=lambda entry: entry.key)

    def _files(self, prefix: str) -> Iterator[Entry]:
        """List every file whose key starts with `prefix`, hidden ones too, and enter only folders that can match.

        Raise StoreError for an unreadable folder: if it looked empty, `wm gc` could delete data that its files name.
        """
        above, slash, begin = prefix.rpartition("/")
        with contextlib.ExitStack() as opened:
            try:
                folder = opened.enter_context(self._folder(above))
            except (FileNotFoundError, NotADirectoryError):
                return
            except OSError as error:
                raise self._error("list", above, error) from error
            yield from self._below(folder, above + slash, begin)

    def _below(self, folder: int, path: str, begin: str = "") -> Iterator[Entry]:
        if path.count("/") > DEEPEST:
            raise self._refusal(path, f"is deeper than {DEEPEST} folders")
        with os.scandir(folder) as found:
            items = [item for item in found if item.name.startswith(begin)]
        for item in items:
            key = path + item.name
            try:
                status = item.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    with self._entered(folder, item.name, key) as inner:
                        yield from self._below(inner, f"{key}/")
                    continue
            except (FileNotFoundError, NotADirectoryError):  # removed meanwhile
                continue
            except OSError as error:
                raise self._error("list", key, error) from error
            self._check_kind(key, status)
            yield Entry(key, status.st_size, status.st_mtime)

    def folders(self, prefix: str) -> list[str]:
        """List folders, and links in place of folders: entering such a link raises an error that names it."""
        try:
            with self._folder(prefix.rstrip("/")) as folder, os.scandir(folder) as found:
                return sorted(
                    item.name
                    for item in found
                    if not hidden(item.name) and (item.is_dir(follow_symlinks=False) or item.is_symlink())
                )
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._error("read", prefix, error) from error

    def modified(self, key: str) -> float | None:
        status = self._status(key)
        return None if status is None else status.st_mtime

    def delete(self, key: str) -> None:
        try:
            with self._place(key) as (folder, name):
                os.unlink(name, dir_fd=folder)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise self._error("delete", key, error) from error

    def delete_many(self, keys: Iterable[str]) -> None:
        left = set()
        for key in keys:
            self.delete(key)
            left.add(key.rpartition("/")[0])
        while left:  # upwards, until a folder is not empty
            with contextlib.suppress(OSError):
                folder = max(left, key=lambda path: path.count("/"))
                left.discard(folder)
                if folder:
                    with self._place(folder) as (above, name):
                        os.rmdir(name, dir_fd=above)
                    left.add(folder.rpartition("/")[0])

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
        folder, slash, last = name.rpartition("/")
        key = f"{folder}{slash}.{last}.lock"
        with self._errors("write", name):
            file = self._open(key, os.O_RDWR | os.O_CREAT, make=True)
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

    # A writer of the folder may put links, pipes and devices into it, and exchange them at any moment. So the store
    # looks up names folder by folder, from descriptor to descriptor, and opens folders and regular files only. The
    # store's own folder may be a link: that is its owner's choice.

    @contextlib.contextmanager
    def _folder(self, path: str, *, make: bool = False) -> Iterator[int]:
        """Yield a descriptor of the folder `path`; `make` creates it. Raise FileNotFoundError or NotADirectoryError."""
        if make:
            _make_folder(self.root)
        here = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in self._parts(path) if path else ():
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, dir_fd=here)
                        _sync_folder(here)
                with self._entered(here, part, path) as there:
                    os.dup2(there, here, inheritable=False)
            yield here
        finally:
            os.close(here)

    @contextlib.contextmanager
    def _entered(self, folder: int, name: str, key: str) -> Iterator[int]:
        """Yield a descriptor of the folder `name` in `folder`; raise CorruptArtifact if it is a link."""
        try:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                self._refuse_link(folder, name, key)
            raise
        try:
            yield inner
        finally:
            os.close(inner)

    @contextlib.contextmanager
    def _place(self, key: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """Yield a descriptor of the key's folder, and the file's name in it."""
        *folders, name = self._parts(key)
        with self._folder("/".join(folders), make=make) as folder:
            yield folder, name

    def _parts(self, key: str) -> list[str]:
        parts = key.split("/")
        if set(parts) & {"", ".", ".."} or "\0" in key:
            raise self._refusal(key, "is no key: it has an empty part, `.` or `..`")
        return parts

    def _open(self, key: str, flags: int, *, make: bool = False) -> IO[bytes]:
        """Open the key's file without blocking on pipes; raise CorruptArtifact unless it is a regular file."""
        with self._place(key, make=make) as (folder, name):
            try:
                descriptor = os.open(
                    name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o666, dir_fd=folder
                )
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
                    self._check_kind(key, os.stat(name, dir_fd=folder, follow_symlinks=False))
                raise
        try:
            self._check_kind(key, os.fstat(descriptor))
            return os.fdopen(descriptor, "rb" if flags & os.O_ACCMODE == os.O_RDONLY else "r+b")
        except BaseException:
            os.close(descriptor)
            raise

    def _status(self, key: str) -> os.stat_result | None:
        """Return the regular file's status, None if absent; raise CorruptArtifact for anything else."""
        try:
            with self._place(key) as (folder, name):
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._error("read", key, error) from error
        self._check_kind(key, status)
        return status

    def _check_kind(self, key: str, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            kind = KINDS.get(stat.S_IFMT(status.st_mode), "a device")
            raise self._refusal(key, f"is {kind}, where only a regular file may be")

    def _refuse_link(self, folder: int, name: str, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                raise self._refusal(key, f"leads through {name}, a symbolic link, and none is followed below a store")

    def _refusal(self, key: str, reason: str) -> CorruptArtifact:
        return CorruptArtifact(f"store {self.uri}: {key} {reason}", next=f"ls -lR {shlex.quote(self.uri)}")

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
        """Return the error for a file system that lacks a function which a store needs."""
        return StoreError(
            f"store {self.uri}: its file system has no {what} ({error.strerror or error}); use a folder on another one",
            next=f"findmnt -T {shlex.quote(self.uri)}",
        )


def _make_folder(path: Path) -> None:
    """Make a folder and its missing parents, so that they survive a power failure."""
    missing = list(itertools.takewhile(lambda folder: not folder.is_dir(), (path, *path.parents)))
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        descriptor = os.open(folder.parent, os.O_RDONLY)
        try:
            _sync_folder(descriptor)
        finally:
            os.close(descriptor)


def _sync_folder(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_OFFERED:  # some network file systems sync folders themselves
            raise


def _temporary_name(name: str) -> str:
    return f".{name}.{uuid.uuid4().hex}"


@contextlib.contextmanager
def _temporary(folder: int, name: str, fill: Callable[[IO[bytes]], object]) -> Iterator[str]:
    """Yield the name of a new file beside `name`, filled and synced; remove it afterwards unless it was renamed."""
    temporary = _temporary_name(name)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(temporary, flags, 0o666, dir_fd=folder), "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
