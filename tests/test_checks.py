import json

import api
import pytest
from api import Api, status

from worldmodels.config import resolve
from worldmodels.executors import checks, manifest

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
    node = {"metadata": {"labels": {"kubernetes.io/arch": "amd64"}}, "status": {"allocatable": {"nvidia.com/gpu": "2"}}}
    made.answers = {
        "/version": (200, {"gitVersion": "v1.34.4"}),
        CORE: (200, {}),
        f"{CORE}/serviceaccounts/wm-worker": (200, {}),
        f"{CORE}/serviceaccounts/wm-pipeline": (200, {}),
        f"{CORE}/resourcequotas": (200, {"items": []}),
        "/api/v1/nodes": (200, {"metadata": {}, "items": [node]}),
        REVIEW: allow(),
    }
    return made


def look(server, *overrides, store="./runs"):
    settings = resolve("demo", (), overrides)[0].kubernetes
    found = checks.visit(server.cluster(), settings, store, lambda words: None)
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
        ("Traceback", 1, "fail", "exit 1; it said: Traceback"),
    ],
)
def test_a_pod_of_its_own_looks_at_the_bucket_and_goes(server, said, code, state, words):
    ends(server, said, code)
    finding = look(server, store="s3://bucket")["pod"]
    assert finding.state == state
    assert words in finding.words
    assert not server.jobs


def test_what_a_doctor_who_was_killed_left_is_no_hindrance(server):
    ends(server, "[]")
    left = manifest.probe_job(resolve("demo")[0].kubernetes, "s3://bucket")
    server.cluster().create(left)
    assert look(server, store="s3://bucket")["pod"].state == "ok"
    server.made = lambda job: None
    server.cluster().create(left)
    assert look(server, store="s3://bucket")["pod"].state == "warn"
