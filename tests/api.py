"""A stand-in for the API server: Jobs, pods and events in memory, behind the one method of urllib3's that is used."""

import io
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import urllib3
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import NewConnectionError

from worldmodels.executors.kubernetes.client import Connection, KubernetesClient

Dict = dict[str, Any]
HOST = "https://cluster.test:6443"


def away() -> NewConnectionError:
    return NewConnectionError(HTTPSConnection("cluster.test", 6443), "Connection refused")


def status(code: int, message: str = "", **details: Any) -> tuple[int, Dict]:
    return code, {"kind": "Status", "message": message, "code": code, **details}


class Api:
    """`faults` are what the next requests meet instead: an exception, an answer, None for none of that, or a function
    that does something meanwhile and returns one of these.

    `streams` are what the next watches say, `answers` what stands at other paths. `made` is called with every Job that
    is created.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, Dict] = {}
        self.pods: list[Dict] = []
        self.events: list[Dict] = []
        self.logs: dict[str, str] = {}
        self.answers: dict[str, Any] = {}
        self.faults: list[Any] = []
        self.streams: list[list[Dict]] = []
        self.requests: list[tuple[str, str, Dict | None]] = []
        self.said: list[str] = []
        self.logins = 0
        self.made: Callable[[Dict], None] = lambda job: None

    def cluster(self, **options: Any) -> KubernetesClient:
        def connect() -> Connection:
            self.logins += 1
            return Connection(HOST, self, lambda: {})  # type: ignore[arg-type]

        return KubernetesClient(connect, "wm", say=self.said.append, sleep=lambda seconds: None, **options)

    def request(self, method: str, url: str, body: str | None = None, **_: Any) -> urllib3.HTTPResponse:
        parts = urlsplit(url)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.requests.append((method, url.removeprefix(HOST), json.loads(body) if body else None))
        fault = self.faults.pop(0) if self.faults else None
        if callable(fault):
            fault = fault()
        if isinstance(fault, Exception):
            raise fault
        code, answer = fault or self._answer(method, parts.path, query, json.loads(body) if body else {})
        return response(code, answer)

    def _answer(self, method: str, path: str, query: dict[str, str], body: Dict) -> tuple[int, Any]:
        if path in self.answers:
            answer = self.answers[path]
            return answer(body) if callable(answer) else answer
        kind, _, name = path.partition("/namespaces/wm/")[2].partition("/")
        if kind == "jobs" and method == "POST":
            return self._create(body, query)
        if kind == "jobs" and name:
            return self._one(method, name, body)
        if name.endswith("/log"):
            return 200, self.logs.get(name.removesuffix("/log"), "")
        if query.get("watch"):
            return 200, "".join(json.dumps(event) + "\n" for event in (self.streams.pop(0) if self.streams else []))
        found = {"jobs": list(self.jobs.values()), "pods": self.pods, "events": self.events}.get(kind, [])
        wanted = dict(pair.split("=") for pair in query.get("labelSelector", "").split(",") if pair)
        return 200, {"metadata": {"resourceVersion": "1"}, "items": [o for o in found if _has(o, wanted)]}

    def _create(self, job: Dict, query: dict[str, str]) -> tuple[int, Any]:
        if job["metadata"]["name"] in self.jobs:
            return status(409, "already exists", reason="AlreadyExists")
        uid = f"uid-{len(self.requests)}"
        stored = {**job, "metadata": {**job["metadata"], "uid": uid, "creationTimestamp": uid}, "status": {}}
        if "dryRun" not in query:
            self.jobs[job["metadata"]["name"]] = stored
            self.made(stored)
        return 201, stored

    def _one(self, method: str, name: str, body: Dict) -> tuple[int, Any]:
        job = self.jobs.get(name)
        if job is None:
            return status(404, f'jobs.batch "{name}" not found')
        if method == "DELETE":
            if body["preconditions"]["uid"] != job["metadata"]["uid"]:
                return status(409, "the UID in the precondition does not match")
            del self.jobs[name]
        if method == "PATCH":
            if body["metadata"]["uid"] != job["metadata"]["uid"]:
                return status(409, "the UID in the precondition does not match")
            job["spec"] |= body["spec"]
        return 200, job


def _has(thing: Dict, labels: dict[str, str]) -> bool:
    own = thing["metadata"].get("labels", {})
    return all(own.get(name) == value for name, value in labels.items())


def response(code: int, answer: Any) -> urllib3.HTTPResponse:
    data = answer if isinstance(answer, str) else json.dumps(answer)
    return urllib3.HTTPResponse(io.BytesIO(data.encode()), status=code, preload_content=False)


def job(name: str = "wm-vae-demo-1", **status: Any) -> Dict:
    """A live Job, with the fields that callers read."""
    labels = {"app.kubernetes.io/component": "vae", "app.kubernetes.io/instance": "demo", "worldmodels/iteration": "1"}
    container = {"name": "worker", "image": "wm:1", "resources": {"limits": {"memory": "2Gi"}}}
    return {
        "metadata": {"name": name, "uid": "1", "labels": labels, "annotations": {"worldmodels/store": "s3://bucket"}},
        "spec": {"completions": 2, "template": {"spec": {"containers": [container]}}},
        "status": status,
    }


def condition(kind: str, reason: str = "", message: str = "", value: str = "True") -> Dict:
    return {"type": kind, "status": value, "reason": reason, "message": message}


def pod(index: int = 0, phase: str = "Pending", *, node: str = "a", job: str = "wm-vae-demo-1", **status: Any) -> Dict:
    suffix = "abc" + re.sub(r"\D", "", str(index))
    return {
        "metadata": {
            "name": f"{job}-{index}-{suffix}", "uid": f"{index}-{suffix}", "resourceVersion": "2",
            "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
            "labels": {"batch.kubernetes.io/job-name": job}, "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"nodeName": node},
        "status": {"phase": phase, **status},
    }  # fmt: skip


def waits(reason: str, message: str = "") -> Dict:
    """A pod whose container does not start."""
    state = {"waiting": {"reason": reason, "message": message}}
    return pod(containerStatuses=[{"name": "worker", "image": "wm:1", "state": state}])


def fell(code: int, index: int = 0, reason: str = "Error", message: str = "", **which: Any) -> Dict:
    """A pod whose container ended with that code."""
    state = {"terminated": {"exitCode": code, "reason": reason, "message": message}}
    return pod(index, "Failed", **which, containerStatuses=[{"name": "worker", "image": "wm:1", "state": state}])


def beside(pod: Dict, name: str = "istio-proxy", **state: Any) -> Dict:
    """The pod with a container that a mesh added, running or in that state; it comes first, as by name it may."""
    container = {"name": name, "image": "mesh:1", "state": state or {"running": {}}}
    own = pod["status"].get("containerStatuses", [])
    running = {"phase": "Running"} if not state else {}
    return {**pod, "status": {**pod["status"], **running, "containerStatuses": [container, *own]}}


def succeeded(index: int = 0) -> Dict:
    """A pod whose worker ended well."""
    return {**fell(0, index, "Completed"), "status": {**fell(0, index, "Completed")["status"], "phase": "Succeeded"}}
