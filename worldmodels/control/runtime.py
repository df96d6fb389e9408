"""Time and threads of the exchange: this process, or a simulation of many."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

READERS = 64  # parallel reads: all workers wait while the leader reads their results

A = TypeVar("A")
B = TypeVar("B")


class Joinable(Protocol):
    def is_alive(self) -> bool: ...
    def join(self, timeout: float | None = None) -> None: ...


class Runtime(Protocol):
    def now(self) -> float:
        """Return the seconds since any fixed time."""

    def condition(self) -> Any:
        """Return an object like `threading.Condition`."""

    def start(self, run: Callable[[], None], name: str) -> Joinable:
        """Start a daemon thread."""

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        """Yield results in order, with READERS calls at a time."""

    def close(self) -> None: ...


class Process:
    """The current process."""

    now = staticmethod(time.monotonic)
    condition = staticmethod(threading.Condition)

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(READERS)

    def start(self, run: Callable[[], None], name: str) -> Joinable:
        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        return self._pool.map(function, items)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
