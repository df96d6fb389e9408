"""Submission of Jobs: create each once, watch it until its work is committed, delete it.

Commands are stateless: they compare the cluster with the store. So a command that was killed or missed a change can
simply run again.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ... import planning
from ...artifacts import Name
from ...config.base import flatten
from ...errors import ClusterError, Conflict, Pending, WorkFailed
from ...planning import Task, TaskState
from ...stages import STAGES
from ...store import Store
from . import job_spec, job_status
from .client import Expired, KubernetesClient
from .job_spec import ITERATION, PIPELINE, Pipeline
from .job_status import JOB_NAME, View

Dict = dict[str, Any]
SubmissionOutcome = Literal["created", "attached", "committed"]

POLL_SECONDS = 3.0
EVENTS_SECONDS = 10.0
RELIST_SECONDS = 60.0
# Pods have 30 s to end (their grace period); if their kubelet is down, it takes much longer.
GONE_SECONDS = 180.0
# Polls without a Job; another process may be replacing it.
MISSED_LOOKS = 2
# Polls within which containers beside the worker must end after it.
OPEN_LOOKS = 5
# A Job with at most that much back-off left is not replaced.
ANEW_SECONDS = 15.0
SERVERS_LABELS = (
    "controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name",
)  # fmt: skip


@dataclass(frozen=True)
class Work:
    """A Job, and a function whose result is true once its artifacts are committed in the store."""

    job: Dict
    committed: Callable[[], object]

    @property
    def name(self) -> str:
        return str(self.job["metadata"]["name"])

    @property
    def stage(self) -> str:
        return str(self.job["metadata"]["labels"]["app.kubernetes.io/component"])

    @property
    def run(self) -> str:
        return str(self.job["metadata"]["labels"]["app.kubernetes.io/instance"])

    @property
    def artifact(self) -> Name:
        """Return the name of what the Job makes; the pipeline's is of the first iteration."""
        return Name(self.run, int(self._iteration), self.stage)

    def __str__(self) -> str:
        return f"{self.run}/{PIPELINE}" if self.stage == PIPELINE else f"{self.run}/iter-{self._iteration}/{self.stage}"

    def command(self, verb: str) -> str:
        """Return the command `wm VERB` for this work."""
        iteration = f" --iteration {self._iteration}" if self._iteration != "1" else ""
        return f"wm {verb} {self.stage} --run {self.run}{iteration}"

    @property
    def _iteration(self) -> str:
        return str(self.job["metadata"]["labels"][ITERATION])


def stage_work(state: TaskState) -> Work:
    """Return the work of one stage."""
    return Work(job_spec.job(state.task, state.store.uri), state.committed)


def pipeline_work(store: Store, pipeline: Pipeline, limits: str = "") -> Work:
    """Return the work of all stages of all iterations, within the JSON of `budget.Limits`."""
    return Work(job_spec.pipeline_job(pipeline, store.uri, limits), _all_committed(store, pipeline_tasks(pipeline)))


def carried_work(store: Store, job: Dict) -> Work:
    """Return the work of a Job on the cluster, from the Job's environment variables."""
    tasks = carried_tasks(job)
    return Work(job, _all_committed(store, tasks) if len(tasks) > 1 else TaskState(store, tasks[0]).committed)


def carried_tasks(job: Dict) -> list[Task]:
    """Return the task of a stage's Job on the cluster, or all those of a pipeline's."""
    carried = _environment(job)
    if "WM_PIPELINE" in carried:
        return pipeline_tasks(Pipeline.from_json(carried["WM_PIPELINE"]))
    return [Task.from_json(carried["WM_TASK"])]


def _all_committed(store: Store, tasks: Iterable[Task]) -> Callable[[], bool]:
    left = list(tasks)

    def committed() -> bool:
        while left and planning.find(store, left[0].name, left[0].config):
            del left[0]
        return not left

    return committed


def find(cluster: KubernetesClient, store: Store, run: str = "", stage: str = "", iteration: int = 0) -> list[Dict]:
    """Return this store's Jobs on the cluster, newest first: all, or those of a run, a stage, an iteration."""
    labels = {"app.kubernetes.io/managed-by": "wm"}
    labels |= {"app.kubernetes.io/instance": run} if run else {}
    labels |= {"app.kubernetes.io/component": stage} if stage else {}
    labels |= {ITERATION: str(iteration)} if iteration else {}
    ours = [job for job in cluster.jobs(labels) if _annotation(job, job_spec.STORE) == store.uri]
    ours = [job for job in ours if job["metadata"]["labels"]["app.kubernetes.io/component"] != job_spec.DOCTOR]
    return sorted(ours, key=lambda job: str(job["metadata"]["creationTimestamp"]), reverse=True)


def no_job(cluster: KubernetesClient, store: Store, run: str, stage: str) -> ClusterError:
    """Return the error for a Job that `find` does not find."""
    submit = f"wm submit {stage} --run {run}"
    return ClusterError(
        f"no Job of {run}, {stage}, with the store {store.uri} is in namespace {cluster.namespace}",
        next=submit if store.uri.startswith("s3://") else f"{submit} --store s3://bucket/prefix",
    )


def pods_of(cluster: KubernetesClient, job: Dict) -> list[Dict]:
    """Return a Job's pods, by index and age."""
    pods, _ = cluster.objects(cluster.pods(), {JOB_NAME: job["metadata"]["name"]})
    return sorted(pods, key=lambda pod: (job_status.index(pod), str(pod["metadata"]["creationTimestamp"])))


def overview(cluster: KubernetesClient, store: Store, run: str = "") -> list[tuple[Dict, View]]:
    """Return every Job of this store, or of one run, with its view, newest first."""
    jobs = find(cluster, store, run)
    pods, _ = cluster.objects(cluster.pods(), {"app.kubernetes.io/managed-by": "wm"})
    own: dict[str, list[Dict]] = {}
    for pod in pods:
        own.setdefault(pod["metadata"]["labels"].get(JOB_NAME, ""), []).append(pod)
    views = []
    for job in jobs:
        there = own.get(job["metadata"]["name"], [])
        seen = job_status.view(job, there)
        if not seen.ended and not seen.running:
            seen = job_status.view(job, there, explanations(cluster, job))
        views.append((job, seen))
    return views


def active(cluster: KubernetesClient, job: Dict) -> bool:
    """Return whether a Job of the same name and spec is active."""
    there = cluster.job(job["metadata"]["name"])
    return there is not None and not job_status.ended(there) and _annotation(there) == job_spec.spec_digest(job)


def pipeline_tasks(pipeline: Pipeline) -> list[Task]:
    numbered = enumerate(pipeline.configs, start=1)
    return [Task(pipeline.run, iteration, stage, config) for iteration, config in numbered for stage in STAGES]


def remove(cluster: KubernetesClient, *jobs: Dict, sleep: Callable[[float], None] = time.sleep) -> None:
    """Delete Jobs with their pods, and wait until they are gone. Raise ClusterError after `GONE_SECONDS`."""
    for job in jobs:
        cluster.delete(job)
    left = [(job["metadata"]["name"], job["metadata"]["uid"]) for job in jobs]
    for _ in range(round(GONE_SECONDS)):
        left = [(name, uid) for name, uid in left if (there := cluster.job(name)) and there["metadata"]["uid"] == uid]
        if not left:
            return
        sleep(1.0)
    name, _ = left[0]
    raise ClusterError(
        f"Job {name} is still being deleted after {GONE_SECONDS:.0f} s: a pod of it does not end",
        next=f"kubectl -n {cluster.namespace} get pods -l {JOB_NAME}={name}",
    )


def _conflict(work: Work, there: Dict) -> Conflict:
    ours, theirs = _carried(work.job), _carried(there)
    words = [
        f"{key} is {theirs.get(key)!r} there and {ours.get(key)!r} here"
        for key in sorted({*ours, *theirs})
        if ours.get(key) != theirs.get(key)
    ]
    return Conflict(
        f"{work}: Job {work.name} is active with other settings:"
        f" {'; '.join(words) or 'it was made by another version of wm'}",
        next=f"{work.command('attach')}, or {work.command('submit')} --replace",
    )


def _carried(job: Dict) -> Dict:
    """Return the settings in a Job's environment, by name."""
    carried = _environment(job)
    value = json.loads(carried.get("WM_TASK") or carried.get("WM_PIPELINE") or "{}")
    configs = value["configs"] if "configs" in value else [value.get("config", {})]
    return {
        f"{key} of iteration {number}" if len(configs) > 1 else key: setting
        for number, config in enumerate(configs, start=1)
        for key, setting in flatten(config)
    }


def _environment(job: Dict) -> dict[str, str]:
    container = job["spec"]["template"]["spec"]["containers"][0]
    return {each["name"]: each.get("value", "").replace("$$", "$") for each in container.get("env") or ()}


def _annotation(job: Mapping[str, Any], key: str = job_spec.SPEC) -> str:
    return str((job["metadata"].get("annotations") or {}).get(key, ""))


class Pods:
    """The current pods of one Job: listed, updated by a watch, and listed again every `RELIST_SECONDS`.

    Pods that the watch has seen fail are kept after their deletion, because Kubernetes deletes evicted pods soon.
    """

    def __init__(self, cluster: KubernetesClient, job_name: str) -> None:
        self._cluster, self._labels = cluster, {JOB_NAME: job_name}
        self._there: dict[str, Dict] = {}
        self._failed: dict[str, Dict] = {}
        self._version, self._listed = "", 0.0

    def now(self) -> list[Dict]:
        return list({**self._failed, **self._there}.values())

    def follow(self, seconds: float, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
        """Watch the pods for `seconds`; yield at the start and after each change."""
        until = time.monotonic() + seconds
        self.look()
        yield
        try:
            for event in self._cluster.watch(self._cluster.pods(), self._labels, self._version, seconds):
                self._version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._take(event)
                    yield
        except Expired:
            self._version = ""
        sleep(max(0.0, until - time.monotonic()))

    def look(self) -> None:
        """List the pods, unless the last list is younger than `RELIST_SECONDS` and the watch has not expired since."""
        if self._version and time.monotonic() - self._listed < RELIST_SECONDS:
            return
        pods, self._version = self._cluster.objects(self._cluster.pods(), self._labels)
        self._there = {pod["metadata"]["uid"]: _slim(pod) for pod in pods}
        self._listed = time.monotonic()

    def _take(self, event: Dict) -> None:
        pod = event["object"]
        if job_status.phase(pod) == "Failed":
            self._failed[pod["metadata"]["uid"]] = _slim(pod)
        if event["type"] == "DELETED":
            self._there.pop(pod["metadata"]["uid"], None)
        else:
            self._there[pod["metadata"]["uid"]] = _slim(pod)


def _slim(pod: Dict) -> Dict:
    """Return the pod without most of its spec, which contains the whole config."""
    metadata = {key: value for key, value in pod["metadata"].items() if key != "managedFields"}
    return {**pod, "metadata": metadata, "spec": {"nodeName": pod["spec"].get("nodeName", "")}}


@dataclass(frozen=True)
class KubernetesExecutor:
    """Runs each task as a Job (see `Executor`): creates it once, and watches it until its work is committed.

    With `replace`, it replaces an active Job that has other settings. `wait` gives up if no pod runs within
    `pending_seconds`, or `queue_seconds` for a Job that a queue or a user has suspended.
    """

    cluster: KubernetesClient
    say: Callable[[str], None] = lambda words: None
    replace: bool = False
    pending_seconds: float = math.inf
    queue_seconds: float = math.inf
    poll_seconds: float = POLL_SECONDS
    sleep: Callable[[float], None] = time.sleep

    def submit(self, state: TaskState) -> Work:
        work = stage_work(state)
        self.say(f"{work}: Job {work.name}: {self.ensure(work)}")
        return work

    def ensure(self, work: Work) -> SubmissionOutcome:
        """Ensure that the work is committed, or that exactly one Job for it exists.

        Raise Conflict if a Job of that name with another spec is active, unless `replace`.
        """
        while True:
            there = self.cluster.job(work.name)
            if work.committed():  # read after the Job, so that a Job that just succeeded is not made again
                return "committed"
            if there is None:
                made, warnings = self.cluster.create(work.job)
                for warning in warnings:
                    self.say(f"the cluster warns: {warning}")
                if made:
                    return "created"
                continue  # another process created it first: read that Job
            if there["metadata"].get("deletionTimestamp"):
                self.say(f"Job {work.name} is being deleted; waiting for its end")
            elif job_status.ended(there):
                where = _annotation(there, job_spec.STORE)
                self.say(f"Job {work.name} ended, and its work is not in {where}: making it again")
            elif _annotation(there) == job_spec.spec_digest(work.job):
                return "attached"
            elif not self.replace:
                raise _conflict(work, there)
            else:
                self.say(f"Job {work.name} is replaced")
            remove(self.cluster, there, sleep=self.sleep)

    def wait(self, work: Work, report: Callable[[View, Pods], None]) -> None:
        """Wait until the work is committed, whether or not the Job still exists; the Job explains delays and failures.

        Raise the pods' error if the Job failed, Pending if no pod starts in time, ClusterError if the Job was deleted.
        """
        pods, explained, events = Pods(self.cluster, work.name), 0.0, list[Dict]()
        placed, since, missed, open_since = 0, time.monotonic(), 0, math.inf
        while True:
            job = self.cluster.job(work.name)
            if work.committed():
                self._let_go(work, pods)
                return
            if job is None:
                missed += 1
                if missed > MISSED_LOOKS:
                    raise _deleted(work)
                self.sleep(self.poll_seconds)
                continue
            missed = 0
            pods.look()
            seen = job_status.view(job, pods.now(), events)
            if not seen.running and time.monotonic() - explained > EVENTS_SECONDS:
                explained, events = time.monotonic(), explanations(self.cluster, job)
                seen = job_status.view(job, pods.now(), events)
            report(seen, pods)
            if seen.ended:
                raise _ended(work, job, pods.now(), seen)
            open_since = min(open_since, time.monotonic()) if job_status.all_kept_open(pods.now()) else math.inf
            if time.monotonic() - open_since > OPEN_LOOKS * self.poll_seconds:
                raise job_status.kept_open_failure(job, pods.now(), str(work), work.command("submit"))
            if _disrupted_for_long(job, pods.now()):
                self.say(
                    f"{work}: Kubernetes would wait with all pods, which were disrupted: Job {work.name} is made anew"
                )
                make_anew(self.cluster, job)
                pods = Pods(self.cluster, work.name)
                continue
            if seen.running or seen.done or seen.failed or seen.placed > placed:
                placed, since = seen.placed, time.monotonic()
            limit = self.queue_seconds if seen.suspended else self.pending_seconds
            if seen.suspended and self.queue_seconds == math.inf:
                since = time.monotonic()
            if time.monotonic() - since > limit:
                raise _pending(work, seen, limit)
            for _ in pods.follow(self.poll_seconds):
                report(job_status.view(job, pods.now(), events), pods)

    def _let_go(self, work: Work, pods: Pods) -> None:
        """Delete the Job of committed work if containers beside the workers keep it active."""
        job: Dict | None = None
        for _ in range(OPEN_LOOKS):
            if not job_status.has_others(pods.now()):
                return
            job = self.cluster.job(work.name)
            if job is None or job_status.ended(job):
                return
            for _ in pods.follow(self.poll_seconds):
                pass
        if job and job_status.all_kept_open(pods.now()):
            names = ", ".join(sorted({name for pod in pods.now() for name in job_status.kept_open(pod)}))
            self.say(
                f"{work}: Job {work.name} is deleted: its work is committed, and container {names} does not end"
                " (-o kubernetes.sidecars=false does without)"
            )
            self.cluster.delete(job)


def _disrupted_for_long(job: Dict, pods: list[Dict]) -> bool:
    """Return whether a Job only waits for Kubernetes' back-off after disruptions; Kueue handles its Jobs itself."""
    retried = job_status.waiting_to_retry(job, pods)
    if not retried or job_status.QUEUE in job["metadata"]["labels"] or not all(map(job_status.disrupted, retried)):
        return False
    return min(map(job_status.backoff_until, retried)) - time.time() > ANEW_SECONDS


def make_anew(cluster: KubernetesClient, job: Dict) -> None:
    """Replace a Job by an equal one, whose count of failures starts at 0."""
    remove(cluster, job)
    cluster.create(fresh(job))  # no error if another process did


def fresh(job: Dict) -> Dict:
    """Return a live Job as it was submitted, without the fields that the server added."""
    metadata, spec = job["metadata"], {key: value for key, value in job["spec"].items() if key != "selector"}
    template = spec["template"]
    labels = {key: value for key, value in template["metadata"]["labels"].items() if key not in SERVERS_LABELS}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {key: metadata[key] for key in ("name", "namespace", "labels", "annotations") if key in metadata},
        "spec": {**spec, "template": {**template, "metadata": {**template["metadata"], "labels": labels}}},
    }


def _deleted(work: Work) -> ClusterError:
    return ClusterError(
        f"{work}: its Job {work.name} was deleted by another user, and its work is not committed",
        next=work.command("submit"),
    )


def _pending(work: Work, seen: View, limit: float) -> Pending:
    return Pending(
        f"{work}: no pod ran within {limit:.0f} s: {'; '.join(seen.pending)}; Job {work.name} stays",
        next=f"{work.command('attach')}, or {work.command('cancel')}",
    )


def _ended(work: Work, job: Dict, pods: list[Dict], seen: View) -> Exception:
    if seen.ended == "Complete":
        where = job["metadata"]["annotations"][job_spec.STORE]
        return WorkFailed(
            f"{work}: Job {work.name} is complete, but its work is not in {where}: do its pods write elsewhere?",
            next=work.command("logs"),
        )
    return job_status.failure(job, pods, str(work), work.command("submit"), work.command("logs"))


def explanations(cluster: KubernetesClient, job: Dict) -> list[Dict]:
    """Return a Job's events, and Kueue's conditions while it is suspended: they explain why no pod runs."""
    events = cluster.events("Job", job["metadata"]["name"])
    if not (job["spec"].get("suspend") and job_status.QUEUE in job["metadata"]["labels"]):
        return events
    return events + cluster.queued(job["metadata"]["uid"], job["metadata"]["labels"][job_status.QUEUE])
