"""Data in shards as a stream for training: shuffled in bounded memory, decoded ahead, the same from any position on.

An epoch is a permutation of the shards, cut into pools; what is in a pool is shuffled together. Everything follows
from (seed, epoch), so a training that was stopped goes on at its next batch without replaying the earlier ones.
"""

import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
U = TypeVar("U")
Frames = NDArray[np.uint8]
POOL_FRAMES = 32_768
"""Frames shuffled together, 400 MB: part of the data order, hence a constant and no setting."""


class Position(NamedTuple):
    """Where the next unit (a batch of frames, a window of latents) begins."""

    epoch: int = 0
    pool: int = 0
    unit: int = 0


START = Position()


class Mark(NamedTuple):
    """What stands beside a unit: the position after it, and how many epochs are done with it."""

    after: Position
    done: float
    last_of_epoch: bool


class Cache(Generic[T]):
    """Decoded shards; beyond `limit` bytes the least recently used are dropped, never those of the last call."""

    def __init__(self, decode: Callable[[int], T], size: Callable[[T], int], limit: int) -> None:
        self._decode = decode
        self._size = size
        self._limit = limit
        self._kept: OrderedDict[int, T] = OrderedDict()
        self._lock = threading.Lock()  # training reads ahead while held-out episodes are scored

    def __call__(self, shards: Sequence[int]) -> list[T]:
        with self._lock:
            found = [self._one(shard) for shard in shards]
            while len(self._kept) > len(shards) and sum(map(self._size, self._kept.values())) > self._limit:
                self._kept.popitem(last=False)
            return found

    def _one(self, shard: int) -> T:
        if shard not in self._kept:
            self._kept[shard] = self._decode(shard)
        self._kept.move_to_end(shard)
        return self._kept[shard]


def pools(shards: int, per_pool: int, seed: int, epoch: int) -> list[list[int]]:
    """The shards of an epoch, pool by pool, of about equal size."""
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
    """Every unit from `start` on. `load(shards)` reads a pool, ahead of its use; `split` makes a pool's units."""
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
    """Batches of frames [B, 64, 64, 3]. Frames that fill no batch of their pool wait for another epoch's shuffle."""

    def split(arrays: list[Frames], rng: np.random.Generator) -> list[list[tuple[Frames, int]]]:
        rows = [(array, row) for array in arrays for row in range(len(array))]
        order, size = rng.permutation(len(rows)), max(1, min(batch, len(rows)))
        return [[rows[i] for i in order[at : at + size]] for at in range(0, len(rows) - size + 1, size)]

    for rows, mark in walk(shards, per_pool, load, split, epochs=epochs, seed=seed, start=start):
        yield np.stack([array[row] for array, row in rows]), mark


def ahead(items: Iterable[T], work: Callable[[T], Any]) -> Iterator[tuple[T, Any]]:
    """(item, work(item)) in order, the next one already being worked on in a thread."""
    with ThreadPoolExecutor(1) as thread:
        waiting: tuple[T, Any] | None = None
        for item in items:
            following = (item, thread.submit(work, item))
            if waiting:
                yield waiting[0], waiting[1].result()
            waiting = following
        if waiting:
            yield waiting[0], waiting[1].result()


def prefetch(items: Iterator[T], depth: int = 4) -> Generator[T, None, None]:
    """The same items, made in a thread up to `depth` ahead. Errors come out where they would have; closing stops it."""
    made: queue.Queue[tuple[bool, Any]] = queue.Queue(depth)
    stop = threading.Event()

    def put(entry: tuple[bool, Any]) -> None:
        while not stop.is_set():
            try:
                return made.put(entry, timeout=0.1)
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for item in items:
                put((True, item))
                if stop.is_set():
                    return
            put((False, None))
        except BaseException as error:
            put((False, error))

    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            more, item = made.get()
            if more:
                yield item
            elif item is None:
                return
            else:
                raise item
    finally:
        stop.set()
        thread.join(timeout=5)
