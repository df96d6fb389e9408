"""The leader's work: tell CMA-ES a generation's results, draw the next generation, make the stage's result files.

Any worker may do it at any time: the first commit counts. The first workers in line keep the evolution's state up to
date, so that they need not replay it when those before them are gone.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..context import Workspace
from ..errors import WmError
from . import history
from .blocks import Lengths, divide
from .episode_queue import Limits
from .evolution import Evolution, Settings
from .history import Row
from .records import BlockResult, Generation, GenerationResult, gather, pack, speeds
from .replay import ReplayedState, ancestry
from .runtime import Runtime
from .stopping import RunStats, StoppingCriteria


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
    criteria: StoppingCriteria = field(default_factory=StoppingCriteria)
    evolution: Callable[[Settings], Evolution] = Evolution
    select: str = "last"  # see `history.selected`

    @property
    def first(self) -> int:
        """Return the number of the workspace's first generation."""
        return (self.settings.start_from or 0) + 1


class Leader:
    """The objects that a leader commits, as bytes, and the state that they are drawn from."""

    def __init__(
        self,
        workspace: Workspace,
        plan: EvolutionPlan,
        worker: int,
        log: logging.Logger,
        runtime: Runtime,
        pause: Callable[[float], None],
        on_generation: Callable[[list[Row]], None],
    ) -> None:
        """Create it; `pause` sleeps, `on_generation` receives the rows of all generations so far."""
        self._workspace, self._plan, self._worker, self._log, self._runtime = workspace, plan, worker, log, runtime
        self._pause, self._on_generation = pause, on_generation
        self._state: ReplayedState | None = None
        self._replay: Iterator[int] = iter(())
        self._failed = False

    def prepare(self, now: Generation) -> bool:
        """Replay one generation of those before `now`; return whether more are left.

        A failure ends the preparation. It is raised if this worker has to lead.
        """
        try:
            return not self._failed and self._advance(now.number)
        except WmError:
            self._failed = True
            return False

    def first(self, number: int) -> bytes:
        return self._draw(self._before(number), None, None, RunStats(), {}).encode()

    def next(self, now: Generation, results: Mapping[int, BlockResult], began: float) -> bytes:
        """Return the generation after `now`, drawn from the results of all its blocks; it `began` at that time."""
        outcome, rates = gather(now, results), speeds(results.values())
        state = self._before(now.number)
        state.tell(now, outcome)
        self._on_generation(state.rows)
        score = history.average(outcome.validation.tolist())
        stats = now.stats.after(score, self._runtime.now() - began, max(1, len(rates)))
        return self._draw(state, now, outcome, stats, rates).encode()

    def finals(self, after: Generation) -> bytes:
        """Return the stage's result files after the generation before `after`."""
        state = self._before(after.number)
        self._on_generation(state.rows)
        assert state.best is not None
        plan = self._plan
        mean = history.selected(state.rows, plan.settings.average, plan.select, plan.first)
        return pack(history.files(state.rows, state.best, mean))

    def accept(self, committed: Generation) -> None:
        """Replay the state anew if this worker drew other candidates for that generation than the committed ones."""
        state = self._state
        if state and state.generation == committed.number and not np.array_equal(state.ask()[0], committed.candidates):
            self._state = None

    def _draw(
        self,
        state: ReplayedState,
        before: Generation | None,
        outcome: GenerationResult | None,
        stats: RunStats,
        rates: Mapping[int, float],
    ) -> Generation:
        """Draw the next generation, and divide its work by the speed of the workers that had part in the last one."""
        plan, me, number = self._plan, self._worker, state.generation
        candidates, mean, sigma = state.ask()
        level, validated = state.level, state.averaged() if plan.settings.average > 1 else None
        hard, validation = state.hard_tracks(), plan.validation_tracks(number)
        tracks = (*plan.training_tracks(number, level.tracks - len(hard)), *hard)
        steps = level.steps or plan.training.steps
        active = {me: 0.0, **rates}
        lengths = self._lengths(before, outcome, steps)
        blocks = divide(len(candidates), len(tracks), len(validation), active, lengths)
        order = (me, *(worker for worker in active if worker != me))
        return Generation(
            number, candidates, mean, sigma, tracks, validation, tuple(blocks), order, outcome,
            tuple(active[worker] for worker in order), lengths, steps, stats, validated,
        )  # fmt: skip

    def _lengths(self, before: Generation | None, outcome: GenerationResult | None, steps: int) -> Lengths:
        """Return the lengths of the last generation's episodes, scaled to the current limit of steps."""
        validating = float(self._plan.validating.steps)
        if before is None or outcome is None:
            return Lengths(float(steps), validating)
        trained = max(1.0, outcome.steps - outcome.validation.size * validating) / outcome.scores.size
        return Lengths(min(float(steps), max(1.0, trained * steps / (before.steps or steps))), validating)

    def _before(self, generation: int) -> ReplayedState:
        """Return the evolution's state before `generation` is told."""
        while self._advance(generation):
            self._pause(0.0)
        assert self._state is not None
        return self._state

    def _advance(self, generation: int) -> bool:
        """Replay one generation of those before `generation`; return whether more are left."""
        if self._state is None or self._state.generation > generation:
            branches = ancestry(self._workspace, self._plan.settings)
            self._state = ReplayedState(branches, self._log, self._runtime, self._plan.evolution)
            self._replay = iter(())
        if self._state.generation < generation and next(self._replay, None) is None:
            self._replay = self._state.advance(generation)
        return self._state.generation < generation
