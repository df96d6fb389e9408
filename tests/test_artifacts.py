import json

import pytest

from worldmodels import artifacts, planning
from worldmodels.artifacts import Name, publishing
from worldmodels.config import resolve
from worldmodels.errors import ConfigError, Conflict, CorruptArtifact, MissingInput
from worldmodels.store import LocalStore

NAME = Name("run", 1, "vae")


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "store")


def identity(*overrides, inputs=(), name=NAME, sections=("vae",)):
    return artifacts.identity(name, resolve("demo", (), overrides)[0], sections, dict(inputs))


def commit(store, work, tmp_path, content=b"weights"):
    folder = tmp_path / "results"
    folder.mkdir(exist_ok=True)
    (folder / "weights").write_bytes(content)
    files = publishing.upload(store, work.name, "attempt", folder)
    made = {"finished": "now"}
    return publishing.commit(store, work, files=files, telemetry={}, shards=[], resolved={}, made=made)


def test_execution_settings_are_not_part_of_an_identity():
    assert identity("execution.workers=1").work == identity("execution.workers=7").work
    assert identity("vae.epochs=1").work != identity("vae.epochs=7").work
    assert identity("seed=1").work != identity("seed=2").work


def test_an_extent_goes_on_in_the_same_place_under_a_manifest_of_its_own():
    name = Name("run", 1, "rollouts")
    few, many = (identity(f"rollouts.episodes={n}", name=name, sections=("rollouts",)) for n in (8, 16))
    assert few.work == many.work
    assert few.manifest_key == "run/iter-1/rollouts/manifest-8.json"
    assert many.manifest_key == "run/iter-1/rollouts/manifest-16.json"
    assert few.digest_of([]) != many.digest_of([])


def controller(*overrides):
    set_here = ("controller.generations=25", "controller.growth=[]", *overrides)
    return identity(*set_here, name=Name("run", 1, "controller"), sections=("controller",))


def test_goals_name_a_manifest_of_their_own_in_the_same_work():
    plain, target = controller(), controller("controller.target=800", "controller.core_hours=0.5")
    assert plain.work == target.work and plain.extent == {"controller.generations": 25}
    assert plain.manifest_key == "run/iter-1/controller/manifest-25.json"
    assert target.manifest_key == "run/iter-1/controller/manifest-25-target800-core_hours0.5.json"
    assert controller("controller.stagnation=800").manifest_key != controller("controller.target=800").manifest_key


def test_goals_differ_in_words():
    there = {"config": dict(controller().config), "extent": {"controller.generations": 25}, "inputs": {}}
    assert controller("controller.target=800").differences(there) == ["controller.target was None and is now 800.0"]


def test_a_setting_that_came_later_is_in_an_identity_only_when_it_is_used():
    assert "controller.growth" not in controller().config
    grows = controller("controller.growth=[{score=400, tracks=4}]")
    assert grows.config["controller.growth"][0]["tracks"] == 4 and grows.work != controller().work


def test_the_digest_follows_content_and_nothing_else(store, tmp_path):
    work = identity(inputs={"iter-1/rollouts": artifacts.digest(b"rollouts")})
    first = commit(store, work, tmp_path)
    store.delete(work.manifest_key)
    assert commit(store, work, tmp_path)["digest"] == first["digest"]
    store.delete(work.manifest_key)
    assert commit(store, work, tmp_path, b"other")["digest"] != first["digest"]


def test_a_second_commit_of_the_same_work_is_success(store, tmp_path):
    first = commit(store, identity(), tmp_path)
    assert commit(store, identity(), tmp_path) == first


def test_a_second_commit_of_other_work_is_a_conflict_that_names_the_field(store, tmp_path):
    commit(store, identity("vae.epochs=4"), tmp_path)
    with pytest.raises(Conflict, match=r"vae\.epochs was 4 and is now 9") as caught:
        commit(store, identity("vae.epochs=9"), tmp_path)
    assert "--redo" in caught.value.next


def test_a_retired_artifact_makes_room_and_stays_readable(store, tmp_path):
    work = identity()
    manifest = commit(store, work, tmp_path)
    publishing.retire(store, work, manifest)
    assert artifacts.manifests(store, NAME) == []
    assert (
        json.loads(store.get(f"run/iter-1/vae/retired/{manifest['digest'][:16]}.json"))["digest"] == manifest["digest"]
    )
    assert planning.by_digest(store, NAME, manifest["digest"]) == manifest


def test_a_retired_manifest_is_taken_only_for_the_digest_that_it_has(store, tmp_path):
    manifest = commit(store, identity(), tmp_path)
    publishing.retire(store, identity(), manifest)
    wanted = artifacts.digest(b"another")
    store.put(NAME.key("retired", f"{wanted[:16]}.json"), json.dumps(manifest).encode())
    assert planning.by_digest(store, NAME, wanted) is None
    store.put(NAME.key("retired", f"{wanted[:16]}.json"), json.dumps({**manifest, "digest": wanted}).encode())
    with pytest.raises(CorruptArtifact, match="it is not what its digest says"):
        planning.by_digest(store, NAME, wanted)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(b"weighty"), "has changed"),
        (lambda path: path.write_bytes(b"weig"), "has 4 bytes, not 7"),
        (lambda path: path.unlink(), "is gone"),
    ],
)
def test_damaged_files_are_never_read(store, tmp_path, damage, words):
    manifest = commit(store, identity(), tmp_path)
    artifact = artifacts.load(store, NAME, manifest, tmp_path)
    assert artifact.path("weights").read_bytes() == b"weights"
    damage(store.root / manifest["files"]["weights"]["key"])
    with pytest.raises(CorruptArtifact, match=words) as caught:
        artifacts.load(store, NAME, manifest, tmp_path).path("weights")
    assert caught.value.next == "wm run vae --run run --iteration 1 --redo"


def test_a_manifest_that_is_not_json_is_corrupt(store):
    store.put(identity().manifest_key, b"{")
    with pytest.raises(CorruptArtifact, match="not JSON"):
        artifacts.manifests(store, NAME)


def test_an_unknown_file_names_the_ones_that_are_there(store, tmp_path):
    artifact = artifacts.load(store, NAME, commit(store, identity(), tmp_path), tmp_path)
    with pytest.raises(MissingInput, match="it has weights"):
        artifact.path("weight")


@pytest.mark.parametrize("name", ["", "Über", "a/b", "../x", "-a", "a" * 60])
def test_run_names_are_checked(name):
    with pytest.raises(ConfigError, match="run name"):
        Name(name, 1, "vae")
