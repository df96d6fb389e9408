"""Division of a generation into blocks: the candidate, the tracks and the owner of each block."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

MEAN = -1
FINEST = 64  # blocks are at least 1 / FINEST of their owner's share, or a single episode, if tracks permit


@dataclass(frozen=True)
class Block:
    """Tracks `first` to `first + count` (exclusive) of one candidate; for candidate MEAN, of the validation tracks."""

    candidate: int
    first: int
    count: int
    owner: int


@dataclass(frozen=True)
class Lengths:
    """Expected environment steps of an episode: of a candidate, and of the mean."""

    training: float = 1.0
    validating: float = 1.0

    def steps(self, block: Block) -> float:
        return block.count * (self.validating if block.candidate == MEAN else self.training)


def known(rates: Mapping[int, float]) -> dict[int, float]:
    """Return every worker's steps per second; unmeasured workers (0) get the median, or 1 if none is measured."""
    usual = median([rate for rate in rates.values() if rate > 0] or [1.0])
    return {worker: rate if rate > 0 else usual for worker, rate in rates.items()}


def divide(
    population: int, tracks: int, validation: int, rates: Mapping[int, float], lengths: Lengths = Lengths()
) -> list[Block]:
    """Return a generation's blocks, each with its owner, one of the workers of `rates` (steps/s; 0: not measured).

    Guided self-scheduling (Polychronopoulos & Kuck 1987) on time, in batches (Hummel, Schonberg & Flynn 1992): each
    block goes to the worker that would finish it first, and holds at most half of that worker's share of the steps that
    were left when the batch began. The list begins with the largest blocks and ends with small ones, so workers wait
    only briefly for another worker's last block. A worker that is too slow for a single episode gets no block. The
    mean's blocks come first: its episodes never end early, so they are the longest. A block belongs to one candidate.
    """
    speed = known(rates)
    share = {worker: rate / sum(speed.values()) for worker, rate in speed.items()}
    batch = left = total = population * tracks * lengths.training + validation * lengths.validating
    ready = [(lengths.training / rate, worker, 0.0) for worker, rate in sorted(speed.items())]
    heapq.heapify(ready)
    blocks: list[Block] = []
    for candidate in range(MEAN if validation else 0, population):
        first, end, length = 0, tracks, lengths.training
        if candidate == MEAN:
            end, length = validation, lengths.validating
        while first < end:
            _, worker, steps = ready[0]
            batch = left if left <= batch / 2 else batch
            wanted = share[worker] * max(batch / 2, total / FINEST) / length
            count = min(end - first, max(1, int(wanted)))
            blocks.append(Block(candidate, first, count, worker))
            first += count
            left -= count * length
            steps += count * length
            heapq.heapreplace(ready, ((steps + length) / speed[worker], worker, steps))
    return blocks


def reserved(blocks: Sequence[Block]) -> frozenset[int]:
    """Return the blocks that need no claim: each owner's first."""
    first: dict[int, int] = {}
    for index, block in enumerate(blocks):
        first.setdefault(block.owner, index)
    return frozenset(first.values())
