"""The stage `evaluate`: drives the mean controller on test tracks, some of them also on unmodified Gymnasium."""

import json
import time
from collections.abc import Iterator, Sequence
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from .. import npz, stored
from ..context import Context, Shard
from ..envs import spec, tracks
from ..errors import CorruptArtifact, ShardFailed
from ..networks import Encoder, Step
from ..rollouts.driver import Driver
from ..rollouts.player import EpisodeFailed
from .drive import film
from .scoring import TrackScore, comparison, score, summary


def shards(ctx: Context, todo: Sequence[int]) -> Iterator[tuple[int, dict[str, bytes]]]:
    """Score the shards' tracks; yield (shard index, {"scores.json": {renderer: rows in track order}}) one by one.

    Raise ShardFailed if an episode cannot begin.
    """
    settings = ctx.config.evaluate
    size = settings.shard_tracks
    every = tracks.test_tracks(settings.first_track, settings.tracks)
    compared = set(every[: settings.reference_tracks]) if "gymnasium" in spec(ctx.config.env).renderers else set()
    work = {shard: every[shard * size : (shard + 1) * size] for shard in todo}
    episodes = sum(len(mine) + len(compared & set(mine)) for mine in work.values())
    controller, progress = _controller(ctx), _Progress(ctx, episodes * settings.steps)
    for shard, mine in work.items():
        rows: dict[str, list[TrackScore]] = {}
        for renderer, driven in (("fast", mine), ("gymnasium", [track for track in mine if track in compared])):
            if driven:
                try:
                    rows[renderer] = score(*controller, driven, renderer, settings.steps, ctx.lanes, progress.stepped)
                except EpisodeFailed as failure:
                    raise ShardFailed(shard, failure.message) from failure
                progress.ended(rows[renderer], settings.steps)
        yield shard, {"scores.json": json.dumps(rows, default=lambda row: row.__dict__).encode()}


def collect(ctx: Context, shards: Sequence[Shard]) -> None:
    """Write scores.json, and drive.webp: an animated picture of the track with the median score."""
    settings = ctx.config.evaluate
    parts = [_rows(shard) for shard in shards]
    rows, reference = ([row for part in parts for row in part.get(r, ())] for r in ("fast", "gymnasium"))
    found = {
        "parameters": "mean.npy",
        "steps": settings.steps,
        **summary(rows, ctx.config.env, "fast"),
        "reference": comparison(rows, reference, ctx.config.env) if reference else None,
    }
    (ctx.results / "scores.json").write_text(json.dumps(found, indent=1) + "\n")
    middle = sorted(rows, key=lambda row: (row.score, row.track))[(len(rows) - 1) // 2]
    ctx.log.info("filming track %d, score %.1f", middle.track, middle.score)
    picture = film(*_controller(ctx), middle.track, settings.steps, on_step=lambda _: ctx.alive())
    (ctx.telemetry / "drive.webp").write_bytes(picture)


def _rows(shard: Shard) -> dict[str, list[TrackScore]]:
    label, repair = f"evaluate shard {shard.index}: scores.json", "wm run evaluate --redo"
    found = stored.parse(shard.read("scores.json"), stored.TRACKS, label, repair)
    try:
        return {renderer: [TrackScore(**row) for row in rows] for renderer, rows in found.items()}
    except TypeError as error:
        raise CorruptArtifact(f"{label} is damaged: {error}", next=repair) from error


def _controller(ctx: Context) -> tuple[Driver, NDArray[np.float32]]:
    controller = ctx.one("controller")
    encoder, step = Encoder(ctx.one("vae").path("encoder.tflite")), Step(ctx.one("memory").path("step.tflite"))
    mean = npz.read(controller.path("mean.npy"))
    return Driver.of(controller.env, controller.architecture, encoder, step), np.asarray(mean, np.float32)


class _Progress:
    """Progress in steps, with the scores so far; an episode that ends early reduces the expected number."""

    def __init__(self, ctx: Context, total: int) -> None:
        self._ctx, self._total = ctx, total
        self._scores: list[float] = []
        self._steps = 0
        self._began = time.monotonic()

    def stepped(self, steps: int) -> None:
        self._steps += steps
        rate = self._steps / max(time.monotonic() - self._began, 1e-9)
        figures = {"mean": fmean(self._scores)} if self._scores else {}
        self._ctx.progress(self._steps, self._total, "steps", rate, **figures)

    def ended(self, rows: Sequence[TrackScore], steps: int) -> None:
        self._scores += [row.score for row in rows]
        self._total -= sum(steps - row.steps for row in rows)
