"""Disjoint tracks for rollouts, training, validation and test. A track is a 31-bit seed (see `envs.base`)."""

import numpy as np

from ..errors import ConfigError

WIDTH = 100_000_000
ROLLOUTS, TRAINING, VALIDATION, TEST = (range(i * WIDTH, (i + 1) * WIDTH) for i in range(4))


def rollout_track(seed: int, iteration: int, episode: int) -> int:
    """Return the track of one stored episode; `episode` counts from 0 within the iteration."""
    return _take(ROLLOUTS, (seed, iteration), episode, 1)[0]


def training_tracks(seed: int, iteration: int, generation: int, n: int) -> list[int]:
    """Return the n tracks that every candidate of a generation drives; a larger n appends to the same tracks."""
    return _take(TRAINING, (seed, iteration, generation), 0, n)


def validation_tracks(seed: int, n: int) -> list[int]:
    """Return the n tracks that score the mean: the same in all generations and iterations, to compare scores."""
    return _take(VALIDATION, (seed,), 0, n)


def test_tracks(first: int, n: int) -> list[int]:
    """Return n successive tracks from `first`; raise ConfigError if one of them is not a test track."""
    if first not in TEST or first + n - 1 not in TEST:
        raise ConfigError(
            f"evaluate.first_track = {first} with {n} tracks: test tracks are {TEST.start} to {TEST.stop - 1}",
            next=f"wm run evaluate -o evaluate.first_track={TEST.start}",
        )
    return list(range(first, first + n))


test_tracks.__test__ = False  # type: ignore[attr-defined]  # pytest must not collect it


def _take(purpose: range, key: tuple[int, ...], skip: int, n: int) -> list[int]:
    start = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] % WIDTH)
    return [purpose[(start + skip + i) % WIDTH] for i in range(n)]
