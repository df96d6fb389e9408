"""The checks for buckets only."""

import contextlib
from collections.abc import Callable

from ..errors import StoreError
from ..store.s3 import cleanup
from ..store.s3.store import S3Store
from .checks import Check, Finding, fail, ok, warn
from .store_checks import ANOTHER_STORE, StoreChecks

NO_SUCH_TAG = f'"{"0" * 32}"'


class BucketVisit(StoreChecks):
    store: S3Store

    def __init__(self, store: S3Store, clock: Callable[[], float]) -> None:
        super().__init__(store, clock)

    def place(self) -> list[Check]:
        return [Check("endpoint", self.endpoint), Check("list", self.listing, ("endpoint",))]

    def special(self) -> list[Check]:
        return [
            Check("replace if unchanged", self.if_match, ("create once",)),
            Check("unfinished uploads", self.uploads, ("write",)),
        ]

    def endpoint(self) -> Finding:
        try:
            self.store.folders("")
        except StoreError:
            if not self.store.answered:
                raise
        return ok(f"{self.store.endpoint} answers")

    def listing(self) -> Finding:
        self.store.folders("")
        return ok(f"{self.store.uri} is there and may be listed")

    def server_time(self) -> float:
        return self.store.now()

    def if_match(self) -> Finding:
        """Check If-Match, by which processes take over leases; results do not depend on it."""
        key = self.key("tag")
        tag = self.store.write_if(key, b"first", IfNoneMatch="*")
        wrong = self.store.write_if(key, b"second", IfMatch=NO_SUCH_TAG)
        right = self.store.write_if(key, b"third", IfMatch=tag or "")
        if wrong is None and right is not None and self.store.get(key) == b"third":
            return ok("If-Match is kept")
        return warn(
            "If-Match is not kept: when a lock has ended, two commands may take it at once; artifacts stay whole",
            ANOTHER_STORE,
        )

    def uploads(self) -> Finding:
        key = self.key("unfinished")
        id = cleanup.begin(self.store, key)
        try:
            listed = any(upload.id == id for upload in cleanup.uploads(self.store, self.corner))
        except StoreError as error:
            return warn(f"`wm gc` will not find uploads that were never completed: {error.message}", error.next)
        finally:
            cleanup.abort(self.store, key, id)
        if not listed:
            return warn("an upload that was begun is not listed: `wm gc` will not find such", "wm gc --help")
        if any(upload.id == id for upload in cleanup.uploads(self.store, self.corner)):
            return fail("an upload that was aborted is still there", ANOTHER_STORE)
        return ok("may be listed and aborted")

    def clear(self) -> Finding:
        keys = [entry.key for entry in self.store.entries(self.corner)]
        self.store.delete_many([*keys, self.key(".lock.lock")])
        with contextlib.suppress(StoreError):  # `uploads` has reported it
            for upload in cleanup.uploads(self.store, self.corner):
                self.store.discard(upload)
        return ok("nothing of these checks is left")
