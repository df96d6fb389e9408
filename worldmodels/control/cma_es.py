"""CMA-ES (Hansen 2016, arXiv:1604.00772), by pycma."""

import warnings
from typing import Any

import cma
import numpy as np

from .evolution import Settings

# pycma checks its mirrored pair to 1e-11, finer than the candidates' float32.
warnings.filterwarnings("ignore", message="TPA: apparent inconsistency with mirrored samples")


class CmaEs:
    """The `Strategy` of the paper. Its mean begins at 0 as in the paper's code.

    Step size: pycma's default, which is two-point adaptation from 300 parameters on (on noisy quadratics of 867
    parameters it got further than CSA, whose sigma hardly changed). pycma itself resumes from pickles; here, `noise` is
    its only source of random numbers, so a replay of ask and tell gives the same state.
    """

    def __init__(self, settings: Settings) -> None:
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
        self._cma: Any = cma.CMAEvolutionStrategy(np.zeros(settings.parameters), settings.sigma, options)

    @property
    def mean(self) -> np.ndarray:
        # Once the covariance's condition number exceeds 1e12, pycma uses other coordinates.
        return np.asarray(self._cma.gp.pheno(self._cma.mean))

    @property
    def sigma(self) -> float:
        return float(self._cma.sigma)

    @sigma.setter
    def sigma(self, sigma: float) -> None:
        self._cma.sigma = sigma

    def ask(self, noise: np.random.Generator) -> np.ndarray:
        self._noise = noise
        return np.asarray(self._cma.ask())

    def tell(self, candidates: np.ndarray, scores: np.ndarray) -> None:
        # By default, pycma takes rounded candidates for injected ones and shortens some of them.
        self._cma.tell(list(candidates), [-score for score in scores.tolist()], check_points=False)
