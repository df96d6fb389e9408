"""Checks of a cluster for `wm doctor --cluster`: requests to the API server, and a probe pod.

A check reports "unknown" if the user lacks the right to read. No check reads a Secret: the probe pod mounts it, and so
shows whether it exists.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from ...config import Config
from ...config.cluster import ClusterSettings, Pool
from ...errors import ClusterError
from ...planning import Task
from ...stages import STAGES
from ...upkeep.checks import Check, Finding, examine, fail, ok, warn
from . import job_spec, job_status, submission
from .client import KubernetesClient

Dict = dict[str, Any]
Amounts = dict[str, Decimal]

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
# These states seldom end without a change of settings, so their time limit is shorter.
STUCK, STUCK_SECONDS = re.compile("image .* cannot be pulled|CreateContainerConfigError|pods cannot be made"), 20.0

WAYS = {
    "cannot be pulled": "make push-images REGISTRY=HOST/PATH, then wm doctor --cluster --config images.toml",
    'secret "': "kubectl -n {namespace} create secret generic {s3_secret}"
    " --from-literal=AWS_ACCESS_KEY_ID=… --from-literal=AWS_SECRET_ACCESS_KEY=…",
    "no node": "kubectl describe nodes",
    "": "kubectl -n {namespace} get events",
}
"""The next command for a pod that does not run, by a part of the reason."""
FOUND_BY = "-o kubernetes.s3_endpoint=… -o kubernetes.s3_secret=…"

SHOWN = "wm submit STAGE --dry-run server; kubernetes.labels, annotations, job_overrides and removed_fields mend a Job"


@dataclass(frozen=True)
class Need:
    """The requests and limits of each pod of a stage's Job, summed over its containers, by resource name."""

    name: str
    pods: int
    pool: str
    requests: Amounts
    limits: Amounts

    @classmethod
    def of(cls, name: str, job: Dict) -> "Need":
        containers = job["spec"]["template"]["spec"]["containers"]
        asked, held = (
            {
                key: sum((parse_quantity(c["resources"][kind].get(key, 0)) for c in containers), Decimal(0))
                for key in {key for c in containers for key in c["resources"].get(kind, {})}
            }
            for kind in ("requests", "limits")
        )
        on_gpu = any("/" in key for key in asked)
        return cls(name, job["spec"]["completions"], "gpu" if on_gpu else "cpu", asked, held)

    def amount(self, key: str) -> Decimal:
        """Return how much of a quota's resource, such as `requests.cpu`, one pod uses."""
        if key in ("pods", "count/pods"):
            return Decimal(1)
        kind, _, resource = key.partition(".")
        if kind in ("requests", "limits"):
            return (self.requests if kind == "requests" else self.limits).get(resource, Decimal(0))
        return self.requests.get(key, Decimal(0))

    def fits(self, node: Dict) -> bool:
        there = node["status"].get("allocatable", {})
        return all(parse_quantity(there.get(key, 0)) >= amount for key, amount in self.requests.items() if amount)

    def words(self) -> str:
        return ", ".join(f"{_plain(amount)} {key}" for key, amount in sorted(self.requests.items()))


def check(
    cluster: KubernetesClient,
    settings: ClusterSettings,
    store_uri: str,
    report: Callable[[str], None],
    endpoint: str = "",
) -> Iterator[Finding]:
    """Yield one finding per check, as each check ends.

    `report` is called with the reason why the probe pod does not run yet; `endpoint` is the bucket's server as this
    machine reaches it.
    """
    look = Look(cluster, settings, store_uri, report)
    there = ("cluster", "namespace")
    checks = [
        Check("cluster", look.version),
        Check("namespace", look.namespace, ("cluster",)),
        Check("rights", look.rights, there),
        Check("accounts", look.accounts, there),
        Check("quota", look.quota, there),
        Check("limits", look.limits, there),
        Check("CPU nodes", look.cpu_nodes, ("cluster",)),
        Check("GPU nodes", look.gpu_nodes, ("cluster",)),
    ]
    if store_uri.startswith("s3://"):
        able = ("namespace", "rights", "accounts", "quota", "limits")
        checks += [Check("endpoint", lambda: _endpoint(endpoint, settings))]
        checks += [Check("Jobs", look.jobs, ("namespace", "rights")), Check("pod", look.pod, able)]
        checks += [Check("GPU pod", look.gpu_pod, able)]
    return examine(checks)


class Look:
    """The checks of one cluster, one per public method."""

    def __init__(
        self, cluster: KubernetesClient, settings: ClusterSettings, store_uri: str, report: Callable[[str], None]
    ) -> None:
        self.cluster, self.settings, self.store_uri, self.report = cluster, settings, store_uri, report
        self.core = f"/api/v1/namespaces/{cluster.namespace}"
        self.sent = _jobs(settings, store_uri if store_uri.startswith("s3://") else "s3://bucket")
        self.needs = [Need.of(name, job) for name, job in self.sent.items()]

    def version(self) -> Finding:
        answer = self.cluster.get("/version") or {}
        version = str(answer.get("gitVersion", ""))
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
            return fail(f"you may not {', '.join(missing)}", next=f"{ROLES} as an administrator")
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
        command = f"kubectl -n {self.cluster.namespace} describe quota"
        if spent := [words for words, nothing_left in left if nothing_left]:
            return fail(f"used up: {', '.join(spent)}", next=command)
        found = [each for quota in quotas["items"] for need in self.needs for each in _held(quota, need)]
        if never := [words for words, pods in found if not pods]:
            return fail("; ".join(never), next=f"{command}, or -o kubernetes.resources.STAGE.memory=… (cpu, disk)")
        if few := [words for words, _ in found]:
            return warn("; ".join(few), next=f"-o kubernetes.pods.STAGE=…, or {command}")
        return ok(", ".join(words for words, _ in left) or "none")

    def limits(self) -> Finding:
        """Compare the pods' requests and limits with LimitRanges, which refuse pods outside their bounds."""
        ranges = self.cluster.get(f"{self.core}/limitranges", okay=(403,))
        if ranges is None:
            return ok("unknown: you may not look")
        items = [(each["metadata"]["name"], item) for each in ranges["items"] for item in each["spec"]["limits"]]
        broken = [words for name, item in items for need in self.needs for words in _out_of_range(name, item, need)]
        if broken:
            command = f"kubectl -n {self.cluster.namespace} describe limitrange"
            return fail("; ".join(broken), next=f"{command}, or -o kubernetes.resources.STAGE.memory=… (cpu, disk)")
        return ok(", ".join(dict.fromkeys(name for name, _ in items)) or "none")

    def jobs(self) -> Finding:
        """Send every Job as a dry run, which admission policies and webhooks check too."""
        refused, warned = dict[str, list[str]](), dict[str, list[str]]()
        for name, job in self.sent.items():
            try:
                _, warnings = self.cluster.create(job, dry_run=True)
            except ClusterError as error:
                refused.setdefault(error.message, []).append(name)
                continue
            for each in warnings:
                warned.setdefault(each, []).append(name)
        if refused:
            return fail("; ".join(f"{', '.join(names)}: {words}" for words, names in refused.items()), next=SHOWN)
        if warned:
            return warn("; ".join(f"{', '.join(names)}: {words}" for words, names in warned.items()), next=SHOWN)
        return ok(f"the server would take all {len(self.sent)}")

    def cpu_nodes(self) -> Finding:
        return self._nodes("cpu_pool", self.settings.cpu_pool)

    def gpu_nodes(self) -> Finding:
        if not self.settings.gpus:
            return ok("none are asked for (kubernetes.gpus = false)")
        return self._nodes("gpu_pool", self.settings.gpu_pool, self.settings.gpu_resource)

    def _nodes(self, name: str, pool: Pool, resource: str = "") -> Finding:
        """Count the pool's nodes and their amount of `resource`; an autoscaled pool may have no nodes at the moment."""
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
        pool_name = name.removesuffix("_pool")
        large = [need for need in self.needs if need.pool == pool_name and not any(need.fits(node) for node in nodes)]
        if large:
            asked = "; ".join(f"{need.name} asks for {need.words()}" for need in large)
            return fail(
                f"{words}, none of which can hold a pod: {asked}", next="-o kubernetes.resources.STAGE.memory=…"
            )
        return ok(f"{words}; {count} {resource} in all" if resource else words)

    def pod(self) -> Finding:
        """Start a pod like a worker's that checks the bucket from inside the cluster."""
        return self._try(job_spec.probe_job(self.settings, self.store_uri), self.settings.image_cpu)

    def gpu_pod(self) -> Finding:
        """Start such a pod with the image of the trainings, on their nodes and with their GPUs."""
        if not self.settings.gpus and self.settings.image_gpu == self.settings.image_cpu:
            return ok("the trainings run as the others do")
        return self._try(job_spec.probe_job(self.settings, self.store_uri, gpu=True), self.settings.image_gpu)

    def _try(self, job: Dict, image: str) -> Finding:
        left = self.cluster.job(job["metadata"]["name"])
        if left and job_status.ended(left):  # by a process that was killed
            submission.remove(self.cluster, left)
        made, _ = self.cluster.create(job)
        if made is None:
            return warn("another user is trying the same", next="wm doctor --cluster")
        try:
            return self._probe(made, image)
        finally:
            submission.remove(self.cluster, made)

    def _probe(self, job: Dict, image: str) -> Finding:
        began, report = time.monotonic(), job_status.Teller(self.report, counts=False)
        while True:
            there, pods = self.cluster.job(job["metadata"]["name"]) or job, submission.pods_of(self.cluster, job)
            seen = job_status.view(there, pods, submission.explanations(self.cluster, there))
            if seen.ended:
                return self._result(pods, seen, image)
            report("the pod", seen)
            spent = time.monotonic() - began
            if spent > PROBE_SECONDS or (spent > STUCK_SECONDS and any(map(STUCK.match, seen.pending))):
                words = "; ".join(seen.pending) or "it runs and does not end"
                way = next(way for part, way in WAYS.items() if part in words)
                command = way.format(namespace=self.cluster.namespace, s3_secret=self.settings.s3_secret or "NAME")
                return fail(f"it did not end within {spent:.0f} s: {words}", next=command)
            time.sleep(1.0)

    def _result(self, pods: list[Dict], seen: job_status.View, image: str) -> Finding:
        output = "\n".join(
            line for pod in pods for _, line in self.cluster.log(pod["metadata"]["name"], job_spec.CONTAINER)
        )
        begin, end = output.find("["), output.rfind("]")
        try:
            findings = json.loads(output[begin : end + 1])
            failed = [f"{each['name']}: {each['words']}" for each in findings if each["state"] == "fail"]
        except (ValueError, TypeError, KeyError):
            return fail(f"{'; '.join(seen.failures) or seen.why}; its output: {output[-300:]}", next="make push-images")
        if failed:
            return fail(f"the bucket, seen from a pod: {'; '.join(failed)}", next=FOUND_BY)
        return ok(f"runs {image}; all {len(findings)} checks of the bucket hold from there")


def _endpoint(endpoint: str, settings: ClusterSettings) -> Finding:
    if words := job_spec.elsewhere(endpoint, settings):
        return warn(words, next="-o kubernetes.s3_endpoint=URL, as pods reach it")
    return ok(f"pods ask {settings.s3_endpoint or 'AWS'}")


def _jobs(settings: ClusterSettings, store_uri: str) -> dict[str, Dict]:
    """Return the spec of every Job that `wm submit` would send with these settings, by stage."""
    config = Config(kubernetes=settings)
    jobs = {stage: job_spec.job(Task(job_spec.DOCTOR, 1, stage, config), store_uri) for stage in STAGES}
    return jobs | {job_spec.PIPELINE: job_spec.pipeline_job(job_spec.Pipeline(job_spec.DOCTOR, (config,)), store_uri)}


def _held(quota: Dict, need: Need) -> Iterator[tuple[str, int]]:
    """Yield (message, pods that fit at once) for each resource of which a quota has less than a stage's pods need."""
    spec = quota.get("spec") or {}
    if spec.get("scopes") or spec.get("scopeSelector"):  # a scoped quota may not cover these pods
        return
    for key, text in (quota["status"].get("hard") or {}).items():
        hard, each = parse_quantity(text), need.amount(key)
        if not each or hard >= each * need.pods:
            continue
        pods = int(hard // each)
        name = quota["metadata"]["name"]
        if not pods:
            yield f"{name}: a pod of {need.name} asks for {_plain(each)} {key}, and {text} is all there is", 0
        else:
            yield f"{name}: {text} {key} hold {pods} of {need.pods} pods of {need.name} at a time", pods


def _out_of_range(name: str, item: Dict, need: Need) -> Iterator[str]:
    """Yield a message for each bound that a stage's pods violate; each pod has one container of wm."""
    if item["type"] not in ("Container", "Pod"):
        return
    for key, text in (item.get("max") or {}).items():
        if need.limits.get(key, Decimal(0)) > parse_quantity(text):
            yield f"{name}: {need.name} may use {_plain(need.limits[key])} {key}, and {text} is the most"
    for key, text in (item.get("min") or {}).items():
        if key in need.requests and need.requests[key] < parse_quantity(text):
            yield f"{name}: {need.name} asks for {_plain(need.requests[key])} {key}, and {text} is the least"
    for key, text in (item.get("maxLimitRequestRatio") or {}).items():
        if need.requests.get(key) and need.limits.get(key, Decimal(0)) / need.requests[key] > parse_quantity(text):
            yield f"{name}: {need.name} may use more than {text} times the {key} that it asks for"


def _plain(amount: Decimal) -> str:
    """Return the amount as a Job spec states it, such as 2Gi."""
    for unit, size in (("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if amount >= size and amount % size == 0:
            return f"{amount / size:f}{unit}"
    return f"{amount.normalize():f}"


def _left(quota: Dict) -> Iterator[tuple[str, bool]]:
    """Yield ("QUOTA: 3 of 10 pods", whether all are used) for each resource of a quota."""
    status, name = quota.get("status") or {}, quota["metadata"]["name"]
    for key, hard in (status.get("hard") or {}).items():
        used = (status.get("used") or {}).get(key, "0")
        if key in COUNTED:
            yield f"{name}: {used} of {hard} {key}", int(used) >= int(hard)
        else:
            yield f"{name}: {used} of {hard} {key}", used == hard
