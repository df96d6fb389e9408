"""Sharded data as a stream for training: shuffled in bounded memory, decoded ahead, reproducible from any position.

An epoch is a permutation of the shards, cut into pools; the contents of a pool are shuffled together. The order depends
only on (seed, epoch), so a stopped training continues at its next batch without replaying the earlier ones.
"""

import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
U = TypeVar("U")
Frames = NDArray[np.uint8]
POOL_FRAMES = 32_768
"""Frames shuffled together, 400 MB: a constant, because it determines the data order."""
READERS = 4
"""Shards read and decoded at once; each takes memory in addition to the cache."""
POLL_SECONDS = 0.5


class Position(NamedTuple):
    """The place where the next unit (a batch of frames, a window of latents) begins."""

    epoch: int = 0
    pool: int = 0
    unit: int = 0


START = Position()


class Mark(NamedTuple):
    """A unit's place: the position after it, the number of epochs done with it, and whether it ends its epoch."""

    after: Position
    done: float
    last_of_epoch: bool


class Cache(Generic[T]):
    """Decoded shards up to `limit` bytes, including those being decoded; the least recently used are dropped first.

    A dropped shard stays in memory while it is in use. A training therefore needs at least two pools: the one that it
    trains on, and the one that it reads ahead. Threads may share a cache.
    """

    def __init__(self, decode: Callable[[int], T], size: Callable[[T], int], limit: int) -> None:
        self._decode = decode
        self._size = size
        self._limit = limit
        self._kept: OrderedDict[int, T] = OrderedDict()
        self._used = self._coming = self._largest = 0  # bytes
        self._lock = threading.Lock()  # training reads ahead while held-out episodes are scored

    def __call__(self, shards: Sequence[int]) -> list[T]:
        """Return all of the shards; several are read at once."""
        return [found for _, found in ahead(shards, self._one, READERS)]

    def each(self, shards: Sequence[int]) -> Iterator[T]:
        """Yield one shard after the other, read ahead. Keep it only if there is room: a full pass drops nothing."""
        for _, found in ahead(shards, partial(self._one, passing=True), READERS):
            yield found

    def _one(self, shard: int, passing: bool = False) -> T:
        with self._lock:
            if shard in self._kept:
                self._kept.move_to_end(shard)
                return self._kept[shard]
            coming = 0 if passing else self._largest
            self._come(coming)
        try:
            found = self._decode(shard)
        finally:
            with self._lock:
                self._come(-coming)
        with self._lock:
            size = self._size(found)
            self._largest = max(self._largest, size)
            if shard not in self._kept and not (passing and self._used + self._coming + size > self._limit):
                self._kept[shard] = found
                self._used += size
                self._come(0)
        return found

    def _come(self, size: int) -> None:
        """Reserve `size` more bytes for shards being decoded, and drop old shards to make room."""
        self._coming += size
        while self._kept and self._used + self._coming > self._limit:
            _, oldest = self._kept.popitem(last=False)
            self._used -= self._size(oldest)


def pools(shards: int, per_pool: int, seed: int, epoch: int) -> list[list[int]]:
    """Return the shards of an epoch, pool by pool, of about equal size."""
    order = np.random.default_rng([seed, epoch]).permutation(shards)
    parts = -(-shards // max(1, per_pool))
    return [sorted(part.tolist()) for part in np.array_split(order, parts)]


def walk(
    shards: int,
    per_pool: int,
    load: Callable[[Sequence[int]], T],
    split: Callable[[T, np.random.Generator], Sequence[U]],
    *,
    epochs: int,
    seed: int,
    start: Position = START,
) -> Iterator[tuple[U, Mark]]:
    """Yield every unit from `start` on. `load(shards)` reads a pool ahead of its use; `split` makes a pool's units."""
    todo = (
        (epoch, index, pool, len(parts))
        for epoch in range(start.epoch, epochs)
        for parts in [pools(shards, per_pool, seed, epoch)]
        for index, pool in enumerate(parts)
        if (epoch, index) >= (start.epoch, start.pool)
    )
    for (epoch, index, _, parts), loaded in ahead(todo, lambda item: load(item[2])):
        units = split(loaded, np.random.default_rng([seed, epoch, index]))
        first = start.unit if (epoch, index) == (start.epoch, start.pool) else 0
        for number, unit in enumerate(units[first:], first + 1):
            end_of_pool = number == len(units)
            last = end_of_pool and index + 1 == parts
            after = Position(epoch, index + 1) if end_of_pool else Position(epoch, index, number)
            done = epoch + (index + number / len(units)) / parts
            yield unit, Mark(Position(epoch + 1) if last else after, done, last)


def batches(
    load: Callable[[Sequence[int]], list[Frames]],
    shards: int,
    *,
    per_pool: int,
    batch: int,
    epochs: int,
    seed: int,
    start: Position = START,
) -> Iterator[tuple[Frames, Mark]]:
    """Yield batches of frames [B, 64, 64, 3]. An epoch leaves out the frames of a pool's incomplete last batch."""

    def split(arrays: list[Frames], rng: np.random.Generator) -> list[tuple[list[Frames], NDArray[np.int64]]]:
        count = sum(map(len, arrays))
        order, size = rng.permutation(count), max(1, min(batch, count))
        return [(arrays, order[at : at + size]) for at in range(0, count - size + 1, size)]

    for (arrays, rows), mark in walk(shards, per_pool, load, split, epochs=epochs, seed=seed, start=start):
        yield gather(arrays, rows), mark


def gather(arrays: Sequence[Frames], rows: NDArray[np.int64]) -> Frames:
    """Return those rows of the arrays' concatenation [B, ...], without concatenating."""
    ends = np.cumsum([len(array) for array in arrays])
    which = np.searchsorted(ends, rows, side="right")
    inside = rows - (ends - [len(array) for array in arrays])[which]
    return np.stack([arrays[i][row] for i, row in zip(which.tolist(), inside.tolist(), strict=True)])


def ahead(items: Iterable[T], work: Callable[[T], U], count: int = 1) -> Iterator[tuple[T, U]]:
    """Yield (item, work(item)) in order; threads already work on the next `count` items, one thread per item."""
    waiting: deque[tuple[T, Future[U]]] = deque()
    for item in items:
        waiting.append((item, _begin(work, item)))
        if len(waiting) > count:
            first, future = waiting.popleft()
            yield first, future.result()
    while waiting:
        first, future = waiting.popleft()
        yield first, future.result()


def _begin(work: Callable[[T], U], item: T) -> Future[U]:
    """Run in a daemon thread: a thread pool would delay the end of the process until a slow store responds."""
    future: Future[U] = Future()

    def run() -> None:
        try:
            future.set_result(work(item))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="ahead", daemon=True).start()
    return future


class Prefetch(Iterator[T]):
    """The same items, made in a thread up to `depth` ahead.

    `__next__` raises the thread's errors at the place of the failed item; `close` stops the thread.
    """

    def __init__(self, items: Iterator[T], depth: int = 4, waiting: Callable[[], None] = lambda: None) -> None:
        """Start the thread. `__next__` calls `waiting` regularly while no item is ready, and raises its errors."""
        self.waited = 0.0
        """Seconds for which the taker had to wait."""
        self._made: queue.Queue[tuple[bool, Any]] = queue.Queue(depth)
        self._waiting = waiting
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._produce, args=(items,), name="prefetch", daemon=True)
        self._thread.start()

    def __next__(self) -> T:
        began = time.monotonic()
        try:
            more, item = self._take()
        finally:
            self.waited += time.monotonic() - began
        if more:
            return item  # type: ignore[no-any-return]
        self._put((False, item))  # later calls end as well
        raise item or StopIteration

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=2)  # it may wait for an unreachable store

    def _take(self) -> tuple[bool, Any]:
        while not self._stop.is_set():
            try:
                return self._made.get(timeout=POLL_SECONDS)
            except queue.Empty:
                self._waiting()
        return False, None

    def _put(self, entry: tuple[bool, Any]) -> None:
        while not self._stop.is_set():
            try:
                return self._made.put(entry, timeout=0.1)
            except queue.Full:
                continue

    def _produce(self, items: Iterator[T]) -> None:
        try:
            for item in items:
                self._put((True, item))
                if self._stop.is_set():
                    return
            self._put((False, None))
        except BaseException as error:
            self._put((False, error))
