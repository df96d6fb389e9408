"""The list of a generation's blocks: which candidate, which of its tracks, and whose turn it is first."""

from collections.abc import Sequence
from dataclasses import dataclass

MEAN = -1


@dataclass(frozen=True)
class Block:
    """Tracks `first` to `first + count` of one candidate; if that is MEAN, of the mean's validation tracks."""

    candidate: int
    first: int
    count: int
    owner: int


def divide(population: int, tracks: int, validation: int, workers: Sequence[int]) -> list[Block]:
    """Blocks of a generation, the largest first, dealt in turn to `workers`.

    Guided self-scheduling (Polychronopoulos & Kuck 1987): a block holds at most 1/(2 W) of the episodes that are left,
    so the list ends with single episodes and no worker waits long for another's last one. A block never spans two
    candidates.
    The mean's come first: its episodes are never ended early, so they are the longest.
    """
    blocks: list[Block] = []
    left = population * tracks + validation
    for candidate in range(MEAN if validation else 0, population):
        first, end = 0, validation if candidate == MEAN else tracks
        while first < end:
            count = min(end - first, -(-left // (2 * len(workers))))
            blocks.append(Block(candidate, first, count, workers[len(blocks) % len(workers)]))
            first += count
            left -= count
    return blocks
