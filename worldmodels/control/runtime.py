"""Where the exchange gets its time and its threads from: this process, or a simulator that stands in for many."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

READERS = 64  # a leader reads as many results as there are workers, while all wait

A = TypeVar("A")
B = TypeVar("B")


class Joinable(Protocol):
    def is_alive(self) -> bool: ...
    def join(self, timeout: float | None = None) -> None: ...


class Runtime(Protocol):
    def now(self) -> float:
        """Seconds, from any beginning."""

    def condition(self) -> Any:
        """What `threading.Condition` is."""

    def event(self) -> Any:
        """What `threading.Event` is."""

    def start(self, run: Callable[[], None], name: str) -> Joinable:
        """A daemon thread."""

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        """Results in order, READERS calls at a time."""

    def close(self) -> None: ...


class Process:
    """The process that we are in."""

    now = staticmethod(time.monotonic)
    condition = staticmethod(threading.Condition)
    event = staticmethod(threading.Event)

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
