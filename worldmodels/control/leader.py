"""The leader's work: wait for all results, tell CMA-ES, draw and commit the next generation.

Any worker may do it at any time. The first workers in line keep the evolution's state up to date in a thread of their
own, so that they need not replay it when the leader is gone.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..context import Workspace
from . import history
from .blocks import Lengths, divide, known
from .board import Board
from .episode_queue import EpisodeQueue, Limits
from .evolution import Evolution, Settings
from .history import Row
from .members import Members
from .pace import PROBES, Pace
from .records import Generation, GenerationResult, pack
from .replay import ReplayedState, ancestry
from .runtime import Joinable, Runtime
from .status import Watch
from .stopping import RunStats, StoppingCriteria

HEIRS = 2  # workers behind the leader that are ready to lead at once


@dataclass(frozen=True)
class EvolutionPlan:
    """An evolution: its settings, its number of generations, and the tracks of each.

    `training.steps` holds until `Settings.growth` changes it.
    """

    settings: Settings
    generations: int
    training: Limits
    validating: Limits
    training_tracks: Callable[[int, int], tuple[int, ...]]  # (generation, number of tracks)
    validation_tracks: Callable[[int], tuple[int, ...]]  # () in a generation that does not score the mean
    goals: StoppingCriteria = field(default_factory=StoppingCriteria)
    evolution: Callable[[Settings], Evolution] = Evolution
    select: str = "last"  # see `history.selected`

    @property
    def first(self) -> int:
        """Return the number of the area's first generation."""
        return (self.settings.start_from or 0) + 1


class Leader:
    """This worker's part in leading, also while another worker leads."""

    def __init__(
        self,
        area: Workspace,
        plan: EvolutionPlan,
        members: Members,
        watch: Watch,
        feed: EpisodeQueue,
        log: logging.Logger,
        host: Runtime,
        told: Callable[[list[Row]], None],
    ) -> None:
        self._area, self._plan, self._members, self._watch = area, plan, members, watch
        self._feed, self._log, self._host, self._told = feed, log, host, told
        self._lineage: ReplayedState | None = None
        self._warming: Joinable | None = None
        self._looked = -1e9
        self._board: Board | None = None
        self._pace: Pace | None = None

    def begin(self, board: Board, pace: Pace) -> None:
        """Begin a generation; the leader and the next workers in line prepare for its tell."""
        self._board, self._pace = board, pace
        self._looked = self._host.now()
        if self._watch.rank <= HEIRS and not (self._warming and self._warming.is_alive()):
            self._warm(board.generation.number)

    def look(self, board: Board, pace: Pace) -> float:
        """Read which blocks are done, and publish the status if due. Return the seconds until the next look."""
        self._members.watching = True
        began, missing = self._host.now(), board.missing
        if len(missing) <= PROBES and began - self._looked < pace.timing.look:
            board.probe(missing)
        elif missing:
            board.look()
            self._looked = began
        cost = self._host.now() - began
        if self._watch.due(pace):
            self._publish()
        board.collect()
        return pace.next_look(board.elapsed, len(board.missing), cost)

    def tell(self, board: Board) -> bytes:
        """Return the next generation, drawn from the results of this one."""
        now = board.generation
        board.collect()
        outcome = board.outcome()
        self._members.suspect(board.abandoned(), board.elapsed)
        lineage = self._state(now.number)
        lineage.tell(now, outcome)
        self._told(lineage.rows)
        alive = self._members.alive()
        score = history.average(outcome.validation.tolist())
        return self._draw(now.number + 1, now, outcome, now.course.after(score, board.elapsed, len(alive))).encode()

    def first(self, number: int) -> bytes:
        return self._draw(number, None, None, RunStats()).encode()

    def finals(self, after: Generation) -> bytes:
        lineage = self._state(after.number)
        self._told(lineage.rows)
        assert lineage.best is not None
        plan = self._plan
        mean = history.selected(lineage.rows, plan.settings.average, plan.select, plan.first)
        return pack(history.files(lineage.rows, lineage.best, mean))

    def yield_to(self, theirs: bytes, mine: bytes, key: str) -> None:
        """Accept the object that another worker committed first.

        The own state stays if it drew the same candidates; otherwise it is dropped.
        """
        if mine == theirs or not key.startswith("generations/"):
            return
        ours, committed = Generation.decode(mine, key), Generation.decode(theirs, key)
        if not np.array_equal(ours.candidates, committed.candidates):
            self._lineage = None

    def _draw(
        self, number: int, before: Generation | None, outcome: GenerationResult | None, course: RunStats
    ) -> Generation:
        """Draw generation `number`, and divide its work among the active workers by their speed."""
        plan, me = self._plan, self._members.worker
        lineage = self._state(number)
        candidates, mean, sigma = lineage.ask()
        level, validated = lineage.level, lineage.averaged() if plan.settings.average > 1 else None
        tracks, validation = plan.training_tracks(number, level.tracks), plan.validation_tracks(number)
        steps = level.steps or plan.training.steps
        alive = self._members.alive()
        if before:
            last = dict(zip(before.alive, before.rates, strict=False))
            alive = {worker: rate or last.get(worker, 0.0) for worker, rate in alive.items()}
        lengths = self._lengths(before, outcome, steps)
        blocks = divide(len(candidates), len(tracks), len(validation), alive, lengths)
        order = (me, *(worker for worker in alive if worker != me))
        return Generation(
            number, candidates, mean, sigma, tracks, validation, tuple(blocks), order, outcome,
            tuple(alive[worker] for worker in order), lengths, steps, course, validated,
        )  # fmt: skip

    def _lengths(self, before: Generation | None, outcome: GenerationResult | None, steps: int) -> Lengths:
        """Return the lengths of the last generation's episodes, scaled to the current limit of steps."""
        validating = float(self._plan.validating.steps)
        if before is None or outcome is None:
            return Lengths(float(steps), validating)
        trained = max(1.0, outcome.steps - outcome.validation.size * validating) / outcome.scores.size
        return Lengths(min(float(steps), max(1.0, trained * steps / (before.steps or steps))), validating)

    # State.

    def _state(self, generation: int) -> ReplayedState:
        """Return the evolution's state before `generation` is told."""
        while self._warming and self._warming.is_alive():
            self._breathe()
            self._feed.pause(0.1)
        if self._lineage is None or self._lineage.generation > generation:
            self._lineage = self._new()
        self._lineage.advance(generation, self._breathe)
        return self._lineage

    def _new(self) -> ReplayedState:
        return ReplayedState(ancestry(self._area, self._plan.settings), self._log, self._host, self._plan.evolution)

    def _warm(self, generation: int) -> None:
        def run() -> None:
            try:
                if self._lineage is None or self._lineage.generation > generation:
                    self._lineage = self._new()
                self._lineage.advance(generation)
            except Exception:
                self._lineage = None  # the leader raises the error

        if self._lineage is None or self._lineage.generation < generation:
            self._warming = self._host.start(run, "heir")

    def _breathe(self) -> None:
        """Record between two long steps that this process is active; as leader, publish the status if due."""
        self._feed.tick()
        if self._watch.leading and self._pace and self._watch.due(self._pace):
            self._publish()

    def _publish(self) -> None:
        board = self._board
        if board is None:
            return
        unfinished = {i: claims for i, claims in board.attempts.items() if i not in board.done}
        self._watch.publish(
            generation=board.generation.number,
            elapsed=round(board.elapsed, 2),
            seen=round(board.seen, 2),
            done=sum(1 << i for i in board.done),
            claims=unfinished,
            void=tuple(sorted(board.void)),
            figures=self._figures(board),
        )

    def _figures(self, board: Board) -> dict[str, float | None]:
        """Return the status's figures for users: the last generation's scores, and the speed."""
        now = board.generation
        row = history.row(now) if now.before else None
        spent = now.course.seconds / (now.number - self._plan.first) if row else math.nan
        alive = self._members.alive()
        pace = self._pace.expected if self._pace else math.inf
        figures = {
            "generations": self._plan.generations,
            "workers": len(alive),
            "expected": pace,
            "blocks": len(now.blocks),
            "best": max(row.scores) if row else math.nan,
            "mean": row.mean if row else math.nan,
            "sigma": now.sigma,
            "validation": now.course.best,
            "rate": sum(known(alive).values()),
            "seconds": spent,
        }
        return {name: float(value) if math.isfinite(value) else None for name, value in figures.items()}
