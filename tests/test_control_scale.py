"""The exchange on a simulated clock: many workers, every kind of failure, the same rows."""

import math
import random
from dataclasses import replace
from itertools import pairwise

import pytest
import scale
from scale import Scenario, SimulatedCluster, overheads

from worldmodels.control.blocks import divide, reserved
from worldmodels.control.pace import Timing

pytestmark = pytest.mark.filterwarnings("ignore:TPA")
SMALL = Scenario(workers=6, generations=6, population=8, tracks=6, evaluate_every=2, evaluate_tracks=3)


@pytest.fixture(scope="module")
def undisturbed() -> SimulatedCluster:
    return SimulatedCluster(SMALL).run()


def seconds(cluster: SimulatedCluster) -> list[float]:
    """Of each generation but the first, in which no rate is known."""
    begun = [cluster.began[g] for g in sorted(cluster.began)][1:]
    return [after - before for before, after in pairwise(begun)]


@pytest.mark.parametrize("seed", range(6))
def test_no_schedule_of_failures_shows(undisturbed: SimulatedCluster, seed: int) -> None:
    draw = random.Random(seed)
    workers = draw.choice([1, 3, 6, 20])
    disturbed = SimulatedCluster(
        replace(
            SMALL, workers=workers, seed=1, lanes=draw.choice([1, 8]), hours=draw.choice([0.02, 0.1, math.inf]),
            leader_every=draw.choice([0, 1, 3]), hang_every=draw.choice([0, 2]),
            slow={draw.randrange(workers): 0.1}, late={draw.randrange(workers): draw.uniform(0, 60)},
        ),
        luck=seed,
    ).run()  # fmt: skip
    assert disturbed.files == undisturbed.files


def test_workers_share_the_work_by_their_speed() -> None:
    rates = {0: 100.0, 1: 200.0, 2: 0.0, 3: 700.0}
    blocks = divide(32, 16, 0, rates)
    played = [sum(b.count for b in blocks if b.owner == worker) for worker in rates]
    assert played == pytest.approx([512 * r / 1200 for r in (100, 200, 200, 700)], abs=8)


def test_a_worker_too_slow_for_an_episode_gets_none() -> None:
    blocks = divide(8, 2, 0, {**dict.fromkeys(range(16), 700.0), 16: 70.0})
    assert {block.owner for block in blocks} == set(range(16))


def test_each_workers_first_block_is_reserved() -> None:
    blocks = divide(64, 16, 0, dict.fromkeys(range(8), 700.0))
    first = sorted(reserved(blocks))
    assert [blocks[i].owner for i in first] == list(range(8))
    assert sum(blocks[i].count for i in first) <= 64 * 16 / 4


def test_a_straggler_costs_at_most_a_block_a_generation() -> None:
    quiet = replace(SMALL, generations=10, population=16, tracks=16, evaluate_every=100)
    slow = SimulatedCluster(replace(quiet, slow={3: 0.1})).run()
    block = 16 * 1000 / 700
    assert max(seconds(slow)) < max(seconds(SimulatedCluster(quiet).run())) * 6 / 5 + block


def test_a_late_worker_takes_its_share_within_the_generation() -> None:
    one = replace(SMALL, workers=2, generations=1, population=16, tracks=16, evaluate_every=100)
    alone, both = (SimulatedCluster(replace(one, late={1: late})).run() for late in (1e6, 20.0))
    assert both.ended < 0.65 * alone.ended


def test_the_dead_cost_a_crowd_seconds() -> None:
    crowd = replace(SMALL, workers=256, generations=5, population=64, tracks=8, evaluate_every=100)
    quiet, struck = SimulatedCluster(crowd).run(), SimulatedCluster(crowd)
    struck.simulation.at(quiet.began[3], lambda: struck.kill_all(range(40, 50), back=math.inf))
    assert max(seconds(struck.run())) < max(seconds(quiet)) + 8


@pytest.mark.parametrize("workers", [16, 64])
def test_nothing_waits_for_the_first_in_line(workers: int) -> None:
    """They take the last blocks of the dead, unless they are dead themselves."""
    cluster = SimulatedCluster(replace(SMALL, workers=workers, population=workers, generations=2, evaluate_every=100))
    cluster.simulation.at(10.0, lambda: cluster.kill_all(range(workers // 4), back=math.inf))
    cluster.run(hours=0.1)


@pytest.mark.parametrize("workers", [4, 64])
def test_another_leads_soon_after_the_leader_died(workers: int) -> None:
    cluster = SimulatedCluster(replace(SMALL, workers=workers, generations=4))
    cluster.simulation.at(6.0, lambda: cluster.kill_all(range(min(workers - 1, 20)), back=math.inf))
    cluster.run()
    assert max(overheads(cluster)) < Timing().delay(20) + max(seconds(SimulatedCluster(SMALL).run()))


def test_a_dead_line_delays_a_commit_for_half_a_minute_at_most() -> None:
    delays = [Timing().delay(rank) for rank in (0, 1, 15, 1023)]
    assert delays == [0, 2, 30, 30]


def test_workers_that_are_alike_play_all_the_time() -> None:
    swift = dict.fromkeys(scale.LATENCY, scale.Latency(0.02, 0.4))
    alike = Scenario(
        32, 8, population=32, evaluate_every=100, latency=swift, rates=(780, 800, 820), shares=(1, 1)
    )  # 16 episodes of 1.25 s each
    played = seconds(SimulatedCluster(alike).run())
    assert sum(played) / len(played) < 20 / 0.95


def test_requests_stay_few() -> None:
    cluster = SimulatedCluster(replace(SMALL, workers=64, generations=5, population=64, tracks=16)).run()
    each = {kind: count / 5 / 64 for kind, count in cluster.bucket.requests.items()}
    assert each["PUT"] < 20 and each["GET"] < 40 and each["LIST"] < 6


def test_the_next_generation_begins_within_a_second() -> None:
    swift = dict.fromkeys(scale.LATENCY, scale.Latency(0.02, 0.4))
    cluster = SimulatedCluster(replace(SMALL, workers=64, generations=6, population=64, tracks=16, latency=swift)).run()
    assert max(overheads(cluster)) < 1.0
