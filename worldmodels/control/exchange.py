"""How workers share an evolution: one implementation for a process, a machine's processes, and pods.

Workers meet in an Area only. What is committed is created once, so any worker may die, wait, or do another's work at
any moment, and the results are the same bytes. Every process has two threads: the main one plays; the other exchanges,
and leads when it is its turn, so that no generation waits behind a leader's own block.

    exchange thread    newest generation -> claim blocks, commit results -> all there? tell, commit the next generation
    main thread        play what the exchange thread feeds it
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import TracebackType

from ..errors import Conflict
from ..rollouts.player import Job
from ..task import Area
from . import history
from .blocks import MEAN, divide
from .board import Board
from .evolution import Settings
from .feed import Closed, Episode, Feed, Limits, Speed, Superseded
from .history import Row
from .lineage import Lineage, ancestry
from .members import Members, Timing
from .records import Generation, Outcome, final_key, pack, params_key, unpack

READERS = 8
FEWEST_EPISODES = 4  # in flight per process: below that the cost of a Python step shows


@dataclass(frozen=True)
class Plan:
    """An evolution: its settings, how many generations in all, and the tracks of each."""

    settings: Settings
    generations: int
    training: Limits
    validating: Limits
    training_tracks: Callable[[int], tuple[int, ...]]
    validation_tracks: Callable[[int], tuple[int, ...]]  # () in a generation that does not score the mean


class Exchange:
    """This worker's part in an evolution; a context manager that runs the exchange thread."""

    def __init__(
        self,
        area: Area,
        plan: Plan,
        worker: int,
        lanes: int,
        log: logging.Logger,
        timing: Timing = Timing(),  # noqa: B008 - frozen
        told: Callable[[list[Row]], None] = lambda rows: None,
    ) -> None:
        """`told` is called in the exchange thread of the worker that leads, with the rows of all generations so far."""
        self.feed = Feed()
        self.files: dict[str, bytes] = {}
        self.done = 0.0  # generations, with the fraction of the one in hand that this worker knows of
        self.latest: Row | None = None
        self.members = Members(area, worker, timing)
        self._area, self._plan, self._lanes, self._log, self._timing, self._told = area, plan, lanes, log, timing, told
        self._lineage: Lineage | None = None
        self._pool = ThreadPoolExecutor(READERS)
        self._thread = threading.Thread(target=self._run, name="exchange", daemon=True)

    def __enter__(self) -> "Exchange":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.feed.close()
        self._thread.join(timeout=10)
        self.members.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        try:
            self.members.start()
            self.files = self._evolve()
            self.feed.end()
        except Closed:
            pass
        except BaseException as error:
            self.feed.end(error)

    def _evolve(self) -> dict[str, bytes]:
        self._agree()
        key = final_key(self._plan.generations)
        if data := self._area.get(key):
            return unpack(data)
        number = self._newest()
        stored = self._area.get(params_key(number)) or b""
        generation = Generation.decode(stored, params_key(number)) if number else self._first()
        while generation.number <= self._plan.generations:
            generation = self._play(generation)
        return unpack(self._commit(key, generation.alive, lambda: self._finals(generation)))

    def _agree(self) -> None:
        """Write down what the evolution follows from; Conflict if the area belongs to another one."""
        mine = self._plan.settings.encode()
        if not self._area.create("settings", mine) and (theirs := self._area.get("settings")) != mine:
            raise Conflict(
                f"this evolution is {mine.decode()}, the stored one {(theirs or b'').decode()}",
                next="wm show controller",
            )

    def _newest(self) -> int:
        """The newest generation of this area that counts, 0 if none: asks for a few keys, not for a long listing."""
        first = (self._plan.settings.start_from or 0) + 1
        low, high = first - 1, self._plan.generations + 2
        step = 1
        while low + step < high and self._is_there(low + step):
            low, step = low + step, 2 * step
        high = min(high, low + step)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._is_there(middle) else (low, middle)
        return low if low >= first else 0

    def _is_there(self, generation: int) -> bool:
        return self._area.age(params_key(generation)) is not None

    def _first(self) -> Generation:
        number = (self._plan.settings.start_from or 0) + 1
        alive = tuple(range(self.members.worker + 1))
        data = self._commit(params_key(number), alive, lambda: self._draw(number, None).encode())
        return Generation.decode(data, params_key(number))

    def _play(self, now: Generation) -> Generation:
        """Take part in a generation until the next one is committed."""
        self.feed.begin(now.number)
        self.latest = history.row(now) if now.before else self.latest
        board = Board(self._area, now, self.members, self._timing, self._log)
        board.look()
        leads, looked, key = now.alive[0] == self.members.worker, time.monotonic(), params_key(now.number + 1)
        self.members.watching = leads
        while not board.complete:
            self._upload(board)
            playing = self._fill(board)
            pause = self._timing.poll
            if not playing or time.monotonic() - looked >= self._timing.look:
                looked = time.monotonic()
                if data := self._area.get(key):
                    return Generation.decode(data, key)
                if leads or time.monotonic() - board.looked >= self._timing.look:
                    board.look()
                if leads:
                    board.collect(self._pool.map)
                # Ask for at most a tenth of the time, whatever a question costs.
                pause = min(self._timing.look, max(pause, 10 * (time.monotonic() - looked)))
            self.done = now.number - 1 + len(board.done) / len(now.blocks)
            if not board.complete:
                self.feed.pause(self._timing.look if playing else pause)
        return Generation.decode(self._commit(key, now.alive, lambda: self._tell(board)), key)

    def _upload(self, board: Board) -> None:
        while (block := self.feed.take()) is not None:
            board.finish(*block)

    def _fill(self, board: Board) -> bool:
        """Claim blocks until the lanes are full. Is there anything to play?

        No more episodes in flight than wait on this worker's list: so others can take some if it falls behind, and all
        end at about the same time. It costs little, since a process is hardly faster with more lanes. Others' blocks
        only once the lanes run dry.
        """
        now = board.generation
        while (playing := self.feed.outstanding()) < (wanted := 1 + min(self._lanes, max(FEWEST_EPISODES, board.own))):
            index = board.next_own()
            if index is None and playing <= wanted // 4:
                index = board.steal()
            if index is None:
                break
            self._feed(now, index)
        return playing > 0

    def _feed(self, now: Generation, index: int) -> None:
        block = now.blocks[index]
        mean = block.candidate == MEAN
        parameters = now.mean if mean else now.candidates[block.candidate]
        tracks = (now.validation if mean else now.tracks)[block.first : block.first + block.count]
        limits = self._plan.validating if mean else self._plan.training
        self.feed.add(index, limits, [Job((now.number, index, i), track, parameters) for i, track in enumerate(tracks)])

    # Leading.

    def _commit(self, key: str, alive: tuple[int, ...], make: Callable[[], bytes]) -> bytes:
        """The object `key`: made by the first of `alive`, or by one behind it, `takeover` seconds later for each."""
        began = time.monotonic()
        while (data := self._area.get(key)) is None:
            if self._turn(alive, time.monotonic() - began):
                data = make()
                if self._area.create(key, data):
                    return data
                self._lineage = None
                continue
            self.feed.pause(self._timing.poll)
        return data

    def _turn(self, alive: tuple[int, ...], waited: float) -> bool:
        me = self.members.worker
        before = alive[: alive.index(me)] if me in alive else alive
        if not before:
            return True
        if waited < self._timing.takeover:
            return False
        return waited >= self._timing.takeover * len(set(before) & set(self.members.alive()))

    def _state(self, generation: int) -> Lineage:
        """The evolution's state before `generation` is told."""
        if self._lineage is None or self._lineage.generation > generation:
            self._lineage = Lineage(ancestry(self._area, self._plan.settings), self._log, self.feed.tick)
        self._lineage.advance(generation)
        return self._lineage

    def _tell(self, board: Board) -> bytes:
        now = board.generation
        board.collect(self._pool.map)
        outcome = board.outcome()
        lineage = self._state(now.number)
        lineage.tell(now, outcome)
        self._told(lineage.rows)
        return self._draw(now.number + 1, outcome).encode()

    def _draw(self, number: int, before: Outcome | None) -> Generation:
        """Ask for generation `number` and divide its work."""
        candidates, mean, sigma = self._state(number).ask()
        plan, me = self._plan, self.members.worker
        workers = self.members.alive()
        tracks, validation = plan.training_tracks(number), plan.validation_tracks(number)
        blocks = divide(len(candidates), len(tracks), len(validation), workers)
        alive = (me, *(worker for worker in workers if worker != me))
        return Generation(number, candidates, mean, sigma, tracks, validation, tuple(blocks), alive, before)

    def _finals(self, after: Generation) -> bytes:
        lineage = self._state(after.number)
        self._told(lineage.rows)
        assert lineage.best is not None
        return pack(history.files(lineage.rows, lineage.best))


Play = Callable[[Callable[[], Job | None], Limits, Callable[[int], None]], Iterator[Episode]]


def run(exchange: Exchange, play: Play, tick: Callable[[float], None]) -> dict[str, bytes]:
    """Play this worker's part to the end. Returns the stage's result files, the same bytes for every worker.

    `play(next_job, limits, on_step)` yields episodes as they end; on_step is given the number of steps. `tick(steps per
    second)` is called after every step and while waiting.
    """
    speed, feed = Speed(), exchange.feed

    def on_step(steps: int) -> None:
        speed.add(steps)
        exchange.members.rate = speed.rate
        feed.check()
        tick(speed.rate)

    with exchange:
        while (limits := feed.wait(lambda: tick(speed.rate))) is not None:
            try:
                for episode in play(partial(feed.next_job, limits), limits, on_step):
                    feed.finished(episode)
            except Superseded:
                continue
    return exchange.files
