"""The checks of `wm doctor` on a store, in a folder of their own in that store."""

import contextlib
import time
from collections.abc import Callable, Iterator

from ..errors import StoreError
from ..store import LocalStore, Store
from .checks import Finding, examine
from .folder import FolderVisit
from .store_checks import StoreChecks

# `wm doctor` reports an unreachable store soon; `wm run` waits longer.
DEADLINE_SECONDS = 8.0


def check(store: Store, clock: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Yield a finding per check, and leave nothing in the store. `clock` is this machine's, in Unix seconds."""
    here = FolderVisit(store, clock) if isinstance(store, LocalStore) else _bucket(store, clock)
    try:
        yield from examine(here.checks())
    except BaseException:
        with contextlib.suppress(StoreError):
            here.clear()
        raise


def _bucket(store: Store, clock: Callable[[], float]) -> StoreChecks:
    from .bucket import BucketVisit  # needs boto3, as the store does

    return BucketVisit(store, clock)  # type: ignore[arg-type]
