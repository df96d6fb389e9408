import json

import api
import pytest
from api import Api, status

from worldmodels.config import resolve
from worldmodels.executors.kubernetes import cluster_checks, job_spec

REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
CORE = "/api/v1/namespaces/wm"
FORBIDDEN = status(403, 'User "eve" cannot get resource "x" in API group "" in the namespace "wm"')


def allow(refused=()):
    def answer(body):
        asked = body["spec"]["resourceAttributes"]
        return 201, {"status": {"allowed": f"{asked['verb']} {asked['resource']}" not in refused}}

    return answer


@pytest.fixture
def server():
    """A cluster on which all is well."""
    made = Api()
    room = {"nvidia.com/gpu": "2", "cpu": "3920m", "memory": "14Gi", "ephemeral-storage": "47093746742"}
    node = {"metadata": {"labels": {"kubernetes.io/arch": "amd64"}}, "status": {"allocatable": room}}
    made.answers = {
        "/version": (200, {"gitVersion": "v1.34.4"}),
        CORE: (200, {}),
        f"{CORE}/serviceaccounts/wm-worker": (200, {}),
        f"{CORE}/serviceaccounts/wm-pipeline": (200, {}),
        f"{CORE}/resourcequotas": (200, {"items": []}),
        f"{CORE}/limitranges": (200, {"items": []}),
        "/api/v1/nodes": (200, {"metadata": {}, "items": [node]}),
        REVIEW: allow(),
    }
    return made


def look(server, *overrides, store="./runs", endpoint=""):
    settings = resolve("demo", (), overrides)[0].kubernetes
    found = cluster_checks.check(server.cluster(), settings, store, lambda words: None, endpoint)
    return {finding.name: finding for finding in found}


def test_all_is_well(server):
    found = look(server)
    assert {finding.state for finding in found.values()} == {"ok"}
    assert found["GPU nodes"].words.endswith("2 nvidia.com/gpu in all")


def quota(**counts):
    hard, used = ({key: pair[place] for key, pair in counts.items()} for place in (1, 0))
    return 200, {"items": [{"metadata": {"name": "q"}, "status": {"hard": hard, "used": used}}]}


@pytest.mark.parametrize(
    ("path", "answer", "name", "state", "words"),
    [
        ("/version", (200, {"gitVersion": "v1.33.1"}), "cluster", "warn", "1.34 and later"),
        (CORE, status(404, "not found"), "namespace", "fail", "no namespace wm"),
        (CORE, FORBIDDEN, "namespace", "ok", "wm"),
        (
            REVIEW,
            allow({"create jobs", "get pods"}),
            "rights",
            "fail",
            "you may not create jobs, get pods",
        ),
        (
            f"{CORE}/serviceaccounts/wm-worker",
            status(404, "gone"),
            "accounts",
            "fail",
            "wm-worker: not in namespace wm",
        ),
        (f"{CORE}/serviceaccounts/wm-worker", FORBIDDEN, "accounts", "ok", "unknown"),
        (f"{CORE}/resourcequotas", quota(pods=("3", "10")), "quota", "ok", "q: 3 of 10 pods"),
        (f"{CORE}/resourcequotas", quota(pods=("10", "10")), "quota", "fail", "used up: q: 10 of 10 pods"),
        (f"{CORE}/resourcequotas", FORBIDDEN, "quota", "ok", "unknown"),
        ("/api/v1/nodes", (200, {"metadata": {}, "items": []}), "CPU nodes", "warn", "0 with kubernetes.io/arch=amd64"),
        (REVIEW, allow({"list nodes"}), "GPU nodes", "ok", "unknown"),
    ],
)
def test_what_is_wrong_is_found(server, path, answer, name, state, words):
    server.answers[path] = answer
    finding = look(server)[name]
    assert finding.state == state
    assert words in finding.words
    assert bool(finding.next) == (state != "ok")


def hard(**amounts):
    return 200, {"items": [{"metadata": {"name": "q"}, "status": {"hard": amounts, "used": {}}}]}


def limit_range(**item):
    return 200, {"items": [{"metadata": {"name": "r"}, "spec": {"limits": [{"type": "Container", **item}]}}]}


def one_node(**allocatable):
    return 200, {"metadata": {}, "items": [{"metadata": {"labels": {}}, "status": {"allocatable": allocatable}}]}


@pytest.mark.parametrize(
    ("path", "answer", "name", "state", "words"),
    [
        (
            "resourcequotas", hard(**{"limits.memory": "6Gi"}), "quota", "fail",
            "q: a pod of vae asks for 8Gi limits.memory, and 6Gi is all there is",
        ),
        (
            "resourcequotas", hard(**{"requests.cpu": "3"}), "quota", "warn",
            "q: 3 requests.cpu hold 3 of 4 pods of rollouts at a time",
        ),
        ("resourcequotas", hard(**{"requests.nvidia.com/gpu": "0"}), "quota", "fail", "0 of 0 requests.nvidia.com/gpu"),
        ("resourcequotas", hard(pods="2", cpu="100", memory="100Gi"), "quota", "warn", "2 pods hold 2 of 4"),
        ("resourcequotas", hard(pods="20", **{"limits.memory": "100Gi"}), "quota", "ok", "20 pods"),
        ("limitranges", limit_range(max={"memory": "4Gi"}), "limits", "fail", "vae may use 8Gi memory, and 4Gi is"),
        ("limitranges", limit_range(min={"cpu": "500m"}), "limits", "fail", "pipeline asks for 0.1 cpu, and 500m is"),
        (
            "limitranges", limit_range(maxLimitRequestRatio={"memory": "1"}), "limits", "ok", "r",
        ),
        ("limitranges", FORBIDDEN, "limits", "ok", "unknown"),
    ],
)  # fmt: skip
def test_what_a_namespace_allows_is_compared_with_the_jobs_that_would_be_sent(server, path, answer, name, state, words):
    server.answers[f"{CORE}/{path}"] = answer
    finding = look(server)[name]
    assert finding.state == state, finding
    assert words in finding.words
    assert bool(finding.next) == (state != "ok")


def test_nodes_that_cannot_hold_the_jobs_are_none(server):
    server.answers["/api/v1/nodes"] = one_node(
        cpu="4", memory="4Gi", **{"ephemeral-storage": "100Gi", "nvidia.com/gpu": "1"}
    )
    found = look(server)
    assert (found["CPU nodes"].state, found["GPU nodes"].state) == ("ok", "fail")
    assert "none of which can hold a pod: vae asks for 2 cpu, 20Gi ephemeral-storage, 8Gi memory, 1 nvidia.com/gpu" in (
        found["GPU nodes"].words
    )
    assert look(server, "kubernetes.gpus=false")["CPU nodes"].state == "fail"


def test_the_server_judges_every_job_that_would_be_sent(server):
    ends(server, "[]")
    server.faults = []
    assert "would take all 8" in look(server, store="s3://bucket")["Jobs"].words
    denied = status(422, "denied: every Job needs the label team", reason="Invalid")

    def create(body):
        return (201, body) if body["metadata"]["labels"].get("team") else denied

    server.answers["/apis/batch/v1/namespaces/wm/jobs"] = create
    finding = look(server, store="s3://bucket")["Jobs"]
    assert finding.state == "fail"
    assert "rollouts, vae, latents" in finding.words and "every Job needs the label team" in finding.words


def test_the_image_that_trains_is_tried_too(server):
    ends(server, "[]")
    asked = []
    made = server.made

    def note(job):
        asked.append(job["spec"]["template"]["spec"]["containers"][0])
        made(job)

    server.made = note
    found = look(server, "kubernetes.image_gpu=wm-gpu:7", store="s3://bucket")
    assert [each["image"] for each in asked] == ["wm-cpu:dev", "wm-gpu:7"]
    assert asked[1]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert found["GPU pod"].words.startswith("runs wm-gpu:7")


@pytest.mark.parametrize(
    ("endpoint", "setting", "words"),
    [
        ("http://127.0.0.1:8333", "", "pods will look for it at AWS, with another server's keys"),
        ("http://127.0.0.1:8333", "http://s3.wm.svc:8333", ""),
        ("https://s3.eu-west-1.amazonaws.com", "", ""),
        ("https://s3.eu-west-1.amazonaws.com", "http://s3.wm.svc:8333", "what they commit will not be seen here"),
    ],
)
def test_pods_that_would_ask_another_server_are_warned_of(server, endpoint, setting, words):
    ends(server, "[]")
    finding = look(server, f"kubernetes.s3_endpoint='{setting}'", store="s3://bucket", endpoint=endpoint)["endpoint"]
    assert finding.state == ("warn" if words else "ok")
    assert words in finding.words


def test_a_pool_without_gpus(server):
    finding = look(server, "kubernetes.gpu_resource=amd.com/gpu")["GPU nodes"]
    assert (finding.state, finding.next) == ("warn", "-o kubernetes.gpus=false")
    assert "none are asked for" in look(server, "kubernetes.gpus=false")["GPU nodes"].words


def ends(server, said, exit_code=0):
    """The pod of its own, over at once."""

    def made(job):
        name = job["metadata"]["name"]
        job["status"] = {"conditions": [api.condition("Failed" if exit_code else "Complete")]}
        server.pods = [api.fell(exit_code, job=name)] if exit_code else [api.pod(0, "Succeeded", job=name)]
        server.logs = {pod["metadata"]["name"]: f"2026-01-01T00:00:00Z {said}\n" for pod in server.pods}

    server.made = made


@pytest.mark.parametrize(
    ("said", "code", "state", "words"),
    [
        (json.dumps([{"name": "read", "state": "ok", "words": "may"}]), 0, "ok", "all 1 checks of the bucket hold"),
        (json.dumps([{"name": "read", "state": "fail", "words": "no"}]), 13, "fail", "seen from a pod: read: no"),
        ("Traceback", 1, "fail", "exit 1; its output: Traceback"),
    ],
)
def test_a_pod_of_its_own_looks_at_the_bucket_and_goes(server, said, code, state, words):
    ends(server, said, code)
    finding = look(server, store="s3://bucket")["pod"]
    assert finding.state == state
    assert words in finding.words
    assert ("s3_endpoint=…" in finding.next) == ("seen from a pod" in words)
    assert not server.jobs


@pytest.mark.parametrize(
    ("pod", "command"),
    [
        (api.waits("ErrImagePull", "not found"), "make push-images REGISTRY="),
        (
            api.waits("CreateContainerConfigError", 'secret "keys" not found'),
            "kubectl -n wm create secret generic keys ",
        ),
        (
            api.pod(node="", conditions=[api.condition("PodScheduled", "", "0/1 nodes", "False")]),
            "kubectl describe nodes",
        ),
        (api.waits("CreateContainerError"), "kubectl -n wm get events"),
    ],
    ids=["image", "secret", "node", "other"],
)
def test_a_pod_that_does_not_run_is_followed_by_what_helps(server, monkeypatch, pod, command):
    monkeypatch.setattr(cluster_checks, "PROBE_SECONDS", 0.0)

    def made(job):
        pod["metadata"]["labels"] = {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
        server.pods = [pod]

    server.made = made
    finding = look(server, "kubernetes.s3_secret=keys", store="s3://bucket")["pod"]
    assert finding.state == "fail" and finding.next.startswith(command)


def test_what_a_doctor_who_was_killed_left_is_no_hindrance(server, monkeypatch):
    monkeypatch.setattr(cluster_checks, "PROBE_SECONDS", 1.0)
    ends(server, "[]")
    left = job_spec.probe_job(resolve("demo")[0].kubernetes, "s3://bucket")
    server.cluster().create(left)
    assert look(server, store="s3://bucket")["pod"].state == "ok"
    server.made = lambda job: None
    server.cluster().create(left)
    assert look(server, store="s3://bucket")["pod"].state == "warn"
