"""Scores of a controller: the same however they are played, and honest about their spread."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import EncoderFn, FolderArtifact, RecurrentFn, context, driver, folder_shards
from PIL import Image

from worldmodels import evaluation
from worldmodels.envs.car_racing import SPEC
from worldmodels.evaluation import drive, stage
from worldmodels.evaluation.scoring import TrackScore, comparison, summary
from worldmodels.evaluation.statistics import (
    deviation,
    interquartile_interval_95,
    interquartile_mean,
    interval_95,
    student_975,
)

C = np.linspace(-0.3, 0.3, driver().controller.parameters).astype(np.float32)
TRACKS = [300_000_000 + i for i in range(4)]


def row(score: float, visited: int = 300, steps: int = 1000) -> TrackScore:
    return TrackScore(1, score, steps, False, visited, 300, visited == 300)


@pytest.mark.parametrize(("freedom", "exact"), [(1, 12.7062), (10, 2.2281), (11, 2.2010), (29, 2.0452), (99, 1.9842)])
def test_students_quantile(freedom: int, exact: float) -> None:
    assert student_975(freedom) == pytest.approx(exact, abs=2e-4)


def test_interval_of_the_mean() -> None:
    values = [1.0, 2.0, 3.0, 4.0]
    low, high = interval_95(values)
    assert high - low == pytest.approx(2 * 3.1824 * deviation(values) / 2)
    assert (low + high) / 2 == pytest.approx(2.5)
    assert interval_95([7.0]) == (7.0, 7.0)


def test_interval_covers_the_mean_in_95_of_100_cases() -> None:
    draws = np.random.default_rng(0).normal(size=(2000, 8))
    inside = [low <= 0 <= high for low, high in map(interval_95, draws.tolist())]
    assert 0.935 < np.mean(inside) < 0.965


def test_summary_counts_laps_and_missed_tiles() -> None:
    found = summary([row(900, steps=700), row(800, visited=297), row(940, steps=600)], "CarRacing-v3", "fast")
    assert (found["laps"], found["lap_steps"], found["tiles_missed"]) == (2, 650, 1)
    assert (found["min"], found["max"], found["median"], found["tracks"]) == (800, 940, 900, 3)
    assert found["renderer"] == "fast" and found["env"] == "CarRacing-v3" and found["gymnasium"]
    assert math.isfinite(json.loads(json.dumps(found))["std"])


def test_the_interquartile_mean_ignores_the_outer_quarters() -> None:
    values = [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 1000.0]
    assert interquartile_mean(values) == 35 and interquartile_mean([3.0]) == 3
    low, high = interquartile_interval_95(values)
    assert low < 35 < high and (low, high) == interquartile_interval_95(values)
    assert interquartile_interval_95([3.0]) == (3, 3)


def test_laps_are_counted_by_both_rules() -> None:
    found = summary([row(900), row(800, visited=297), row(700, visited=200)], "CarRacing-v3", "fast")
    assert (found["laps"], found["laps_95"]) == (1, 2)


def test_summary_without_a_lap() -> None:
    assert summary([row(100, visited=50)], "CarRacing-v3", "fast")["lap_steps"] is None


def test_lanes_do_not_change_a_score() -> None:
    one, many = (evaluation.score(driver(), C, TRACKS, "fast", 40, lanes) for lanes in (1, 3))
    assert one == many and [s.track for s in one] == TRACKS


def test_renderers_do_not_change_what_the_same_actions_earn() -> None:
    fast, reference = (
        evaluation.score(driver(), C * 0, TRACKS[:1], renderer, 40) for renderer in ("fast", "gymnasium")
    )
    assert fast == reference


def test_the_difference_between_renderers_is_taken_track_by_track() -> None:
    fast = [replace(row(score), track=track) for track, score in ((1, 900.0), (2, 800.0), (3, 100.0))]
    reference = [replace(row(score), track=track) for track, score in ((2, 790.0), (1, 896.0))]
    found = comparison(fast, reference, "CarRacing-v3")
    assert (found["tracks"], found["mean"], found["fast_mean"], found["difference"]) == (2, 843, 850, -7)
    low, high = found["difference_interval"]
    assert high - low == pytest.approx(2 * 12.7062 * deviation([-10, -4]) / math.sqrt(2))


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A context of four short tracks, with networks of a few numbers."""
    monkeypatch.setattr(stage, "Encoder", EncoderFn)
    monkeypatch.setattr(stage, "Step", RecurrentFn)
    np.save(tmp_path / "mean.npy", C)
    settings = {"tracks": 4, "shard_tracks": 2, "steps": 20, "reference_tracks": 1}
    inputs = {name: FolderArtifact(tmp_path) for name in ("vae", "memory", "controller")}
    return context(tmp_path, "evaluate", {f"evaluate.{k}": v for k, v in settings.items()}, **inputs)


def test_shards_and_collection_score_every_track_once(ctx, tmp_path: Path) -> None:
    made = dict(stage.shards(ctx, [1, 0]))
    stage.collect(ctx, folder_shards(tmp_path / "shards", [made[0], made[1]]).shards)
    found = json.loads((ctx.results / "scores.json").read_text())
    assert [s["track"] for s in found["scores"]] == TRACKS
    assert found["steps"] == 20 and found["parameters"] == "mean.npy"
    assert [s["track"] for s in found["reference"]["scores"]] == TRACKS[:1]
    assert Image.open(ctx.telemetry / "drive.webp").n_frames == 5


def test_a_shard_is_the_same_alone(ctx) -> None:
    assert dict(stage.shards(ctx, [1])) == {1: dict(stage.shards(ctx, [0, 1]))[1]}


def test_film_is_an_animation_below_two_megabytes() -> None:
    data = drive.film(driver(), C, TRACKS[0], steps=60)
    picture = Image.open(io.BytesIO(data))
    assert picture.n_frames == 15 and picture.size == (300, 200) and len(data) <= drive.LARGEST


def test_filming_changes_nothing() -> None:
    camera = drive.Camera(SPEC, 1)
    bare = SPEC.make("fast", 1)
    action = np.array([[0.1, 0.5, 0.0]], np.float32)
    for lanes in (camera, bare):
        lanes.start(0, TRACKS[0])
    steps = [[lanes.step([0], action) for _ in range(10)] for lanes in (camera, bare)]
    assert all(np.array_equal(a, b) for one, two in zip(*steps, strict=True) for a, b in zip(one, two, strict=True))
