"""Scores of one controller on chosen tracks."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..envs import Lanes, describe
from ..rollouts.driver import Driver
from ..rollouts.player import EpisodeResult, EpisodeSpec, play
from ..rollouts.policies import WorldPolicy
from .statistics import deviation, interquartile_interval_95, interquartile_mean, interval_95


@dataclass(frozen=True)
class TrackScore:
    """One episode, driven until the environment terminates it or to the last step, without patience.

    Stored names are CarRacing's. In another environment, tiles are the parts of its task, and a lap is a whole task.
    """

    track: int  # seed
    score: float  # sum of rewards
    steps: int
    terminated: bool  # by the environment
    tiles_visited: int
    tiles_total: int
    lap: bool  # every tile was visited

    @classmethod
    def of(cls, outcome: EpisodeResult) -> "TrackScore":
        o = outcome
        track, score = o.spec.track, float(o.score)
        return cls(track, score, o.steps, o.terminated, int(o.done), int(o.total), o.complete)


def score(
    driver: Driver,
    parameters: NDArray[np.float32],
    tracks: Sequence[int],
    renderer: str,
    steps: int = 1000,
    lanes: int = 8,
    on_step: Callable[[int], None] | None = None,
    vary: Callable[[Lanes], Lanes] = lambda lanes: lanes,
) -> list[TrackScore]:
    """Drive every track once with parameters [P]; return the scores in the order of `tracks`.

    `on_step` receives the number of steps just taken; `vary` wraps the environment. Raise EpisodeFailed if an episode
    cannot begin.
    """
    specs = (EpisodeSpec(i, track, parameters) for i, track in enumerate(tracks))
    count = min(lanes, len(tracks))
    environments, policy = vary(driver.env.lanes(renderer, count)), WorldPolicy(driver, count)
    try:
        outcomes = play(environments, policy, lambda: next(specs, None), steps=steps, on_step=on_step)
        found = {outcome.spec.key: TrackScore.of(outcome) for outcome in outcomes}
    finally:
        environments.close()
    return [found[i] for i in range(len(tracks))]


def summary(rows: Sequence[TrackScore], env: str, renderer: str) -> dict[str, Any]:
    """Summarise scores, ready for JSON.

    `std` is the sample standard deviation over tracks; `interval` the 95 % confidence interval of the mean (Student's
    t), `interquartile_interval` that of the interquartile mean (bootstrap). `laps` counts tracks with every tile
    visited, `laps_95` those with more than 95 %: Gymnasium's rule for a complete lap. `lap_steps` is the mean length of
    completed laps, None without one.
    """
    values = [row.score for row in rows]
    laps = [row.steps for row in rows if row.lap]
    missed = [row.tiles_total - row.tiles_visited for row in rows]
    return {
        **describe(env, renderer),
        "tracks": len(rows),
        "mean": fmean(values),
        "std": deviation(values),
        "interval": list(interval_95(values)),
        "interval_is": "95 % confidence interval of the mean, Student's t",
        "min": min(values),
        "max": max(values),
        "median": median(values),
        "interquartile_mean": interquartile_mean(values),
        "interquartile_interval": list(interquartile_interval_95(values)),
        "laps": len(laps),
        "laps_95": sum(row.tiles_visited > 0.95 * row.tiles_total for row in rows),
        "lap_steps": fmean(laps) if laps else None,
        "tiles_missed": fmean(missed),
        "scores": [{**asdict(row), "missed": m} for row, m in zip(rows, missed, strict=True)],
    }


def comparison(fast: Sequence[TrackScore], reference: Sequence[TrackScore], env: str) -> dict[str, Any]:
    """Compare one controller's scores with both renderers on the tracks of `reference`; ready for JSON."""
    by_track = {row.track: row.score for row in fast}
    return {
        **summary(reference, env, "gymnasium"),
        "fast_mean": fmean([by_track[row.track] for row in reference]),
        **difference(fast, reference),
        "difference_is": "gymnasium minus fast, mean over the same tracks, with its 95 % confidence interval",
    }


def difference(plain: Sequence[TrackScore], other: Sequence[TrackScore]) -> dict[str, Any]:
    """Return the mean difference of scores on the tracks of `other`, other minus plain, and its 95 % interval."""
    by_track = {row.track: row.score for row in plain}
    differences = [row.score - by_track[row.track] for row in other]
    return {"difference": fmean(differences), "difference_interval": list(interval_95(differences))}
