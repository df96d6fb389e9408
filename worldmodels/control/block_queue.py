"""One worker's knowledge of a generation's blocks, and its choice of the next one to drive."""

import logging
import random
import re
from collections import deque

from ..context import Workspace
from ..errors import StoreError
from .pace import Pace
from .records import BlockResult, Generation, claim, claim_key, result_key
from .runtime import Runtime

PROBES = 12  # a listing costs as much as this many requests for one object
LOTS = 4  # of many idle workers, at least this many try to claim blocks at once
OF_BLOCK = re.compile(r"(results|claims)/([0-9]{5,7})(?:-([0-9]{1,7}))?")


class BlockQueue:
    """The blocks of one generation: done, claimed, free.

    A worker drives its own blocks in their order; the first is reserved for it, and it claims the others. Then it
    claims blocks that no worker has claimed; at last those whose last claim has passed its limit. Claims only save
    work: every worker gets the same scores for a block, and the store keeps only the first result.
    """

    def __init__(
        self,
        workspace: Workspace,
        generation: Generation,
        worker: int,
        pace: Pace,
        log: logging.Logger,
        runtime: Runtime,
        *,
        restarted: bool = False,
    ) -> None:
        """Create the queue; a process that has just `restarted` drives the own blocks that its predecessor claimed."""
        self.generation = generation
        self.done: set[int] = set()
        self.next_look = runtime.now()
        self._workspace, self._worker, self._pace, self._log, self._runtime = workspace, worker, pace, log, runtime
        self._restarted = restarted
        self._own = deque(generation.owned.get(worker, ()))
        self._begun: set[int] = set()
        self._claims: dict[int, int] = {}  # claims of each block, as far as known
        self._seen: dict[str, float] = {}  # when this worker first saw a claim, by the store's clock
        self._results: dict[int, BlockResult] = {}
        self._worth: list[int] = []  # blocks worth a claim, the best last
        self._chance = random.Random(generation.number << 32 | worker)
        if restarted:
            self.look()

    @property
    def complete(self) -> bool:
        return len(self.done) == len(self.generation.blocks)

    @property
    def own(self) -> int:
        """Return the number of episodes in this worker's blocks that it has not begun."""
        return sum(self.generation.blocks[i].count for i in self._own)

    def next_own(self) -> int | None:
        """Return this worker's next block, claimed if necessary; None if there is none."""
        while self._own:
            index = self._own.popleft()
            if index not in self.done and self._begin(index):
                return index
        return None

    def take(self) -> int | None:
        """Claim a block besides the own ones; None if there is none before `next_look`."""
        if not self._worth and self._runtime.now() >= self.next_look:
            self.look()
        while self._worth:
            index = self._worth.pop()
            if index in self.done or index in self._begun:
                continue
            if self._claim(index):
                return index
            self._worth.clear()
        return None

    def look(self) -> None:
        """Read which blocks are claimed and done, in one listing, and find those worth a claim."""
        folder = f"generations/{self.generation.number:05d}/"
        written, now = self._workspace.written(folder), self._workspace.now()
        began = min(written.pop(folder + "params", now), now)
        since: dict[int, float] = {}
        for key, time in written.items():
            found = OF_BLOCK.fullmatch(key.removeprefix(folder))
            if found is None or (index := int(found[2])) >= len(self.generation.blocks):
                continue
            if found[1] == "results":
                self.done.add(index)
            elif found[3] and int(found[3]) + 1 >= self._claims.get(index, 0):
                self._claims[index] = int(found[3]) + 1
                since[index] = min(time, self._seen.setdefault(key, now))  # its clock may be ahead
        self._choose({i: since.get(i, began) for i in self.missing if i not in self._begun})

    def finish(self, index: int, result: BlockResult) -> None:
        """Commit a block's result; if another worker's is there, keep that one."""
        key = result_key(self.generation.number, index)
        if self._workspace.create(key, result.encode()):
            self._results[index] = result
        elif data := self._workspace.get(key):
            self._keep(index, data)
            if self._results[index].scores != result.scores:
                self._log.warning("generation %d block %d: two workers' scores differ", self.generation.number, index)
        self.done.add(index)

    def collect(self) -> dict[int, BlockResult]:
        """Read the results that are not read yet, and return all; raise StoreError if a listed one is gone."""
        if len(self.missing) > PROBES:
            self.look()
        few = len(self.missing) <= PROBES
        wanted = [i for i in range(len(self.generation.blocks)) if i not in self._results and (few or i in self.done)]
        keys = [result_key(self.generation.number, i) for i in wanted]
        for index, key, data in zip(wanted, keys, self._runtime.map(self._workspace.get, keys), strict=True):
            if data is not None:
                self._keep(index, data)
            elif index in self.done:
                raise StoreError(f"{key} was listed and is gone", next="wm run controller")
        return self._results

    @property
    def missing(self) -> list[int]:
        return [i for i in range(len(self.generation.blocks)) if i not in self.done]

    def _keep(self, index: int, data: bytes) -> None:
        key, count = result_key(self.generation.number, index), self.generation.blocks[index].count
        self._results[index] = BlockResult.decode(data, key, count)
        self.done.add(index)

    def _begin(self, index: int) -> bool:
        """Return whether this worker drives its own block `index`: no other worker has claimed it."""
        if claims := self._claims.get(index, 0):
            last = claim_key(self.generation.number, index, claims - 1)
            mine = self._restarted and self._workspace.get(last) == claim(self._worker)
        else:
            mine = index in self.generation.reserved or self._claim(index)
            if not mine:
                self.look()  # other workers have begun to take this worker's blocks
        if mine:
            self._begun.add(index)
        return mine

    def _claim(self, index: int) -> bool:
        number = self._claims.get(index, 0)
        self._claims[index] = number + 1
        if not self._workspace.create(claim_key(self.generation.number, index, number), claim(self._worker)):
            return False
        self._begun.add(index)
        return True

    def _choose(self, since: dict[int, float]) -> None:
        """Find the blocks worth a claim: free ones, else those whose limit is over, by the store's clock.

        `since`: the time of each missing block's last claim, or of the generation's beginning. Of many idle workers,
        about two try to claim each block.
        """
        blocks, reserved = self.generation.blocks, self.generation.reserved
        claims = {i: self._claims.get(i, 0) + (i in reserved) for i in since}
        now = self._workspace.now()
        left = {i: since[i] + self._pace.limit(blocks[i], n) - now for i, n in claims.items() if n}
        worth = [i for i, n in claims.items() if not n] or [i for i, seconds in left.items() if seconds <= 0]
        chosen = self._chance.random() * self._pace.workers <= max(LOTS, 2 * len(worth))
        # The largest last; equal ones in random order, so that workers claim different ones.
        self._worth = sorted(worth if chosen else [], key=lambda i: (blocks[i].count, self._chance.random()))
        until = min([self._pace.rest, *left.values()]) if not worth else 0.0
        self.next_look = self._runtime.now() + max(self._pace.look, until)
