"""What one worker knows of a generation's blocks, and which one it takes next."""

import logging
import time
from collections.abc import Callable, Iterable

from ..errors import StoreError
from ..task import Area
from .members import Members, Timing
from .records import BlockResult, Generation, Outcome, claim_key, gather, result_key

SLOWEST_FACTOR = 4


class Board:
    """Blocks of one generation: done, claimed, free.

    A worker takes its own blocks in order, then anyone's that nobody claimed, the largest first, then those whose claim
    is void: its worker is gone, or late. Claims merely save work: whoever plays a block, its result is the same, and
    only the first one is kept.
    """

    def __init__(
        self, area: Area, generation: Generation, members: Members, timing: Timing, log: logging.Logger
    ) -> None:
        self.generation = generation
        self.done: set[int] = set()
        self.slowest = 0.0
        self._area = area
        self._members = members
        self._timing = timing
        self._log = log
        self._results: dict[int, BlockResult] = {}
        self._attempts = [0] * len(generation.blocks)
        self._taken: set[int] = set()
        self._own = [i for i, block in enumerate(generation.blocks) if block.owner == members.worker]
        self._free: list[int] = []
        self.looked = self._searched = -1e9

    @property
    def complete(self) -> bool:
        return len(self.done) == len(self.generation.blocks)

    @property
    def own(self) -> int:
        """Episodes of this worker's blocks that it has not begun."""
        return sum(self.generation.blocks[i].count for i in self._own if i not in self.done)

    def look(self) -> None:
        """Read which blocks are claimed and done. One listing."""
        claims: dict[int, int] = {}
        for key in self._area.keys(f"generations/{self.generation.number:05d}/"):
            _, _, kind, *name = key.split("/")
            if kind == "results":
                self.done.add(int(name[0]))
            elif kind == "claims":
                block, _, attempt = name[0].partition("-")
                claims[int(block)] = max(claims.get(int(block), 0), int(attempt) + 1)
        for index, attempts in claims.items():
            self._attempts[index] = max(self._attempts[index], attempts)
        self.looked = time.monotonic()

    def next_own(self) -> int | None:
        """Claim this worker's next block."""
        while self._own:
            index = self._own.pop(0)
            if index not in self.done and not self._attempts[index] and self._claim(index):
                return index
        return None

    def steal(self) -> int | None:
        """Claim somebody else's block, or None while there is none to take. Searches at most every `look` seconds."""
        if not self._free and time.monotonic() - self._searched >= self._timing.look:
            self._searched = time.monotonic()
            self.look()
            self._free = [i for i, tries in enumerate(self._attempts) if not tries and i not in self.done]
            self._free = self._free or [i for i in range(len(self._attempts)) if self._void(i)]
            self._free.sort(key=lambda i: (self.generation.blocks[i].count, i))
        while self._free:
            index = self._free.pop()
            if index not in self.done and self._claim(index):
                return index
        return None

    def finish(self, index: int, result: BlockResult, seconds: float) -> None:
        """Commit a block's result; another worker's stays if it was there first."""
        data = result.encode()
        key = result_key(self.generation.number, index)
        if not self._area.create(key, data):
            if self._area.get(key) != data:
                self._log.warning("generation %d block %d: two workers' scores differ", self.generation.number, index)
        else:
            self._results[index] = result
        self._taken.discard(index)
        self.done.add(index)
        self.slowest = max(self.slowest, seconds)

    def collect(self, map_all: Callable[..., Iterable[bytes | None]]) -> None:
        """Read the results that are done and not read yet."""
        missing = [i for i in sorted(self.done) if i not in self._results]
        for index, data in zip(missing, map_all(self._area.get, self._keys(missing)), strict=True):
            if data is None:
                raise StoreError(
                    f"{result_key(self.generation.number, index)} was listed and is gone", next="wm run controller"
                )
            self._results[index] = BlockResult.decode(data, result_key(self.generation.number, index))

    def outcome(self) -> Outcome:
        return gather(self.generation, self._results)

    def _keys(self, blocks: list[int]) -> list[str]:
        return [result_key(self.generation.number, i) for i in blocks]

    def _claim(self, index: int) -> bool:
        attempt = self._attempts[index]
        self._attempts[index] += 1
        if not self._area.create(claim_key(self.generation.number, index, attempt), self._members.claim()):
            return False
        self._taken.add(index)
        return True

    def _void(self, index: int) -> bool:
        """Is the block's last claim worth nothing?"""
        if index in self.done or index in self._taken:
            return False
        key = claim_key(self.generation.number, index, self._attempts[index] - 1)
        claim = self._area.get(key)
        if claim is None or not self._members.lives(claim):
            return True
        return (self._area.age(key) or 0.0) > max(self._timing.overdue, SLOWEST_FACTOR * self.slowest)
