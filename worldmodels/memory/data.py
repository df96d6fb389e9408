"""Windows of latents for truncated back-propagation: groups of episodes, window after window, with carried state.

An epoch is a permutation of the shards, cut into pools; a pool's episodes are permuted and cut into groups. The order
depends only on (seed, epoch). A window never reaches into another episode, and steps after an episode's end are masked.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..context import Shard
from ..training.stream import READERS, START, Cache, Mark, Position, ahead, walk
from ..vision import latents
from ..vision.latents import Latents

T = TypeVar("T")
Floats = NDArray[np.float32]
POOL_FRAMES = 1_000_000
"""Frames whose episodes are shuffled together, 270 MB at Z = 32: a constant that determines the data order."""
HELD_OUT, DRAW = 1, 2


@dataclass(frozen=True)
class Window:
    """S steps of B episodes; frame S is only a target. `mask` [B, S] is 1 where the step and its target exist."""

    mean: Floats  # [B, S + 1, Z]
    logvar: Floats  # [B, S + 1, Z]
    actions: Floats  # [B, S, A]
    mask: Floats  # [B, S]
    first: bool  # of its episodes, so the state before it is zero


class Episodes:
    """The split of the shards' episodes into training and held-out ones, from their lengths alone."""

    def __init__(
        self,
        shards: Sequence[Shard],
        actions: int,
        seed: int,
        held_out: float,
        cache_bytes: int,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """Split the episodes, whose actions have the length `actions`.

        A shard's split depends on earlier shards only, so later shards do not change it. `beat` is called after every
        shard of a pass over all shards; the first pass takes place here.
        """
        self._beat = beat
        self.lengths = [n for _, n in self._beating(ahead(shards, latents.lengths, READERS))]
        self._held = [np.zeros(len(n), np.bool_) for n in self.lengths]
        self._trained = [n > 1 for n in self.lengths]  # an episode of one frame has no target
        due = 0
        for i, usable in enumerate(self._trained):
            before, due = due, due + int(usable.sum())
            count = _share(held_out, due) - _share(held_out, before)
            lots = np.random.default_rng([seed, HELD_OUT, i]).permutation(np.flatnonzero(usable))
            self._held[i][lots[:count]] = True
            self._trained[i] = usable & ~self._held[i]
        self.load = Cache(lambda i: latents.read(shards[i], actions), _bytes, cache_bytes)
        self.seed = seed
        self.per_pool = POOL_FRAMES // max(int(n.sum()) for n in self.lengths)

    @property
    def trained(self) -> int:
        return int(sum(mask.sum() for mask in self._trained))

    @property
    def held(self) -> int:
        return int(sum(mask.sum() for mask in self._held))

    def longest(self) -> int:
        """Return the steps of the longest episode."""
        return int(max(n.max() for n in self.lengths)) - 1

    def training(self, shards: Sequence[int]) -> list[Latents]:
        loaded = zip(shards, self.load(shards), strict=True)
        return [episode for i, found in loaded for _, episode in _chosen(found, self._trained[i])]

    def all_training(self) -> Iterator[Latents]:
        """Yield the episodes of `training` for all shards, with a few shards in memory at a time."""
        for shard, found in self._pass(self._trained):
            for _, episode in _chosen(found, self._trained[shard]):
                yield episode

    def held_out(self) -> Iterator[tuple[Latents, Floats]]:
        """Yield held-out episodes and their z [T, Z], always the same draws.

        Latents are copied, because a view would keep its whole shard in memory.
        """
        for shard, found in self._pass(self._held):
            for number, episode in _chosen(found, self._held[shard]):
                rng = np.random.default_rng([self.seed, DRAW, shard, number])
                noise = rng.standard_normal(episode.mean.shape, dtype=np.float32)
                z = (episode.mean + np.exp(episode.logvar / 2) * noise).astype(np.float32)
                yield Latents(episode.mean.copy(), episode.logvar.copy(), episode.actions.copy()), z

    def _pass(self, masks: Sequence[NDArray[np.bool_]]) -> Iterator[tuple[int, list[Latents]]]:
        shards = [shard for shard, mask in enumerate(masks) if mask.any()]
        return self._beating(zip(shards, self.load.each(shards), strict=True))

    def _beating(self, items: Iterator[T]) -> Iterator[T]:
        for item in items:
            self._beat()
            yield item


def _chosen(episodes: Sequence[Latents], mask: NDArray[np.bool_]) -> list[tuple[int, Latents]]:
    return [(number, episodes[number]) for number in np.flatnonzero(mask).tolist()]


def _share(part: float, whole: int) -> int:
    """Return the part of a whole, rounded up: at least 1 if both are positive."""
    return math.ceil(part * whole - 1e-9)


def _bytes(episodes: Sequence[Latents]) -> int:
    return sum(e.mean.nbytes + e.logvar.nbytes + e.actions.nbytes for e in episodes)


def windows(
    episodes: Episodes, *, batch: int, sequence: int, epochs: int, start: Position = START
) -> Iterator[tuple[Window, Mark]]:
    """Yield all training windows from `start` on, in order; a pool's last group may have fewer episodes."""

    def split(found: list[Latents], rng: np.random.Generator) -> list[tuple[list[Latents], int]]:
        order = rng.permutation(len(found))
        groups = [[found[i] for i in order[at : at + batch]] for at in range(0, len(found), batch)]
        return [(group, at) for group in groups for at in range(0, max(len(e.mean) for e in group) - 1, sequence)]

    shards, seed = len(episodes.lengths), episodes.seed
    units = walk(shards, episodes.per_pool, episodes.training, split, epochs=epochs, seed=seed, start=start)
    for (group, at), mark in units:
        yield cut(group, at, sequence), mark


def cut(group: Sequence[Latents], at: int, sequence: int) -> Window:
    """Return the steps at..at+S of every episode of a group, padded with zeros."""

    def padded(arrays: Sequence[Floats], size: int) -> Floats:
        out = np.zeros((len(arrays), size, arrays[0].shape[1]), np.float32)
        for row, array in zip(out, arrays, strict=True):
            part = array[at : at + size]
            row[: len(part)] = part
        return out

    steps = np.array([len(e.mean) - 1 - at for e in group])
    return Window(
        mean=padded([e.mean for e in group], sequence + 1),
        logvar=padded([e.logvar for e in group], sequence + 1),
        actions=padded([e.actions for e in group], sequence),
        mask=(np.arange(sequence) < steps[:, None]).astype(np.float32),
        first=at == 0,
    )
