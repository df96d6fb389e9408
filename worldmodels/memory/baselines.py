"""Baselines for M: densities of z_{t+1} that ignore the action and the past, fitted on the training split."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..vision.latents import Latents

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Baselines:
    """`unchanged`: N(z_t, step), `gaussian`: N(mean, variance); independent dimensions, [Z] each."""

    mean: Doubles
    variance: Doubles
    step: Doubles

    def nll(self, z: NDArray[np.float32]) -> tuple[float, float]:
        """Return the nats of z[1:] of one episode [T, Z] under `unchanged` and `gaussian`.

        Both are summed over frames and dimensions.
        """
        now, target = z[:-1].astype(np.float64), z[1:].astype(np.float64)
        return _nats(target - now, self.step), _nats(target - self.mean, self.variance)


def _nats(error: Doubles, variance: Doubles) -> float:
    return float(0.5 * (np.log(2 * np.pi * variance) + error**2 / variance).sum())


def fit(episodes: Iterable[Latents]) -> Baselines:
    """Fit by maximum likelihood over all draws z ~ N(mean, exp(logvar)) at once, with expectations in closed form."""
    count = 0
    total = square = change = np.zeros(1)
    for episode in episodes:
        mean, variance = episode.mean.astype(np.float64), np.exp(episode.logvar.astype(np.float64))
        count += len(mean) - 1
        total = total + mean[1:].sum(0)
        square = square + (mean[1:] ** 2 + variance[1:]).sum(0)
        change = change + (np.diff(mean, axis=0) ** 2 + variance[1:] + variance[:-1]).sum(0)
    center = total / count
    return Baselines(center, square / count - center**2, change / count)
