"""Looking after a store: `wm doctor`, `wm gc`, `wm cp`, a quick `wm ls`; on a folder and on a real S3 server."""

import contextlib
import itertools
import json
import logging
import os
import subprocess
import sys
import time

import buckets
import pytest
from faults import Clock, Unlucky, fine, refused
from wm.inspection import _rows

from worldmodels import artifacts, runner
from worldmodels.artifacts import Name
from worldmodels.config import resolve
from worldmodels.errors import ConfigError, Conflict, CorruptArtifact, MissingInput, StoreError
from worldmodels.store import LocalStore, sweep
from worldmodels.store.s3 import S3Store
from worldmodels.upkeep import copying, doctor, findings, garbage
from worldmodels.upkeep.entries import runs

VAE, ROLLOUTS, CONTROLLER = (Name("run", 1, stage) for stage in ("vae", "rollouts", "controller"))
WORK, PREFIX = "0123456789abcdef", buckets.fresh_prefix()
DEAD = {"machine": runner.machine(), "process": 2**30}


@pytest.fixture
def folder(tmp_path):
    return LocalStore(tmp_path / "store")


@pytest.fixture
def bucket(endpoint):
    return buckets.open_bucket(endpoint, buckets.fresh_prefix(), lease_seconds=1.0)


@pytest.fixture(params=["folder", "bucket"])
def store(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["folder", "bucket"])
def target(request, tmp_path):
    if request.param == "folder":
        return LocalStore(tmp_path / "target")
    return buckets.open_bucket(request.getfixturevalue("endpoint"), buckets.fresh_prefix())


@pytest.fixture
def unlucky(endpoint):
    """A store of its own whose client fails as planned."""

    def make(**plan):
        clock, fake = Clock(), Unlucky(buckets.client(endpoint), **plan)
        store = S3Store(fake, buckets.BUCKET, PREFIX, clock=clock, sleep=clock.sleep)
        store.calls = fake.calls
        return store

    return make


class Careless:
    """A client of a server that overlooks conditions; `pages` are arguments by operation, to be told little at once."""

    def __init__(self, client, *overlooked, **pages):
        self.meta, self.calls, self._client, self._overlooked, self._pages = client.meta, [], client, overlooked, pages

    def __getattr__(self, name):
        def call(**arguments):
            self.calls.append(name)
            kept = {key: value for key, value in arguments.items() if key not in self._overlooked}
            return getattr(self._client, name)(**kept, **self._pages.get(name, {}))

        return call


def commit(store, tmp_path, name=VAE, attempt="first", content=b"weights", override="seed=1"):
    """Commit a small artifact; returns its manifest."""
    here = tmp_path / attempt
    here.mkdir(exist_ok=True)
    (here / "weights").write_bytes(content)
    work = artifacts.identity(name, resolve("demo", (), (override,))[0], (name.stage,), {})
    files, made = artifacts.upload(store, name, attempt, here), {"finished": "now", "seconds": 1.0}
    return artifacts.commit(store, work, files=files, telemetry={}, shards=[], resolved={}, made=made)


def commit_shards(store, count=2, attempt="shards"):
    work = artifacts.identity(ROLLOUTS, resolve("demo", (), ())[0], ("rollouts",), {})
    for i in range(count):
        artifacts.commit_shard(store, work, i, attempt, {"frames": b"frames of %d" % i})
    return work


def keys(store, prefix=""):
    return [entry.key for entry in store.entries(prefix)]


def collect(store, horizon=0.0):
    found = garbage.survey(store, "run", horizon)
    garbage.remove(store, found)
    return found


def found(visit, name):
    """The finding of that name; the visit ends there."""
    with contextlib.closing(visit):
        return next(finding for finding in visit if finding.name == name)


# wm doctor.


def test_a_healthy_store_passes_every_check_and_nothing_is_left(store):
    assert {finding.state for finding in doctor.visit(store)} == {"ok"}
    assert (keys(store), store.folders(""), list(store.leftovers(""))) == ([], [], [])


def test_a_folder_that_was_not_there_is_not_there_afterwards(tmp_path):
    assert findings.require(doctor.visit(LocalStore(tmp_path / "a" / "b")), "it") is None
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_visit_leaves_nothing(store):
    assert found(doctor.visit(store), "create once").state == "ok"
    assert keys(store) == []


def test_a_server_that_overlooks_conditions_is_caught(endpoint):
    client = Careless(buckets.client(endpoint), "IfNoneMatch", "IfMatch")
    told = list(doctor.visit(S3Store(client, buckets.BUCKET, buckets.fresh_prefix())))
    (once,) = (finding for finding in told if finding.name == "create once")
    assert (once.state, "is If-None-Match overlooked?" in once.words) == ("fail", True)
    assert {finding.state for finding in told if finding.name in ("create race", "lock")} == {"skipped"}


def test_a_server_that_overlooks_if_match_is_warned_of(endpoint):
    client = Careless(buckets.client(endpoint), "IfMatch")
    visit = doctor.visit(S3Store(client, buckets.BUCKET, buckets.fresh_prefix()))
    assert found(visit, "replace if unchanged").state == "warn"


def test_who_may_only_read_is_told_what_is_missing(endpoint):
    store = S3Store(buckets.client(endpoint, "reader"), buckets.BUCKET, buckets.fresh_prefix())
    with pytest.raises(StoreError, match="1 of 16 checks failed: write") as caught:
        findings.require(doctor.visit(store), "the store")
    assert caught.value.next == "cat k8s/s3-policy.json"


def test_a_wrong_endpoint_fails_once_and_the_rest_is_skipped():
    clock, url = Clock(), f"http://127.0.0.1:{buckets.free_ports(1)[0]}"
    store = S3Store(buckets.client(url), "bucket", deadline=doctor.DEADLINE_SECONDS, clock=clock, sleep=clock.sleep)
    first, *rest = doctor.visit(store)
    assert (first.name, first.state, {finding.state for finding in rest}) == ("endpoint", "fail", {"skipped"})
    assert clock.time <= doctor.DEADLINE_SECONDS


@pytest.mark.parametrize(
    ("plan", "check", "state"),
    [
        ({"get_object": [refused("AccessDenied", 403)]}, "absent key", "fail"),
        ({"list_objects_v2": [refused("NoSuchBucket", 404)] * 2}, "list", "fail"),
        ({"put_object": [fine, refused("AccessDenied", 403)]}, "delete", "fail"),
        ({"list_multipart_uploads": [refused("AccessDenied", 403)]}, "unfinished uploads", "warn"),
        ({"put_object": [refused("ExpiredToken", 400)]}, "write", "fail"),
    ],
)
def test_each_refusal_is_one_finding_with_a_command(unlucky, plan, check, state):
    finding = found(doctor.visit(unlucky(**plan)), check)
    assert (finding.state, bool(finding.next)) == (state, True)


@pytest.mark.parametrize(("minutes", "words"), [(-10, "10 min ahead of"), (10, "10 min behind")])
def test_clocks_that_differ_are_warned_of(store, minutes, words):
    clock = found(doctor.visit(store, lambda: time.time() + 60 * minutes), "clock")
    assert clock.state == "warn" and words in clock.words


def test_a_check_is_skipped_when_what_it_needs_failed_and_not_when_it_warned():
    def raises():
        raise StoreError("words", next="command")

    no, maybe = (lambda: findings.Finding("fail", "no")), (lambda: findings.warn("hm", "next"))
    checks = [findings.Check("a", raises), findings.Check("b", no, ("a",)), findings.Check("c", maybe)]
    told = list(findings.examine([*checks, findings.Check("d", no, ("c",)), findings.Check("e", no, ("b",))]))
    assert [finding.state for finding in told] == ["fail", "skipped", "warn", "fail", "skipped"]
    assert (told[0].words, told[0].next) == ("words", "command")


# wm gc.


def test_what_is_named_stays_and_the_rest_goes(store, tmp_path):
    commit(store, tmp_path)
    commit_shards(store)
    for key in ("live/t.csv", "logs/a.log", f"{WORK}/checkpoints/1.npz", f"{WORK}/generations/00001/params"):
        store.put(VAE.key(key), b"1")
    before = keys(store)
    store.put(VAE.key("data", "lost", "weights"), b"12")
    store.put(ROLLOUTS.key("data", "lost", "shard-00000", "frames"), b"123")
    found = collect(store)
    assert [(g.where, g.count, g.bytes) for g in found.garbage] == [
        (ROLLOUTS.key("data", "lost"), 1, 3),
        (VAE.key("data", "lost"), 1, 2),
    ]
    assert keys(store) == before


def test_a_survey_touches_nothing_and_what_is_young_stays(store):
    store.put(VAE.key("data", "lost", "weights"), b"12")
    assert garbage.survey(store, "run", 0).garbage
    found = collect(store, horizon=3600)
    assert (found.garbage, [kept.why for kept in found.kept]) == ([], ["too young"])
    assert keys(store) == [VAE.key("data", "lost", "weights")]


def test_what_was_retired_goes_when_it_is_old_and_with_its_data(store, tmp_path):
    manifest = commit(store, tmp_path)
    artifacts.retire(store, artifacts.identity(VAE, resolve("demo", (), ())[0], ("vae",), {}), manifest)
    new = commit(store, tmp_path, attempt="second", content=b"other")
    assert collect(store, horizon=3600).garbage == []
    assert len(collect(store).garbage) == 2
    assert keys(store) == sorted([new["files"]["weights"]["key"], VAE.key("manifest.json")])


def test_what_was_retired_lately_keeps_its_data_and_more_so_if_it_cannot_be_read(folder, tmp_path):
    manifest = commit(folder, tmp_path)
    artifacts.retire(folder, artifacts.identity(VAE, resolve("demo", (), ())[0], ("vae",), {}), manifest)
    path = folder.root / manifest["files"]["weights"]["key"]
    os.utime(path, (0, 0))
    assert collect(folder, horizon=3600).garbage == []
    folder.put(VAE.key("retired", "unreadable.json"), b"{")
    assert "cannot be read" in collect(folder, horizon=3600).kept[0].why
    assert path.exists()


def test_attempts_under_way_are_spared_and_dead_ones_are_not(store):
    for attempt, who in (("alive", {"machine": "elsewhere"}), ("dead", DEAD)):
        store.put(VAE.key("data", attempt, "half"), b"1")
        store.put(runner.alive_key(VAE, attempt), json.dumps(who).encode())
    found = collect(store)
    assert [kept.why for kept in found.kept] == ["of attempts under way"]
    assert keys(store) == [runner.alive_key(VAE, "alive"), VAE.key("data", "alive", "half")]


def test_a_heartbeat_that_has_stopped_is_not_alive(folder):
    folder.put(runner.alive_key(VAE, "attempt"), b"{}")
    os.utime(folder.root / runner.alive_key(VAE, "attempt"), (0, time.time() - garbage.LIVE_SECONDS - 1))
    collect(folder, horizon=3600)
    assert keys(folder) == []


class Meanwhile:
    """A store in which something happens when a prefix is listed."""

    def __init__(self, store, prefix, happens):
        self._store, self._prefix, self._happens = store, prefix, happens

    def __getattr__(self, name):
        return getattr(self._store, name)

    def entries(self, prefix):
        found = list(self._store.entries(prefix))
        if prefix == self._prefix:
            self._happens()
        return iter(found)


def test_a_commit_after_the_data_was_listed_loses_nothing(store, tmp_path):
    store.put(VAE.key("data", "first", "weights"), b"weights")
    collect(Meanwhile(store, VAE.key("data/"), lambda: commit(store, tmp_path)))
    assert artifacts.load(store, VAE, *artifacts.manifests(store, VAE), tmp_path / "s").path("weights")


def test_what_comes_after_the_listing_is_not_touched(store):
    late = VAE.key("data", "late", "weights")
    store.put(VAE.key("data", "lost", "weights"), b"")
    collect(Meanwhile(store, VAE.key("data/"), lambda: store.put(late, b"")))
    assert keys(store) == [late]


def test_a_manifest_that_cannot_be_read_stops_it(store, tmp_path):
    commit(store, tmp_path)
    store.put(VAE.key("manifest.json"), b"{")
    with pytest.raises(CorruptArtifact, match=r"vae/manifest.json in .* is not JSON"):
        collect(store)
    assert len(keys(store)) == 2


def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(folder):
    folder.put("key", b"")
    with pytest.raises(StoreError, match=r"cannot list x+: File name too long"):
        list(folder.entries("x" * 300 + "/"))


def test_superseded_work_is_counted_and_stays(store, tmp_path):
    commit(store, tmp_path, override="seed=2")
    config = resolve("demo", (), ())[0]
    store.put("run/iter-1/config.json", json.dumps({"config": config.model_dump(), "origins": {}}).encode())
    needed = runner.identify(runner.Task("run", 1, "rollouts", config), {}).work
    for work in (WORK, needed):
        store.put(ROLLOUTS.key(work, "checkpoints", "1.npz"), b"12345")
    found = collect(store)
    assert found.garbage == []
    assert found.kept == [garbage.Kept(ROLLOUTS.key(WORK), "superseded work", 1, 5)]


def test_half_written_files_of_a_folder_go(folder):
    half = folder.root / VAE.key(f".manifest.json.{'0' * 32}")
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    with folder.lock("run/iter-1/vae/part"):
        assert [(g.where, g.bytes) for g in collect(folder).garbage] == [(VAE.key(half.name), 4)]
        assert [path.name for path in half.parent.iterdir()] == [".part.lock"]


def test_unfinished_uploads_and_ended_locks_of_a_bucket_go(bucket):
    for key in (VAE.key("data", "a", "large"), VAE.key("data", "alive", "large"), "other/x"):
        sweep.begin(bucket, key)
    bucket.put(runner.alive_key(VAE, "alive"), b"{}")
    for name in (".run.lock", ".gone.lock"):
        bucket.put(name, b'{"holder": "dead", "seconds": -5}')
    time.sleep(2.1)  # as long as leases last here
    assert [g.why for g in collect(bucket).garbage] == ["ended lock", "unfinished upload"]
    garbage.remove(bucket, garbage.outside(bucket, 0))
    assert [left.key for left in bucket.leftovers("")] == [VAE.key("data", "alive", "large")]
    assert bucket.get(".gone.lock") is None


def test_what_a_killed_doctor_left_goes(store):
    store.put(f"{doctor.CORNER}1/object", b"12")
    garbage.remove(store, garbage.outside(store, 0))
    assert keys(store) == []


def test_folders_that_become_empty_go_too(folder):
    folder.put(VAE.key("data", "lost", "a", "b"), b"")
    folder.put(VAE.key("logs", "a.log"), b"")
    collect(folder)
    assert [path.name for path in (folder.root / str(VAE)).iterdir()] == ["logs"]


def partly(call):
    """A bulk delete that fails for the key b."""
    answer = call()
    return {**answer, "Errors": [{"Key": f"{PREFIX}/b", "Code": "InternalError", "Message": "words"}]}


@pytest.mark.parametrize("single", [fine, refused("SlowDown", 503)])
def test_what_a_bulk_delete_left_is_asked_for_singly(unlucky, single):
    store = unlucky(delete_objects=[partly], delete_object=[single])
    store.delete_many(["a", "b", "c"])
    assert store.calls[:2] == ["delete_objects", "delete_object"]


def test_the_error_of_a_bulk_delete_names_the_key(unlucky):
    store = unlucky(delete_objects=[partly], delete_object=[refused("AccessDenied", 403)])
    with pytest.raises(StoreError, match="cannot delete b: access is denied"):
        store.delete_many(["a", "b", "c"])


def test_many_uploads_are_told_in_pages(endpoint):
    store = S3Store(
        Careless(buckets.client(endpoint), list_multipart_uploads={"MaxUploads": 2}),
        buckets.BUCKET,
        buckets.fresh_prefix(),
    )
    begun = {sweep.begin(store, f"key-{i}") for i in range(5)}
    found = list(store.leftovers(""))
    assert (len(found), {left.id for left in found}) == (5, begun)
    for left in found + found[:1]:
        store.discard(left)
    assert list(store.leftovers("")) == []


# Heartbeats.


def test_an_attempt_says_that_it_lives_until_it_ends(store):
    with runner.Heartbeat(store, "alive/a", 3, logging.getLogger("wm")):
        who = json.loads(store.get("alive/a"))
        assert (who["worker"], who["machine"]) == (3, runner.machine())
    assert store.get("alive/a") is None


def test_a_heartbeat_that_cannot_be_written_is_told_once_and_ends_nothing(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with runner.Heartbeat(LocalStore(tmp_path / "file"), "alive/a", 0, logging.getLogger("wm.test"), seconds=0.01):
        time.sleep(0.1)
    assert [record.getMessage()[:12] for record in caplog.records] == ["no heartbeat"]


# wm cp.


def copy(source, target, **options):
    plan = copying.plan(source, target, "run", **options)
    damaged = copying.copy(plan, source, target)
    return plan, damaged


def test_everything_that_is_needed_is_copied_and_nothing_else(folder, target, tmp_path):
    commit(folder, tmp_path)
    work = commit_shards(folder)
    area = CONTROLLER.key(WORK, "")
    needed = [f"{area}settings", f"{area}inputs", f"{area}checkpoints/1.npz", f"{area}generations/00001/params"]
    needed += [VAE.key("live/t.csv"), VAE.key("logs/a.log"), "run/iter-1/config.json"]
    for key in needed:
        folder.put(key, key.encode())
    wanted = {key: folder.get(key) for key in keys(folder)}
    for key in (f"{area}generations/00001/results/1", f"{area}workers/1", VAE.key("data/lost/x"), VAE.key("alive/x")):
        folder.put(key, b"")
    folder.put(VAE.key("retired", "x.json"), b"{}")
    copy(folder, target)
    assert {key: target.get(key) for key in keys(target)} == wanted
    assert artifacts.shard_key(work, 1) in wanted
    assert copying.plan(folder, target, "run").count == 0


def test_a_bucket_is_copied_back_to_a_folder(bucket, tmp_path):
    commit(bucket, tmp_path)
    copy(bucket, LocalStore(tmp_path / "back"))
    manifest = artifacts.manifests(LocalStore(tmp_path / "back"), VAE)[0]
    assert artifacts.load(LocalStore(tmp_path / "back"), VAE, manifest, tmp_path).path("weights").read_bytes()


class Failing:
    """A store whose every write fails after the first few."""

    def __init__(self, store, writes):
        self._store, self._left = store, itertools.count(writes, -1)

    def __getattr__(self, name):
        def call(*arguments):
            if name in ("upload", "create") and next(self._left) <= 0:
                raise StoreError("the store is out of reach")
            return getattr(self._store, name)(*arguments)

        return call if callable(getattr(self._store, name)) else getattr(self._store, name)


@pytest.mark.parametrize("writes", range(1, 6))
def test_a_copy_that_breaks_off_names_nothing_that_is_not_there_and_goes_on(folder, tmp_path, writes):
    target = LocalStore(tmp_path / "target")
    commit(folder, tmp_path)
    commit_shards(folder)
    with pytest.raises(StoreError):
        copy(folder, Failing(target, writes))
    said = [json.loads(target.get(key)) for key in keys(target) if key.endswith(".json")]
    assert {file["key"] for one in said for file in artifacts.stored_files(one)} <= set(keys(target))
    there = len(keys(target))
    assert copy(folder, target)[0].count == len(keys(folder)) - there
    assert keys(target) == keys(folder)


def test_generations_appear_in_their_order(folder, tmp_path):
    for number in range(1, 30):
        folder.put(CONTROLLER.key(WORK, f"generations/{number:05d}/params"), b"")
    with pytest.raises(StoreError):
        copy(folder, Failing(LocalStore(tmp_path / "target"), 17))
    assert keys(LocalStore(tmp_path / "target")) == keys(folder)[:17]


@pytest.mark.parametrize(
    "damage", [lambda s, k: s.put(k, b"weighty"), lambda s, k: s.put(k, b""), lambda s, k: s.delete(k)]
)
def test_what_was_damaged_is_not_copied(store, tmp_path, damage):
    damage(store, commit(store, tmp_path)["files"]["weights"]["key"])
    with pytest.raises(CorruptArtifact, match="data/first/weights") as caught:
        copy(store, LocalStore(tmp_path / "target"))
    assert caught.value.next == f"wm run vae --run run --iteration 1 --redo --store {store.uri}"
    assert keys(LocalStore(tmp_path / "target")) == []


def test_another_artifact_at_the_destination_is_a_conflict_that_names_both(folder, target, tmp_path):
    ours, theirs = commit(folder, tmp_path), commit(target, tmp_path, content=b"other")
    before = keys(target)
    with pytest.raises(Conflict) as caught:
        copy(folder, target)
    assert ours["digest"][:12] in caught.value.message and theirs["digest"][:12] in caught.value.message
    assert caught.value.next == f"wm show run/iter-1/vae --store {target.uri}"
    assert keys(target) == before


def test_a_conflict_that_arises_meanwhile_is_one_too(folder, tmp_path):
    target = LocalStore(tmp_path / "target")
    commit(folder, tmp_path)
    plan = copying.plan(folder, target, "run")
    commit(target, tmp_path, content=b"other")
    with pytest.raises(Conflict):
        copying.copy(plan, folder, target)


def test_the_same_artifact_of_another_attempt_stays(folder, target, tmp_path):
    commit(folder, tmp_path)
    commit(target, tmp_path, attempt="second")
    before = keys(target)
    assert copy(folder, target)[0].count == 0
    assert keys(target) == before


def test_verify_finds_what_is_damaged_at_the_destination_and_mends_it(folder, target, tmp_path):
    key = commit(folder, tmp_path)["files"]["weights"]["key"]
    copy(folder, target)
    target.put(key, b"WEIGHTS")
    assert copy(folder, target)[1] == []
    assert [item.key for item in copy(folder, target, verify=True)[1]] == [key]
    assert (target.get(key), copy(folder, target, verify=True)[1]) == (b"weights", [])


@pytest.mark.parametrize(("age", "stays"), [(-5, b"newer"), (5, b"old")])
def test_telemetry_that_is_newer_at_the_destination_stays(folder, tmp_path, age, stays):
    target, key = LocalStore(tmp_path / "target"), VAE.key("live/t.csv")
    folder.put(key, b"old")
    target.put(key, b"newer")
    os.utime(target.root / key, (0, time.time() - age))
    copy(folder, target)
    assert target.get(key) == stays


def test_a_manifest_cannot_lead_out_of_the_destination(folder, tmp_path):
    manifest = commit(folder, tmp_path)
    text = json.dumps(manifest).replace(manifest["files"]["weights"]["key"], "run/../../secret")
    folder.put(VAE.key("manifest.json"), text.encode())
    with pytest.raises(CorruptArtifact, match="secret"):
        copy(folder, LocalStore(tmp_path / "target"))


def test_stores_are_two_and_are_no_runs(store, folder, tmp_path):
    commit(store, tmp_path)
    run = LocalStore(tmp_path / "store" / "run") if isinstance(store, LocalStore) else None
    with pytest.raises(ConfigError, match="to copy from and to copy to"):
        copying.check_places(store, store)
    if run:
        with pytest.raises(ConfigError, match="is a run") as caught:
            copying.check_places(run, LocalStore(tmp_path / "target"))
        assert caught.value.next == f"wm cp {tmp_path}/store {tmp_path}/target --run run"


def test_an_unknown_run_is_refused_with_those_there_are(store, tmp_path):
    commit(store, tmp_path)
    assert runs(store) == runs(store, "run") == ["run"]
    with pytest.raises(MissingInput, match=r"no run 'nope' in .*; it has run"):
        runs(store, "nope")


# As a user calls it.


def wm(*arguments):
    done = subprocess.run([sys.executable, "-m", "wm", *map(str, arguments)], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_the_commands_say_what_they_did(tmp_path):
    store = LocalStore(tmp_path / "store")
    commit(store, tmp_path)
    store.put(VAE.key("data", "lost", "weights"), b"12")
    code, text, _ = wm("doctor", "--store", store.root, "--json")
    assert (code, {row["state"] for row in json.loads(text)}) == (0, {"ok"})
    assert "1 object, 2 B, can go" in wm("gc", "--store", store.root, "--older-than", "0s")[1]
    found = json.loads(wm("gc", "run", "--store", store.root, "--older-than", "0s", "--delete", "--json")[1])
    assert [(row["where"], row["count"]) for row in found["garbage"]] == [(VAE.key("data", "lost"), 1)]
    assert "run: 2 objects" in wm("cp", store.root, tmp_path / "target")[1]
    assert wm("cp", store.root, tmp_path / "target", "--verify")[1].endswith("read back: all whole\n")


def test_a_run_that_is_being_worked_on_is_left_alone(folder):
    folder.put(VAE.key("data", "lost", "weights"), b"12")
    with folder.lock("run"):
        code, _, said = wm("gc", "--store", folder.root, "--older-than", "0s", "--delete")
        assert (code, "works on run" in said) == (12, True)
        assert wm("cp", folder.root, folder.root.parent / "target")[0] == 0
    assert keys(folder)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["gc", "--older-than", "7x"], 2, "'7x' is no age"),
        (["gc", "nope"], 11, "there is no run 'nope'"),
        (["cp", "a", "./b/../a"], 43, "to copy from and to copy to"),
        (["cp", "a", "b", "--run", "No Name"], 43, "run name 'No Name'"),
        (["doctor", "--store", "/proc/no"], 13, "checks failed: write"),
    ],
)
def test_bad_input_has_one_message_and_a_documented_code(arguments, code, words):
    got, _, said = wm(*arguments)
    assert (got, words in said) == (code, True)


# wm ls.


def test_listing_what_is_committed_asks_the_same_however_much_there_is(endpoint, tmp_path):
    client = Careless(buckets.client(endpoint), list_objects_v2={"MaxKeys": 10})
    store = S3Store(client, buckets.BUCKET, buckets.fresh_prefix())
    commit(store, tmp_path)
    client.calls.clear()
    assert len(_rows(store, store.folders(""))) == 1
    before = sorted(client.calls)
    for i in range(40):
        store.put(VAE.key("data", "lost", str(i)), b"")
        store.put(VAE.key(WORK, "generations", f"{i:05d}", "params"), b"")
    client.calls.clear()
    assert len(_rows(store, store.folders(""))) == 1
    assert sorted(client.calls) == before


def test_listing_a_folder_does_not_enter_data(folder, tmp_path):
    commit(folder, tmp_path)
    folder.put(VAE.key(WORK, "generations", "00001", "params"), b"")
    code = """import sys, wm.main
sys.addaudithook(lambda event, arguments: print(arguments[0]) if event == "os.scandir" else None)
wm.main.cli(["ls", "--store", sys.argv[1]], standalone_mode=False)"""
    done = subprocess.run([sys.executable, "-c", code, str(folder.root)], capture_output=True, text=True)
    assert "run/iter-1/vae " in done.stdout
    assert str(folder.root / "run/iter-1/vae") in done.stdout
    assert not any(f"/{name}" in done.stdout for name in ("data", WORK))
