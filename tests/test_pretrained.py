"""The trained model in the package: its scores, its files, and how a run becomes it."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from wm import pretrained

import worldmodels
from worldmodels import artifacts, errors
from worldmodels.artifacts import Name, provenance
from worldmodels.executors import scoring
from worldmodels.store import LocalStore, PackagedStore, packaged
from worldmodels.upkeep.verifying import verify

NUMBERS = ("ai-edge-litert", "gymnasium", "box2d", "numba", "numpy")
SEEDS = 5


@pytest.fixture
def store():
    return PackagedStore()


@pytest.fixture
def wm(tmp_path):
    def run(*arguments):
        return subprocess.run([sys.executable, "-m", "wm", *arguments], cwd=tmp_path, capture_output=True, text=True)

    return run


def test_it_scores_what_it_scored_when_it_was_evaluated(store):
    evaluation = worldmodels.pretrained().artifact("evaluate")
    wanted = [row["score"] for row in artifacts.scores(evaluation)["scores"][:SEEDS]]
    tracks = worldmodels.pretrained().scores().tracks[:SEEDS].tolist()
    found = scoring.score(store, packaged.RUN, store.iteration, tracks, "fast", 2)
    made, here = evaluation.manifest["made"], dict(provenance.versions())
    same = made["cpu"]["features"] == provenance.cpu()["features"]
    same &= all(made["versions"][package] == here[package] for package in NUMBERS)
    if same:
        assert [row["score"] for row in found["scores"]] == wanted
    assert abs(found["mean"] - np.mean(wanted)) < 60  # another processor's rounding drives another line
    assert found["mean"] > 800


def test_every_file_that_driving_needs_is_there_and_whole(store):
    found = verify(store, packaged.RUN)
    assert not found.damage and found.objects > 10
    run = worldmodels.pretrained()
    assert run.driver().controller.parameters == len(run.parameters()) == len(run.parameters("best"))
    assert run.decode(np.zeros((1, run.driver().encoder.z), np.float32)).shape == (1, 64, 64, 3)
    assert run.dreamer.hidden == run.driver().step.hidden
    assert len(run.curves("controller")["mean"]) == 150


def test_a_file_that_was_left_out_is_named_as_such(wm):
    with pytest.raises(errors.MissingInput, match=r"leaves out .*weights\.h5: driving does not need it"):
        worldmodels.pretrained().artifact("vae").path("vae.weights.h5")
    done = wm("board", "--store", packaged.ADDRESS, "--write", "page")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "write",
    [
        lambda store: store.put("pretrained/x", b""),
        lambda store: store.create("pretrained/x", b""),
        lambda store: store.follow("pretrained/x", b""),
        lambda store: store.delete("pretrained/iter-1/config.json"),
        lambda store: store.delete_many(["pretrained/iter-1/config.json"]),
        lambda store: store.lock("pretrained").__enter__(),
    ],
)
def test_nothing_writes_to_it(tmp_path, write):
    shutil.copytree(packaged.FOLDER, tmp_path / "packaged")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(errors.ConfigError, match="can only be read"):
        write(PackagedStore(tmp_path / "packaged"))
    assert sorted(tmp_path.rglob("*")) == before


def test_it_drives_in_one_command(wm, tmp_path):
    done = wm("drive", "--pretrained", "--steps", "20")
    assert done.returncode == 0 and (tmp_path / "pretrained-300000000.webp").stat().st_size > 1000, done.stderr
    done = wm("evaluate", "--pretrained", "--seeds", "7:8", "--json")
    assert json.loads(done.stdout)["scored"]["artifact"].startswith("pretrained/")
    assert not (tmp_path / "runs").exists()


def test_wrong_use_names_what_is_wrong(wm):
    for words, code, says in (
        (("drive", "demo", "--pretrained"), 2, "leave out a run"),
        (("evaluate", "--pretrained", "--store", "runs"), 2, "leave out --store"),
        (("drive", "--pretrained", "--iteration", "2"), 2, "leave out --iteration"),
        (("evaluate", "--pretrained", "--controller", "9999"), 11, "--run pretrained --store package:"),
        (("run", "evaluate", "--store", packaged.ADDRESS), 43, "next: wm run --preset demo --store ./runs"),
    ):
        done = wm(*words)
        assert done.returncode == code and says in done.stdout + done.stderr, done


def test_an_installation_without_it_says_so(tmp_path):
    with pytest.raises(errors.ConfigError, match="no trained model"):
        PackagedStore(tmp_path)


def test_a_run_becomes_the_packages_model(finished, tmp_path):
    source, folder = LocalStore(finished.store), tmp_path / "packaged"
    for _ in range(2):  # the second time, it replaces the first
        packed = pretrained.pack(source, "tiny", 1, folder)
    store = PackagedStore(folder)
    assert not verify(store, packaged.RUN).damage
    assert packed == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    for stage in ("vae", "memory", "controller", "evaluate"):
        (made,) = artifacts.manifests(source, Name("tiny", 1, stage))
        (kept,) = artifacts.manifests(store, Name(packaged.RUN, 1, stage))
        assert kept["digest"] == made["digest"] and kept["made"] == made["made"]
    assert not [path for path in folder.rglob("*") if path.suffix in (".h5", ".webp", ".png")]
    assert not [path for path in folder.rglob("*") if "tiny" in path.name]
    tracks = [7]
    scores = [scoring.score(*where, 1, tracks, "fast", 1) for where in ((source, "tiny"), (store, packaged.RUN))]
    assert scores[0]["scores"] == scores[1]["scores"]


def test_only_a_scored_controller_becomes_it(finished, tmp_path):
    shutil.copytree(finished.store, tmp_path / "store")
    store = LocalStore(tmp_path / "store")
    (path,) = (tmp_path / "store/tiny/iter-1/evaluate").glob("manifest*.json")
    manifest = path.read_bytes()
    path.unlink()
    with pytest.raises(errors.MissingInput, match="tiny/iter-1/evaluate is not committed"):
        pretrained.pack(store, "tiny", 1, tmp_path / "packaged")
    path.write_bytes(manifest)
    with pytest.raises(errors.MissingInput, match="tiny/iter-2/controller is not committed"):
        pretrained.pack(store, "tiny", 2, tmp_path / "packaged")
    assert not (tmp_path / "packaged").exists()
