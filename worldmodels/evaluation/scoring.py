"""Scores of one controller on chosen tracks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..envs import describe, make
from ..rollouts.player import Job, Outcome, play
from ..rollouts.policies import Remembers, Sees, WorldPolicy
from .statistics import deviation, interval_95, mean


@dataclass(frozen=True)
class TrackScore:
    """One episode, from the start to its end or its last step: never ended early."""

    track: int
    score: float  # sum of rewards
    steps: int
    terminated: bool  # by the environment: lap complete, or off the field
    tiles_visited: int
    tiles_total: int
    lap: bool  # every tile was visited

    @classmethod
    def of(cls, outcome: Outcome) -> "TrackScore":
        o = outcome
        track, score = o.job.track, float(o.score)
        return cls(track, score, o.steps, o.terminated, int(o.tiles_visited), int(o.tiles_total), o.lap_complete)


def outcomes(
    encoder: Sees,
    step: Remembers,
    parameters: NDArray[np.float32],
    tracks: Sequence[int],
    engine: str,
    steps: int,
    lanes: int,
    on_step: Callable[[int], None] | None = None,
) -> Iterator[Outcome]:
    """Drives every track once with parameters [P]; yields episodes as they end. A job's key: its place in `tracks`."""
    jobs = (Job(i, track, parameters) for i, track in enumerate(tracks))
    lanes = min(lanes, len(tracks))
    engine_lanes = make(engine, lanes)
    policy = WorldPolicy(encoder, step, lanes)
    try:
        yield from play(engine_lanes, policy, lambda: next(jobs, None), steps=steps, on_step=on_step)
    finally:
        engine_lanes.close()


def score(
    encoder: Sees,
    step: Remembers,
    parameters: NDArray[np.float32],
    tracks: Sequence[int],
    engine: str,
    steps: int = 1000,
    lanes: int = 8,
) -> list[TrackScore]:
    """The scores of parameters [P], in the order of `tracks`. Commits nothing."""
    found = {o.job.key: TrackScore.of(o) for o in outcomes(encoder, step, parameters, tracks, engine, steps, lanes)}
    return [found[i] for i in range(len(tracks))]


def summary(rows: Sequence[TrackScore], engine: str) -> dict[str, Any]:
    """Scores and what they add up to, ready for JSON.

    `std` is the sample standard deviation over tracks; `interval` the 95 % confidence interval of the mean (Student's
    t). `lap_steps` is the mean length of completed laps, None without one.
    """
    values = [row.score for row in rows]
    laps = [row.steps for row in rows if row.lap]
    missed = [row.tiles_total - row.tiles_visited for row in rows]
    return {
        **describe(engine),
        "tracks": len(rows),
        "mean": mean(values),
        "std": deviation(values),
        "interval": list(interval_95(values)),
        "interval_is": "95 % confidence interval of the mean, Student's t",
        "min": min(values),
        "max": max(values),
        "median": median(values),
        "laps": len(laps),
        "lap_steps": mean(laps) if laps else None,
        "tiles_missed": mean(missed),
        "scores": [{**asdict(row), "missed": m} for row, m in zip(rows, missed, strict=True)],
    }
