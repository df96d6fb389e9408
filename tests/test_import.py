"""Episodes from elsewhere become rollouts with an origin of their own, and what leaves as a data set comes back."""

import json
import os
import signal
import time

import minari
import numpy as np
import pytest

import worldmodels
from worldmodels import artifacts, config, npz, stages
from worldmodels.artifacts import Name
from worldmodels.errors import ConfigError
from worldmodels.interchange import importing, sources
from worldmodels.store import LocalStore

RNG = np.random.default_rng(0)


def arrays(lengths=(12, 12, 9, 12), size=96, **changes):
    """A recording of another program: whole pictures of CarRacing, and no seeds."""
    steps = sum(lengths)
    actions = RNG.uniform(0, 1, (steps, 3)).astype(np.float32)
    frames = RNG.integers(0, 256, (steps, size, size, 3), np.uint8)
    rewards = RNG.normal(size=steps).astype(np.float32)
    return {"frames": frames, "actions": actions, "rewards": rewards, "lengths": np.array(lengths)} | changes


def written(path, **found):
    with open(path, "wb") as file:
        npz.save(file, **found)
    return path


@pytest.fixture
def drives(tmp_path):
    found = arrays()
    np.savez(tmp_path / "drives.npz", **found)
    return tmp_path / "drives.npz", found


def manifest(wm, run):
    (found,) = artifacts.manifests(LocalStore(wm.store), Name(run, 1, "rollouts"))
    return found


def test_imported_episodes_are_rollouts_that_say_so(wm, drives):
    path, found = drives
    done = wm("import", str(path), "--run", "human")
    assert done.returncode == 0, done.stderr
    made = manifest(wm, "human")
    assert made["config"]["rollouts.controller"] == "imported" and made["inputs"] == {}
    assert made["config"]["rollouts.source"] == sources.survey(sources.open_source(str(path))).digest
    assert "drives.npz" in made["made"]["notes"]["imported"]
    first, *rest = worldmodels.open(wm.store).run("human").episodes()
    assert [len(episode) for episode in (first, *rest)] == [12, 12, 9, 12]
    assert first.frames.shape == (12, 64, 64, 3) and first.track == -1
    assert (first.actions == found["actions"][:12]).all() and (rest[1].rewards == found["rewards"][24:33]).all()


def test_v_and_m_train_on_imported_episodes(wm, drives):
    assert wm("import", str(drives[0]), "--run", "tiny", "--config", str(wm.toml)).returncode == 0
    for stage in ("vae", "latents", "memory"):
        done = wm("run", stage, "--run", "tiny")
        assert done.returncode == 0, done.stderr
    latents = list(worldmodels.open(wm.store).run("tiny").latents())
    assert [len(each.mean) for each in latents] == [12, 12, 9, 12]


def test_the_same_episodes_give_the_same_digest_in_any_format(finished, wm, tmp_path):
    for kind in ("npz", "minari"):
        out = tmp_path / kind
        done = finished("export", "tiny", "--format", kind, "--to", str(out))
        assert done.returncode == 0, done.stderr
    there = list(worldmodels.open(finished.store).run("tiny").episodes())
    assert wm("import", str(tmp_path / "npz/rollouts"), "--run", "a").returncode == 0
    for before, after in zip(there, worldmodels.open(wm.store).run("a").episodes(), strict=True):
        assert (before.frames == after.frames).all() and (before.rewards == after.rewards).all()
        assert (before.track, before.terminated) == (after.track, after.terminated)
    done = wm("import", str(tmp_path / "minari/minari/CarRacing/tiny-v0"), "--run", "b")
    assert done.returncode == 0, done.stderr
    for before, after in zip(there, worldmodels.open(wm.store).run("b").episodes(), strict=True):
        assert (before.frames[:-1] == after.frames).all() and before.track == after.track
    assert manifest(wm, "a")["config"]["rollouts.source"] != manifest(wm, "b")["config"]["rollouts.source"]


def test_minari_loads_the_exported_data_set(finished, tmp_path, monkeypatch):
    assert finished("export", "tiny", "--format", "minari", "--to", str(tmp_path)).returncode == 0
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    dataset = minari.load_dataset("CarRacing/tiny-v0")
    first, expected = next(dataset.iterate_episodes()), next(worldmodels.open(finished.store).run("tiny").episodes())
    assert dataset.total_episodes == 8 and (first.observations == expected.frames).all()
    assert (first.actions == expected.actions[:-1]).all() and first.truncations.tolist() == [False] * 38 + [True]


def test_a_second_import_does_nothing_and_repairs_what_is_damaged(wm, drives):
    path, _ = drives
    assert wm("import", str(path), "--run", "human").returncode == 0
    before, files = manifest(wm, "human"), list(artifacts.stored_files(manifest(wm, "human")))
    (wm.store / files[0]["key"]).write_bytes(b"x")
    (wm.store / files[1]["key"]).unlink()
    refused = wm("run", "rollouts", "--run", "human", "--redo")
    assert refused.returncode == 11 and "next: wm import SOURCE --run human" in refused.stderr
    assert wm("import", str(path), "--run", "human").returncode == 0
    assert manifest(wm, "human") == before
    assert wm("verify", "human").returncode == 0


def test_a_killed_import_is_completed_by_the_same_command(wm, tmp_path):
    path = tmp_path / "many.npz"
    np.savez(path, **arrays((40,) * 120))
    process = wm.start("import", str(path), "--run", "human", "-o", "rollouts.shard_episodes=1")
    deadline = time.monotonic() + 60
    while not list(wm.store.glob("human/iter-1/rollouts/*/shards/*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not artifacts.manifests(LocalStore(wm.store), Name("human", 1, "rollouts"))
    done = wm("import", str(path), "--run", "human", "-o", "rollouts.shard_episodes=1")
    assert done.returncode == 0, done.stderr
    assert len({record["index"] for record in manifest(wm, "human")["shards"]}) == 120


def test_other_episodes_never_pass_for_these(wm, tmp_path):
    for name in ("one", "two"):
        np.savez(tmp_path / f"{name}.npz", **arrays())
    assert wm("import", str(tmp_path / "one.npz"), "--run", "human").returncode == 0
    before = manifest(wm, "human")
    done = wm("import", str(tmp_path / "two.npz"), "--run", "human")
    assert done.returncode == 10 and "--run human-2" in done.stderr
    assert manifest(wm, "human") == before


def test_the_second_iteration_is_driven_by_a_controller():
    digest = "0" * 64
    imported, origins = config.resolve("demo", (), ["rollouts.controller=imported", f'rollouts.source="{digest}"'])
    assert stages.stage("rollouts").inputs(imported, 1) == []
    second, _ = config.resolve(iteration=2, stored=(imported.model_dump(), origins))
    assert (second.rollouts.controller, second.rollouts.source) == ("mean", "")


@pytest.mark.parametrize("wrong", ["rollouts.controller=imported", 'rollouts.source="' + 64 * "0" + '"'])
def test_only_an_import_says_that_rollouts_are_imported(wrong):
    with pytest.raises(ConfigError, match="wm import"):
        config.resolve("demo", (), [wrong])


@pytest.mark.parametrize(("count", "longest", "size"), [(12, 400, 6), (7, 400, 7), (11, 400, 1), (8, 1000, 8)])
def test_shards_divide_the_episodes(count, longest, size):
    found = sources.Survey(count, longest, count * longest, "0" * 64)
    resolved, _ = config.resolve("demo", (), importing.overrides(found, 8))
    assert resolved.rollouts.shard_episodes == size


WRONG = {
    "no frames": (lambda found: found.pop("frames"), "it has no array frames"),
    "floats as frames": (lambda found: found.update(frames=found["frames"] / 255), "frames are float64"),
    "frames of another size": (lambda found: found.update(arrays(size=32)), "96x96x3 or 64x64x3"),
    "too few frames": (lambda found: found.update(frames=found["frames"][1:]), "lengths ask for 45 rows"),
    "discrete actions": (lambda found: found.update(actions=np.ones((45, 3), np.int64)), "not float"),
    "actions out of bounds": (lambda found: found["actions"].__setitem__((20, 1), -0.5), "episode 1: actions leave"),
    "no number": (lambda found: found["rewards"].__setitem__(3, np.nan), "not 12 finite numbers"),
    "an empty episode": (lambda found: found.update(lengths=np.array([0, 45])), "lengths are not the steps"),
    "an endless episode": (lambda found: found.update(arrays((1001,), size=64)), "1001 steps"),
    "a track that is no seed": (lambda found: found.update(tracks=np.array([0, 1, 2, -7])), "track"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_episodes_name_themselves(tmp_path, name):
    found = arrays()
    change, words = WRONG[name]
    change(found)
    path = written(tmp_path / "wrong.npz", **found)
    with pytest.raises(ConfigError, match=words) as caught:
        sources.survey(sources.open_source(str(path)))
    assert "wrong.npz" in caught.value.message


def test_a_compressed_or_pickled_file_is_not_read(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", **arrays())
    np.savez(tmp_path / "b.npz", frames=np.array([{}], object))
    for name, words in (("a", "compressed"), ("b", "something else than numbers")):
        with pytest.raises(ConfigError, match=words):
            sources.survey(sources.open_source(str(tmp_path / f"{name}.npz")))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nowhere.npz", "--run", "human"), 43, "no .npz file, no folder of them and no Minari data set"),
        (("nowhere.npz",), 2, "Missing option '--run'"),
        (("{drives}", "--run", "Human!"), 43, "run name"),
    ],
)
def test_wrong_arguments_name_themselves(wm, drives, arguments, code, words):
    wm.more["WM_RUN"] = ""
    done = wm("import", *(argument.replace("{drives}", str(drives[0])) for argument in arguments))
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr


def test_what_was_imported_is_shown(wm, drives):
    assert wm("import", str(drives[0]), "--run", "human").returncode == 0
    shown = json.loads(wm("show", "human/iter-1/rollouts", "--json").stdout)
    assert "drives.npz" in shown["manifests"][0]["made"]["notes"]["imported"]
