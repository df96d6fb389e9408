"""The stage `evaluate`: the mean controller on fresh tracks, by default on the reference engine."""

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..envs import tracks
from ..errors import ShardFailed
from ..networks import Encoder, Step
from ..rollouts.player import EpisodeFailed
from ..task import Context, Shard
from .drive import film
from .scoring import TrackScore, outcomes, summary


def shards(ctx: Context, todo: Sequence[int]) -> Iterator[tuple[int, dict[str, bytes]]]:
    """Scores the shards' tracks; yields (shard index, {"scores.json": rows in track order}) as each shard is done."""
    settings = ctx.config.evaluate
    size = settings.shard_tracks
    every = tracks.test_tracks(settings.first_track, settings.tracks)
    mine = [every[shard * size + i] for shard in todo for i in range(size)]
    progress = _Progress(ctx, len(mine) * settings.steps)
    rows: dict[int, list[TrackScore]] = {shard: [] for shard in todo}
    played = outcomes(*_controller(ctx), mine, settings.engine, settings.steps, ctx.lanes, progress.stepped)
    try:
        for outcome in played:
            shard = todo[outcome.job.key // size]
            rows[shard].append(TrackScore.of(outcome))
            progress.ended(outcome.score, settings.steps - outcome.steps)
            if len(rows[shard]) == size:
                done = sorted(rows.pop(shard), key=lambda row: row.track)
                yield shard, {"scores.json": json.dumps([row.__dict__ for row in done]).encode()}
    except EpisodeFailed as failure:
        raise ShardFailed(todo[failure.job.key // size], failure.message) from failure


def collect(ctx: Context, shards: Sequence[Shard]) -> None:
    """Writes scores.json, and a picture of the track with the median score: drive.webp."""
    settings = ctx.config.evaluate
    rows = [TrackScore(**row) for shard in shards for row in json.loads(shard.read("scores.json"))]
    found = {"parameters": "mean.npy", "steps": settings.steps, **summary(rows, settings.engine)}
    (ctx.results / "scores.json").write_text(json.dumps(found, indent=1) + "\n")
    middle = sorted(rows, key=lambda row: (row.score, row.track))[(len(rows) - 1) // 2]
    ctx.log.info("filming track %d, score %.1f", middle.track, middle.score)
    alive = _Progress(ctx, settings.steps, [row.score for row in rows]).stepped
    picture = film(*_controller(ctx), middle.track, settings.steps, on_step=alive)
    (ctx.telemetry / "drive.webp").write_bytes(picture)


def _controller(ctx: Context) -> tuple[Encoder, Step, NDArray[np.float32]]:
    mean = np.load(ctx.one("controller").path("mean.npy"), allow_pickle=False)
    encoder = Encoder(ctx.one("vae").path("encoder.tflite"))
    return encoder, Step(ctx.one("memory").path("step.tflite")), np.asarray(mean, np.float32)


class _Progress:
    """Steps done of those expected, and the scores so far; a lap that is completed early makes the rest less."""

    def __init__(self, ctx: Context, total: int, scores: Sequence[float] = ()) -> None:
        self._ctx, self._total = ctx, total
        self._scores = list(scores)
        self._steps = 0
        self._began = time.monotonic()

    def stepped(self, steps: int) -> None:
        self._steps += steps
        rate = self._steps / max(time.monotonic() - self._began, 1e-9)
        figures: dict[str, Any] = {"mean": float(np.mean(self._scores))} if self._scores else {}
        self._ctx.progress(self._steps, self._total, "steps", rate, **figures)

    def ended(self, score: float, saved: int) -> None:
        self._scores.append(score)
        self._total -= saved
