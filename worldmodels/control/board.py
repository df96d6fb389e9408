"""One worker's knowledge of a generation's blocks, and its choice of the next block."""

import logging
import math
import random
import re
from collections.abc import Iterable

from ..context import Workspace
from ..errors import StoreError
from .members import Members, holder
from .pace import Pace
from .records import BlockResult, Generation, GenerationResult, claim_key, gather, result_key
from .runtime import Runtime
from .status import Status

TRIES = 2  # failed claims of other workers' blocks between two searches; 1 with many workers
LOTS = 4  # of many workers, at least this many try to claim blocks at once
SLACK = 0.5  # episodes: an own block may end this late, because another worker would end it later
UNREAD = (-1, "")
OF_BLOCK = re.compile(r"(results|claims)/([0-9]{5,7})(?:-([0-9]{1,7}))?")


class Board:
    """The blocks of one generation: done, claimed, free.

    A worker takes its own blocks, the largest first; the first of them need no claim. Then it takes blocks that no
    worker has claimed, or whose worker is gone; at last those that are late. Claims only save work: every worker gets
    the same result for a block, and the store keeps only the first.
    """

    def __init__(
        self,
        area: Workspace,
        generation: Generation,
        members: Members,
        pace: Pace,
        log: logging.Logger,
        host: Runtime,
        *,
        joining: bool = False,
    ) -> None:
        """Create the board; a process that is `joining` has just started and may find claims of its predecessor."""
        self.generation = generation
        self.done: set[int] = set()
        self.began = host.now()
        self.seen = 0.0  # seconds from the beginning to the state of the known claims and results
        self.attempts: dict[int, int] = {}  # claims of each block, as far as known
        self.void: dict[int, int] = {}  # blocks that no worker drives, with their number of claims
        self.stale = False  # other workers have begun to take this worker's blocks
        self._area, self._members, self._pace, self._log, self._host = area, members, pace, log, host
        self._joining = joining
        self._results: dict[int, BlockResult] = {}
        self._taken: set[int] = set()
        self._tried: dict[int, int] = {}  # least number of claims of each block, from this worker's own attempts
        self._own = list(generation.owned.get(members.worker, ()))
        self._holders: dict[tuple[int, int], tuple[int, str]] = {}
        self._free: list[int] = []
        self._tries = 0
        self._place = 0
        self._chance = random.Random(generation.number << 32 | members.worker)

    @property
    def complete(self) -> bool:
        return len(self.done) == len(self.generation.blocks)

    @property
    def own(self) -> int:
        """Return the number of episodes in this worker's blocks that it has not begun."""
        return sum(self.generation.blocks[i].count for i in self._own if i not in self.done)

    @property
    def elapsed(self) -> float:
        return self._host.now() - self.began

    @property
    def missing(self) -> list[int]:
        return sorted(self.generation.all - self.done)

    # From the leader.

    def hear(self, status: Status | None) -> None:
        """Update the board with the leader's status."""
        self.stale = False
        if status is None or status.generation != self.generation.number:
            return
        self.began = min(self.began, self._host.now() - status.elapsed)
        self.seen = max(self.seen, status.seen)
        self.done |= status.finished & self.generation.all
        self.attempts = {**status.claims, **{i: n for i, n in self._tried.items() if n > status.claims.get(i, 0)}}
        self.void = {block: status.claims.get(block, 0) for block in status.void if block in self.generation.all}

    # Driving.

    def next_own(self, playing: int) -> int | None:
        """Return this worker's next block, claimed if necessary; it has `playing` episodes in progress.

        The next block is the largest that the worker can finish in time. If none fits, it is the smallest, once at most
        one episode is in progress; until then, other workers may take it. Return None if there is none. If other
        workers have begun to take its blocks, also set `stale`: then the caller should read the leader's status.
        """
        now = self.generation
        self._own = [i for i in self._own if i not in self.done]
        room = self._room(playing)
        while self._own:
            fits = (i for i in self._own if i in now.firm or self._steps(i) <= room)
            index = next(fits, self._own[-1] if playing <= 1 or self._pace.workers == 1 else -1)
            if index < 0:
                return None
            self._own.remove(index)
            if self._get_own(index):
                return index
            if self.stale:
                return None
        return None

    def steal(self, playing: int) -> int | None:
        """Claim another worker's block; return None if there is none to take before the next `search`.

        While episodes are in progress, take only blocks that this worker can finish in time: their owners may be about
        to begin them.
        """
        room = self._room(playing) if playing and self.elapsed < self._pace.expected else math.inf
        while self._free and self._tries and self._steps(self._free[-1]) <= room:
            index = self._free.pop()
            if index not in self.done and index not in self._taken:
                if self._claim(index):
                    return index
                self._tries -= 1
        return None

    def in_turn(self) -> bool:
        """Return whether this worker may search now: of many idle workers, only a random part does so at a time."""
        self._place = self._chance.randrange(self._pace.workers)  # random, because a fixed first worker may be gone
        return self._place < self._pace.timing.crowd

    def search(self) -> None:
        """Find blocks worth taking in the known state. Of many workers, about two try to claim each block."""
        self._free = self._worth_taking()
        self._tries = 1 if self._crowded else TRIES
        if self._crowded and self._place >= max(LOTS, 2 * len(self._free)):
            self._free.clear()

    def finish(self, index: int, result: BlockResult) -> None:
        """Commit a block's result; keep another worker's result if it was there first."""
        data = result.encode()
        key = result_key(self.generation.number, index)
        if not self._area.create(key, data):
            if self._area.get(key) != data:
                self._log.warning("generation %d block %d: two workers' scores differ", self.generation.number, index)
        else:
            self._results[index] = result
        self._taken.discard(index)
        self.done.add(index)

    def _steps(self, index: int) -> float:
        return self.generation.lengths.steps(self.generation.blocks[index])

    def _room(self, playing: int) -> float:
        """Return the steps that this worker can do in time besides `playing` episodes; inf if unknown."""
        if not self._members.rate or math.isinf(self._pace.expected):
            return math.inf
        own = (SLACK - playing) * self.generation.lengths.training
        return (self._pace.expected - self.elapsed) * self._members.rate + own

    def _get_own(self, index: int) -> bool:
        if index in self.generation.firm:
            self._taken.add(index)
            return True
        believed = not self.attempts.get(index)
        if believed and self._claim(index):
            return True
        if self._joining:
            worker, _ = holder(self._area.get(claim_key(self.generation.number, index, 0)))
            if worker == self._members.worker:
                self._taken.add(index)
                return True
        self.stale = believed
        return False

    def _worth_taking(self) -> list[int]:
        """Return the blocks to take besides the own ones, the best last: free or void ones; else late ones.

        A free block that would delay all other workers is left out, unless they wait already. Many workers begin at
        different places of the list, to claim different blocks.
        """
        blocks, elapsed = self.generation.blocks, self.elapsed
        rate = self._members.rate
        left = self._pace.late - elapsed
        free = self.generation.loose.difference(self.attempts)
        free |= {i for i, claims in self.void.items() if self.attempts.get(i, 0) == claims}
        found = [
            i for i in free.difference(self.done, self._taken) if left < 0 or not rate or self._steps(i) <= left * rate
        ]
        if not found and self.seen > self._pace.late:
            found = [i for i in self.missing if i not in self._taken and self._pace.is_late(self.seen, self._held(i))]
        found.sort(key=lambda i: (blocks[i].count, i))
        start = self._members.worker * len(found) // max(1, self._pace.workers) if self._crowded else 0
        return found[len(found) - start :] + found[: len(found) - start]

    @property
    def _crowded(self) -> bool:
        return self._pace.workers > 2 * LOTS

    def _held(self, index: int) -> int:
        return self.attempts.get(index, 0) + (index in self.generation.firm)

    def _claim(self, index: int) -> bool:
        attempt = self.attempts.get(index, 0)
        self.attempts[index] = self._tried[index] = attempt + 1
        self.void.pop(index, None)
        if not self._area.create(claim_key(self.generation.number, index, attempt), self._members.claim()):
            return False
        self._taken.add(index)
        return True

    # For the leader.

    def look(self) -> None:
        """Read which blocks are claimed and done, and whose claims are void: one listing, and some claims."""
        self.seen = self.elapsed
        folder = f"generations/{self.generation.number:05d}/"
        for key in self._area.keys(folder):
            found = OF_BLOCK.fullmatch(key.removeprefix(folder))
            if found is None or int(found[2]) >= len(self.generation.blocks):
                continue
            block = int(found[2])
            if found[1] == "results":
                self.done.add(block)
            elif found[3]:
                self.attempts[block] = max(self.attempts.get(block, 0), int(found[3]) + 1)
        self._judge()

    def _judge(self) -> None:
        """Find the void blocks. A claim is read only when a second look finds it again."""
        missing = [i for i in self.missing if i not in self._taken]
        last = {i: (i, self.attempts[i] - 1) for i in missing if self.attempts.get(i)}
        unread = [pair for pair in last.values() if self._holders.get(pair) == UNREAD]
        keys = [claim_key(self.generation.number, *pair) for pair in unread]
        for pair, data in zip(unread, self._host.map(self._area.get, keys), strict=True):
            self._holders[pair] = holder(data)
        for pair in last.values():
            self._holders.setdefault(pair, UNREAD)
        self.void = {i: self.attempts.get(i, 0) for i in missing if self._is_void(i, last.get(i))}

    def _is_void(self, index: int, claim: tuple[int, int] | None) -> bool:
        if claim is None:
            return index in self.generation.firm and not self._members.lives(self.generation.blocks[index].owner)
        return self._holders[claim] != UNREAD and not self._members.lives(*self._holders[claim])

    def probe(self, blocks: Iterable[int]) -> None:
        """Read a few results by name, which is cheaper than a listing."""
        wanted = [i for i in blocks if i not in self.done]
        for index, data in zip(wanted, self._host.map(self._area.get, self._keys(wanted)), strict=True):
            if data is not None:
                self._results[index] = self._decoded(index, data)
                self.done.add(index)

    def collect(self) -> None:
        """Read the results that are done and not read yet. Raise StoreError if one of them is gone."""
        missing = [i for i in sorted(self.done) if i not in self._results]
        for index, data in zip(missing, self._host.map(self._area.get, self._keys(missing)), strict=True):
            if data is None:
                raise StoreError(
                    f"{result_key(self.generation.number, index)} was listed and is gone", next="wm run controller"
                )
            self._results[index] = self._decoded(index, data)

    def _decoded(self, index: int, data: bytes) -> BlockResult:
        return BlockResult.decode(data, result_key(self.generation.number, index), self.generation.blocks[index].count)

    def outcome(self) -> GenerationResult:
        return gather(self.generation, self._results)

    def abandoned(self) -> set[int]:
        """Return the owners of blocks that need no claim and that other workers have claimed."""
        return {self.generation.blocks[i].owner for i in self.generation.firm if self.attempts.get(i)}

    def _keys(self, blocks: list[int]) -> list[str]:
        return [result_key(self.generation.number, i) for i in blocks]
