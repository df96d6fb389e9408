"""A run to another store and back: whole, in order, and again after whatever broke it off."""

import itertools
import json
import os
import time

import pytest
from places import CONTROLLER, VAE, WORK, commit, commit_shards, keys

from worldmodels import artifacts, planning, stored
from worldmodels.errors import ConfigError, Conflict, CorruptArtifact, MissingInput, StoreError
from worldmodels.store import LocalStore
from worldmodels.upkeep import copying
from worldmodels.upkeep.entries import runs

REMEMBERED = {"config": {"rollouts": {"controller": "random"}, "seed": 1}, "origins": {"seed": "default"}}


def copy(source, target, **options):
    plan = copying.plan(source, target, "run", **options)
    damaged = copying.copy(plan, source, target)
    return plan, damaged


def test_everything_that_is_needed_is_copied_and_nothing_else(folder, target, tmp_path):
    commit(folder, tmp_path)
    work = commit_shards(folder)
    workspace = CONTROLLER.key(WORK, "")
    needed = [
        f"{workspace}settings",
        f"{workspace}inputs",
        f"{workspace}checkpoints/1.npz",
        f"{workspace}generations/00001/params",
    ]
    needed += [VAE.key("live/t.csv"), VAE.key("logs/a.log")]
    for key in needed:
        folder.put(key, key.encode())
    folder.put("run/iter-1/config.json", stored.encode(REMEMBERED, indent=1))
    wanted = {key: folder.get(key) for key in keys(folder)}
    for key in (
        f"{workspace}generations/00001/results/1",
        f"{workspace}workers/1",
        VAE.key("data/lost/x"),
        VAE.key("alive/x"),
    ):
        folder.put(key, b"")
    folder.put(VAE.key("retired", "x.json"), b"{}")
    copy(folder, target)
    assert {key: target.get(key) for key in keys(target)} == wanted
    assert work.shard_key(1) in wanted
    assert copying.plan(folder, target, "run").count == 0


def test_settings_that_say_where_to_compute_stay_behind(folder, target):
    """Earlier versions stored them, tokens in pod overrides included."""
    config = REMEMBERED["config"] | {"kubernetes": {"context": "theirs", "pod_overrides": {"token": "s3cret"}}}
    origins = REMEMBERED["origins"] | {"kubernetes.pod_overrides": "-o kubernetes.pod_overrides={token='s3cret'}"}
    folder.put("run/iter-1/config.json", json.dumps({"config": config, "origins": origins}).encode())
    copy(folder, target)
    assert b"s3cret" not in target.get("run/iter-1/config.json")
    there = planning.stored_config(target, "run", 1)
    assert (there["config"], there["origins"]) == (REMEMBERED["config"], REMEMBERED["origins"])


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
    with pytest.raises(CorruptArtifact, match=r"files\.weights\.key: .*run/\.\./\.\./secret"):
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
