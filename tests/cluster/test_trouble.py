"""Other people's clusters: containers that others add, queues, quotas, policies, late credentials, little memory."""

import json
import time

import buckets
import pytest
from identity import server, sts

SHORT = ("-o", "rollouts.episodes=8", "-o", "rollouts.steps=40", "-o", "rollouts.shard_episodes=4")
MINUTES = ("-o", "rollouts.episodes=320", "-o", "rollouts.steps=400")
PROXY = """{spec={containers=[{name="proxy", image=IMAGE, command=["sleep", "3600"],
 resources={limits={cpu="50m", memory="64Mi", "ephemeral-storage"="10Mi"}},
 securityContext={allowPrivilegeEscalation=false, capabilities={drop=["ALL"]}, runAsUser=65532}}]}}"""


@pytest.fixture
def sidecar(wm, kubectl):
    """A container beside the worker that never ends, as a service mesh adds one."""
    image = json.loads(wm("config", "--json").stdout)["config"]["kubernetes"]["image_cpu"]
    return "-o", "kubernetes.pod_overrides=" + PROXY.replace("\n", "").replace("IMAGE", json.dumps(image))


def test_a_container_that_never_ends_hides_neither_success_nor_the_job(wm, kubectl, sidecar, until):
    done = wm("submit", "rollouts", "--run", "mesh", "--wait", *SHORT, *sidecar)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "container proxy does not end (-o kubernetes.sidecars=false" in done.stdout
    until(lambda: not kubectl.jobs("mesh"))


def test_nor_how_the_worker_failed(wm, kubectl, sidecar):
    wrong = sidecar[1].replace(
        "{spec={containers=[", '{spec={containers=[{name="worker", env=[{name="WM_TASK", value="{}"}]}, '
    )
    done = wm("submit", "rollouts", "--run", "mesh-fails", "--wait", *SHORT, "-o", wrong)
    assert done.returncode == 43, done.stdout + done.stderr
    assert "is the image of another version?" in done.stderr
    assert "container proxy keeps the pods open" in done.stderr
    assert "index 0: exit 43 (ConfigError)" in wm("status", "mesh-fails").stdout
    assert "is deleted" in wm("cancel", "rollouts", "--run", "mesh-fails").stdout


def test_an_evolution_that_needs_more_memory_ends_after_three_tries(wm, kubectl, make_wm):
    """Enough to begin, and too little to play: the pods come so far as to leave a note."""
    here = make_wm()
    here.ok("rollouts", "vae", "latents", "memory", "--run", "oom")
    assert wm("cp", str(here.store), wm.more["WM_STORE"], "--run", "oom").returncode == 0
    grown = "import worldmodels.executors.worker as w; w.main = lambda e: bytearray(2**30) and 0; import os, sys;"
    grown += " from worldmodels.executors import pod; sys.exit(pod.main(os.environ))"
    command = f"""{{spec={{containers=[{{name="worker", command=["python", "-c", {json.dumps(grown)}]}}]}}}}"""
    began = time.monotonic()
    done = wm("submit", "controller", "--run", "oom", "--wait", "-o", f"kubernetes.pod_overrides={command}",
              "-o", "kubernetes.pods.controller=1", "-o", "kubernetes.resources.controller.memory=200Mi")  # fmt: skip
    assert done.returncode == 42, done.stdout + done.stderr
    assert "OOMKilled (it may use 200Mi of memory) (× 3)" in done.stderr
    assert "-o kubernetes.resources.controller.memory=" in done.stderr
    assert "Kubernetes starts the next pod at" in done.stdout
    assert time.monotonic() - began < 240


def test_a_job_that_is_held_back_by_hand_is_waited_for(wm, kubectl, until):
    assert wm("submit", "rollouts", "--run", "held", *MINUTES).returncode == 0
    assert wm("scale", "rollouts", "--run", "held", "--pause").returncode == 0
    waiting = wm.start("attach", "rollouts", "--run", "held", "-o", "kubernetes.pending_seconds=2")
    until(lambda: "the Job is suspended" in waiting.stdout.readline())
    time.sleep(8)
    assert waiting.poll() is None
    waiting.terminate()
    waiting.communicate()
    done = wm("attach", "rollouts", "--run", "held", "--pending-timeout", "3", "--cancel-pending")
    assert done.returncode == 16
    assert "no pod ran within 3 s: the Job is suspended" in done.stderr


def test_a_quota_that_is_too_small_for_the_pods(wm, kubectl):
    kubectl("create", "quota", "small", "--hard=limits.memory=300Mi,requests.cpu=1")
    try:
        doctor = wm("doctor", "--cluster")
        done = wm(
            "submit", "rollouts", "--run", "quota", "--wait", "--pending-timeout", "15", "--cancel-pending", *SHORT
        )
    finally:
        kubectl("delete", "quota", "small")
    assert done.returncode == 16
    assert "quota small is used up: requested: limits.memory=600Mi" in done.stderr
    assert doctor.returncode != 0


POLICY = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: {name}}}
spec:
  matchConstraints:
    namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {namespace}}}}}
    resourceRules: [{{apiGroups: [batch], apiVersions: [v1], operations: [CREATE], resources: [jobs]}}]
  validations:
    - expression: object.metadata.?labels[?'cost-centre'].hasValue()
      message: "every Job needs the label cost-centre: see https://policies.test"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: {name}}}
spec: {{policyName: {name}, validationActions: [Deny]}}
"""


def test_a_label_that_a_policy_demands_of_jobs(wm, kubectl, until):
    name = f"{kubectl.namespace}-labels"
    kubectl("apply", "-f", "-", text=POLICY.format(name=name, namespace=kubectl.namespace))
    try:
        refused = until(
            lambda: (done := wm("submit", "rollouts", "--run", "label", "--dry-run", "server")).returncode and done
        )
        assert refused.returncode == 15
        assert "every Job needs the label cost-centre: see https://policies.test" in refused.stderr
        label = "kubernetes.job_overrides={metadata={labels={cost-centre='42'}}}"
        done = wm("submit", "rollouts", "--run", "label", "--wait", *SHORT, "-o", label)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        kubectl("delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", name)


IDENTITY = """{spec={
 volumes=[{name="identity", projected={sources=[{serviceAccountToken={path="token", audience="sts"}}]}}],
 containers=[{name="worker", volumeMounts=[{name="identity", mountPath="/identity"}], env=[
 {name="AWS_ROLE_ARN", value="arn:aws:iam::123456789012:role/wm"},
 {name="AWS_WEB_IDENTITY_TOKEN_FILE", value="/identity/token"},
 {name="AWS_ENDPOINT_URL_STS", value=PLACE}]}]}}"""


def test_a_node_whose_credentials_come_late(wm, kubectl, until):
    host = wm.more["AWS_ENDPOINT_URL_S3"].split("//")[1].split(":")[0]
    (port,) = buckets.free_ports(1)
    overrides = IDENTITY.replace("\n", "").replace("PLACE", json.dumps(f"http://{host}:{port}"))
    waiting = wm.start("submit", "rollouts", "--run", "late", "--wait", *SHORT,
                       "-o", "kubernetes.s3_secret=''", "-o", f"kubernetes.pod_overrides={overrides}")  # fmt: skip
    until(lambda: kubectl.running("late"))
    time.sleep(20)
    with server(sts(), host=host, port=port):
        stdout, stderr = waiting.communicate()
    assert waiting.returncode == 0, stdout + stderr
    assert "failed" not in stdout
    assert server.asked
    said = wm("logs", "rollouts", "--run", "late", "--source", "pods").stdout
    assert f"keys come from http://{host}:{port}" in said and "which does not answer" in said
