"""Whole runs under fire: writers that collide, an S3 server whose calls go wrong, processes that are killed.

The first tests take seconds. The slow ones take half an hour together: `make test-fire`.
"""

import json
import logging
import random
import re
import threading
import time
from functools import partial

import buckets
import pytest
from fire import FAULTS, Fire
from processes import kill_one_of

from worldmodels import artifacts, planning, runner
from worldmodels.artifacts import Name, publishing
from worldmodels.config import resolve
from worldmodels.context import ProgressReporter
from worldmodels.planning import Task
from worldmodels.stages import STAGES
from worldmodels.store import LocalStore
from worldmodels.store.s3.retry import DEADLINE_SECONDS

WRITERS = 64
MADE = {"finished": "now"}
KILLS = 50
# A hundred faults need not have one of these: two are for conditional writes only.
RARE = {"silent", "skewed", "ConditionalRequestConflict", "OperationAborted"}
RETRIED = re.compile(r"store s3://\S+: to .* took (\d+) tries in ([\d.]+) s: ")


@pytest.fixture
def prefix() -> str:
    return buckets.fresh_prefix()


def remote(make_wm, url: str, prefix: str):
    """`wm` as a user calls it who has this bucket."""
    return make_wm(**buckets.environment(url), WM_STORE=f"s3://{buckets.BUCKET}/{prefix}")


# Writers that collide.


@pytest.fixture(params=["folder", "endpoint"])
def reopen(request, tmp_path, prefix):
    if request.param == "folder":
        return partial(LocalStore, tmp_path / "store")
    return partial(buckets.open_bucket, request.getfixturevalue(request.param), prefix)


def together(work, count: int = WRITERS) -> list:
    """Return the results of `count` threads from `work(index)`, begun at one moment."""
    results, gate = [], threading.Barrier(count)

    def one(index: int) -> None:
        gate.wait(30)
        results.append(work(index))

    threads = [threading.Thread(target=one, args=(i,)) for i in range(count)]
    [t.start() for t in threads]
    [t.join(120) for t in threads]
    return results


def test_of_64_writers_one_wins_all_succeed_and_readers_see_no_mixture(reopen, tmp_path):
    name = Name("run", 1, "vae")
    work = artifacts.identity(name, resolve("demo")[0], ["vae"], {})
    seen: list[str] = []

    def write(i: int) -> str:
        store, folder = reopen(), tmp_path / str(i)
        folder.mkdir()
        for file in ("encoder", "decoder"):
            (folder / file).write_text(f"{file} of {i}\n" * 10_000)
        files = publishing.upload(store, name, f"attempt-{i}", folder)
        return publishing.commit(store, work, files=files, telemetry={}, shards=[], resolved={}, made=MADE)["digest"]

    def read(i: int) -> None:
        store = reopen()
        while not (manifest := artifacts.read_manifest(store, work.manifest_key)):
            time.sleep(0.01)
        artifact = artifacts.load(store, name, manifest, tmp_path / f"reader-{i}")
        writers = {artifact.path(file).read_text().split()[-1] for file in ("encoder", "decoder")}
        seen.extend(f"{writer} {artifact.digest}" for writer in writers)

    told = together(lambda i: write(i) if i < WRITERS else read(i), WRITERS + 8)
    digests = [digest for digest in told if digest]
    assert (len(digests), len(set(digests)), len(seen), len(set(seen))) == (WRITERS, 1, 8, 1)


def test_64_workers_with_the_same_work_all_succeed(reopen):
    few = ["rollouts.episodes=2", "rollouts.shard_episodes=1", "rollouts.steps=5", "execution.lanes=1"]
    task = Task("run", 1, "rollouts", resolve("demo", (), few)[0])
    quiet = logging.getLogger("quiet")
    manifests = together(lambda i: runner.run(reopen(), task, 0, 1, ProgressReporter(quiet)))
    assert len(manifests) == WRITERS
    assert all(manifest == manifests[0] for manifest in manifests)
    assert planning.find(reopen(), task.name, task.config) == manifests[0]


# Calls that go wrong.


def test_a_stage_under_fire_gives_the_same_digest_and_tells_of_its_retries(endpoint, prefix, make_wm):
    few = ("rollouts", "-o", "rollouts.episodes=4", "-o", "rollouts.steps=20", "--workers", "1")
    local = make_wm()
    local.ok(*few)
    with Fire(endpoint, 0.3, faults={name: often for name, often in FAULTS.items() if name != "silent"}) as fire:
        wm = remote(make_wm, fire.url, prefix)
        wm.ok(*few)
        assert sum(fire.met().values()) > 5
        assert wm.digests() == local.digests()
    assert retries(buckets.open_bucket(endpoint, prefix))


def retries(store) -> list[tuple[int, float]]:
    """(tries, seconds) of every operation of the run `tiny` that was tried again, from its workers' logs."""
    logs = [store.get(entry.key).decode() for entry in store.entries("tiny/") if "/logs/" in entry.key]
    return [(int(tries), float(seconds)) for log in logs for tries, seconds in RETRIED.findall(log)]


def both_iterations(wm) -> dict[str, str]:
    wm.ok()
    wm.ok("--iteration", "2")
    return wm.digests()


@pytest.fixture(scope="module")
def undisturbed(make_wm):
    """The digests of two iterations on a folder."""
    return both_iterations(make_wm())


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_a_run_on_a_bucket_gives_the_same_digests_whatever_share_of_calls_fails(
    undisturbed, endpoint, prefix, make_wm, share
):
    with Fire(endpoint, share, seed=2) as fire:
        assert both_iterations(remote(make_wm, fire.url, prefix)) == undisturbed
    print(fire.table())
    told = retries(buckets.open_bucket(endpoint, prefix))
    assert bool(told) == bool(share)
    assert set(fire.met()) >= {0.0: set(), 0.1: set(FAULTS) - RARE, 0.5: set(FAULTS)}[share]
    assert all(seconds < 2 * DEADLINE_SECONDS for _, seconds in told)


# Processes that are killed.


@pytest.mark.slow
def test_fifty_sigkills_leave_the_same_digests_and_gc_leaves_what_manifests_name(
    undisturbed, endpoint, prefix, make_wm
):
    chance, wm, kills = random.Random(3), remote(make_wm, endpoint, prefix), 0
    stages = [(iteration, stage) for iteration in (1, 2, 3) for stage in STAGES]
    for i, (iteration, stage) in enumerate(stages):
        while kills < min(KILLS, KILLS * (i + 1) // (2 * len(STAGES))) and killed(wm, iteration, stage, chance):
            kills += 1
    assert kills == KILLS
    assert undisturbed.items() <= both_iterations(wm).items()
    assert wm("gc", "tiny", "--older-than", "0s", "--delete").returncode == 0
    store = buckets.open_bucket(endpoint, prefix)
    assert {entry.key for entry in store.entries("") if "/data/" in entry.key} == named(store)
    uploads = buckets.client(endpoint).list_multipart_uploads(Bucket=buckets.BUCKET, Prefix=prefix)
    assert not uploads.get("Uploads")
    assert "nothing to do" in wm.ok()
    assert undisturbed.items() <= wm.digests().items()


def killed(wm, iteration: int, stage: str, chance: random.Random) -> bool:
    """Start the run, and kill a part of it soon after that stage, or a later one, began. False if it was all done."""
    process, names = wm.start("run", "--iteration", str(iteration), "--config", str(wm.toml)), list(STAGES)
    number = f" {iteration}" if iteration > 1 else ""
    begins = tuple(f"{name}{number}: starting" for name in names[names.index(stage) :])
    for line in process.stdout:
        if line.startswith(begins):
            time.sleep(chance.uniform(0, 4))  # a stage of the tiny run lasts for 2 to 6 s
            kill_one_of(process, chance)
            time.sleep(chance.uniform(0, 2))  # a worker is started again
            process.kill()
            break
    _, stderr = process.communicate(timeout=300)
    assert "Traceback" not in stderr
    assert process.returncode in (0, -9), stderr
    return process.returncode != 0


def named(store) -> set[str]:
    """Keys of all files that manifests and shards' records name."""
    records = [entry.key for entry in store.entries("") if re.search(r"/manifest[^/]*$|/shards/", entry.key)]
    files = [json.loads(store.get(key)) for key in records]
    return {
        file["key"]
        for part in files
        for whole in (part, *part.get("shards", ()))
        for kind in ("files", "telemetry")
        for file in whole.get(kind, {}).values()
    }
