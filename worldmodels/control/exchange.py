"""Sharing an evolution between workers: one implementation for a process, a machine's processes, and pods.

Workers communicate through a Workspace only. Committed objects are created once, so any worker may die, wait, or do
another worker's work at any moment, and the results are the same bytes. Every process has two threads: the main thread
drives; the exchange thread communicates, and leads when it is its turn. So no generation waits for the leader's own
block.

    exchange thread    newest generation -> blocks, their results -> if complete: tell, commit the next generation
    main thread        drives the episodes that the exchange thread queues

Requests of a worker to the store in a generation of T seconds, with W workers (w: seconds that it waits):

    every worker     PUT  each block's result, a claim for each but its first ones, T / heartbeat heartbeats
                     GET  the next params: about max(1, 4 w) times, from 400 workers on w times;
                          the status when it is idle, once per `look`, `crowd` workers at a time
    the leader       LIST the generation and the heartbeats: about 20 + T / 3 s times, one more per 1,000 keys
                     GET  each result once, new heartbeats, claims that last; the status before writing it
                     PUT  the status every `takeover` / 5 seconds, the next params

Only the leader lists. `heartbeat` grows with the square root of W (`pace.py`).
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from types import TracebackType

from ..context import Workspace
from ..errors import Conflict
from ..rollouts.player import EpisodeSpec
from . import history
from .blocks import MEAN
from .board import Board
from .episode_queue import Closed, EpisodeQueue, FinishedEpisode, Limits, Speed, Superseded
from .evolution import Settings
from .history import Row
from .leader import EvolutionPlan, Leader
from .members import Members
from .pace import Pace, Timing
from .records import Generation, final_key, params_key, unpack
from .runtime import Joinable, Process, Runtime
from .status import Watch
from .turns import Turns

__all__ = ["EvolutionPlan", "Exchange", "Timing", "run"]

RATE_SECONDS = 30.0  # averaging time of the rates by which blocks are divided
FEWEST_EPISODES = 4  # in progress per process: with fewer, the overhead of a Python step counts


class Exchange:
    """This worker's part in an evolution; a context manager that runs the exchange thread."""

    def __init__(
        self,
        area: Workspace,
        plan: EvolutionPlan,
        worker: int,
        lanes: int,
        log: logging.Logger,
        timing: Timing = Timing(),  # noqa: B008 - frozen
        told: Callable[[list[Row]], None] = lambda rows: None,
        host: Runtime | None = None,
    ) -> None:
        """Create the exchange; the leader's exchange thread calls `told` with the rows of all generations so far."""
        self.host = host or Process()
        self.feed = EpisodeQueue(self.host)
        self.files: dict[str, bytes] = {}
        self.ended = ""  # the reason, if before the last generation
        self.done = 0.0  # generations, with the known fraction of the current one
        self._row: Row | None = None
        self._newest: Generation | None = None
        self.members = Members(area, worker, timing, self.host)
        self._area, self._plan, self._lanes, self._log, self._timing = area, plan, lanes, log, timing
        self._watch = Watch(area, self.members, self.host)
        self._leader = Leader(area, plan, self.members, self._watch, self.feed, log, self.host, told)
        self._joining = True
        self._thread: Joinable | None = None

    @property
    def begun(self) -> bool:
        """Return whether this worker knows how far the evolution is."""
        return self._newest is not None

    @property
    def latest(self) -> Row | None:
        """Return the last generation's row; None in a workspace's first."""
        now = self._newest
        if self._row is None and now and now.before:
            self._row = history.row(now)
        return self._row

    def __enter__(self) -> "Exchange":
        self._thread = self.host.start(self._run, "exchange")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.feed.close()
        if self._thread:
            self._thread.join(timeout=10)
        self.members.stop()
        self.host.close()

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
        generation = self._resume()
        while not self._is_over(generation):
            generation = self._play(generation)
        self.done = generation.number - 1
        if generation.number <= self._plan.generations:
            self.ended = self._plan.goals.reached(generation.course)
            self._log.info("the evolution ends after generation %d: %s", generation.number - 1, self.ended)
        pace = Pace(self._timing, len(generation.alive))
        self._watch.begin(generation.alive, pace)
        key = final_key(generation.number - 1)
        files = unpack(self._obtain(key, pace, lambda: self._leader.finals(generation)), key)
        return files | {"rewards.csv": history.closed(files["rewards.csv"], self.ended)}

    # Resuming.

    def _agree(self) -> None:
        """Store the evolution's settings; raise Conflict if the area belongs to another evolution."""
        mine = self._plan.settings
        if not self._area.create("settings", mine.encode()):
            theirs = Settings.decode(self._area.get("settings") or b"")
            if theirs != mine:
                raise Conflict(f"this evolution is {mine}, the stored one {theirs}", next="wm show controller")

    def _is_over(self, generation: Generation) -> bool:
        """Return whether all wanted generations come before `generation`."""
        return generation.number > self._plan.generations or bool(self._plan.goals.reached(generation.course))

    def _resume(self) -> Generation:
        """Return the generation to drive next; if more are stored than wanted, the one after the last wanted."""
        newest = self._last(self._is_there, self._plan.generations + 1)
        if newest < self._plan.first:
            return self._first()
        generation = self._load(newest)
        if not self._plan.goals.reached(generation.course):
            return generation
        return self._load(self._last(lambda number: not self._is_over(self._load(number)), newest - 1) + 1)

    def _last(self, holds: Callable[[int], bool], most: int) -> int:
        """Return the last generation of this area, up to `most`, for which `holds` is true, as for all before it.

        Read a few keys instead of a long listing. Return the number before the first if it holds for none.
        """
        low, high, step = self._plan.first - 1, most + 1, 1
        while low + step < high and holds(low + step):
            low, step = low + step, 2 * step
        high = min(high, low + step)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if holds(middle) else (low, middle)
        return low

    def _is_there(self, generation: int) -> bool:
        return self._area.age(params_key(generation)) is not None

    def _load(self, number: int) -> Generation:
        return Generation.decode(self._area.get(params_key(number)) or b"", params_key(number))

    def _first(self) -> Generation:
        number, pace = self._plan.first, Pace(self._timing, 1)
        self._watch.begin(tuple(range(self.members.worker + 1)), pace, joining=True)
        data = self._obtain(params_key(number), pace, lambda: self._leader.first(number))
        return Generation.decode(data, params_key(number))

    # One generation.

    def _play(self, now: Generation) -> Generation:
        """Take part in a generation until the next one is committed; return the next one."""
        self.feed.begin(now.number)
        self.done = now.number - 1
        self._newest, self._row = now, None
        pace, key = self._pace(now), params_key(now.number + 1)
        self._watch.begin(now.alive, pace, joining=self._joining)
        self.members.stretch, self.members.watching = pace.stretch, self._watch.leading
        board = Board(self._area, now, self.members, pace, self._log, self.host, joining=self._joining)
        board.hear(self._watch.latest)
        self._joining = False
        self._leader.begin(board, pace)
        turns = Turns(self.host, pace, board.began, loose=bool(now.loose))
        while True:
            playing, hungry = self._fill(board)
            self._upload(board)
            turns.note(playing=playing, hungry=hungry)
            self.done = now.number - 1 + len(board.done) / len(now.blocks)
            if self._watch.leads():
                if not board.complete and turns.to_look():
                    turns.looked(self._leader.look(board, pace))
                if board.complete:
                    return Generation.decode(self._obtain(key, pace, lambda: self._leader.tell(board)), key)
            elif turns.to_ask():
                asked = self.host.now()
                if data := self._area.get(key):
                    return Generation.decode(data, key)
                turns.asked(self.host.now() - asked)
            if turns.to_search():
                if board.in_turn():
                    self._search(board)
                turns.searched()
            else:
                self.feed.pause(turns.pause(leading=self._watch.leading, silence=self._watch.silence))

    def _search(self, board: Board) -> None:
        if not self._watch.leading:
            self._watch.look()
        board.hear(self._watch.latest)
        board.search()

    def _pace(self, now: Generation) -> Pace:
        return Pace.of(now, now.steps or self._plan.training.steps, self._timing)

    def _upload(self, board: Board) -> None:
        while (block := self.feed.take()) is not None:
            board.finish(*block)

    def _fill(self, board: Board) -> tuple[bool, bool]:
        """Claim blocks until the lanes are full. Return whether episodes are in progress, and whether too few are.

        At most as many episodes are in progress as wait in this worker's own blocks. So other workers can take some if
        it falls behind, and all workers end at about the same time. This costs little, since a process is hardly faster
        with more lanes. The worker takes other workers' blocks only when its lanes run empty.
        """
        now = board.generation
        while (playing := self.feed.outstanding()) < (wanted := 1 + min(self._lanes, max(FEWEST_EPISODES, board.own))):
            index = board.next_own(playing)
            if board.stale:
                self._search(board)
                continue
            if index is None and playing <= wanted // 4:
                index = board.steal(playing)
            if index is None:
                return playing > 0, playing <= wanted // 4
            self._feed(now, index)
        return True, False

    def _feed(self, now: Generation, index: int) -> None:
        block = now.blocks[index]
        mean = block.candidate == MEAN
        parameters = now.validated if mean else now.candidates[block.candidate]
        tracks = (now.validation if mean else now.tracks)[block.first : block.first + block.count]
        training = self._plan.training
        limits = self._plan.validating if mean else replace(training, steps=now.steps or training.steps)
        self.feed.add(
            index, limits, [EpisodeSpec((now.number, index, i), track, parameters) for i, track in enumerate(tracks)]
        )

    def _obtain(self, key: str, pace: Pace, make: Callable[[], bytes]) -> bytes:
        """Return the object `key`, which is made by this worker if it leads, else by another worker."""
        began, mine = self.host.now(), b""
        while True:
            if self._watch.leads():
                mine = make()
                if self._area.create(key, mine):
                    return mine
            asked = self.host.now()
            if (data := self._area.get(key)) is not None:
                if mine:
                    self._leader.yield_to(data, mine, key)
                return data
            now = self.host.now()
            self.feed.pause(pace.pause(0.0, now - began, now - asked))


Play = Callable[[Callable[[], EpisodeSpec | None], Limits, Callable[[int], None]], Iterator[FinishedEpisode]]


def run(exchange: Exchange, play: Play, tick: Callable[[float], None]) -> dict[str, bytes]:
    """Drive this worker's part to the end. Return the stage's result files, the same bytes for every worker.

    `play(next_episode, limits, on_step)` yields episodes as they end; `on_step` receives the number of steps.
    `tick(steps per second)` is called after every step and while waiting.
    """
    speed, lately, feed = Speed(exchange.host, RATE_SECONDS), Speed(exchange.host), exchange.feed

    def on_step(steps: int) -> None:
        for each in (speed, lately):
            each.add(steps)
        exchange.members.rate = speed.rate
        feed.check()
        tick(lately.rate)

    with exchange:
        while (limits := feed.wait(lambda: tick(lately.rate))) is not None:
            for each in (speed, lately):
                each.begin()
            try:
                for episode in play(partial(feed.next_episode, limits), limits, on_step):
                    feed.finished(episode)
            except Superseded:
                continue
    return exchange.files
