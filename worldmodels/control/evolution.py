"""The settings and the state of an evolution, and the protocol of its strategy (CMA-ES, say), by ask and tell."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from .. import parts, stored
from ..config import Architecture
from ..errors import ConfigError, WorkFailed

ALWAYS = ("seed", "parameters", "population", "tracks", "sigma", "covariance", "start_from")
"""Settings that are stored even with their defaults, as in the first version."""


@dataclass(frozen=True)
class Level:
    """From a validation score of the mean on: tracks per candidate, longest episode in steps, initial sigma.

    0 keeps the previous value.
    """

    score: float = -math.inf
    tracks: int = 0
    steps: int = 0
    sigma: float = 0.0


@dataclass(frozen=True)
class Settings:
    """The settings that determine an evolution; `parameters`: their number, `start_from`: the parent's last generation.

    `growth`: levels in order of their scores; each begins once any validation so far has reached its score. `average`:
    the number of generations whose means are averaged to the validated parameters. `sigma_bound`: sigma never exceeds
    the initial one of the evolution, or of its level. `architecture`: the settings of C's architecture that do not have
    their default. `components`: the number of principal components that the search's coordinates are; 0: the parameters
    themselves. `warm_start`: it begins with the previous iteration's C. `hard_tracks`: the number of a
    generation's tracks that are recent ones on which candidates scored worst.
    """

    seed: int
    parameters: int
    population: int
    tracks: int
    sigma: float
    covariance: str = "full"
    start_from: int | None = None
    growth: tuple[Level, ...] = ()
    average: int = 1
    sigma_bound: bool = False
    architecture: Mapping[str, str | int] = field(default_factory=dict)
    strategy: str = "cma-es"
    components: int = 0
    warm_start: bool = False
    hard_tracks: int = 0

    def encode(self) -> bytes:
        usual = asdict(Settings(self.seed, self.parameters, self.population, self.tracks, self.sigma))
        kept = {name: value for name, value in asdict(self).items() if name in ALWAYS or value != usual[name]}
        return stored.encode(kept)

    @classmethod
    def decode(cls, data: bytes) -> "Settings":
        """Decode settings; raise CorruptArtifact if the bytes are none."""
        value = stored.parse(data, stored.EVOLUTION, "the evolution's settings", "wm verify")
        return cls(**{**value, "growth": tuple(Level(**level) for level in value.get("growth", ()))})

    def level(self, score: float) -> Level:
        """Return the level after validation scores of at most `score`, with values inherited from earlier levels."""
        found = Level(tracks=self.tracks)
        for level in self.growth:
            if level.score <= score:
                found = Level(level.score, level.tracks or found.tracks, level.steps or found.steps, level.sigma)
        return found

    def largest_sigma(self, score: float) -> float:
        """Return the upper bound of sigma after validation scores of at most `score`; inf for no bound."""
        begun = [level.sigma for level in self.growth if level.sigma and level.score <= score]
        return [self.sigma, *begun][-1] if self.sigma_bound else math.inf

    def continues(self, parent: "Settings") -> None:
        """Raise ConfigError with the first field that differs from the parent's and cannot change."""
        theirs = parent._fixed()
        for name, here in self._fixed().items():
            if here != (there := theirs[name]):
                raise ConfigError(
                    f"controller.start_from = {self.start_from}: that evolution has {name} = {there}, this one {here}; "
                    f"{', '.join(theirs)} cannot change on the way",
                    next=f"wm run controller -o {shlex.quote(f'controller.{name}={there}')}",
                )

    def _fixed(self) -> dict[str, str | int]:
        """Return the settings that an evolution shares with those that continue it."""
        usual = Architecture()
        drives = {name: self.architecture.get(name, getattr(usual, name)) for name in Architecture.model_fields}
        search = {
            name: getattr(self, name) for name in ("strategy", "population", "covariance", "components", "warm_start")
        }
        return {**search, **drives}


class Strategy(Protocol):
    """A search for the parameters with the highest score, by ask and tell.

    To write one, define a class that is created with the evolution's `Settings`. `parts.STRATEGIES` makes it a value of
    `controller.strategy`. Workers store no state: each rebuilds it by asking and telling every earlier generation
    again. So the state may depend only on the settings, on `noise` and on what was told. This one goes on from the best
    candidate:

        class BestOf:
            def __init__(self, settings: Settings) -> None:
                self.mean, self.sigma = np.zeros(settings.parameters), settings.sigma
                self._population = settings.population

            def ask(self, noise: np.random.Generator) -> np.ndarray:
                return self.mean + self.sigma * noise.standard_normal((self._population, len(self.mean)))

            def tell(self, candidates: np.ndarray, scores: np.ndarray) -> None:
                self.mean = candidates[np.argmax(scores)]
    """

    sigma: float
    """How widely candidates are scattered around the mean; `controller.growth` and `sigma_bound` set it."""

    @property
    def mean(self) -> np.ndarray:
        """Return the parameters [P] to validate and to hand on."""

    def ask(self, noise: np.random.Generator) -> np.ndarray:
        """Return the candidates [N, P] of a generation, drawn with `noise` alone."""

    def tell(self, candidates: np.ndarray, scores: np.ndarray) -> None:
        """Learn from candidates float64 [N, P], as they drove, and their scores float64 [N]; larger is better.

        The candidates are the last asked ones, rounded to float32; on another kind of CPU, they may differ from those.
        """


class InCoordinates:
    """A strategy whose coordinates y [D] stand for the parameters origin + y @ matrix [P]."""

    def __init__(self, inner: Strategy, matrix: np.ndarray, origin: np.ndarray) -> None:
        self._inner, self._matrix, self._origin = inner, matrix, origin
        self._inverse = np.linalg.pinv(matrix)

    @property
    def mean(self) -> np.ndarray:
        return np.asarray(self._origin + self._inner.mean @ self._matrix)

    @property
    def sigma(self) -> float:
        return self._inner.sigma

    @sigma.setter
    def sigma(self, sigma: float) -> None:
        self._inner.sigma = sigma

    def ask(self, noise: np.random.Generator) -> np.ndarray:
        return np.asarray(self._origin + self._inner.ask(noise) @ self._matrix)

    def tell(self, candidates: np.ndarray, scores: np.ndarray) -> None:
        self._inner.tell((candidates - self._origin) @ self._inverse, scores)


class Evolution:
    """A strategy's state before it is asked for generation `self.generation` (1 at first).

    All random numbers come from a Generator seeded by (seed, generation), so the same candidates and scores give the
    same next candidates, bit for bit.
    """

    def __init__(self, settings: Settings, matrix: np.ndarray | None = None, origin: np.ndarray | None = None) -> None:
        """Begin with the parameters `origin` [P], by default zeros.

        `matrix` [D, P] has the parameters that a unit of each coordinate of the search adds, by default one each.
        """
        # Always one BLAS thread: another count may sum in another order, and driving occupies all cores anyway.
        threadpool_limits(1, user_api="blas")
        self.generation = 1
        create = parts.load(parts.STRATEGIES, settings.strategy)
        self._strategy: Strategy
        if matrix is None and origin is None:
            self._strategy = create(settings)
        else:
            matrix = np.eye(settings.parameters) if matrix is None else matrix
            inner = create(replace(settings, parameters=len(matrix)))
            self._strategy = InCoordinates(inner, matrix, np.zeros(matrix.shape[1]) if origin is None else origin)

    @property
    def mean(self) -> np.ndarray:
        """Return the strategy's mean, float32 [P]."""
        return np.asarray(self._strategy.mean, np.float32)

    @property
    def sigma(self) -> float:
        return float(self._strategy.sigma)

    def set_sigma(self, sigma: float) -> None:
        self._strategy.sigma = sigma

    def ask(self, seed: int) -> np.ndarray:
        """Return the generation's candidates, float32 [N, P]."""
        return np.asarray(self._strategy.ask(np.random.default_rng([seed, self.generation])), np.float32)

    def tell(self, candidates: np.ndarray, scores: Sequence[float]) -> None:
        """Tell the strategy the candidates float32 [N, P], exactly as they drove, and their scores [N].

        Raise WorkFailed if a score is not finite.
        """
        if not all(math.isfinite(score) for score in scores):
            raise WorkFailed(
                f"generation {self.generation}: a candidate's score is not a number: {scores}",
                next="wm logs controller",
            )
        self._strategy.tell(candidates.astype(np.float64), np.asarray(scores, np.float64))
        self.generation += 1
