"""CMA-ES by ask and tell: the same candidates and scores give the same next candidates, bit for bit.

pycma itself resumes from pickles. Instead, all random numbers come from a Generator seeded by (seed, generation), and a
state is rebuilt by asking and telling every earlier generation again.
"""

import math
import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import cma
import numpy as np
from threadpoolctl import threadpool_limits

from .. import stored
from ..config import Architecture
from ..errors import ConfigError, WorkFailed

# pycma checks its mirrored pair to 1e-11, finer than the candidates' float32.
warnings.filterwarnings("ignore", message="TPA: apparent inconsistency with mirrored samples")


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
    their default.
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

    def encode(self) -> bytes:
        value = asdict(self)
        if not self.growth:
            del value["growth"]  # the format of versions without it
        if self.average == 1:
            del value["average"]
        for name in ("sigma_bound", "architecture"):
            if not value[name]:
                del value[name]
        return stored.encode(value)

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
        return {"population": self.population, "covariance": self.covariance, **drives}


class Evolution:
    """The state of CMA-ES before it is asked for generation `self.generation` (1 at first).

    Scores are rewards: larger is better. x0 = 0 as in the paper's code. Step size: pycma's default, which is two-point
    adaptation from 300 parameters on (on noisy quadratics of 867 parameters it got further than CSA, whose sigma hardly
    changed).
    """

    def __init__(self, settings: Settings) -> None:
        # Always one BLAS thread: another count may sum in another order, and driving occupies all cores anyway.
        threadpool_limits(1, user_api="blas")
        self.generation = 1
        self._noise = np.random.default_rng(0)
        options = {
            "popsize": settings.population,
            "CMA_diagonal": settings.covariance == "diagonal",
            "CMA_mirrors": 0,
            "seed": np.nan,
            "randn": lambda *shape: self._noise.standard_normal(shape),
            "signals_filename": "",
            "verbose": -9,
        }
        self._strategy: Any = cma.CMAEvolutionStrategy(np.zeros(settings.parameters), settings.sigma, options)

    @property
    def mean(self) -> np.ndarray:
        """Return the distribution's mean, float32 [P]."""
        # Once the covariance's condition number exceeds 1e12, pycma uses other coordinates.
        return np.asarray(self._strategy.gp.pheno(self._strategy.mean), np.float32)

    @property
    def sigma(self) -> float:
        return float(self._strategy.sigma)

    def set_sigma(self, sigma: float) -> None:
        self._strategy.sigma = sigma

    def ask(self, seed: int) -> np.ndarray:
        """Return the generation's candidates, float32 [N, P]."""
        self._noise = np.random.default_rng([seed, self.generation])
        return np.asarray(self._strategy.ask(), np.float32)

    def tell(self, candidates: np.ndarray, scores: Sequence[float]) -> None:
        """Tell CMA-ES the candidates float32 [N, P], exactly as they drove, and their scores [N].

        Raise WorkFailed if a score is not finite.
        """
        if not all(math.isfinite(score) for score in scores):
            raise WorkFailed(
                f"generation {self.generation}: a candidate's score is not a number: {scores}",
                next="wm logs controller",
            )
        # By default, pycma takes rounded candidates for injected ones and shortens some of them.
        self._strategy.tell(list(candidates.astype(np.float64)), [-score for score in scores], check_points=False)
        self.generation += 1
