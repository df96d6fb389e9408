"""From a Job, its pods and its events to what a person wants to know: pure functions of plain dicts.

https://kubernetes.io/docs/concepts/workloads/controllers/job/ and …/pods/pod-lifecycle/
"""

import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .. import errors
from ..errors import WmError, WorkFailed
from .api_errors import QUOTA
from .job_spec import CONTAINER

Dict = Mapping[str, Any]
INDEX = "batch.kubernetes.io/job-completion-index"
JOB_NAME = "batch.kubernetes.io/job-name"
QUEUE = "kueue.x-k8s.io/queue-name"
COUNTED, IGNORED = "batch.kubernetes.io/job-index-failure-count", "batch.kubernetes.io/job-index-ignored-failure-count"
# Kubernetes' own, between the pods of one index: 10 s after the first that failed, then twice as long each time.
BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 10.0, 600.0
# A pod gets 30 s to end; one on a node that does not answer never says that it has.
ENDING_SECONDS = 60.0
LAST_WORDS = 5
COUNTS_SECONDS = 10.0
FINAL = (10, 11, 14, 42, 43, 44, 45)
"""Exit codes of pods that say what failed; after any other, all one knows is that the work did."""
STARTING, NO_NODE_YET, NEXT_TRY = "starting", "no node yet", "waits before the next try"
ERROR = re.compile(r"\S+ \S+ E ")  # as `worker.LOG_FORMAT` writes it
COUNT = re.compile(r" \(× \d+\)$")
STOPPED = errors.Stopped.exit_code
# Kubelet puts these words before the reason once it has tried twice.
BACK_OFF = re.compile(r'^Back-off pulling image "[^"]*"(: )?')
# The scheduler goes on to say that evicting other pods would not help either.
PREEMPTION = re.compile(r"\.? (?:no new claims to deallocate|preemption:)")


@dataclass(frozen=True)
class View:
    """A Job at one moment. `pending` says why pods do not run, `falls` how pods ended that did not succeed."""

    wanted: int
    done: int = 0
    running: int = 0
    waiting: int = 0
    failed: int = 0
    placed: int = 0
    pending: tuple[str, ...] = ()
    falls: tuple[str, ...] = ()
    ended: str = ""
    why: str = ""
    suspended: bool = False
    """Kueue, or a person, holds the Job back; that is no failure, however long it takes."""

    def __str__(self) -> str:
        counts = [(self.running, "running"), (self.waiting, "pending"), (self.failed, "failed")]
        return ", ".join(f"{count} {word}" for count, word in counts if count) or "no pods yet"


class Teller:
    """Says in plain lines what is new: reasons and falls at once, and `counts` now and then."""

    def __init__(self, say: Callable[[str], None], *, counts: bool = True) -> None:
        self._say, self._count = say, counts
        self._told: set[str] = set()
        self._counted, self._counts = -COUNTS_SECONDS, ""

    def __call__(self, what: str, seen: View) -> None:
        pending = [reason for reason in seen.pending if not reason.startswith((STARTING, NO_NODE_YET))]
        for words in (*(f"pending: {COUNT.sub('', reason)}" for reason in pending), *seen.falls):
            if words not in self._told:
                self._say(f"{what}: {words}")
                self._told.add(words)
        counts = f"{seen}; {seen.done} of {seen.wanted} pods done"
        if self._count and counts != self._counts and time.monotonic() - self._counted >= COUNTS_SECONDS:
            self._counts, self._counted = counts, time.monotonic()
            self._say(f"{what}: {counts}")


def view(job: Dict, pods: Iterable[Dict], events: Sequence[Dict] = (), now: float | None = None) -> View:
    """Summarise a Job from its pods and events; `now` in seconds since 1970, or this moment."""
    pods, status, now = sorted(pods, key=index), job.get("status") or {}, time.time() if now is None else now
    here = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    waiting = [pod for pod in here if phase(pod) == "Pending"]
    ended = {c["type"]: c for c in status.get("conditions") or () if c["status"] == "True"}
    end: Dict = next((ended[name] for name in ("Complete", "Failed") if name in ended), {})
    return View(
        wanted=job["spec"].get("completions") or 1,
        done=max(status.get("succeeded") or 0, len({index(pod) for pod in pods if phase(pod) == "Succeeded"})),
        running=sum(phase(pod) == "Running" for pod in here),
        waiting=len(waiting),
        failed=max(status.get("failed") or 0, sum(phase(pod) == "Failed" for pod in pods)),
        placed=sum(bool((pod.get("spec") or {}).get("nodeName")) for pod in here),
        pending=() if end else _pending(job, waiting, pods, events, now),
        falls=tuple(_counted(_fall(job, pod) for pod in pods if phase(pod) == "Failed")),
        ended=str(end.get("type", "")),
        why=f"{end.get('reason', '')}: {end.get('message', '')}" if end else "",
        suspended=bool(job["spec"].get("suspend")) and not end,
    )


def phase(pod: Dict) -> str:
    """Pending, Running, Succeeded or Failed. What counts is the worker: containers that others added may outlive it."""
    code = _exit(pod)
    told = str((pod.get("status") or {}).get("phase", "Pending"))
    return told if code is None or told != "Running" else "Failed" if code else "Succeeded"


def kept_open(pod: Dict) -> list[str]:
    """The containers that go on although the worker has ended, so that Kubernetes takes the pod for running."""
    status = pod.get("status") or {}
    if status.get("phase") != "Running" or _exit(pod) is None:
        return []
    return [each["name"] for each in status.get("containerStatuses") or () if "running" in (each.get("state") or {})]


def all_kept_open(pods: Iterable[Dict]) -> bool:
    """Whether no worker is at work or to come, and only other containers keep a Job from its end."""
    here = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    return any(map(kept_open, here)) and all(phase(pod) in ("Succeeded", "Failed") for pod in here)


def has_others(pods: Iterable[Dict]) -> bool:
    """Whether any pod has containers beside its worker."""
    return any(len((pod.get("status") or {}).get("containerStatuses") or ()) > 1 for pod in pods)


def kept_open_failure(job: Dict, pods: Iterable[Dict], what: str, submit: str) -> WmError:
    """The error for a Job that will not end although its workers have, and whose work is not committed."""
    pods = [pod for pod in pods if phase(pod) == "Failed"] or list(pods)
    names = sorted({name for pod in pods for name in kept_open(pod)})
    error = failure(job, pods, what, submit, submit)
    open_by = f"container {', '.join(names)} keeps the pods open"
    return type(error)(
        f"{error.message}\n{open_by}, so Kubernetes neither ends the Job nor tries again",
        next=f"{submit} -o kubernetes.sidecars=false --replace",
    )


def backoff_until(pod: Dict) -> float:
    """When Kubernetes makes the next pod in the place of this one that failed, in seconds since 1970."""
    counts = pod["metadata"].get("annotations") or {}
    before = sum(int(counts.get(name) or 0) for name in (COUNTED, IGNORED))
    delay: float = min(BACKOFF_SECONDS * 2 ** min(before, 10), LONGEST_BACKOFF_SECONDS)
    return _seconds(_terminated(pod).get("finishedAt")) + delay


def disrupted(pod: Dict) -> bool:
    """Whether a pod failed by no fault of its own: it was drained, preempted, deleted, or its node was lost."""
    return bool(_disruption(pod)) or _exit(pod) == STOPPED


def ended(job: Dict) -> bool:
    """Whether the Job will start no pod any more."""
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions)


def exit_words(code: int) -> str:
    """An exit code by its name: `exit 43 (ConfigError)`, `exit 137 (SIGKILL)`."""
    kind = errors.of_code(code)
    name = kind.__name__ if kind and kind is not WmError else ""
    if not name and code > 128:
        name = next((s.name for s in signal.Signals if s == code - 128), "")
    return f"exit {code}" + (f" ({name})" if name else "")


def failure(job: Dict, pods: Iterable[Dict], what: str, submit: str, logs: str) -> WmError:
    """The error for a Job that failed: its pods' own if that says it, else WorkFailed. `submit`, `logs`: commands."""
    seen = view(job, pods)
    fallen = [pod for pod in pods if phase(pod) == "Failed"]
    told = re.search(r"exit code (\d+)", seen.why)  # of the pod that the failure policy stopped at, gone or not
    codes = [int(told[1])] if told else [code for pod in fallen if (code := _exit(pod)) is not None]
    kind = next((errors.of_code(code) for code in codes if code in FINAL), None) or WorkFailed
    words = next((words for pod in fallen if _exit(pod) in codes[:1] and (words := last_words(pod))), "")
    why = "; ".join(seen.falls) or seen.why
    if "OOMKilled" in why:
        stage = job["metadata"]["labels"]["app.kubernetes.io/component"]
        return WorkFailed(f"{what} failed: {why}", next=f"{submit} -o kubernetes.resources.{stage}.memory=…")
    return kind(f"{what} failed: {why}" + (f":\n{words}" if words else ""), next=logs)


def last_words(pod: Dict) -> str:
    """What a pod's container said last: its last error and how it ended, else the end of its log."""
    lines = str(_terminated(pod).get("message") or "").strip().splitlines()
    errors_at = [number for number, line in enumerate(lines) if ERROR.match(line)]
    said = lines[errors_at[-1] :] if errors_at else lines[-LAST_WORDS:]
    said = said if len(said) <= LAST_WORDS else [said[0], "…", *said[2 - LAST_WORDS :]]
    return "\n".join(f"  {line}" for line in said)


def _pending(
    job: Dict, waiting: Sequence[Dict], pods: Sequence[Dict], events: Sequence[Dict], now: float
) -> tuple[str, ...]:
    if job["spec"].get("suspend"):
        queue = job["metadata"]["labels"].get(QUEUE)
        said = [event["message"] for event in events if event["reason"] in ("Pending", "QuotaReserved", "Suspended")]
        place = f"waits in the queue {queue}" if queue else "is suspended"
        return (f"the Job {place}" + (f": {said[-1]}" if said else ""),)
    here = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    words = list(_counted(_why(pod) for pod in waiting))
    words += _counted(
        f"container {', '.join(names)} keeps the pod open although its worker has ended" for pod in here
        if (names := kept_open(pod))
    )  # fmt: skip
    words += [_ending(pod) for pod in pods if _leaves_late(pod, now)]
    refused = [event for event in events if event["reason"] == "FailedCreate"]
    if refused and not any(phase(pod) == "Running" for pod in here):
        quota = QUOTA.search(refused[-1]["message"])
        why = f"quota {quota[1]} is used up: {quota[2]}" if quota else _plain(refused[-1]["message"], job)
        words.append(f"pods cannot be made: {why}")
    active = any(phase(pod) in ("Pending", "Running") for pod in here)
    if not words and not active and (retried := waiting_to_retry(job, pods)):
        words.append(_next_try(retried, now))
    elif not words and not here and (job.get("status") or {}).get("failed"):
        words.append(NEXT_TRY)
    return tuple(words)


def waiting_to_retry(job: Dict, pods: Iterable[Dict]) -> list[Dict]:
    """The newest pod of each index that failed and is to have another, if no pod of the Job runs or is about to."""
    newest: dict[int, Dict] = {}
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", ""))):
        newest[index(pod)] = pod
    if any(phase(pod) in ("Pending", "Running") or kept_open(pod) for pod in newest.values()):
        return []
    over = _indexes((job.get("status") or {}).get("failedIndexes", ""))
    return [pod for number, pod in sorted(newest.items()) if phase(pod) == "Failed" and number not in over]


def _indexes(text: str) -> set[int]:
    """Of a Job's status: 1,3-5."""
    ranges = [each.partition("-") for each in text.split(",") if each]
    return {number for low, _, high in ranges for number in range(int(low), int(high or low) + 1)}


def _next_try(pods: Sequence[Dict], now: float) -> str:
    until = min(map(backoff_until, pods))
    if until <= now:
        return NEXT_TRY
    return f"{NEXT_TRY}: Kubernetes starts the next pod at {_clock(until)}, and waits longer after each that failed"


def _clock(seconds: float) -> str:
    """A moment as this machine's clock shows it; words that stay the same are told once."""
    return datetime.fromtimestamp(seconds).strftime("%H:%M:%S")


def _leaves_late(pod: Dict, now: float) -> bool:
    """Whether a pod should have been gone for a while."""
    deleted = pod["metadata"].get("deletionTimestamp")
    return bool(deleted) and phase(pod) in ("Pending", "Running") and now - _seconds(deleted) > ENDING_SECONDS


def _ending(pod: Dict) -> str:
    until, node = _seconds(pod["metadata"]["deletionTimestamp"]), (pod.get("spec") or {}).get("nodeName", "")
    told = _disruption(pod).get("message", "")
    why = f" ({_plain(told, pod)})" if told else ""
    return (
        f"index {index(pod)}: its pod should have ended by {_clock(until)}{why}, and node {node} does not say that it"
        f" has; before that there is no other. If the node is lost: kubectl delete node {node}"
    )


def _disruption(pod: Dict) -> Dict:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return next((c for c in conditions if c["type"] == "DisruptionTarget" and c["status"] == "True"), {})


def _seconds(moment: Any) -> float:
    """Of RFC 3339, since 1970; 0 for none."""
    try:
        return datetime.fromisoformat(str(moment).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0


def _why(pod: Dict) -> str:
    """Why a pod does not run yet."""
    status = pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            said = PREEMPTION.split(str(condition.get("message", "")))[0]
            return f"no node: {said}" if said else NO_NODE_YET
    for each in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        waiting = (each.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"):
            said = BACK_OFF.sub("", _plain(waiting.get("message", ""), pod))
            return f"image {each['image']} cannot be pulled: {said or reason}"
        if reason and reason not in ("ContainerCreating", "PodInitializing"):
            return f"{reason}: {_plain(waiting.get('message', ''), pod)}"
    return STARTING if (pod.get("spec") or {}).get("nodeName") else NO_NODE_YET


def _fall(job: Dict, pod: Dict) -> str:
    """How a pod failed, by name."""
    return f"index {index(pod)}: {_reason(job, pod)}"


def _reason(job: Dict, pod: Dict) -> str:
    status, code, disruption = pod.get("status") or {}, _exit(pod), _disruption(pod)
    if _terminated(pod).get("reason") == "OOMKilled":
        limit = _container(job)["resources"]["limits"]["memory"]
        return f"OOMKilled (it may use {limit} of memory)"
    if status.get("reason"):  # Evicted, DeadlineExceeded, NodeLost
        return f"{status['reason']}: {_plain(status.get('message', ''), pod)}".strip(": ")
    if disruption:
        return f"{disruption.get('reason', 'disrupted')}: {_plain(disruption.get('message', ''), pod)}".strip(": ")
    if not code and (other := _other_failure(pod)):
        return other
    return "failed" if code is None else exit_words(code)


def _other_failure(pod: Dict) -> str:
    """Of a pod whose worker did not fail: which container did."""
    for name, ended in _ended_containers(pod):
        if ended.get("exitCode"):
            return f"container {name} failed, and not the worker: {exit_words(ended['exitCode'])}"
    return ""


def _ended_containers(pod: Dict) -> list[tuple[str, Dict]]:
    found = (pod.get("status") or {}).get("containerStatuses") or ()
    return [(each["name"], each["state"]["terminated"]) for each in found if "terminated" in (each.get("state") or {})]


def _terminated(pod: Dict) -> Dict:
    """How the worker ended; empty while it has not."""
    return dict(_ended_containers(pod)).get(CONTAINER, {})


def _exit(pod: Dict) -> int | None:
    return _terminated(pod).get("exitCode")


def _container(job: Dict) -> Dict:
    containers = job["spec"]["template"]["spec"]["containers"]
    return next(each for each in containers if each["name"] == CONTAINER)


def index(pod: Dict) -> int:
    """Which of its Job's pods it is."""
    return int((pod["metadata"].get("annotations") or {}).get(INDEX, 0))


def _plain(message: str, of: Dict) -> str:
    """In one line, and without what differs between the pods of one Job; `of` is the Job or one of the pods."""
    name = of["metadata"].get("labels", {}).get(JOB_NAME) or of["metadata"]["name"]
    plain = " ".join(message.split()).removeprefix("Error creating: ")
    return re.sub(rf"{re.escape(name)}-\d+(-[a-z0-9]*)?", name, plain)


def _counted(words: Iterable[str]) -> Iterable[str]:
    """Each of the words once, the most frequent first, with how often it came."""
    for word, count in Counter(words).most_common():
        yield f"{word} (× {count})" if count > 1 else word
