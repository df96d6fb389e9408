"""Which tracks are driven for what. A track is a 31-bit seed (see `envs.base`); the four purposes never share one."""

import numpy as np

from ..errors import ConfigError

WIDTH = 100_000_000
ROLLOUTS, TRAINING, VALIDATION, TEST = (range(i * WIDTH, (i + 1) * WIDTH) for i in range(4))


def rollout_track(seed: int, iteration: int, episode: int) -> int:
    """The track of one stored episode; `episode` counts from 0 within the iteration."""
    return _take(ROLLOUTS, (seed, iteration), episode, 1)[0]


def training_tracks(seed: int, iteration: int, generation: int, n: int) -> list[int]:
    """The n tracks that every candidate of a generation drives; the first of them do not depend on n."""
    return _take(TRAINING, (seed, iteration, generation), 0, n)


def validation_tracks(seed: int, n: int) -> list[int]:
    """The n tracks on which the mean is scored: the same for every generation and iteration, so that scores compare."""
    return _take(VALIDATION, (seed,), 0, n)


def test_tracks(first: int, n: int) -> list[int]:
    """n successive tracks from `first`; ConfigError if one of them could have been trained or validated on."""
    if first not in TEST or first + n - 1 not in TEST:
        raise ConfigError(
            f"evaluate.first_track = {first} with {n} tracks: test tracks are {TEST.start} to {TEST.stop - 1}",
            next=f"wm run evaluate -o evaluate.first_track={TEST.start}",
        )
    return list(range(first, first + n))


test_tracks.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever pytest makes of its name


def _take(purpose: range, key: tuple[int, ...], skip: int, n: int) -> list[int]:
    start = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] % WIDTH)
    return [purpose[(start + skip + i) % WIDTH] for i in range(n)]
