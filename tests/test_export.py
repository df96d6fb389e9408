"""Exported files compute what the committed networks compute, and run where nothing of this project is installed."""

import hashlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import onnx
import onnxruntime
import pytest

import worldmodels
from worldmodels import api
from worldmodels.envs.preprocess import shrink
from worldmodels.errors import CorruptArtifact, WorkFailed
from worldmodels.interchange import card, checks, exporting, graphs, weights

ONNX = ["decoder.onnx", "dream.onnx", "encoder.onnx", "policy.onnx", "step.onnx"]


@pytest.fixture(scope="module")
def run(finished):
    return worldmodels.open(finished.store).run("tiny")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    list(exporting.export(run, folder, ["onnx"]))
    return folder


def test_the_command_writes_every_network_and_the_policy(finished, tmp_path):
    done = finished("export", "tiny", "--to", str(tmp_path / "out"), "--controller", "2")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").glob("*.onnx")) == ONNX
    policy = onnx.load(tmp_path / "out/policy.onnx")
    props = {each.key: each.value for each in policy.metadata_props}
    assert props["parameters"] == "2" and len(props["controller"]) == len(props["vae"]) == 64


def test_the_same_networks_give_the_same_bytes(run, exported, tmp_path):
    list(exporting.export(run, tmp_path, ["onnx"]))
    for name in ONNX:
        assert (tmp_path / name).read_bytes() == (exported / name).read_bytes()


def test_a_policy_drives_alike_without_this_project(run, exported):
    """A process with ONNX Runtime and NumPy only gives the actions of `policy.act`."""
    frames = checks.enlarged(next(run.episodes()).frames)
    code = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
h = c = numpy.zeros((1, session.get_inputs()[1].shape[1]), numpy.float32)
actions = []
for frame in numpy.load(sys.argv[2]):
    action, h, c = session.run(None, {"frame": frame[None], "h": h, "c": c})
    actions.append(action[0])
numpy.save(sys.argv[3], actions)
assert not [name for name in sys.modules if name.startswith(("worldmodels", "ai_edge_litert", "tensorflow"))]
"""
    np.save(exported / "frames.npy", frames)
    files = [str(exported / name) for name in ("policy.onnx", "frames.npy", "actions.npy")]
    subprocess.run([sys.executable, "-I", "-c", code, *files], check=True)
    policy = run.policy()
    expected = [policy.act(frame) for frame in frames]
    assert np.abs(np.load(files[2]) - expected).max() < 1e-5


def test_every_file_takes_any_number_of_rows(run, exported):
    frames = next(run.episodes()).frames
    session = onnxruntime.InferenceSession(exported / "encoder.onnx")
    for rows in (1, 3, len(frames)):
        mean, logvar = session.run(None, {"frames": frames[:rows]})
        expected = run.encode(frames[:rows])
        assert np.allclose(mean, expected[0], atol=1e-5) and np.allclose(logvar, expected[1], atol=1e-5)


def test_the_policys_graph_shrinks_frames_bit_for_bit():
    raw = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), np.uint8)
    arrays = graphs.shrinking()
    model = graphs.model("uint8[N, 96, 96, 3] frame", "uint8[N, 64, 64, 3] frames", graphs.SHRINK, arrays, {})
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (small,) = session.run(None, {"frame": raw})
    assert (small == shrink(raw)).all()


def test_enlarged_frames_shrink_to_themselves(run):
    frames = next(run.episodes()).frames
    assert (shrink(checks.enlarged(frames)) == frames).all()


@pytest.mark.parametrize("part", ["conv3.kernel", "moments.bias", "deconv1.bias", "deconv4.kernel"])
def test_a_file_that_computes_otherwise_gets_no_name(run, tmp_path, monkeypatch, part):
    found = weights.vision(run.driven_by("vae"))
    found.weights[part] = found.weights[part] + np.float32(0.05)
    monkeypatch.setattr(weights, "vision", lambda artifact: found)
    with pytest.raises(WorkFailed, match="computes otherwise than the committed networks"):
        list(exporting.export(run, tmp_path, ["onnx"]))
    assert not any(path.name.startswith(".") for path in tmp_path.iterdir())


def test_a_controller_of_another_kind_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr(api.Run, "parameters", lambda self, which: np.zeros(7, np.float32))
    with pytest.raises(worldmodels.errors.ConfigError, match="a linear layer of"):
        list(exporting.export(run, tmp_path, ["onnx"]))


def hostile(name):
    """Change a file of weights so that it names, or becomes, more than it should."""

    def change(file):
        place = "layers/dense/vars/0"
        shape, data = file[place].shape, file[place][()]
        del file[place]
        if name == "a link to another file":
            file[place] = h5py.ExternalLink("/etc/passwd", "/")
        if name == "a soft link":
            file["elsewhere"], file[place] = data, h5py.SoftLink("/elsewhere")
        if name == "bytes of another file":
            file.create_dataset(place, shape, "f4", external=[("/etc/passwd", 0, data.nbytes)])
        if name == "compressed":
            file.create_dataset(place, data=data, compression="gzip")
        if name == "another shape":
            file[place] = data[:-1]
        if name == "another type":
            file[place] = data.astype("f8")
        if name == "no number":
            file[place] = np.full(shape, np.nan, "f4")

    return change


KINDS = ["a link to another file", "a soft link", "bytes of another file", "compressed", "another shape",
         "another type", "no number", "missing"]  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_hostile_weights_are_refused(run, tmp_path, name):
    vae = run.driven_by("vae")
    for file in ("vae.json", "vae.weights.h5"):
        (tmp_path / file).write_bytes(vae.path(file).read_bytes())
    with h5py.File(tmp_path / "vae.weights.h5", "r+") as file:
        hostile(name)(file)
    artifact = SimpleNamespace(name="run/iter-1/vae", path=lambda file: tmp_path / file, files=SimpleNamespace(next=""))
    with pytest.raises(CorruptArtifact, match="layers/dense/vars/0"):
        weights.vision(artifact)


@pytest.mark.parametrize("sizes", ['{"z": 8}', '{"z": 9999999, "width": 0.125}', '{"z": true, "width": -1}', "[]"])
def test_sizes_beyond_the_settings_bounds_are_refused(tmp_path, sizes):
    (tmp_path / "vae.json").write_text(sizes)
    artifact = SimpleNamespace(name="run/iter-1/vae", path=lambda file: tmp_path / file, files=SimpleNamespace(next=""))
    with pytest.raises(CorruptArtifact):
        weights.vision(artifact)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("night",), 11, "there is no run 'night'"),
        (("tiny", "--controller", "worst"), 2, "not mean, best or the number"),
        (("tiny", "--controller", "9"), 11, "generations 1 to 3"),
        (("tiny", "--to", "/proc/nowhere"), 13, "cannot be written"),
        (("tiny", "--format", "torch"), 2, "onnx"),
    ],
)
def test_wrong_arguments_name_themselves(finished, tmp_path, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    done = finished("export", *arguments)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr


@pytest.fixture(scope="module")
def keras_files(finished, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("keras")
    done = finished("export", "tiny", "--format", "keras", "--to", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


def test_keras_opens_the_models_without_this_project(run, keras_files):
    """A process with Keras only: M follows a whole episode at once, and predicts what `predict` predicts."""
    episode = next(run.episodes())
    z, logvar = run.encode(episode.frames)
    np.savez(keras_files / "in.npz", frames=episode.frames, z=z, a=episode.actions)
    code = """
import sys, numpy, keras
folder, x = sys.argv[1], numpy.load(sys.argv[1] + "/in.npz")
encoder, decoder, memory = (keras.saving.load_model(f"{folder}/{n}.keras") for n in ("encoder", "decoder", "memory"))
mean, logvar = encoder.predict(x["frames"], verbose=0)
h = numpy.zeros((1, memory.inputs[2].shape[1]), "float32")
logits, mu, log_sigma, *_ = memory.predict([x["z"][None], x["a"][None], h, h], verbose=0)
numpy.savez(folder + "/out.npz", mean=mean, logvar=logvar, pixels=decoder.predict(x["z"], verbose=0), mu=mu[0],
            logits=logits[0], log_sigma=log_sigma[0])
assert not [name for name in sys.modules if name.startswith("worldmodels")]
"""
    subprocess.run([sys.executable, "-I", "-c", code, str(keras_files)], check=True, capture_output=True)
    out, predicted = np.load(keras_files / "out.npz"), run.predict(z, episode.actions)
    for found, expected in ((out["mean"], z), (out["logvar"], logvar)):
        assert np.allclose(found, expected, atol=1e-5)
    assert np.abs(np.round(out["pixels"] * 255) - run.decode(z)).max() <= 1
    for name in ("logits", "mu", "log_sigma"):
        assert np.allclose(out[name], getattr(predicted, name), atol=1e-4)


def test_the_card_names_parts_scores_and_files(run, exported):
    text = (exported / "MODEL_CARD.md").read_text()
    assert all(
        part.digest in text for part in (run.artifact("vae"), run.artifact("memory"), run.artifact("controller"))
    )
    assert f"Mean {run.scores().mean:.1f}" in text and "driven by: `random`" in text
    for name in ONNX:
        assert f"| `{name}` | `{hashlib.sha256((exported / name).read_bytes()).hexdigest()}` |" in text


def test_a_card_has_no_scores_of_other_parameters(run, tmp_path):
    list(exporting.export(run, tmp_path, ["onnx"], "best"))
    text = (tmp_path / "MODEL_CARD.md").read_text()
    assert "No scores of these parameters are committed" in text and "its best candidate" in text


def test_texts_of_the_store_stay_text():
    hostile = "a|b`<script>\x1b[2J\n# heading"
    assert card._code(hostile).count("`") == 2 and not {"\n", "|", "\x1b"} & set(card._code(hostile))
