"""The evolution is a function of its settings: who plays, leads, dies or comes back never shows in its files."""

import io
import logging
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import EncoderFn, FolderArtifact, RecurrentFn, context

from worldmodels import parts
from worldmodels.context import StoreWorkspace, Workspace
from worldmodels.control import history, stage
from worldmodels.control.blocks import MEAN, divide
from worldmodels.control.episode_queue import Limits
from worldmodels.control.evolution import Evolution, Level, Settings
from worldmodels.control.exchange import EvolutionPlan, Exchange
from worldmodels.control.hard_tracks import TrackScores
from worldmodels.control.leader import Leader
from worldmodels.control.pace import Timing
from worldmodels.control.records import BlockResult, Generation, claim, claim_key, final_key, params_key, result_key
from worldmodels.control.runtime import Process
from worldmodels.errors import ConfigError, Conflict, MissingInput, WorkFailed
from worldmodels.rollouts.player import EpisodeSpec
from worldmodels.store import LocalStore

pytestmark = pytest.mark.filterwarnings("ignore:TPA")
LOG = logging.getLogger("test")
QUICK = Timing(turn=0.1, spare=0.1, overdue=0.5, poll=0.005, look=0.05)
SETTINGS = Settings(seed=3, parameters=7, population=6, tracks=3, sigma=0.1)


@dataclass(frozen=True)
class Played:
    spec: EpisodeSpec
    score: float
    steps: int


def plan(settings: Settings = SETTINGS, generations: int = 5) -> EvolutionPlan:
    return EvolutionPlan(
        settings,
        generations,
        Limits(8, 3),
        Limits(12, 0),
        lambda g, n: tuple(range(100 * g, 100 * g + n)),
        lambda g: tuple(range(10_000 + g, 10_004 + g)) if g % 2 == 0 else (),
    )


def player(lanes: int, pause: float = 0.0) -> Callable[..., Iterator[Played]]:
    """Environments whose tracks are noise on a quadratic and whose episodes differ in length."""

    def play(
        next_episode: Callable[[], EpisodeSpec | None], limits: Limits, on_step: Callable[[int], None]
    ) -> Iterator[Played]:
        active: list[list] = []
        while True:
            while len(active) < lanes and (spec := next_episode()) is not None:
                active.append([spec, 0])
            if not active:
                return
            time.sleep(pause)
            on_step(len(active))
            for lane in list(active):
                lane[1] += 1
                spec, steps = lane
                noise = np.random.default_rng(spec.track)
                if steps >= min(limits.steps, int(noise.integers(4, 12))):
                    active.remove(lane)
                    yield Played(spec, float(noise.normal() - ((spec.parameters - 0.3) ** 2).sum()), steps)

    return play


def workspace(folder: Path, work: str = "own") -> StoreWorkspace:
    found = StoreWorkspace(LocalStore(folder), "run/iter-1/controller", work, "{}")
    found.open()
    return found


def work(
    where: Workspace, what: EvolutionPlan, worker: int = 0, lanes: int = 4, pause: float = 0.0, timing: Timing = QUICK
) -> dict[str, bytes]:
    return Exchange(where, what, worker, lanes, LOG, timing).run(player(lanes, pause), lambda rate: None)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return work(workspace(tmp_path_factory.mktemp("undisturbed")), plan())


def test_files_are_complete(undisturbed: dict[str, bytes]) -> None:
    rows = undisturbed["rewards.csv"].decode().splitlines()
    assert rows[0] == ",".join(history.COLUMNS) and len(rows) == 6
    assert [row.split(",")[6] != "" for row in rows[1:]] == [False, True, False, True, False]
    generations = np.load(io.BytesIO(undisturbed["generations.npz"]))
    mean = np.load(io.BytesIO(undisturbed["mean.npy"]))
    assert generations["mean"].shape == (5, 7) and generations["mean"].dtype == np.float32
    assert np.array_equal(generations["mean"][-1], mean)
    assert np.load(io.BytesIO(undisturbed["best.npy"])).shape == (7,)


@pytest.mark.parametrize("lanes", [1, 32])
def test_lanes_do_not_show(undisturbed: dict[str, bytes], tmp_path: Path, lanes: int) -> None:
    assert work(workspace(tmp_path), plan(), lanes=lanes) == undisturbed


def test_workers_do_not_show(undisturbed: dict[str, bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda w: work(workspace(tmp_path), plan(), w, pause=0.002), range(3)))
    assert found == [undisturbed] * 3
    assert not caplog.records


def test_every_worker_plays(tmp_path: Path) -> None:
    played = [0, 0]

    def count(worker: int) -> None:
        exchange = Exchange(workspace(tmp_path), plan(), worker, 4, LOG, QUICK)

        def tick(rate: float) -> None:
            played[worker] += exchange.queue.outstanding() > 0

        exchange.run(player(4, 0.002), tick)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(count, range(2)))
    assert min(played) > 0.5 * max(played)


def test_finished_evolution_is_not_played_again(undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    work(workspace(tmp_path), plan())
    assert Exchange(workspace(tmp_path), plan(), 1, 4, LOG, QUICK).run(None, lambda rate: None) == undisturbed


def test_more_generations_go_on_from_the_last(undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    work(workspace(tmp_path), plan(generations=2))
    assert work(workspace(tmp_path), plan()) == undisturbed


def test_fewer_generations_are_rebuilt(tmp_path: Path) -> None:
    work(workspace(tmp_path / "a"), plan())
    assert work(workspace(tmp_path / "a"), plan(generations=3)) == work(workspace(tmp_path / "b"), plan(generations=3))


class Dies(Exception):
    """Instead of a SIGKILL, at one exact store operation."""


class Mortal:
    """A workspace that fails for good before or after its n-th writing operation."""

    def __init__(self, inner: StoreWorkspace, writes: int, after: bool) -> None:
        self._inner, self._left, self._after, self._lock = inner, writes, after, threading.Lock()
        self.get, self.age, self.parent = inner.get, inner.age, inner.parent
        self.written, self.now = inner.written, inner.now

    def create(self, key: str, data: bytes) -> bool:
        with self._lock:
            self._left -= 1
            if self._left < 0 or (self._left == 0 and not self._after):
                raise Dies
        made = self._inner.create(key, data)
        if self._left == 0:
            raise Dies
        return made


@pytest.mark.parametrize("seed", range(3))
def test_death_at_any_write_does_not_show(undisturbed: dict[str, bytes], tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(12):
        mortal = Mortal(workspace(tmp_path), draw.randint(1, 25), draw.random() < 0.5)
        try:
            work(mortal, plan(), worker=draw.randint(0, 1), lanes=draw.choice([2, 8]))
        except Dies:
            continue
        break
    assert work(workspace(tmp_path), plan()) == undisturbed


def test_sigkill_of_processes_does_not_show(undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    draw, fork = random.Random(0), multiprocessing.get_context("fork")

    def start(worker: int) -> multiprocessing.process.BaseProcess:
        process = fork.Process(target=work, args=(workspace(tmp_path), plan(), worker, draw.choice([2, 8]), 0.01))
        process.start()
        return process

    workers = [start(0), start(1)]
    for _ in range(8):
        time.sleep(draw.uniform(0.05, 0.3))
        victims = [0, 1] if draw.random() < 0.3 else [draw.randint(0, 1)]
        for victim in victims:
            workers[victim].kill()
            workers[victim].join()
        for victim in victims:
            workers[victim] = start(victim)
    for process in workers:
        process.join(30)
    assert [process.exitcode for process in workers] == [0, 0]
    assert work(workspace(tmp_path), plan()) == undisturbed


def test_a_worker_that_is_started_again_goes_on_with_its_blocks(tmp_path: Path) -> None:
    with pytest.raises(Dies):
        work(Mortal(workspace(tmp_path), 6, True), plan(), worker=0)  # type: ignore[arg-type]
    began = time.monotonic()
    work(workspace(tmp_path), plan(), worker=0, timing=replace(QUICK, overdue=20.0))
    assert time.monotonic() - began < 20
    assert not [key for key in workspace(tmp_path).written("generations/00001/claims/") if key.endswith("-1")]


def test_another_worker_leads_when_the_first_is_gone(undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(Dies):
        work(Mortal(workspace(tmp_path), 20, True), plan(), worker=0)
    assert work(workspace(tmp_path), plan(), worker=5) == undisturbed


def test_expired_claims_are_taken_over(undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    where = workspace(tmp_path)
    with pytest.raises(Dies):
        work(Mortal(where, 3, True), plan(), worker=0)  # type: ignore[arg-type]
    for block in range(4):
        where.create(claim_key(1, block, 0), claim(1))
    began = time.monotonic()
    assert work(where, plan()) == undisturbed
    assert time.monotonic() - began > QUICK.overdue


def test_claims_from_the_future_expire_as_well(undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    """Another machine's clock, or a hostile writer, dates them."""
    where = workspace(tmp_path)
    with pytest.raises(Dies):
        work(Mortal(where, 3, True), plan(), worker=0)  # type: ignore[arg-type]
    for block in range(4):
        where.create(claim_key(1, block, 0), claim(1))
    for path in tmp_path.rglob("claims/*"):
        os.utime(path, (time.time() + 1e6,) * 2)
    assert work(where, plan()) == undisturbed


def test_error_of_a_block_ends_the_worker(tmp_path: Path) -> None:
    def broken(*_: object) -> Iterator[Played]:
        raise WorkFailed("the engine is broken")
        yield

    with pytest.raises(WorkFailed, match="engine"):
        Exchange(workspace(tmp_path), plan(), 0, 4, LOG, QUICK).run(broken, lambda rate: None)


def test_error_of_the_exchange_ends_the_worker(tmp_path: Path) -> None:
    with pytest.raises(Dies):
        work(Mortal(workspace(tmp_path), 10, False), plan(), pause=0.01)


def test_stop_request_ends_the_worker_at_once(tmp_path: Path) -> None:
    def stop(rate: float) -> None:
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        Exchange(workspace(tmp_path), plan(), 0, 4, LOG, QUICK).run(player(4), stop)
    assert time.monotonic() - began < 1


def test_area_of_other_settings_is_refused(tmp_path: Path) -> None:
    work(workspace(tmp_path), plan(generations=1))
    with pytest.raises(Conflict, match="population"):
        work(workspace(tmp_path), plan(replace(SETTINGS, population=8)))


def child(**changes: object) -> EvolutionPlan:
    return plan(replace(SETTINGS, start_from=3, **changes))


def test_start_from_continues_the_parents_state(undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    work(workspace(tmp_path, "parent"), plan())
    found = work(workspace(tmp_path, "child"), child())
    assert {**found, "best.npy": b""} == {**undisturbed, "best.npy": b""}


def test_start_from_takes_the_new_sigma_and_tracks(tmp_path: Path) -> None:
    work(workspace(tmp_path, "parent"), plan())
    work(workspace(tmp_path, "child"), child(sigma=0.02, tracks=5))
    first = Generation.decode(workspace(tmp_path, "child").get(params_key(4)) or b"", params_key(4))
    assert first.sigma == 0.02 and len(first.tracks) == 5 and first.before is None


def test_start_from_of_a_child(tmp_path: Path) -> None:
    work(workspace(tmp_path, "parent"), plan())
    work(workspace(tmp_path, "child"), child(sigma=0.05))
    grandchild = plan(replace(SETTINGS, start_from=4, sigma=0.05, tracks=4))
    rows = work(workspace(tmp_path, "grandchild"), grandchild)["rewards.csv"].decode().splitlines()
    assert len(rows) == 6


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("population", {"population": 8}),
        ("covariance", {"covariance": "diagonal"}),
        ("hidden", {"architecture": {"inputs": "z h", "hidden": 24}}),  # may have as many parameters
        ("inputs", {"architecture": {"inputs": "z"}}),
        ("strategy", {"strategy": "openai-es"}),
    ],
)
def test_start_from_names_what_cannot_change(tmp_path: Path, name: str, change: dict[str, object]) -> None:
    work(workspace(tmp_path, "parent"), plan())
    with pytest.raises(ConfigError, match=f"that evolution has {name} = ") as refused:
        work(workspace(tmp_path, "child"), child(**change))
    assert f"controller.{name}=" in refused.value.next


def test_start_from_needs_a_finished_generation(tmp_path: Path) -> None:
    work(workspace(tmp_path, "parent"), plan(generations=2))
    with pytest.raises(MissingInput, match="3"):
        work(workspace(tmp_path, "child"), child())


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_cma_es_finds_a_quadratics_optimum(covariance: str) -> None:
    evolution = Evolution(Settings(1, 10, 12, 1, 0.5, covariance))
    for _ in range(150):
        candidates = evolution.ask(1)
        evolution.tell(candidates, [-float(((x - 1) ** 2).sum()) for x in candidates])
    assert np.allclose(evolution.mean, 1, atol=1e-3)


@pytest.mark.parametrize("population", [64, 7])
def test_openai_es_climbs_a_noisy_quadratic(population: int) -> None:
    evolution, luck = Evolution(Settings(1, 100, population, 1, 0.1, strategy="openai-es")), np.random.default_rng(0)
    for _ in range(150):
        candidates = evolution.ask(1)
        noise = luck.standard_normal(population)
        evolution.tell(candidates, (noise - ((candidates - 0.3) ** 2).sum(axis=1)).tolist())
    assert ((evolution.mean - 0.3) ** 2).sum() < 0.4 * 100 * 0.3**2 and evolution.sigma == 0.1


def test_openai_es_goes_by_ranks_and_stays_where_all_are_equal() -> None:
    def after(change: Callable[[float], float]) -> np.ndarray:
        evolution = Evolution(Settings(1, 20, 8, 1, 0.1, strategy="openai-es"))
        candidates = evolution.ask(1)
        evolution.tell(candidates, [change(float(x.sum())) for x in candidates])
        return evolution.mean

    assert np.array_equal(after(lambda score: score), after(lambda score: score**3 + 9))
    assert after(lambda score: score).sum() > 0
    assert not after(lambda score: 7.0).any()


def test_hard_tracks_are_drawn_among_recent_ones_with_low_scores() -> None:
    scores = TrackScores()
    assert scores.draw(1, 1, 2) == ()
    for generation in range(1, 31):  # each has an easy track, and one that later generations find easier
        scores.add(generation, (2 * generation, 2 * generation + 1), np.array([[generation, 900.0]] * 3))
    drawn = {track for seed in range(50) for track in scores.draw(seed, 31, 2)}
    assert drawn == {2 * generation for generation in range(11, 19)}
    assert scores.draw(1, 31, 2) == scores.draw(1, 31, 2) and len(set(scores.draw(1, 31, 5))) == 5
    scores.add(31, (22,), np.array([[950.0]] * 3))  # driven again, and no longer hard
    assert 22 not in {track for seed in range(50) for track in scores.draw(seed, 32, 2)}


def test_a_generation_has_fresh_and_hard_tracks(tmp_path: Path) -> None:
    where = workspace(tmp_path)
    work(where, plan(replace(SETTINGS, hard_tracks=1), generations=6))
    tracks = [Generation.decode(where.get(params_key(n)) or b"", params_key(n)).tracks for n in range(1, 7)]
    seen: set[int] = set()
    for number, (*fresh, last) in enumerate(tracks, 1):
        assert fresh == [100 * number, 100 * number + 1] and (last in seen or number == 1)
        seen |= {*fresh, last}


@pytest.mark.parametrize("change", [{}, {"hard_tracks": 2}], ids=str)
@pytest.mark.parametrize("strategy", parts.STRATEGIES)
def test_workers_do_not_show_with_any_strategy(tmp_path: Path, strategy: str, change: dict[str, Any]) -> None:
    what = plan(replace(SETTINGS, strategy=strategy, **change, growth=(Level(-100.0, sigma=0.2),)))
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda w: work(workspace(tmp_path / "a"), what, w, pause=0.002), range(3)))
    assert found == [work(workspace(tmp_path / "b"), what)] * 3


@pytest.mark.parametrize("strategy", parts.STRATEGIES)
def test_evolution_repeats_bit_for_bit(strategy: str) -> None:
    def course() -> list[bytes]:
        evolution, found = Evolution(Settings(1, 320, 8, 1, 0.1, strategy=strategy)), []
        for _ in range(4):
            candidates = evolution.ask(1)
            evolution.tell(candidates, [-float(((x - 1) ** 2).sum()) for x in candidates])
            found.append(candidates.tobytes())
        return found

    assert course() == course()


@pytest.mark.filterwarnings("ignore:.*geno-pheno")
def test_the_mean_is_where_candidates_are_though_the_covariance_degenerates() -> None:
    """Its condition passes 1e12 where candidates have converged to what their scores can tell apart."""
    evolution = Evolution(Settings(1, 8, 64, 1, 0.1))
    for _ in range(260):
        candidates = evolution.ask(1)
        evolution.tell(candidates, [1.0 - float(((x - 0.3) ** 2).sum()) for x in candidates])
    assert evolution.mean == pytest.approx(candidates.mean(axis=0), abs=0.01)


@pytest.mark.parametrize("workers", [1, 2, 64])
def test_blocks_cover_every_episode_once(workers: int) -> None:
    blocks = divide(64, 16, 10, dict.fromkeys(range(workers), 0.0))
    played = sorted((b.candidate, b.first + i) for b in blocks for i in range(b.count))
    assert played == sorted([(MEAN, i) for i in range(10)] + [(c, t) for c in range(64) for t in range(16)])
    assert blocks[0].candidate == MEAN and blocks[-1].count <= max(1, 16 // workers) and len(blocks) < 400


def test_a_leader_that_was_overtaken_goes_on_from_what_is_committed(tmp_path: Path) -> None:
    """Another worker's generation says other results and candidates than this worker's: it alone counts."""
    where = workspace(tmp_path)

    def leader() -> Leader:
        return Leader(where, plan(), 0, LOG, Process(), lambda seconds: None, lambda rows: None)

    def results(now: Generation, seed: int) -> dict[int, BlockResult]:
        noise = np.random.default_rng(seed)
        return {
            i: BlockResult(tuple(noise.normal(size=block.count).tolist()), (5,) * block.count)
            for i, block in enumerate(now.blocks)
        }

    slow = leader()
    where.create(params_key(1), slow.first(1))
    first = Generation.decode(where.get(params_key(1)) or b"", params_key(1))
    slow.next(first, results(first, 1), 0.0)
    where.create(params_key(2), leader().next(first, results(first, 2), 0.0))
    second = Generation.decode(where.get(params_key(2)) or b"", params_key(2))
    slow.accept(second)
    drawn = [Generation.decode(each.next(second, results(second, 3), 0.0), params_key(3)) for each in (slow, leader())]
    assert np.array_equal(drawn[0].candidates, drawn[1].candidates)


def test_a_generation_survives_its_bytes(tmp_path: Path) -> None:
    work(workspace(tmp_path), plan(generations=1))
    data = workspace(tmp_path).get(params_key(2)) or b""
    assert Generation.decode(data, params_key(2)).encode() == data
    assert workspace(tmp_path).get(result_key(1, 0)) and workspace(tmp_path).get(final_key(1))


@pytest.fixture
def evolve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, bytes]]]:
    """The stage on the real simulator, as so many workers of one workspace."""
    monkeypatch.setattr(stage, "Encoder", EncoderFn)
    monkeypatch.setattr(stage, "Step", RecurrentFn)
    monkeypatch.setattr(stage, "VALIDATION_STEPS", 25)
    settings = {"population": 4, "tracks": 2, "steps": 20, "generations": 3, "evaluate_every": 2, "evaluate_tracks": 2}

    def one(name: str, worker: int, lanes: int, overrides: dict[str, object]) -> dict[str, bytes]:
        chosen = {f"controller.{key}": value for key, value in {**settings, **overrides}.items()}
        inputs = {stage: FolderArtifact(tmp_path) for stage in ("vae", "memory")}
        ctx = context(tmp_path / name / str(worker), "controller", chosen, **inputs)
        ctx.workspace, ctx.worker, ctx.lanes = workspace(tmp_path / name), worker, lanes
        stage.work(ctx)
        return {path.name: path.read_bytes() for path in ctx.results.iterdir()}

    def all_of_them(name: str, workers: int, lanes: int, **overrides: object) -> list[dict[str, bytes]]:
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(lambda worker: one(name, worker, lanes, overrides), range(workers)))

    return all_of_them


def test_stage_on_the_real_simulator(evolve: Callable[..., list[dict[str, bytes]]]) -> None:
    (alone,) = evolve("alone", 1, 8)
    assert evolve("together", 2, 1) == [alone] * 2
    assert len(alone["rewards.csv"].decode().splitlines()) == 4


def test_live_rewards_are_the_final_ones(evolve: Callable[..., list[dict[str, bytes]]], tmp_path: Path) -> None:
    (files,) = evolve("live", 1, 4)
    assert (tmp_path / "live/0/telemetry/rewards.csv").read_bytes() == files["rewards.csv"]


def test_the_stage_says_why_it_ended(evolve: Callable[..., list[dict[str, bytes]]], tmp_path: Path) -> None:
    (files,) = evolve("early", 1, 4, target=-1e6)
    assert b"controller.target" in files["rewards.csv"] and files["rewards.csv"].count(b"\n") == 3
    assert (tmp_path / "early/0/telemetry/rewards.csv").read_bytes() == files["rewards.csv"]


def test_start_from_must_leave_something_to_do(evolve: Callable[..., list[dict[str, bytes]]]) -> None:
    with pytest.raises(ConfigError, match="start_from"):
        evolve("late", 1, 1, start_from=3)
