"""Removed and kept objects, and commits in between; on a folder and on a real S3 server."""

import json
import logging
import os
import time

import buckets
import pytest
from faults import fine, refused
from places import PREFIX, ROLLOUTS, VAE, WORK, Careless, commit, commit_shards, keys

from worldmodels import artifacts, planning, runner
from worldmodels.artifacts import publishing
from worldmodels.config import resolve
from worldmodels.context import ProgressReporter
from worldmodels.errors import CorruptArtifact, StoreError
from worldmodels.store import LocalStore, process_identity
from worldmodels.store.s3 import cleanup
from worldmodels.store.s3.store import S3Store
from worldmodels.upkeep import garbage, store_checks

DEAD = {"machine": process_identity.machine(), "process": 2**30}


def collect(store, horizon=0.0):
    found = garbage.survey(store, "run", horizon)
    garbage.remove(store, found)
    return found


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
    publishing.retire(store, artifacts.identity(VAE, resolve("demo", (), ())[0], ("vae",), {}), manifest)
    new = commit(store, tmp_path, attempt="second", content=b"other")
    assert collect(store, horizon=3600).garbage == []
    assert len(collect(store).garbage) == 2
    assert keys(store) == sorted([new["files"]["weights"]["key"], VAE.key("manifest.json")])


def test_what_was_retired_lately_keeps_its_data_and_more_so_if_it_cannot_be_read(folder, tmp_path):
    manifest = commit(folder, tmp_path)
    publishing.retire(folder, artifacts.identity(VAE, resolve("demo", (), ())[0], ("vae",), {}), manifest)
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
    needed = planning.TaskState(store, planning.Task("run", 1, "rollouts", config)).identity.work
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
        cleanup.begin(bucket, key)
    bucket.put(runner.alive_key(VAE, "alive"), b"{}")
    for name in (".run.lock", ".gone.lock"):
        bucket.put(name, b'{"holder": "dead", "seconds": -5}')
    time.sleep(2.1)  # as long as leases last here
    assert [g.why for g in collect(bucket).garbage] == ["ended lock", "unfinished upload"]
    garbage.remove(bucket, garbage.outside(bucket, 0))
    assert [left.key for left in bucket.leftovers("")] == [VAE.key("data", "alive", "large")]
    assert bucket.get(".gone.lock") is None


def test_what_a_killed_doctor_left_goes(store):
    store.put(f"{store_checks.CORNER}1/object", b"12")
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
    begun = {cleanup.begin(store, f"key-{i}") for i in range(5)}
    found = list(store.leftovers(""))
    assert (len(found), {left.id for left in found}) == (5, begun)
    for left in found + found[:1]:
        store.discard(left)
    assert list(store.leftovers("")) == []


def test_an_attempt_says_that_it_lives_until_it_ends(store):
    with runner.Heartbeat(store, "alive/a", 3, logging.getLogger("wm")):
        who = json.loads(store.get("alive/a"))
        assert (who["worker"], who["machine"]) == (3, process_identity.machine())
    assert store.get("alive/a") is None


def test_a_heartbeat_that_cannot_be_written_is_told_once_and_ends_nothing(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with runner.Heartbeat(LocalStore(tmp_path / "file"), "alive/a", 0, logging.getLogger("wm.test"), seconds=0.01):
        time.sleep(0.1)
    assert [record.getMessage()[:12] for record in caplog.records] == ["no heartbeat"]


class Remembering(LocalStore):
    """A folder that remembers what was written to it, in order."""

    def __init__(self, root):
        super().__init__(root)
        self.written = []

    def put(self, key, data):
        self.written.append(key)
        super().put(key, data)


def test_a_task_says_that_it_lives_before_it_stores_anything(tmp_path):
    store, small = Remembering(tmp_path / "store"), ("episodes=2", "shard_episodes=1", "steps=10")
    config = resolve("demo", (), [f"rollouts.{one}" for one in small])[0]
    runner.run(store, planning.Task("run", 1, "rollouts", config), 0, 1, ProgressReporter(logging.getLogger("wm.test")))
    first, *rest = store.written
    assert first.startswith(runner.alive_key(ROLLOUTS, "")) and len(rest) >= 2
    assert keys(store, runner.alive_key(ROLLOUTS, "")) == []
    assert garbage.survey(store, "run", 0) == garbage.Survey()
