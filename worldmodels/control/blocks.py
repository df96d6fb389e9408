"""The list of a generation's blocks: which candidate, which of its tracks, and whose turn it is first."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

MEAN = -1
FINEST = 64  # no block is less than that part of its owner's share, unless it is a single episode


@dataclass(frozen=True)
class Block:
    """Tracks `first` to `first + count` of one candidate; if that is MEAN, of the mean's validation tracks."""

    candidate: int
    first: int
    count: int
    owner: int


@dataclass(frozen=True)
class Lengths:
    """Environment steps that an episode is expected to last: a candidate's, and one of the mean."""

    training: float = 1.0
    validating: float = 1.0

    def steps(self, block: Block) -> float:
        return block.count * (self.validating if block.candidate == MEAN else self.training)


def known(rates: Mapping[int, float]) -> dict[int, float]:
    """Steps per second of every worker: the median for one that has not been measured (0), 1 if none has."""
    usual = median([rate for rate in rates.values() if rate > 0] or [1.0])
    return {worker: rate if rate > 0 else usual for worker, rate in rates.items()}


def divide(
    population: int, tracks: int, validation: int, rates: Mapping[int, float], lengths: Lengths = Lengths()
) -> list[Block]:
    """Blocks of a generation, the largest first, dealt to the workers of `rates` (steps/s; 0: not measured).

    Guided self-scheduling (Polychronopoulos & Kuck 1987) on time, in batches (Hummel, Schonberg & Flynn 1992): each
    block goes to whoever would be done with it first, and holds at most half of that worker's share of the steps that
    were left when the batch began; so the list ends with small blocks, and no worker waits long for another's last one.
    Who is too slow for a single episode gets none.
    The mean's come first: its episodes are never ended early, so they are the longest. A block never spans two
    candidates.
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


def firm(blocks: Sequence[Block], lengths: Lengths) -> frozenset[int]:
    """Blocks that are their owner's without a claim: its first, and more up to a quarter of its steps.

    They save claims. All others are for whoever is free, so a worker may be four times slower than expected.
    """
    total: dict[int, float] = {}
    for block in blocks:
        total[block.owner] = total.get(block.owner, 0.0) + lengths.steps(block)
    given = dict.fromkeys(total, 0.0)
    found = []
    for index, block in enumerate(blocks):
        first = given[block.owner] == 0
        given[block.owner] += lengths.steps(block)
        if first or given[block.owner] <= total[block.owner] / 4:
            found.append(index)
    return frozenset(found)
