"""Concurrent small requests."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

THREADS = 8  # fewer than a client's connections
PATIENCE_SECONDS = 1.0


def each(work: Callable[[T], R], items: Iterable[T], threads: int = THREADS) -> Iterator[R]:
    """Yield the results of `work`, in any order; raise its first error.

    Daemon threads do the work: unlike an executor's, they do not delay the end of a process.
    """
    tasks: queue.SimpleQueue[T] = queue.SimpleQueue()
    count = 0
    for item in items:
        tasks.put(item)
        count += 1
    done: queue.SimpleQueue[tuple[R | None, BaseException | None]] = queue.SimpleQueue()
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            try:
                item = tasks.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((work(item), None))
            except BaseException as error:
                done.put((None, error))

    workers = [threading.Thread(target=run, daemon=True) for _ in range(min(threads, count))]
    for worker in workers:
        worker.start()
    try:
        for _ in range(count):
            result, error = done.get()
            if error is not None:
                raise error
            yield result  # type: ignore[misc]
    finally:
        stop.set()
        patience = time.monotonic() + PATIENCE_SECONDS
        for worker in workers:
            worker.join(max(0.0, patience - time.monotonic()))
