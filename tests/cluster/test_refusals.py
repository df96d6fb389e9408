"""Errors of submissions, and their messages."""

import json
import os
import subprocess

import pytest
import yaml

SOON = ("--wait", "--pending-timeout", "10", "--cancel-pending")


def overrides(name, value):
    """An environment variable of the pods that is not as it should be."""
    variable = f'{{name="{name}", value={json.dumps(value)}}}'
    return "-o", f'kubernetes.pod_overrides={{spec={{containers=[{{name="worker", env=[{variable}]}}]}}}}'


PENDING = [
    ("secret", ["-o", "kubernetes.s3_secret=wrong"], 'secret "wrong" not found'),
    ("image", ["-o", 'kubernetes.image_cpu="nowhere.invalid/none:1"'], "image nowhere.invalid/none:1 cannot be pulled"),
    ("account", ["-o", "kubernetes.service_account=nobody"], 'serviceaccount "nobody" not found'),
    ("priority", ["-o", "kubernetes.priority_class=none"], "no PriorityClass with name none"),
    ("host", ["-o", "kubernetes.pod_overrides={spec={hostNetwork=true}}"], "violates PodSecurity"),
    ("queue", ["-o", "kubernetes.queue=nobody"], "waits in the queue nobody"),
    ("large", ["-o", 'kubernetes.resources.rollouts={cpu="900", cpu_limit="900"}'], "Insufficient cpu"),
]


@pytest.mark.parametrize(("run", "settings", "words"), PENDING, ids=[case[0] for case in PENDING])
def test_pods_that_cannot_run_say_why(wm, kubectl, run, settings, words):
    done = wm("submit", "rollouts", "--run", run, *SOON, *settings)
    assert done.returncode == 16, done.stdout + done.stderr
    assert words in done.stderr
    assert not kubectl.jobs(run)


def test_a_gpu_that_no_node_has(wm):
    assert wm("submit", "rollouts", "--run", "gpu", "--wait").returncode == 0
    done = wm(
        "submit", "vae", "--run", "gpu", *SOON, "-o", "kubernetes.gpus=true", "-o", "kubernetes.gpu_resource=no/gpu"
    )
    assert done.returncode == 16
    assert "Insufficient no/gpu" in done.stderr


def test_a_quota_that_is_used_up(wm, kubectl):
    kubectl("create", "quota", "none", "--hard=count/jobs.batch=0")
    try:
        done = wm("submit", "rollouts", "--run", "quota")
    finally:
        kubectl("delete", "quota", "none")
    assert done.returncode == 15
    assert "quota none of namespace" in done.stderr


@pytest.mark.smoke
def test_a_task_that_pods_refuse_is_not_tried_again(wm, kubectl):
    done = wm("submit", "rollouts", "--run", "refused", "--wait", *overrides("WM_TASK", "{}"))
    assert done.returncode == 43
    assert "is the image of another version?" in done.stderr
    assert "refused/iter-1/rollouts    failed" in wm("status", "refused").stdout
    assert wm("submit", "rollouts", "--run", "refused", "--wait", "-o", "kubernetes.pod_overrides={}").returncode == 0


def test_too_little_memory_is_told_and_more_of_it_mends_it(wm):
    done = wm("submit", "rollouts", "--run", "oom", "--wait", "-o", "kubernetes.resources.rollouts.memory=40Mi")
    assert done.returncode == 42
    assert "OOMKilled (it may use 40Mi of memory)" in done.stderr
    assert "-o kubernetes.resources.rollouts.memory=" in done.stderr
    again = wm("submit", "rollouts", "--run", "oom", "--wait", "-o", "kubernetes.resources.rollouts.memory=600Mi")
    assert again.returncode == 0


def test_a_job_of_other_settings_is_replaced_only_when_asked(wm):
    assert wm("submit", "rollouts", "--run", "other", "-o", "kubernetes.s3_secret=wrong").returncode == 0
    done = wm("submit", "rollouts", "--run", "other")
    assert done.returncode == 10
    assert "kubernetes.s3_secret is 'wrong' there and 'wm-s3' here" in done.stderr
    assert wm("submit", "rollouts", "--run", "other", "--replace", "--wait").returncode == 0


def test_a_stage_whose_input_is_not_there(wm):
    done = wm("submit", "evaluate", "--run", "nothing")
    assert done.returncode == 11
    assert "next: wm submit vae --run nothing" in done.stderr


@pytest.fixture
def kubeconfig(kubectl, tmp_path):
    """A kubeconfig like the session's, changed."""

    def write(change) -> str:
        raw = subprocess.run(["kubectl", "config", "view", "--raw"], capture_output=True, text=True, check=True).stdout
        value = yaml.safe_load(raw)
        change(value)
        (tmp_path / "config").write_text(json.dumps(value))
        return str(tmp_path / "config")

    return write


def login(token):
    def change(value):
        value["users"][0]["user"] = {"token": token}

    return change


def elsewhere(value):
    value["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("change", "words"),
    [(login("expired"), "have they expired"), (elsewhere, "Connection refused")],
    ids=["login", "address"],
)
def test_a_cluster_that_cannot_be_used(wm, kubeconfig, change, words):
    done = run_with(wm, kubeconfig(change))
    assert done.returncode == 15
    assert words in done.stderr


def test_a_user_without_rights(wm, kubectl, kubeconfig):
    done = run_with(wm, kubeconfig(login(kubectl("create", "token", "wm-worker").strip())))
    assert done.returncode == 15
    assert f"does not let system:serviceaccount:{kubectl.namespace}:wm-worker get jobs.batch" in done.stderr


def run_with(wm, path):
    before = wm.more.get("KUBECONFIG", os.environ.get("KUBECONFIG", ""))
    wm.more["KUBECONFIG"] = path
    try:
        return wm("submit", "rollouts", "--run", "login")
    finally:
        wm.more["KUBECONFIG"] = before


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-o", "kubernetes.context=prod"], 15, "has no such context"),
        (["-o", "kubernetes.namespace=wm-nowhere"], 15, "has no namespace 'wm-nowhere'"),
        (["--run", "a" * 49], 43, "1 to 48 of"),
        (["--dry-run", "server", "-o", "kubernetes.pod_overrides={spec={hostNetwrk=true}}"], 15, "unknown field"),
    ],
)
def test_bad_settings(wm, arguments, code, words):
    done = wm("submit", "rollouts", "--run", "bad", *arguments)
    assert done.returncode == code
    assert words in done.stderr
