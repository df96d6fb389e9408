"""A controller drives with the V and M that it was evolved with, or not at all."""

import json
import logging
import shlex

import pytest

from worldmodels import planning, runner
from worldmodels.config import resolve
from worldmodels.context import ProgressReporter
from worldmodels.errors import Conflict
from worldmodels.store import LocalStore


def evaluate(wm, *arguments):
    done = wm("evaluate", "--seeds", "300000000:300000001", "--json", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def digests(wm):
    return {name.split("/")[-1].split()[0]: digest for name, digest in wm.digests().items()}


AGAIN = [("-o", "vae.epochs=2"), ("-o", "vae.z=4")]


@pytest.mark.parametrize("change", AGAIN)
def test_a_controller_is_scored_with_its_own_networks_after_others_were_trained(copy, change):
    before, made = evaluate(copy), digests(copy)
    copy.ok("vae", "--redo", *change)
    assert digests(copy)["vae"] != made["vae"]
    after = evaluate(copy)
    assert after["scored"] == before["scored"]
    assert {stage: after["scored"][stage] for stage in ("vae", "memory", "controller")} == {
        stage: made[stage] for stage in ("vae", "memory", "controller")
    }
    assert after["scores"] == before["scores"]


def test_a_controller_whose_networks_are_gone_is_not_scored(copy):
    copy.ok("vae", "--redo", "-o", "vae.epochs=2")
    assert copy("gc", "tiny", "--older-than", "0s", "--delete").returncode == 0
    done = copy("evaluate")
    assert done.returncode == 11, done.stdout + done.stderr
    assert "which is gone" in done.stderr
    assert "next: wm run latents memory controller --run tiny --iteration 1 --redo" in done.stderr


def test_no_episodes_are_driven_with_a_mixture(copy):
    change = ("-o", "vae.z=4")
    copy.ok("vae", "--redo", *change)
    done = copy.run("rollouts", "--iteration", "2")
    assert done.returncode == 10, done.stdout + done.stderr
    assert "they do not belong together" in done.stderr
    assert not (copy.store / "tiny" / "iter-2" / "rollouts").exists()
    (command,) = [line.removeprefix("next: ") for line in done.stderr.splitlines() if line.startswith("next: ")]
    command += f" {shlex.join(change)}"  # what the config file would set back
    again = copy(*shlex.split(command)[1:])
    assert again.returncode == 0, again.stdout + again.stderr
    assert evaluate(copy)["scored"]["vae"] == digests(copy)["vae"]


@pytest.mark.parametrize(("stage", "iteration"), [("rollouts", 2), ("controller", 1), ("evaluate", 1)])
def test_a_worker_refuses_a_mixture_itself(copy, stage, iteration):
    """As in a Job that was submitted before V was trained again."""
    copy.ok("vae", "--redo", "-o", "vae.epochs=2")
    for manifest in (copy.store / f"tiny/iter-1/{stage}").glob("manifest*") if iteration == 1 else []:
        manifest.unlink()
    config, _ = resolve(None, [copy.toml], ["vae.epochs=2"], iteration=iteration)
    store, task = LocalStore(copy.store), planning.Task("tiny", iteration, stage, config)
    with pytest.raises(Conflict, match="do not belong together"):
        runner.run(store, task, 0, 1, ProgressReporter(logging.getLogger("mixture")))


@pytest.mark.parametrize(
    ("which", "parameters", "generation"),
    [("mean", "mean", 3), ("best", "best", 3), ("1", "mean", 1), ("3", "mean", 3)],
)
def test_the_output_says_what_was_scored(copy, which, parameters, generation):
    scored = evaluate(copy, "--controller", which)["scored"]
    made = digests(copy)
    assert scored == {
        "artifact": "tiny/iter-1/controller",
        "parameters": parameters,
        "generation": generation,
        **{stage: made[stage] for stage in ("controller", "vae", "memory")},
    }


@pytest.mark.parametrize(
    ("which", "words"),
    [
        ("2", "the mean after generation 2 of tiny/iter-1/controller"),
        ("mean", "the mean of tiny/iter-1/controller, 3 generations"),
        ("best", "the best candidate of tiny/iter-1/controller, 3 generations"),
    ],
)
def test_people_are_told_what_was_scored(copy, which, words):
    text = copy("evaluate", "--seeds", "0:1", "--controller", which).stdout
    made = digests(copy)
    assert f"{words}: C {made['controller'][:12]}" in text
    assert f"V {made['vae'][:12]}, M {made['memory'][:12]}" in text
    score = copy.ok("evaluate").splitlines()
    assert any(f"of the mean of controller {made['controller'][:12]} (V {made['vae'][:12]}" in line for line in score)


def test_a_generation_that_is_not_there_is_named(copy):
    done = copy("evaluate", "--controller", "9")
    assert done.returncode == 11 and "generations 1 to 3" in done.stderr
    assert "next: wm evaluate --controller 3" in done.stderr
    assert copy("evaluate", "--controller", "worst").returncode == 2
