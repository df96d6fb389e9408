"""Tracks on which candidates scored worst, to drive them again.

The car leaves the road in a few corners, of tracks that are rare among fresh ones. Earlier tracks, chosen by their
scores, let a generation see them more often (prioritized level replay, Jiang et al. 2021).
"""

from collections.abc import Sequence

import numpy as np

from .history import average

RECENT = 20  # generations: scores of older ones are those of another C
POOL = 8  # tracks with the lowest scores, of which some are drawn


class TrackScores:
    """The candidates' mean score on each recent track, and the generation that drove it last."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[int, float]] = {}

    def add(self, generation: int, tracks: Sequence[int], scores: np.ndarray) -> None:
        """Note a generation's scores [N, T] on its tracks."""
        for track, column in zip(tracks, scores.T.tolist(), strict=True):
            self._last[track] = generation, average(column)
        self._last = {track: last for track, last in self._last.items() if last[0] > generation - RECENT}

    def draw(self, seed: int, generation: int, count: int) -> tuple[int, ...]:
        """Return at most `count` tracks for the generation, drawn from the `POOL` hardest recent ones."""
        pool = sorted(self._last, key=lambda track: (self._last[track][1], track))[:POOL]
        order = np.random.default_rng([seed, generation, len(pool)]).permutation(len(pool))
        return tuple(pool[i] for i in order[:count])
