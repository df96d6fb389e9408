"""Whole runs that are killed and stopped again and again. Minutes: `make test-slow`."""

import random
import signal
import time

import pytest
from processes import alive, kill_one_of, workers

from worldmodels.stages import STAGES

pytestmark = pytest.mark.slow
KILLS = 10


@pytest.fixture(scope="module")
def undisturbed(make_wm):
    wm = make_wm()
    wm.ok()
    return wm.digests()


def test_ten_sigkills_at_random_moments_leave_no_trace(wm, undisturbed):
    chance = random.Random(1)
    for _ in range(KILLS):
        process = wm.start("run", "--config", str(wm.toml))
        time.sleep(chance.uniform(1, 20))
        kill_one_of(process, chance, run_share=0.5)
        process.communicate(timeout=60)
    wm.ok()
    assert wm.digests() == undisturbed


def test_ctrl_c_in_every_stage_leaves_no_trace(wm, undisturbed):
    chance = random.Random(2)
    for stage in STAGES:
        process = wm.start("run", "--config", str(wm.toml))
        deadline = time.monotonic() + 120
        while process.poll() is None and not list(wm.store.glob(f"tiny/iter-1/{stage}/logs/*")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 1))
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode in (0, 130), stderr
        assert "Traceback" not in stderr
    wm.ok()
    assert wm.digests() == undisturbed


def test_no_worker_outlives_its_run(wm):
    process = wm.start("run", "rollouts", "--config", str(wm.toml), "-o", "rollouts.episodes=4000")
    while not (pids := workers(process)):
        time.sleep(0.05)
    time.sleep(2)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_same_seed_twice_gives_the_same_digests_and_another_seed_does_not(wm, make_wm, undisturbed):
    wm.ok()
    assert wm.digests() == undisturbed
    other = make_wm()
    other.ok("rollouts", "-o", "seed=2")
    assert other.digests().items().isdisjoint(undisturbed.items())
