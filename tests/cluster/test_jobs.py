"""Stages as Jobs, from their submission to their artifacts."""

import json
import signal

import pytest

from worldmodels.stages import STAGES

HALF_A_MINUTE = ("-o", "rollouts.episodes=160", "-o", "rollouts.steps=400")
TWO_MINUTES = ("-o", "rollouts.episodes=960", "-o", "rollouts.steps=400")


def ok(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.smoke
def test_every_job_is_admitted_under_restricted(wm):
    said = ok(wm("submit", *STAGES, "--run", "dry", "--dry-run", "server"))
    said += ok(wm("submit", "pipeline", "--run", "dry", "--dry-run", "server"))
    assert said.count("the cluster would take it") == len(STAGES) + 1
    assert "warning" not in said


@pytest.mark.smoke
def test_the_doctor_finds_nothing_to_mend(wm):
    said = ok(wm("doctor", "--cluster"))
    assert "checks of the bucket hold from there" in said
    assert "fail" not in said


@pytest.mark.smoke
def test_a_stage_runs_to_its_end_and_a_second_submission_finds_it(wm, kubectl):
    assert "is submitted" in ok(wm("submit", "rollouts", "--run", "twice", *HALF_A_MINUTE))
    assert "is active already" in ok(wm("submit", "rollouts", "--run", "twice", *HALF_A_MINUTE))
    assert "committed after" in ok(wm("attach", "rollouts", "--run", "twice"))
    assert "no Job is needed" in ok(wm("submit", "rollouts", "--run", "twice", *HALF_A_MINUTE))
    assert len(kubectl.jobs("twice")) == 1
    assert json.loads(ok(wm("status", "twice", "--json")))["stages"][0]["digest"]


@pytest.mark.smoke
def test_what_pods_make_is_what_a_laptop_makes(wm, make_wm):
    here = make_wm()
    here.ok("rollouts", "--run", "tiny")
    ok(wm("submit", "rollouts", "--run", "tiny", "--wait"))
    assert wm.digests() == here.digests()


def test_the_pipeline_makes_everything_and_survives_its_own_death(wm, make_wm, kubectl, until):
    here = make_wm()
    here.ok("--run", "tiny")
    ok(wm("submit", "pipeline", "--run", "tiny"))
    until(lambda: len(kubectl.jobs("tiny")) > 2)
    kubectl("delete", "pod", "--wait=false", "-l", "worldmodels/role=pipeline,app.kubernetes.io/instance=tiny")
    assert "is active already" in ok(wm("submit", "pipeline", "--run", "tiny"))
    assert "committed after" in ok(wm("attach", "pipeline", "--run", "tiny"))
    assert wm.digests() == here.digests()
    assert "everything is committed" in ok(wm("logs", "pipeline", "--run", "tiny"))


def test_a_pod_that_is_deleted_is_replaced_and_the_work_goes_on(wm, kubectl, until):
    waiting = wm.start("submit", "rollouts", "--run", "deleted", "--wait", *TWO_MINUTES)
    pod = until(lambda: kubectl.running("deleted"))[0]
    until(lambda: "begins" in kubectl("logs", pod))  # before that nothing in it listens
    kubectl("delete", "pod", pod)
    stdout, stderr = waiting.communicate()
    assert waiting.returncode == 0, stderr
    assert "exit 143 (Stopped)" in stdout


def test_an_evolution_that_is_scaled_and_paused_ends_the_same(wm, make_wm, kubectl, until):
    here, run = make_wm(), ("controller", "--run", "scaled")
    long = ("-o", "controller.generations=60", "-o", "controller.population=8", "-o", "controller.steps=100")
    here.ok("rollouts", "vae", "latents", "memory", "--run", "scaled")
    ok(wm("cp", str(here.store), wm.more["WM_STORE"], "--run", "scaled"))
    here.ok(*run, *long)
    ok(wm("submit", *run, *long))
    until(lambda: len(kubectl.running("scaled")) == 2)
    assert "has 3 pods, 2 before" in ok(wm("scale", *run, "--pods", "3"))
    until(lambda: len(kubectl.running("scaled")) == 3)
    ok(wm("scale", *run, "--pause"))
    until(lambda: not kubectl.running("scaled"))
    assert "the Job is suspended" in ok(wm("status", "scaled"))
    ok(wm("scale", *run, "--resume"))
    assert "has 1 pod, 3 before" in ok(wm("scale", *run, "--pods", "1"))
    assert "committed after" in ok(wm("attach", *run))
    assert digests(wm, "scaled") == digests(here, "scaled")


def digests(wm, run):
    return {row["artifact"]: row["digest"] for row in json.loads(ok(wm("ls", run, "--json")))["artifacts"]}


def test_ctrl_c_detaches_and_attach_goes_on_until_a_user_deletes_the_job(wm, kubectl, until):
    waiting = wm.start("submit", "rollouts", "--run", "detached", "--wait", *TWO_MINUTES)
    until(lambda: kubectl.running("detached"))
    waiting.send_signal(signal.SIGINT)
    _, stderr = waiting.communicate()
    assert waiting.returncode == 130
    assert "next: wm attach rollouts --run detached" in stderr
    again = wm.start("attach", "rollouts", "--run", "detached")
    until(lambda: "pods done" in again.stdout.readline())
    kubectl("delete", "job", "-l", "app.kubernetes.io/instance=detached")
    assert again.wait() == 15
    assert "was deleted by another user" in again.stderr.read()


def test_logs_come_from_pods_and_then_from_the_store(wm, kubectl, until):
    ok(wm("submit", "rollouts", "--run", "logs", *TWO_MINUTES))
    until(lambda: len(kubectl.running("logs")) == 2)
    live = until(lambda: "shard" in (said := ok(wm("logs", "rollouts", "--run", "logs"))) and said)
    assert "[0] " in live and "[1] " in live
    assert "worker 2 of 2" in ok(wm("logs", "rollouts", "--run", "logs", "--index", "1"))
    assert "is deleted" in ok(wm("cancel", "rollouts", "--run", "logs"))
    stored = ok(wm("logs", "rollouts", "--run", "logs", "--index", "1"))
    assert "worker 2 of 2" in stored and "worker 1 of 2" not in stored
    assert "no Job of logs" in ok(wm("cancel", "--all", "--run", "logs"))


@pytest.mark.lab
def test_a_cluster_that_is_restarted_meanwhile_ends_nothing(wm, kubectl, until, restart_api_server):
    waiting = wm.start("submit", "rollouts", "--run", "restart", "--wait", *TWO_MINUTES)
    until(lambda: kubectl.running("restart"))
    restart_api_server(35)
    stdout, stderr = waiting.communicate()
    assert waiting.returncode == 0, stderr
    assert "does not answer" in stderr and "answers again" in stderr
    assert "committed after" in stdout
