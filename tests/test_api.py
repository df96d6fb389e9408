"""The Python interface on a real run: every docstring's example, every page's code, and whole drives."""

import doctest
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import buckets
import gymnasium
import numpy as np
import pytest

import worldmodels
from worldmodels import api, errors

ROOT = Path(worldmodels.__file__).parents[1]


@pytest.fixture
def runs(finished):
    return worldmodels.open(finished.store)


@pytest.fixture
def run(runs):
    return runs.run("tiny")


@pytest.fixture
def beside_the_store(finished, tmp_path, monkeypatch):
    """A current directory where the finished run's store is `runs`."""
    (tmp_path / "runs").symlink_to(finished.store)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def examples():
    found = doctest.DocTestFinder(exclude_empty=False).find(api, extraglobs={"worldmodels": worldmodels})
    return [test for test in found if not test.name.rpartition(".")[2].startswith("_")]


def public():
    """Every class, function, method and property that the interface offers; dataclasses' fields have no docstrings."""
    return [test for test in examples() if test.name not in ("worldmodels.api", "worldmodels.api.__doc__")]


@pytest.mark.parametrize("test", public(), ids=lambda test: test.name.removeprefix("worldmodels.api."))
def test_every_public_name_has_an_example_that_runs(test, beside_the_store):
    assert test.examples, f"{test.name} has no example"
    for example in test.examples:  # the examples' run is called demo, the test's tiny
        example.source, example.want, example.exc_msg = (
            text and text.replace("demo", "tiny") for text in (example.source, example.want, example.exc_msg)
        )
    said = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


def test_import_stays_light():
    code = "import sys, worldmodels; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    assert "worldmodels" in modules and not {"numpy", "ai_edge_litert", "pydantic"} & set(modules)


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'opn'"):
        worldmodels.opn  # noqa: B018


def test_a_policy_on_plain_gymnasium_scores_what_wm_evaluate_scores(finished, run):
    which = 2  # its episode on track 7 is short
    done = finished("evaluate", "--controller", str(which), "--seeds", "7:8", "--renderer", "gymnasium", "--json")
    (row,) = json.loads(done.stdout)["scores"]
    environment, policy = gymnasium.make("CarRacing-v3"), run.policy(which)
    policy.act(np.full((96, 96, 3), 255, np.uint8))  # another episode came before
    policy.reset()
    observation, _ = environment.reset(seed=7)
    score, taken, ended = 0.0, 0, False
    while not ended and taken < 1000:
        observation, reward, terminated, truncated, _ = environment.step(policy.act(observation))
        score, taken, ended = score + float(np.float32(reward)), taken + 1, terminated or truncated
    assert (score, taken) == (row["score"], row["steps"])


def test_the_controller_is_chosen_by_name_or_generation(run):
    files = run.artifact("controller")
    chosen = [run.policy(which).parameters for which in ("mean", "best", 1, 3)]
    stored = [np.load(files.path(f"{name}.npy")) for name in ("mean", "best")]
    stored += [np.load(files.path("generations.npz"))["mean"][i] for i in (0, 2)]
    assert all((a == b).all() for a, b in zip(chosen, stored, strict=True))


def test_a_policy_acts_alike_on_raw_and_on_stored_frames(run):
    raw = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    small = api._small(raw)
    assert small.shape == (64, 64, 3)
    assert (run.policy().act(raw) == run.policy().act(small)).all()


def test_the_state_is_carried_until_reset(run):
    policy, episode = run.policy(), next(run.episodes())
    first = [policy.act(frame) for frame in episode.frames[:5]]
    assert not all((policy.act(frame) == action).all() for frame, action in zip(episode.frames, first, strict=False))
    policy.reset()
    assert all((policy.act(frame) == action).all() for frame, action in zip(episode.frames, first, strict=False))


def test_stored_latents_are_what_encode_gives(run):
    for episode, stored in zip(run.episodes(), run.latents(), strict=True):
        assert (run.encode(episode.frames)[0] == stored.mean).all()


def test_a_dream_follows_the_seed_and_the_actions(run):
    episode = next(run.episodes())
    dream = run.dream(episode, steps=8, seed=3)
    assert (dream == run.dream(episode, steps=8, seed=3)).all()
    assert (dream != run.dream(episode, steps=8, seed=4)).any()
    opposite = replace(episode, actions=-episode.actions)
    own = run.dream(episode, steps=8, controller=None, warm_up=0)
    assert (own != run.dream(opposite, steps=8, controller=None, warm_up=0)).any()


def test_networks_are_those_that_the_controller_names(copy):
    """V was trained again since; the controller still drives with its own."""
    before = worldmodels.open(copy.store).run("tiny")
    frames = next(before.episodes()).frames
    z = before.encode(frames)[0]
    copy.ok("vae", "-o", "seed=1", "-o", "vae.epochs=2", "--redo")
    after = worldmodels.open(copy.store).run("tiny")
    assert after.artifact("vae").digest != after.driven_by("vae").digest == before.driven_by("vae").digest
    assert (after.encode(frames)[0] == z).all()


@pytest.mark.parametrize(
    ("wrong", "kind", "words"),
    [
        (lambda runs: runs.run("tiny", 3), errors.MissingInput, "no iteration 3; it has 1"),
        (lambda runs: runs.run("tiny").artifact("vea"), errors.ConfigError, "did you mean 'vae'"),
        (lambda runs: runs.run("tiny").parameters(4), errors.MissingInput, "generations 1 to 3"),
        (lambda runs: runs.run("tiny").policy("worst"), ValueError, "'worst' is not 'mean', 'best'"),
        (lambda runs: runs.run("tiny").curves("report"), ValueError, "vae, memory, controller have"),
        (lambda runs: runs.run("tiny").encode(np.zeros((64, 64, 3), np.uint8)), ValueError, r"frames\[None\]"),
        (lambda runs: runs.run("tiny").encode(np.zeros((2, 64, 64, 3))), ValueError, "not float64"),
        (lambda runs: worldmodels.open("ftp://x"), errors.ConfigError, "s3://bucket/prefix"),
    ],
)
def test_wrong_arguments_name_themselves(runs, wrong, kind, words):
    with pytest.raises(kind, match=words):
        wrong(runs)


def test_damaged_bytes_are_refused(copy):
    controller = worldmodels.open(copy.store).run("tiny").artifact("controller")
    path = copy.store / controller.manifest["files"]["mean.npy"]["key"]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(errors.CorruptArtifact, match="has changed since it was committed"):
        worldmodels.open(copy.store).run("tiny").policy()


def test_a_bucket_is_opened_as_a_folder_is(finished, run, endpoint, monkeypatch):
    for name, value in buckets.environment(endpoint).items():
        monkeypatch.setenv(name, value)
    uri = f"s3://{buckets.BUCKET}/{buckets.fresh_prefix()}"
    copied = subprocess.run(
        [sys.executable, "-m", "wm", "cp", str(finished.store), uri], capture_output=True, text=True
    )
    assert copied.returncode == 0, copied.stderr
    there = worldmodels.open(uri).run("tiny")
    assert (there.scores().score == run.scores().score).all()
    frame = next(there.episodes()).frames[0]
    assert (there.policy().act(frame) == run.policy().act(frame)).all()


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def test_the_code_of_the_page_runs(beside_the_store, capsys):
    names = {}
    for block in blocks(ROOT / "docs/python.md"):
        exec(block.replace("demo", "tiny"), names)
    assert np.isfinite(names["score"]) and names["dream"].shape == (51, 64, 64, 3)
    assert "has no iteration 7; it has 1" in capsys.readouterr().out
