"""Whole runs that are killed and stopped again and again. Minutes: `make test-slow`."""

import random
import resource
import signal
import time

import pytest
from processes import Pods, alive, kill_one_of, workers

from worldmodels import planning
from worldmodels.config import resolve
from worldmodels.control.records import Generation, params_key
from worldmodels.stages import STAGES

pytestmark = pytest.mark.slow
KILLS = 10
GENERATIONS = 250
EVOLUTION = (
    "controller.population=8", "controller.tracks=2", "controller.steps=150", f"controller.generations={GENERATIONS}",
    "controller.evaluate_every=10", "controller.evaluate_tracks=2", "execution.workers=1",
)  # fmt: skip
FEWEST_KILLS = 100


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
        kill_one_of(process, chance, run_share=0.5)  # a worker is started again
        process.communicate(timeout=300)
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


def evolve(wm, count, chance=None):
    """Evolve in that many pods, one or the other of which is killed every few seconds if there is `chance`.

    Returns rewards.csv, the artifact's digest, the number of kills, and the seconds of CPU time.
    """
    task = planning.Task("tiny", 1, "controller", resolve(None, [wm.toml], EVOLUTION)[0])
    before = cpu_seconds()
    pods = Pods(task.to_json(), str(wm.store), count, wm.environment())
    while chance and not pods.done:
        time.sleep(chance.uniform(0.3, 3))
        pods.kill(first_in_line(wm) if chance.random() < 0.4 else chance.randrange(count))
    assert pods.wait() == [0] * count
    rewards = (wm.store / "tiny/iter-1/controller/live/rewards.csv").read_text()
    digest = next(digest for name, digest in wm.digests().items() if "/controller" in name)
    return rewards, digest, pods.begun - count, cpu_seconds() - before


def first_in_line(wm):
    """Return the worker that commits the next generation, if nothing delays it."""
    if not (found := sorted((wm.store / "tiny/iter-1/controller").glob("*/generations/*/params"))):
        return 0
    return Generation.decode(found[-1].read_bytes(), params_key(int(found[-1].parent.name))).alive[0]


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_hundred_sigkills_of_workers_do_not_show_in_an_evolution(make_wm):
    """Prints what starting again and working twice cost."""
    runs = [make_wm() for _ in range(2)]
    for wm in runs:
        wm.ok("rollouts", "vae", "latents", "memory")
    calm, killed = evolve(runs[0], 2), evolve(runs[1], 3, random.Random(3))
    assert killed[:2] == calm[:2]
    assert killed[2] >= FEWEST_KILLS
    assert [line.split(",")[0] for line in calm[0].splitlines()[1:]] == [str(n) for n in range(1, GENERATIONS + 1)]
    assert evolve(runs[1], 1)[:2] == calm[:2]  # nothing was left to do
    more = killed[3] - calm[3]
    print(f"CPU seconds: two workers {calm[3]:.0f}, three with {killed[2]} kills {killed[3]:.0f};")
    print(f"starting {killed[2] + 1} more processes and what they did again took {more / killed[3]:.0%} of it")
