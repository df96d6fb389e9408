"""`wm get`: committed bytes in a folder, checked, and nothing of the user's overwritten."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import small_run

from worldmodels import artifacts
from worldmodels.artifacts import Name


@pytest.fixture
def store(tmp_path):
    return small_run.build(tmp_path / "store", tmp_path / "scratch")


@pytest.fixture
def wm(store, tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "wm", *arguments, "--store", store.uri, "--run", small_run.RUN]
        (tmp_path / "here").mkdir(exist_ok=True)
        return subprocess.run(command, cwd=tmp_path / "here", capture_output=True, text=True)

    return run


def files(folder: Path):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_an_artifact_comes_with_its_results_and_telemetry(wm, store, tmp_path):
    done = wm("get", "vae")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "here") == {"vae/encoder.tflite", "vae/vae.weights.h5", "vae/training.csv"}
    assert (tmp_path / "here/vae/encoder.tflite").read_bytes() == b"encoder"
    assert "3 files" in done.stdout


def test_shards_come_below_their_index(wm, store, tmp_path):
    assert wm("get", f"{small_run.RUN}/iter-1/rollouts", "--to", "data").returncode == 0
    manifest = artifacts.manifests(store, Name(small_run.RUN, 1, "rollouts"))[-1]
    wanted = {
        f"shard-{s['index']:05d}/{name}": f["sha256"] for s in manifest["shards"] for name, f in s["files"].items()
    }
    there = {name: hashlib.sha256((tmp_path / "here/data" / name).read_bytes()).hexdigest() for name in wanted}
    assert there == wanted and files(tmp_path / "here/data") == set(wanted)


@pytest.mark.parametrize(
    ("file", "found"),
    [("shard-00001", {"shard-00001/frames.zst", "shard-00001/episodes.npz"}),
     ("shard-00001/episodes.npz", {"shard-00001/episodes.npz"})],
)  # fmt: skip
def test_one_file_or_one_shard(wm, tmp_path, file, found):
    assert wm("get", "rollouts", file).returncode == 0
    assert files(tmp_path / "here/rollouts") == found


def test_a_second_time_nothing_is_copied(wm, tmp_path):
    assert wm("get", "vae").returncode == 0
    before = (tmp_path / "here/vae/encoder.tflite").stat().st_mtime_ns
    done = wm("get", "vae")
    assert done.returncode == 0 and "3 there already" in done.stdout
    assert (tmp_path / "here/vae/encoder.tflite").stat().st_mtime_ns == before


def test_a_file_of_the_users_stays_and_nothing_else_is_written(wm, tmp_path):
    (tmp_path / "here/vae").mkdir(parents=True)
    (tmp_path / "here/vae/vae.weights.h5").write_text("mine")
    done = wm("get", "vae")
    assert done.returncode == 43 and "has other content" in done.stderr
    assert "next: mv vae/vae.weights.h5 vae/vae.weights.h5.old" in done.stderr
    assert (tmp_path / "here/vae/vae.weights.h5").read_text() == "mine"
    assert files(tmp_path / "here") == {"vae/vae.weights.h5"}


def test_damaged_bytes_get_no_name(wm, store, tmp_path):
    manifest = artifacts.manifests(store, Name(small_run.RUN, 1, "vae"))[-1]
    (store.root / manifest["files"]["encoder.tflite"]["key"]).write_bytes(b"exploit")
    done = wm("get", "vae", "encoder.tflite")
    assert done.returncode == 14 and "has changed since it was committed" in done.stderr
    assert files(tmp_path / "here") == set()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("vae", "encoder.tflit"), 11, "it has encoder.tflite, training.csv, vae.weights.h5"),
        (("report",), 11, "is not committed"),
        (("vea",), 43, "did you mean 'vae'"),
        (("vae", "--to", "/proc/nowhere"), 13, "cannot be written"),
    ],
)
def test_wrong_arguments_name_themselves(wm, arguments, code, words):
    done = wm("get", *arguments)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr
