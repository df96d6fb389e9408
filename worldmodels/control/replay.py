"""The evolution's state, rebuilt from committed generations: replay of ask and tell, from the first ancestor on."""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..context import Workspace
from ..errors import CorruptArtifact, MissingInput
from . import history
from .evolution import Evolution, Level, Settings
from .hard_tracks import TrackScores
from .history import Best, Row
from .records import Generation, GenerationResult, params_key
from .runtime import READERS, Runtime


@dataclass(frozen=True)
class Branch:
    """Generations `first` to `last` (None: open) of one workspace."""

    workspace: Workspace
    settings: Settings
    first: int
    last: int | None


def ancestry(workspace: Workspace, settings: Settings) -> list[Branch]:
    """Return the branches that an evolution's generations are in, oldest first.

    Raise ConfigError if it cannot continue its parent, MissingInput if the parent has not finished that generation.
    """
    if settings.start_from is None:
        return [Branch(workspace, settings, 1, None)]
    parent = workspace.parent(settings.start_from)
    stored = parent.get("settings")
    if stored is None or parent.get(params_key(settings.start_from + 1)) is None:
        raise MissingInput(
            f"controller.start_from = {settings.start_from}: no earlier evolution has finished that generation",
            next="wm logs controller --file rewards.csv",
        )
    theirs = Settings.decode(stored)
    settings.continues(theirs)
    *older, last = ancestry(parent, theirs)
    ended = Branch(last.workspace, last.settings, last.first, settings.start_from)
    return [*older, ended, Branch(workspace, settings, settings.start_from + 1, None)]


class ReplayedState:
    """The state before generation `self.generation` is told, and the rows of all before it.

    `best` covers only the last level of the open branch, because scores on other tracks are not comparable. `level`, of
    `Settings.growth`, is the level of that generation.
    """

    def __init__(
        self,
        branches: list[Branch],
        log: logging.Logger,
        runtime: Runtime,
        evolution: Callable[[Settings], Evolution] = Evolution,
    ) -> None:
        self.rows: list[Row] = []
        self.best: Best | None = None
        self._branches = branches
        self._validation = -math.inf
        self._log = log
        self._runtime = runtime
        self._evolution = evolution(branches[0].settings)
        self._asked: np.ndarray | None = None
        self.level = branches[0].settings.level(-math.inf)  # of the generation to be told next
        self._best_level: Level | None = None
        self._warned = False
        self._track_scores = TrackScores()

    @property
    def generation(self) -> int:
        return self._evolution.generation

    def advance(self, generation: int) -> Iterator[int]:
        """Replay committed generations until `generation` is the next to tell; yield the next one after each."""
        self._log.info("replaying generations %d to %d", self.generation, generation - 1)
        for now, after in self._committed(generation):
            assert after.before is not None
            self._tell(now, after.before)
            self.rows.append(history.row(after))
            yield self.generation

    def tell(self, now: Generation, outcome: GenerationResult) -> None:
        """Tell the outcome of `now`, the next generation to tell."""
        validation = self._tell(now, outcome)
        scores = history.candidate_scores(outcome.scores)
        _, mean, sigma = self.ask()  # as committed: an ask may change pycma's coordinates
        self.rows.append(Row(now.number, scores, mean, sigma, validation, outcome.steps))

    def ask(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Return the next candidates float32 [N, P], and the mean float32 [P] and sigma of their distribution."""
        branch = self._branch(self.generation)
        if self._asked is None:
            index = self._branches.index(branch)
            before = self._branches[index - 1].settings if index else branch.settings
            if self.generation == branch.first and before.sigma != branch.settings.sigma:
                self._evolution.set_sigma(branch.settings.sigma)
            self._asked = self._evolution.ask(branch.settings.seed)
        return self._asked, self._evolution.mean, self._evolution.sigma

    def hard_tracks(self) -> tuple[int, ...]:
        """Return the earlier tracks that the next generation drives again."""
        settings = self._branch(self.generation).settings
        return self._track_scores.draw(settings.seed, self.generation, settings.hard_tracks)

    def averaged(self) -> np.ndarray:
        """Return the parameters that validation scores before the next tell, float32 [P]."""
        return history.averaged(self.rows, self._branch(self.generation).settings.average, self.ask()[1])

    def _tell(self, now: Generation, outcome: GenerationResult) -> float:
        """Tell the outcome; return the validation score, nan if there is none."""
        self._compare(self.ask()[0], now.candidates)
        self._asked = None
        scores = history.candidate_scores(outcome.scores)
        self._evolution.tell(now.candidates, scores)
        if self.level != self._best_level:
            self.best, self._best_level = None, self.level
        top = int(np.argmax(scores))
        if now.number >= self._branches[-1].first and (self.best is None or scores[top] > self.best.score):
            self.best = Best(scores[top], now.candidates[top])
        self._track_scores.add(now.number, now.tracks, outcome.scores)
        validation = history.average(outcome.validation.tolist())
        self._grow(validation)
        return validation

    def _grow(self, validation: float) -> None:
        """Begin the level of the scores so far, with its sigma, if it is a new one; apply the bound of sigma."""
        if validation > self._validation:
            self._validation = validation
        before, settings = self.level, self._branch(self.generation).settings
        self.level = settings.level(self._validation)
        if self.level.sigma and (self.level.score, self.level.sigma) != (before.score, before.sigma):
            self._evolution.set_sigma(self.level.sigma)
        if self._evolution.sigma > (bound := settings.largest_sigma(self._validation)):
            self._evolution.set_sigma(bound)

    def _compare(self, mine: np.ndarray, committed: np.ndarray) -> None:
        """Log a warning if the candidates differ: another kind of CPU may round differently.

        The committed candidates count; a repetition may differ.
        """
        if not self._warned and not np.array_equal(mine, committed):
            self._warned = True
            self._log.warning(
                "generation %d was computed on another kind of CPU: it differs by up to %.1e",
                self.generation,
                float(np.max(np.abs(mine - committed))),
            )

    def _branch(self, generation: int) -> Branch:
        return next(s for s in self._branches if generation >= s.first and (s.last is None or generation <= s.last))

    def _committed(self, end: int) -> Iterator[tuple[Generation, Generation]]:
        """Yield (generation, its successor in the same workspace) for all from here to before `end`."""
        for branch in self._branches:
            first, last = max(branch.first, self.generation), min(branch.last or end, end - 1)
            if first > last:
                continue
            numbers = range(first, last + 2)
            now = None
            for start in range(0, len(numbers), READERS):
                chunk = numbers[start : start + READERS]
                for after in self._runtime.map(partial(_read, branch.workspace), chunk):
                    if now is not None:
                        yield now, after
                    now = after


def _read(workspace: Workspace, number: int) -> Generation:
    data = workspace.get(params_key(number))
    if data is None:
        raise CorruptArtifact(f"generation {number} of the evolution is gone from the store", next="wm ls")
    return Generation.decode(data, params_key(number))
