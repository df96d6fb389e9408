"""Sharing an evolution between workers: one implementation for a process, a machine's processes, and pods.

Workers communicate through a Workspace only. Committed objects are created once, so any worker may die, wait, or do
another worker's work at any moment, and the results are the same bytes. Every process has two threads: the main thread
drives; the exchange thread communicates, and leads when it is its turn. So no generation waits for the leader's own
block.

    exchange thread    newest generation -> blocks, their results -> if complete: tell, commit the next generation
    main thread        drives the episodes that the exchange thread queues

It is made for up to 64 workers; more work, but wait longer. Requests of a worker to the store in a generation, when it
waits for w seconds:

    every worker    PUT   each block's result, a claim for each but its first one
                    GET   the next generation: about max(1, 4 w) times, from 400 workers on w times
                    LIST  the generation, when it has no block left: at most once per second, or once a claim expires
    the leader      LIST  the generation, about 20 times
                    GET   each result once
                    PUT   the next generation

There are no heartbeats. A worker has part in the next generation if it committed a result of this one. A claim expires
after a time that follows from the measured speeds. The workers of a generation form a line: each one commits the next
generation once all results are there and those before it had their turns.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial

from ..context import Workspace
from ..errors import Conflict
from ..rollouts.player import EpisodeSpec
from . import history
from .block_queue import BlockQueue
from .blocks import MEAN
from .episode_queue import Closed, EpisodeQueue, FinishedEpisode, Limits, Speed, Superseded
from .evolution import Settings
from .history import Row
from .leader import EvolutionPlan, Leader
from .pace import STANDBYS, Pace, Timing
from .records import Generation, final_key, last, params_key, unpack
from .runtime import Process, Runtime

__all__ = ["EvolutionPlan", "Exchange", "Timing"]

SHORTEST_PAUSE, LONGEST_PAUSE = 0.001, 10.0
FEWEST_EPISODES = 4  # in progress per process: with fewer, the overhead of a Python step counts
Play = Callable[[Callable[[], EpisodeSpec | None], Limits, Callable[[int], None]], Iterator[FinishedEpisode]]


class Exchange:
    """This worker's part in an evolution."""

    def __init__(
        self,
        workspace: Workspace,
        plan: EvolutionPlan,
        worker: int,
        lanes: int,
        log: logging.Logger,
        timing: Timing = Timing(),  # noqa: B008 - frozen
        on_generation: Callable[[list[Row]], None] = lambda rows: None,
        runtime: Runtime | None = None,
    ) -> None:
        """Create the exchange; a leader's exchange thread calls `on_generation` with the rows of all generations."""
        self.runtime = runtime or Process()
        self.queue = EpisodeQueue(self.runtime)
        self.ended = ""  # the reason, if before the last generation
        self.done = 0.0  # generations, with the known fraction of the current one
        self.rate = 0.0  # steps per second
        self.begun = False  # whether this worker knows how far the evolution is
        self.latest: Row | None = None  # the last generation's row; None in a workspace's first
        self._workspace, self._plan, self._worker, self._lanes = workspace, plan, worker, lanes
        self._log, self._timing = log, timing
        self._leader = Leader(workspace, plan, worker, log, self.runtime, self.queue.pause, on_generation)
        self._files: dict[str, bytes] = {}

    def run(self, play: Play, tick: Callable[[float], None]) -> dict[str, bytes]:
        """Drive this worker's part to the end. Return the stage's result files, the same bytes for every worker.

        `play(next_episode, limits, on_step)` yields episodes as they end; `on_step` receives the number of steps.
        `tick(steps per second)` is called after every step and while waiting.
        """
        speed, queue = Speed(self.runtime), self.queue

        def on_step(steps: int) -> None:
            speed.add(steps)
            self.rate = speed.rate
            queue.check()
            tick(self.rate)

        thread = self.runtime.start(self._run, "exchange")
        try:
            while (limits := queue.wait(lambda: tick(self.rate))) is not None:
                speed.begin()
                with suppress(Superseded):
                    for episode in play(partial(queue.next_episode, limits), limits, on_step):
                        queue.finished(episode)
        finally:
            queue.close()
            thread.join(timeout=10)
            self.runtime.close()
        return self._files

    def _run(self) -> None:
        try:
            self._files = self._evolve()
            self.queue.end()
        except Closed:
            pass
        except BaseException as error:
            self.queue.end(error)

    def _evolve(self) -> dict[str, bytes]:
        self._agree()
        generation = self._resume()
        while not self._is_over(generation):
            generation = self._drive(generation)
        self.done = generation.number - 1
        if generation.number <= self._plan.generations:
            self.ended = self._plan.criteria.reached(generation.stats)
            self._log.info("the evolution ends after generation %d: %s", generation.number - 1, self.ended)
        key = final_key(generation.number - 1)
        data = self._obtain(key, generation.alive, lambda: self._leader.finals(generation))
        files = unpack(data, key)
        return files | {"rewards.csv": history.closed(files["rewards.csv"], self.ended)}

    # Resuming.

    def _agree(self) -> None:
        """Store the evolution's settings; raise Conflict if the workspace belongs to another evolution."""
        mine = self._plan.settings
        if not self._workspace.create("settings", mine.encode()):
            theirs = Settings.decode(self._workspace.get("settings") or b"")
            if theirs != mine:
                raise Conflict(f"this evolution is {mine}, the stored one {theirs}", next="wm show controller")

    def _is_over(self, generation: Generation) -> bool:
        """Return whether all wanted generations come before `generation`."""
        return generation.number > self._plan.generations or bool(self._plan.criteria.reached(generation.stats))

    def _resume(self) -> Generation:
        """Return the generation to drive next; if more are stored than wanted, the one after the last wanted."""
        newest = last(self._is_there, self._plan.first, self._plan.generations + 1)
        if newest < self._plan.first:
            return self._first()
        generation = self._load(newest)
        if not self._plan.criteria.reached(generation.stats):
            return generation
        return self._load(last(lambda n: not self._is_over(self._load(n)), self._plan.first, newest - 1) + 1)

    def _is_there(self, generation: int) -> bool:
        return self._workspace.age(params_key(generation)) is not None

    def _load(self, number: int) -> Generation:
        return Generation.decode(self._workspace.get(params_key(number)) or b"", params_key(number))

    def _first(self) -> Generation:
        """Return the workspace's first generation; worker 0 leads."""
        number = self._plan.first
        return self._commit(number, tuple(range(self._worker + 1)), lambda: self._leader.first(number))

    # One generation.

    def _drive(self, now: Generation) -> Generation:
        """Take part in a generation until the next one is committed; return the next one."""
        self.queue.begin(now.number)
        rank, key = self._rank(now.alive), params_key(now.number + 1)
        pace = Pace(now, self._lanes, now.steps or self._plan.training.steps, self._timing, rank)
        blocks = BlockQueue(self._workspace, now, self._worker, pace, self._log, self.runtime, restarted=not self.begun)
        self.done, self.latest = float(now.number - 1), history.row(now) if now.before else None
        self.begun = True  # last: then other threads read these two
        began, idle = self.runtime.now(), None
        due = began + pace.pause(0.0, None)
        while True:
            self._upload(blocks)
            hungry = self._fill(blocks)
            behind = rank <= STANDBYS and self._leader.prepare(now)
            time = self.runtime.now()
            if self.queue.outstanding():
                idle = None
            elif idle is None:
                idle, due = time, min(due, time + pace.pause(time - began, 0.0))
            if time >= due:
                if rank == 0:
                    blocks.collect()
                elif data := self._workspace.get(key):
                    return Generation.decode(data, key)
                due = self.runtime.now() + pace.pause(time - began, None if idle is None else time - idle)
            self.done = now.number - 1 + len(blocks.done) / len(now.blocks)
            if blocks.complete:
                return self._commit(now.number + 1, now.alive, lambda: self._leader.next(now, blocks.collect(), began))
            until = min(due, blocks.next_look if hungry else due, time if behind else due)
            self.queue.pause(min(LONGEST_PAUSE, max(SHORTEST_PAUSE, until - self.runtime.now())))

    def _upload(self, blocks: BlockQueue) -> None:
        for index, result in iter(self.queue.take, None):
            blocks.finish(index, replace(result, worker=self._worker, rate=round(self.rate, 1)))

    def _fill(self, blocks: BlockQueue) -> bool:
        """Begin blocks until the slots are full; return whether too few episodes are in progress.

        At most as many episodes are in progress as wait in this worker's own blocks. So other workers can take some if
        it falls behind, and all workers end at about the same time. This costs little, since a process is hardly faster
        with more slots. The worker takes other workers' blocks only when its slots run empty.
        """
        while (playing := self.queue.outstanding()) < (
            wanted := 1 + min(self._lanes, max(FEWEST_EPISODES, blocks.own))
        ):
            hungry = playing <= wanted // 4
            index = blocks.next_own()
            if index is None and hungry:
                index = blocks.take()
            if index is None:
                return hungry
            self._enqueue(blocks.generation, index)
        return False

    def _enqueue(self, now: Generation, index: int) -> None:
        block = now.blocks[index]
        mean = block.candidate == MEAN
        parameters = now.validated if mean else now.candidates[block.candidate]
        tracks = (now.validation if mean else now.tracks)[block.first : block.first + block.count]
        training = self._plan.training
        limits = self._plan.validating if mean else replace(training, steps=now.steps or training.steps)
        self.queue.add(
            index, limits, [EpisodeSpec((now.number, index, i), track, parameters) for i, track in enumerate(tracks)]
        )

    def _rank(self, line: tuple[int, ...]) -> int:
        """Return this worker's place in line for leading; 0 leads."""
        return line.index(self._worker) if self._worker in line else len(line)

    def _commit(self, number: int, line: tuple[int, ...], make: Callable[[], bytes]) -> Generation:
        """Return generation `number`: another worker's, or this worker's own, which it commits in its turn."""
        key = params_key(number)
        found = Generation.decode(self._obtain(key, line, make), key)
        self._leader.accept(found)
        return found

    def _obtain(self, key: str, line: tuple[int, ...], make: Callable[[], bytes]) -> bytes:
        """Return the object `key`: another worker's, or this worker's own once its turn in `line` has come."""
        began, delay = self.runtime.now(), self._timing.delay(self._rank(line))
        while self.runtime.now() < began + delay:
            if (data := self._workspace.get(key)) is not None:
                return data
            self.queue.pause(self._timing.wait(self.runtime.now() - began, len(line)))
        mine = make()
        if self._workspace.create(key, mine):
            return mine
        return self._workspace.get(key) or b""
