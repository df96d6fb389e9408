"""Commands that cannot end well are refused before they retire, make or remember anything."""

import shutil

import pytest

from worldmodels.config import TEST_TRACKS
from worldmodels.envs import tracks


@pytest.fixture(scope="module")
def twice(finished, make_wm):
    """The finished run, with a second iteration as far as its M."""
    wm = make_wm()
    shutil.copytree(finished.store, wm.store)
    wm.ok("rollouts", "vae", "latents", "memory", "--iteration", "2")
    return wm


@pytest.fixture
def copy(twice, wm):
    shutil.copytree(twice.store, wm.store)
    return wm


def contents(wm):
    """All that is stored, but logs and locks."""
    files = (path for path in wm.store.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path: path.read_bytes() for path in files if "logs" not in path.parts}


SECOND = ("--iteration", "2")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("controller", "-o", "controller.start_from=3", "--redo"), 43, "start_from (3) must be less than generations"),
        (("controller", "-o", "controller.start_from=2", "-o", "controller.population=6", "--redo"), 43, "population"),
        (("controller", "-o", "controller.start_from=9", "-o", "controller.generations=12", "--redo"), 11, "9"),
        (
            ("vae", "latents", "memory", "controller", "-o", "vae.z=4", "-o", "controller.start_from=2", "--redo"),
            11,
            "V or M is made first",
        ),
        (
            ("memory", "controller", "-o", "memory.hidden=4096", "-o", "controller.hidden=4096", "--redo"),
            43,
            "controller.hidden = 4096: C would have 16826371 parameters",
        ),
        (("evaluate", "-o", "evaluate.first_track=0"), 43, "evaluate.first_track = 0"),
        (("evaluate", "-o", "evaluate.first_track=399999999"), 43, "399999999"),
        (("latents", "-o", "latents.episodes=0:3", "--redo"), 43, "latents.episodes = 0:3"),
        (("latents", "-o", "latents.episodes=80:84"), 43, "no stored episode"),
        ((*SECOND, "rollouts", "-o", "rollouts.controller=7", "--redo"), 11, "generations 1 to 3"),
        ((*SECOND, "vae", "-o", "vae.z=4", "--redo"), 43, "z was 8 and is now 4"),
        (
            (*SECOND, "memory", "-o", "memory.warm_start=true", "-o", "memory.hidden=8", "--redo"),
            43,
            "hidden was 16 and is now 8",
        ),
        (("vae", "evaluate", "--redo", "-o", "vae.epochs=2", "-o", "seed=1"), 10, "latents"),
    ],
)
def test_what_cannot_be_done_changes_nothing(copy, arguments, code, words):
    before = contents(copy)
    done = copy.run(*arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert words in done.stderr
    assert "next: " in done.stderr and "Traceback" not in done.stderr
    assert contents(copy) == before


@pytest.mark.parametrize("iteration", ["1", "2"])
def test_damaged_inputs_are_found_before_what_was_made_of_them_is_retired(copy, iteration):
    """The second iteration's V learns from the first one's rollouts as well."""
    shard = next(copy.store.glob("tiny/iter-1/rollouts/data/*/shard-00001/*"))
    shard.write_bytes(shard.read_bytes()[:-10])
    before = contents(copy)
    done = copy.run("vae", "--iteration", iteration, "-o", "vae.epochs=2", "--redo")
    assert done.returncode == 14, done.stdout + done.stderr
    assert "shard 1 of tiny/iter-1/rollouts" in done.stderr
    assert "next: wm run rollouts " in done.stderr and "--run tiny --iteration 1 --redo" in done.stderr
    assert contents(copy) == before


def test_inputs_that_are_missing_are_found_before_anything_is_made(copy):
    (copy.store / "tiny/iter-1/latents/manifest-all.json").unlink()
    before = contents(copy)
    done = copy.run("vae", "memory", "--redo", "-o", "vae.epochs=2")
    assert done.returncode == 11, done.stdout + done.stderr
    assert contents(copy) == before


def test_a_stage_whose_packages_are_missing_retires_nothing(copy, tmp_path):
    """As on a laptop with the images' packages for playing alone."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'tensorflow' else find(name, package)\n"
    )
    copy.more["PYTHONPATH"] = str(tmp_path)
    before = contents(copy)
    done = copy.run("vae", "-o", "vae.epochs=2", "--redo")
    assert done.returncode == 43, done.stdout + done.stderr
    assert "tensorflow" in done.stderr
    assert contents(copy) == before


def test_settings_that_were_used_are_remembered(copy):
    copy.ok("controller", "-o", "controller.generations=4")
    assert "controller.generations=4" in copy("config").stdout
    copy.ok("controller", "-o", "controller.generations=3")  # nothing is left to do
    assert "controller.generations=3" in copy("config").stdout


def test_tracks_for_scores_are_the_same_in_settings_and_in_driving():
    assert TEST_TRACKS == tracks.TEST
