"""Stopping criteria, levels and averages of an evolution, and the description of its progress."""

import io
import logging
import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_control import LOG, QUICK, SETTINGS, Dies, Mortal, plan, player, work, workspace

from worldmodels.config import Controller
from worldmodels.context import StoreWorkspace
from worldmodels.control import describe
from worldmodels.control.evolution import Level, Settings
from worldmodels.control.exchange import EvolutionPlan, Exchange
from worldmodels.control.records import Generation, params_key
from worldmodels.control.stopping import RunStats, StoppingCriteria

pytestmark = pytest.mark.filterwarnings("ignore:TPA")
GROWTH = (Level(-0.3, tracks=5, sigma=0.05), Level(0.3, steps=10))


def ending(generations: int = 8, **goals: float) -> EvolutionPlan:
    return replace(plan(generations=generations), criteria=StoppingCriteria(**goals))  # type: ignore[arg-type]


def rows(files: dict[str, bytes]) -> list[str]:
    return files["rewards.csv"].decode().splitlines()


def without_reason(files: dict[str, bytes]) -> dict[str, bytes]:
    lines = [",".join(line.split(",")[:8]) + "\n" for line in rows(files)]
    return {**files, "rewards.csv": "".join(lines).encode()}


@pytest.mark.parametrize(
    ("goals", "reached"),
    [
        (StoppingCriteria(), False),
        (StoppingCriteria(target=500), True),
        (StoppingCriteria(target=501), False),
        (StoppingCriteria(stagnation=6), True),
        (StoppingCriteria(stagnation=7), False),
        (StoppingCriteria(core_hours=1), True),
        (StoppingCriteria(wall_hours=1), False),
    ],
)
def test_goals(goals: StoppingCriteria, reached: bool) -> None:
    course = RunStats(best=500.0, since=1, longest=6, seconds=1800, cores=7200)
    assert bool(goals.reached(course)) == reached


def test_a_course_counts_generations_since_the_best() -> None:
    course = RunStats()
    for score in (math.nan, 3.0, math.nan, math.nan, 2.0, 4.0, math.nan, 1.0):
        course = course.after(score, 10.0, workers=2)
    assert course == RunStats(best=4.0, since=2, longest=3, seconds=80.0, cores=160.0)


def test_it_ends_at_the_target_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found = work(workspace(tmp_path / "early"), ending(target=-10.0))
    assert len(rows(found)) == 3 and "controller.target = -10" in rows(found)[-1]
    assert "ends after generation 2: controller.target" in caplog.text
    assert without_reason(found) == work(workspace(tmp_path / "plain"), plan(generations=2))


def test_all_workers_agree_on_the_end(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda w: work(workspace(tmp_path), ending(target=-10.0), w, pause=0.002), range(3)))
    assert found[0] == found[1] == found[2] and "controller.target = -10" in rows(found[0])[-1]


@pytest.mark.parametrize("seed", range(2))
def test_a_death_near_the_end_does_not_show(tmp_path: Path, seed: int) -> None:
    undisturbed = work(workspace(tmp_path / "a"), ending(target=-10.0))
    for writes in range(20 + seed, 60, 9):
        try:
            work(Mortal(workspace(tmp_path / "b"), writes, after=bool(writes % 2)), ending(target=-10.0))  # type: ignore[arg-type]
        except Dies:
            continue
    assert work(workspace(tmp_path / "b"), ending(target=-10.0)) == undisturbed


def test_a_raised_goal_goes_on_from_where_it_stopped(tmp_path: Path) -> None:
    work(workspace(tmp_path / "a"), ending(target=-10.0))
    first = workspace(tmp_path / "a").get(params_key(1))
    assert work(workspace(tmp_path / "a"), plan(generations=8)) == work(workspace(tmp_path / "b"), plan(generations=8))
    assert workspace(tmp_path / "a").get(params_key(1)) == first


def test_a_goal_that_was_passed_long_ago_is_found(tmp_path: Path) -> None:
    work(workspace(tmp_path / "a"), plan(generations=8))
    assert work(workspace(tmp_path / "a"), ending(target=-10.0)) == work(
        workspace(tmp_path / "b"), ending(target=-10.0)
    )


def test_hours_end_it(tmp_path: Path) -> None:
    found = work(workspace(tmp_path), ending(wall_hours=1e-9))
    assert len(rows(found)) == 2 and "wall_hours" in rows(found)[-1]


# Growth.


def grown(generations: int = 10, **changes: object) -> EvolutionPlan:
    return plan(replace(SETTINGS, sigma=0.3, growth=GROWTH, **changes), generations)  # type: ignore[arg-type]


def drawn(where: StoreWorkspace, number: int) -> Generation:
    return Generation.decode(where.get(params_key(number)) or b"", params_key(number))


def test_levels_take_over_what_they_do_not_say() -> None:
    settings = replace(SETTINGS, growth=GROWTH)
    assert settings.level(-math.inf).tracks == SETTINGS.tracks
    assert (settings.level(0.0).tracks, settings.level(0.0).steps) == (5, 0)
    assert (settings.level(9.0).tracks, settings.level(9.0).steps) == (5, 10)


def test_later_settings_are_written_only_where_they_are_not_usual() -> None:
    later = {b"growth", b"average", b"sigma_bound", b"architecture", b"strategy"}
    assert not later & set(SETTINGS.encode().split(b'"'))
    assert Settings.decode(SETTINGS.encode()) == SETTINGS
    architecture = {"inputs": "z", "hidden": 3}
    other = replace(SETTINGS, growth=GROWTH, average=4, architecture=architecture, strategy="openai-es")
    assert later - {b"sigma_bound"} <= set(other.encode().split(b'"'))
    assert Settings.decode(other.encode()) == other


def test_it_grows_with_the_means_score(tmp_path: Path) -> None:
    where = workspace(tmp_path)
    work(where, grown())
    found = [drawn(where, g) for g in range(1, 11)]
    sizes = [len(each.tracks) for each in found]
    first = sizes.index(5)
    assert sizes == [3] * first + [5] * (10 - first) and found[first - 1].validation
    assert found[first].sigma == 0.05 and found[-1].steps in (8, 10)


def test_growth_holds_through_deaths_and_leaders(tmp_path: Path) -> None:
    undisturbed = work(workspace(tmp_path / "a"), grown())
    for writes in (40, 30, 20, 10, 20):
        with pytest.raises(Dies):
            work(Mortal(workspace(tmp_path / "b"), writes, True), grown(), worker=writes % 3)  # type: ignore[arg-type]
    assert work(workspace(tmp_path / "b"), grown()) == undisturbed


def test_growth_holds_in_a_child(tmp_path: Path) -> None:
    undisturbed = work(workspace(tmp_path, "parent"), grown())
    found = work(workspace(tmp_path, "child"), grown(start_from=7))
    assert {**found, "best.npy": b""} == {**undisturbed, "best.npy": b""}


def test_sigma_does_not_grow_beyond_its_bound(tmp_path: Path) -> None:
    free, bound = (
        replace(SETTINGS, sigma=0.02, growth=(Level(-0.3, sigma=0.01),), sigma_bound=b) for b in (False, True)
    )
    sigmas = {
        b.sigma_bound: [drawn(found, g).sigma for g in range(1, 11)] for b, found in played(tmp_path, free, bound)
    }
    assert max(sigmas[False]) > 0.02 and max(sigmas[True]) <= 0.02
    assert sigmas[True][-1] <= 0.01 < sigmas[False][-1]


def played(folder: Path, *settings: Settings) -> Iterator[tuple[Settings, StoreWorkspace]]:
    for number, each in enumerate(settings):
        where = workspace(folder / str(number))
        work(where, plan(each, generations=10))
        yield each, where


# Which parameters are validated and handed on.


def averages(generations: int = 6, select: str = "last", count: int = 3) -> EvolutionPlan:
    return replace(plan(replace(SETTINGS, average=count), generations), select=select)


def arrays(files: dict[str, bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The means after each generation [G, P], and the parameters that the stage hands on [P]."""
    return np.load(io.BytesIO(files["generations.npz"]))["mean"], np.load(io.BytesIO(files["mean.npy"]))


def test_the_average_of_the_last_means_is_validated_and_handed_on(tmp_path: Path) -> None:
    where = workspace(tmp_path)
    means, handed_on = arrays(work(where, averages()))
    np.testing.assert_allclose(handed_on, means[-3:].mean(0), rtol=1e-5)
    np.testing.assert_allclose(drawn(where, 6).validated, means[2:5].mean(0), rtol=1e-5)
    np.testing.assert_allclose(drawn(where, 2).validated, means[0])


def test_averages_do_not_change_the_candidates(tmp_path: Path) -> None:
    means, _ = arrays(work(workspace(tmp_path / "a"), averages()))
    plain, _ = arrays(work(workspace(tmp_path / "b"), plan(generations=6)))
    np.testing.assert_array_equal(means, plain)


def test_the_parameters_with_the_best_validation_score_are_handed_on(tmp_path: Path) -> None:
    found = work(workspace(tmp_path), averages(generations=9, select="best", count=2))
    scores = [float(row.split(",")[6] or "-inf") for row in rows(found)[1:]]
    best = scores.index(max(scores))  # validated before this generation was told
    means, handed_on = arrays(found)
    np.testing.assert_allclose(handed_on, means[max(0, best - 2) : best].mean(0), rtol=1e-5)


def test_averages_hold_through_deaths_and_in_a_child(tmp_path: Path) -> None:
    what = averages(generations=9, select="best")
    undisturbed = work(workspace(tmp_path / "a"), what)
    for writes in (30, 20, 20):
        with pytest.raises(Dies):
            work(Mortal(workspace(tmp_path / "b"), writes, True), what, worker=writes % 3)  # type: ignore[arg-type]
    assert work(workspace(tmp_path / "b"), what) == undisturbed
    child = replace(averages(9), settings=replace(SETTINGS, average=3, start_from=5))
    assert arrays(work(workspace(tmp_path / "a", "child"), child))[1].shape == (7,)


# Workers that are cut off, and what users see.


class Hangs:
    """A workspace whose calls hang while told to: a partition, from one worker's side."""

    def __init__(self, inner: StoreWorkspace) -> None:
        self._inner, self.through = inner, threading.Event()
        self.through.set()

    def __getattr__(self, name: str) -> object:
        def call(*arguments: object) -> object:
            self.through.wait(10)
            found = getattr(self._inner, name)(*arguments)
            self.through.wait(10)  # or its answer does
            return found

        return call


def test_a_worker_that_is_cut_off_for_a_while_does_no_harm(tmp_path: Path) -> None:
    undisturbed = work(workspace(tmp_path / "a"), plan(generations=12))
    cut = Hangs(workspace(tmp_path / "b"))
    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(work, cut, plan(generations=12), 0, 4, 0.005)
        other = pool.submit(work, workspace(tmp_path / "b"), plan(generations=12), 1, 4, 0.005)
        time.sleep(0.3)
        cut.through.clear()
        assert other.result(30) == undisturbed  # it does not wait for the other
        cut.through.set()
        assert leader.result(30) == undisturbed


def test_describe_tells_how_it_stands(tmp_path: Path) -> None:
    where, settings = workspace(tmp_path), Controller(generations=5)
    assert describe(where, settings) is None
    seen = []

    def tick(rate: float) -> None:
        if (found := describe(where, settings)) and found.generation > 2:
            seen.append(found)

    Exchange(where, plan(), 0, 4, LOG, QUICK).run(player(4, 0.02), tick)
    last = seen[-1]
    assert last.workers == 1 and last.generations == 5 and 0 <= last.done <= 1 and last.silent < 5
    assert last.best >= last.mean and last.sigma > 0 and last.left >= 0 and last.rate > 0


def test_describe_counts_the_workers_of_the_last_generation(tmp_path: Path) -> None:
    where = workspace(tmp_path)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda w: work(where, plan(generations=2), w, pause=0.02), range(3)))
    found = describe(where, Controller(generations=3))
    assert found and found.workers == 3 and found.generation == 3 and found.done == 0
