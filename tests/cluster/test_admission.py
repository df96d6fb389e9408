"""k8s/admission on a real cluster: which Jobs the pipeline's service account may make, and what else it may not do."""

import copy
import json
import subprocess

import pytest
import yaml
from test_base import K8S
from wm import render
from wm.options import RunOptions

from worldmodels.stages import STAGES

pytestmark = pytest.mark.smoke
STORE = "s3://bucket"


def asked(*arguments, stdin=""):
    done = subprocess.run(["kubectl", *arguments], input=stdin, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def pipeline(kubectl, until):
    """Asks kubectl as the pipeline's service account, to which a user has given more rights than its Role: `edit`."""
    kubectl(
        "create", "rolebinding", "too-much", "--clusterrole=edit", f"--serviceaccount={kubectl.namespace}:wm-pipeline"
    )
    kubectl("create", "serviceaccount", "powerful")
    code, said = asked("apply", "-k", str(K8S / "admission"))
    assert code == 0, said

    def ask(*arguments, stdin="", namespace=kubectl.namespace):
        account = f"--as=system:serviceaccount:{kubectl.namespace}:wm-pipeline"
        return asked("-n", namespace, account, *arguments, stdin=stdin)

    ask.create = lambda job: ask("create", "--dry-run=server", "-f", "-", stdin=json.dumps(job))
    ask.job = lambda what, *overrides: yaml.safe_load(
        render.text(what, RunOptions(STORE, overrides=(f"kubernetes.namespace={kubectl.namespace}", *overrides)))
    )
    until(lambda: ask.create(changed(ask.job("vae"), serviceAccountName="powerful"))[0])  # seconds after it was applied
    yield ask
    asked("delete", "-k", str(K8S / "admission"))


def changed(job, **fields):
    job = copy.deepcopy(job)
    job["spec"]["template"]["spec"] |= fields
    return job


def container(**fields):
    def change(job):
        job = copy.deepcopy(job)
        job["spec"]["template"]["spec"]["containers"][0] |= fields
        return job

    return change


def pod(**fields):
    return lambda job: changed(job, **fields)


def volume(**source):
    return lambda job: changed(job, volumes=[*job["spec"]["template"]["spec"]["volumes"], {"name": "more", **source}])


def security(**fields):
    return lambda job: container(
        securityContext={**job["spec"]["template"]["spec"]["containers"][0]["securityContext"], **fields}
    )(job)


def second(key, **fields):
    """A second container, like the worker, with these fields."""

    def change(job):
        spec = job["spec"]["template"]["spec"]
        other = {**spec["containers"][0], "name": "other", **fields}
        return changed(job, **{key: [*(spec["containers"] if key == "containers" else ()), other]})

    return change


SECRET_ENV = [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "others", "key": "password"}}}]
WAYS_OUT = {
    "another account": (pod(serviceAccountName="powerful"), "not for powerful"),
    "its own account": (pod(serviceAccountName="wm-pipeline"), "not for wm-pipeline"),
    "the default account": (pod(serviceAccountName=None), "not for default"),
    "an account by its old name": (pod(serviceAccountName=None, serviceAccount="powerful"), "not for powerful"),
    "a token": (pod(automountServiceAccountToken=True), "automountServiceAccountToken must be false"),
    "a token by default": (pod(automountServiceAccountToken=None), "automountServiceAccountToken must be false"),
    "a projected token": (
        volume(projected={"sources": [{"serviceAccountToken": {"path": "token"}}]}),
        "volumes other than emptyDir and configMap: more",
    ),
    "the node's files": (volume(hostPath={"path": "/"}), "volumes other than"),
    "a Secret as files": (volume(secret={"secretName": "others"}), "volumes other than"),
    "somebody's volume": (volume(persistentVolumeClaim={"claimName": "others"}), "volumes other than"),
    "a Secret as variables": (container(envFrom=[{"secretRef": {"name": "others"}}]), "other Secrets than wm-s3"),
    "a Secret as a variable": (container(env=SECRET_ENV), "other Secrets than wm-s3"),
    "a Secret before the start": (second("initContainers", env=SECRET_ENV), "other Secrets than wm-s3"),
    "a Secret beside it": (second("containers", env=SECRET_ENV), "other Secrets than wm-s3"),
    "the node's network": (pod(hostNetwork=True), "shares the node's network"),
    "the node's processes": (pod(hostPID=True), "shares the node's network"),
    "a node of its choice": (pod(nodeName="wm-node"), "past the scheduler"),
    "privileged": (security(privileged=True, allowPrivilegeEscalation=True), "root, privileged"),
    "escalation": (security(allowPrivilegeEscalation=True), "root, privileged"),
    "a capability": (security(capabilities={"add": ["SYS_ADMIN"]}), "root, privileged"),
    "root": (security(runAsUser=0), "root, privileged"),
    "perhaps root": (pod(securityContext={}), "root, privileged"),
    "privileged before the start": (
        second("initContainers", securityContext={"privileged": True}),
        "root, privileged",
    ),
}  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_the_pipeline_makes_every_stages_job(pipeline, stage):
    assert pipeline.create(pipeline.job(stage))[0] == 0
    assert pipeline.create(pipeline.job(stage, "kubernetes.s3_secret=wm-s3"))[0] == 0


@pytest.mark.parametrize("way", WAYS_OUT)
def test_and_no_job_that_is_a_way_out(pipeline, way):
    change, words = WAYS_OUT[way]
    code, said = pipeline.create(change(pipeline.job("rollouts")))
    assert code == 1
    assert "ValidatingAdmissionPolicy 'wm-pipeline-jobs'" in said
    assert words in said


def plain_pod(kubectl):
    spec = yaml.safe_load(render.text("rollouts", RunOptions(STORE)))["spec"]["template"]["spec"]
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "own"}, "spec": spec})


def test_with_more_rights_than_its_role_it_still_makes_and_deletes_jobs_only(pipeline, kubectl):
    job = pipeline.job("rollouts")
    job["spec"]["suspend"] = True
    assert pipeline("create", "-f", "-", stdin=json.dumps(job))[0] == 0
    name = job["metadata"]["name"]
    refused = [
        pipeline("create", "-f", "-", stdin=plain_pod(kubectl)),
        pipeline("patch", "job", name, "--type=merge", "-p", '{"spec": {"suspend": false}}'),
        pipeline("create", "token", "powerful"),
        pipeline("create", "configmap", "own", "--from-literal=a=b"),
        pipeline("create", "cronjob", "own", "--image=a", "--schedule=* * * * *"),
        pipeline("create", "deployment", "own", "--image=a"),
    ]
    for code, said in refused:
        assert code == 1
        assert "makes and deletes Jobs, and nothing else" in said
    assert pipeline("delete", "job", name)[0] == 0


def test_not_in_other_namespaces_either(pipeline, kubectl):
    account = f"--serviceaccount={kubectl.namespace}:wm-pipeline"
    other = f"{kubectl.namespace}-other"
    assert asked("create", "namespace", other)[0] == 0
    try:
        assert asked("-n", other, "create", "rolebinding", "too-much", "--clusterrole=edit", account)[0] == 0
        job = pipeline.job("rollouts")
        job["metadata"]["namespace"] = other
        code, said = pipeline("create", "-f", "-", stdin=json.dumps(job), namespace=other)
        assert code == 1
        assert "of its own namespace only" in said
    finally:
        asked("delete", "namespace", other, "--wait=false")


def test_other_peoples_jobs_are_their_business(pipeline, kubectl):
    code, said = asked("create", "--dry-run=server", "-f", "-", stdin=json.dumps(
        changed(pipeline.job("rollouts"), serviceAccountName="powerful")
    ))  # fmt: skip
    assert code == 0, said
