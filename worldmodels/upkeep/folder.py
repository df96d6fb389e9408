"""The checks for folders only."""

import contextlib
import shutil
from collections.abc import Callable

from ..store import LocalStore
from .checks import Check, Finding, fail, ok, warn
from .store_checks import ANOTHER_STORE, StoreChecks

LITTLE_SPACE_BYTES = 2e9


class FolderVisit(StoreChecks):
    """The checks of a folder; if it does not exist, the checks make it and remove it again."""

    store: LocalStore

    def __init__(self, store: LocalStore, clock: Callable[[], float]) -> None:
        super().__init__(store, clock)
        self._made = [path for path in (store.root, *store.root.parents) if not path.exists()]

    def place(self) -> list[Check]:
        return [Check("folder", self.folder), Check("space", self.space, ("folder",))]

    def folder(self) -> Finding:
        root = self.store.root
        if root.exists() and not root.is_dir():
            return fail(f"{self.store.uri} is no folder", ANOTHER_STORE)
        return ok(f"{root}" if root.is_dir() else f"{root} is not there yet; the first command makes it")

    def space(self) -> Finding:
        usage = shutil.disk_usage(next(path for path in (self.store.root, *self.store.root.parents) if path.exists()))
        words = f"{usage.free / 1e9:.1f} GB of {usage.total / 1e9:.0f} GB are free"
        return ok(words) if usage.free > LITTLE_SPACE_BYTES else warn(words, f"df -h {self.store.uri}")

    def clear(self) -> Finding:
        shutil.rmtree(self.store.root / self.corner, ignore_errors=True)
        for path in self._made:
            with contextlib.suppress(OSError):  # another command has begun to use it
                path.rmdir()
        if (left := self.store.root / self.corner).exists():
            return fail(f"left behind: {left}", f"rm -r {left}")
        return ok("nothing of these checks is left")
