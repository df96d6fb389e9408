"""Whether a cluster is fit for Jobs: what `wm doctor --cluster` asks the API server, and a pod of its own.

Whoever may do no more than submit is told "unknown" where he may not look. Nobody is asked for a Secret: the pod, which
mounts it, tells whether it is there.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from ..cluster import Kubernetes, Pool
from ..errors import ClusterError
from ..upkeep.findings import Check, Finding, examine, fail, ok, warn
from . import manifest, submission, watching
from .kubernetes import Cluster

Dict = dict[str, Any]

OLDEST = (1, 34)
RIGHTS = [
    *((verb, "jobs", "batch", "") for verb in ("create", "get", "list", "watch", "patch", "delete")),
    *((verb, "pods", "", "") for verb in ("get", "list", "watch")),
    ("get", "pods", "", "log"),
    ("list", "events", "", ""),
]
ROLES = "kubectl apply -k k8s/base"
UNKNOWN = " (unknown: you may not look)"
COUNTED = ("pods", "count/pods", "count/jobs.batch")
PROBE_SECONDS = 180.0
# What seldom mends itself need not be waited for so long.
STUCK, STUCK_SECONDS = re.compile("image .* cannot be pulled|CreateContainerConfigError|pods cannot be made"), 20.0


def visit(cluster: Cluster, settings: Kubernetes, store_uri: str, report: Callable[[str], None]) -> Iterator[Finding]:
    """One finding per check, as they come; `report` hears why the pod of its own does not run yet."""
    look = Look(cluster, settings, store_uri, report)
    there = ("cluster", "namespace")
    checks = [
        Check("cluster", look.version),
        Check("namespace", look.namespace, ("cluster",)),
        Check("rights", look.rights, there),
        Check("accounts", look.accounts, there),
        Check("quota", look.quota, there),
        Check("CPU nodes", look.cpu_nodes, ("cluster",)),
        Check("GPU nodes", look.gpu_nodes, ("cluster",)),
    ]
    if store_uri.startswith("s3://"):
        checks.append(Check("pod", look.pod, ("namespace", "rights", "accounts", "quota")))
    return examine(checks)


class Look:
    """Each method is one check."""

    def __init__(self, cluster: Cluster, settings: Kubernetes, store_uri: str, report: Callable[[str], None]) -> None:
        self.cluster, self.settings, self.store_uri, self.report = cluster, settings, store_uri, report
        self.core = f"/api/v1/namespaces/{cluster.namespace}"

    def version(self) -> Finding:
        told = self.cluster.get("/version") or {}
        version = str(told.get("gitVersion", ""))
        numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        if numbers < OLDEST:
            return warn(f"{version} at {self.cluster.host}; Jobs are tried on 1.34 and later", next="kubectl version")
        return ok(f"{version} at {self.cluster.host}")

    def namespace(self) -> Finding:
        name = self.cluster.namespace
        try:
            self.cluster.get(f"/api/v1/namespaces/{name}", okay=(403,))
        except ClusterError:
            return fail(f"there is no namespace {name}", next=f"{ROLES}, or kubectl create namespace {name}")
        return ok(name)

    def rights(self) -> Finding:
        missing = [
            f"{verb} {resource}{'/' * bool(below)}{below}"
            for verb, resource, group, below in RIGHTS
            if not self.cluster.may(verb, resource, group, below)
        ]
        if missing:
            return fail(f"you may not {', '.join(missing)}", next=f"{ROLES} as somebody who may")
        return ok(f"all {len(RIGHTS)} that submitting and watching need")

    def accounts(self) -> Finding:
        names = [self.settings.service_account or "default", self.settings.pipeline_service_account or "default"]
        known = [self.cluster.exists(f"{self.core}/serviceaccounts/{name}") for name in names]
        if absent := [name for name, there in zip(names, known, strict=True) if there is False]:
            return fail(f"{', '.join(absent)}: not in namespace {self.cluster.namespace}", next=ROLES)
        return ok(", ".join(names) + (UNKNOWN if None in known else ""))

    def quota(self) -> Finding:
        quotas = self.cluster.get(f"{self.core}/resourcequotas", okay=(403,))
        if quotas is None:
            return ok("unknown: you may not look")
        left = [each for quota in quotas["items"] for each in _left(quota)]
        if spent := [words for words, nothing_left in left if nothing_left]:
            return fail(f"used up: {', '.join(spent)}", next=f"kubectl -n {self.cluster.namespace} describe quota")
        return ok(", ".join(words for words, _ in left) or "none")

    def cpu_nodes(self) -> Finding:
        return self._nodes("cpu_pool", self.settings.cpu_pool)

    def gpu_nodes(self) -> Finding:
        if not self.settings.gpus:
            return ok("none are asked for (kubernetes.gpus = false)")
        return self._nodes("gpu_pool", self.settings.gpu_pool, self.settings.gpu_resource)

    def _nodes(self, name: str, pool: Pool, resource: str = "") -> Finding:
        """How many nodes the pool has, and how many of a resource; pools that grow from nothing have none now."""
        labels = {"kubernetes.io/arch": "amd64", **pool.node_selector}
        if not self.cluster.may("list", "nodes"):
            return ok("unknown: you may not look")
        nodes, _ = self.cluster.objects("/api/v1/nodes", labels)
        count = sum(int(node["status"]["allocatable"].get(resource, 0)) for node in nodes)
        words = f"{len(nodes)} with {', '.join(f'{k}={v}' for k, v in labels.items())}"
        if not nodes:
            return warn(f"{words}: unless a pool grows on demand, pods stay pending", f"wm config | grep -A3 {name}")
        if resource and not count:
            return warn(f"{words}, none of which has {resource} to give", next="-o kubernetes.gpus=false")
        return ok(f"{words}; {count} {resource} in all" if resource else words)

    def pod(self) -> Finding:
        """Start a pod like a worker's, which looks at the bucket from where workers will."""
        job = manifest.probe_job(self.settings, self.store_uri)
        left = self.cluster.job(job["metadata"]["name"])
        if left and watching.ended(left):  # by one that was killed
            submission.remove(self.cluster, left)
        made, _ = self.cluster.create(job)
        if made is None:
            return warn("somebody else is trying the same", next="wm doctor --cluster")
        try:
            return self._probe(made)
        finally:
            submission.remove(self.cluster, made)

    def _probe(self, job: Dict) -> Finding:
        began, told = time.monotonic(), watching.Teller(self.report, counts=False)
        while True:
            there, pods = self.cluster.job(job["metadata"]["name"]) or job, submission.pods_of(self.cluster, job)
            seen = watching.view(there, pods, submission.explanations(self.cluster, there))
            if seen.ended:
                return self._result(pods, seen)
            told("the pod", seen)
            spent = time.monotonic() - began
            if spent > PROBE_SECONDS or (spent > STUCK_SECONDS and any(map(STUCK.match, seen.pending))):
                words = "; ".join(seen.pending) or "it runs and does not end"
                return fail(f"it did not end within {spent:.0f} s: {words}", next="wm config | grep kubernetes")
            time.sleep(1.0)

    def _result(self, pods: list[Dict], seen: watching.View) -> Finding:
        said = "\n".join(
            line for pod in pods for _, line in self.cluster.log(pod["metadata"]["name"], manifest.CONTAINER)
        )
        begin, end = said.find("["), said.rfind("]")
        try:
            findings = json.loads(said[begin : end + 1])
            failed = [f"{each['name']}: {each['words']}" for each in findings if each["state"] == "fail"]
        except (ValueError, TypeError, KeyError):
            return fail(f"{'; '.join(seen.falls) or seen.why}; it said: {said[-300:]}", next="make push-images")
        if failed:
            return fail(f"the bucket, seen from a pod: {'; '.join(failed)}", next=f"wm doctor --store {self.store_uri}")
        return ok(f"runs {self.settings.image_cpu}; all {len(findings)} checks of the bucket hold from there")


def _left(quota: Dict) -> Iterator[tuple[str, bool]]:
    """("pods: 3 of 10 used", whether nothing is left) for what Jobs need."""
    status, name = quota.get("status") or {}, quota["metadata"]["name"]
    for key, hard in (status.get("hard") or {}).items():
        used = (status.get("used") or {}).get(key, "0")
        if key in COUNTED:
            yield f"{name}: {used} of {hard} {key}", int(used) >= int(hard)
        else:
            yield f"{name}: {used} of {hard} {key}", used == hard
