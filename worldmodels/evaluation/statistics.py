"""Statistics of scores over tracks, beside those of the standard library."""

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np

T_975 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
Z_975 = 1.959964
RESAMPLES = 10_000


def deviation(values: Sequence[float]) -> float:
    """Return the sample standard deviation (n - 1); 0 for a single value.

    `statistics.stdev` rounds otherwise in one case of five, and the result is part of the artifact's digest.
    """
    centre = fmean(values)
    return math.sqrt(math.fsum((v - centre) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else 0.0


def student_975(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t.

    Up to 10 degrees of freedom, it comes from a table; from 11 on, from Abramowitz & Stegun 26.7.5 (4 digits).
    """
    if freedom <= len(T_975):
        return T_975[freedom - 1]
    z, v = Z_975, freedom
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + sum(term / float(v) ** power for power, term in enumerate(terms, 1))


def interval_95(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % confidence interval of the mean: mean ± t s / √n, Student's t.

    For a single value, both ends are that value.
    """
    centre = fmean(values)
    if len(values) < 2:
        return centre, centre
    half = student_975(len(values) - 1) * deviation(values) / math.sqrt(len(values))
    return centre - half, centre + half


def interquartile_mean(values: Sequence[float]) -> float:
    """Return the mean without the lowest and the highest quarter of the values (whole values, rounded down)."""
    cut = len(values) // 4
    return fmean(sorted(values)[cut : len(values) - cut])


def interquartile_interval_95(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the interquartile mean by the percentile bootstrap over values.

    The 10,000 resamples come from a generator with seed 0, so the same values give the same interval (Agarwal et al.
    2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice", section 4.3).
    """
    draws = np.random.default_rng(0).choice(np.asarray(values, np.float64), (RESAMPLES, len(values)))
    cut = len(values) // 4
    means = np.sort(draws, axis=1)[:, cut : len(values) - cut].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)
