"""The evolution strategy of OpenAI (Salimans et al. 2017, arXiv:1703.03864)."""

import numpy as np

from .evolution import Settings

RATE = 0.5  # step of the mean, in sigmas; with 1 or more, noisy quadratics of 867 parameters got worse
MOMENTUM = 0.9


class OpenAiEs:
    """The `Strategy` that climbs an estimate of the gradient, with mirrored candidates and momentum.

    Candidates are theta + sigma e and theta - sigma e, e standard normal. With the candidates' ranks u, centred and of
    unit variance, g = mean(u e), m = MOMENTUM m + (1 - MOMENTUM) g and theta = theta + RATE sigma m. Sigma is constant,
    so noise in the scores cannot make it grow. `covariance` has no effect.
    """

    def __init__(self, settings: Settings) -> None:
        self.mean, self.sigma = np.zeros(settings.parameters), settings.sigma
        self._momentum = np.zeros(settings.parameters)
        self._population = settings.population

    def ask(self, noise: np.random.Generator) -> np.ndarray:
        half = noise.standard_normal(((self._population + 1) // 2, len(self.mean)))
        return self.mean + self.sigma * np.concatenate([half, -half])[: self._population]

    def tell(self, candidates: np.ndarray, scores: np.ndarray) -> None:
        steps = (candidates - self.mean) / self.sigma  # [N, P]
        gradient = (_utilities(scores)[:, None] * steps).mean(axis=0)  # summed row by row, as on every CPU
        self._momentum = MOMENTUM * self._momentum + (1 - MOMENTUM) * gradient
        self.mean = self.mean + RATE * self.sigma * self._momentum


def _utilities(scores: np.ndarray) -> np.ndarray:
    """Return the ranks of scores [N], with mean 0 and variance 1 if no two are equal; equal scores share their rank."""
    below, upto = (scores[:, None] > scores).sum(axis=1), (scores[:, None] >= scores).sum(axis=1)
    count = len(scores)
    return np.asarray((below + upto - count) / 2 / np.sqrt((count**2 - 1) / 12))
