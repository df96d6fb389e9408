"""Pure functions that summarise a Job, its pods and its events, given as plain dicts, for the user.

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

from ... import errors
from ...errors import WmError, WorkFailed
from .api_errors import QUOTA
from .job_spec import CONTAINER

Dict = Mapping[str, Any]
INDEX = "batch.kubernetes.io/job-completion-index"
JOB_NAME = "batch.kubernetes.io/job-name"
QUEUE = "kueue.x-k8s.io/queue-name"
COUNTED, IGNORED = "batch.kubernetes.io/job-index-failure-count", "batch.kubernetes.io/job-index-ignored-failure-count"
# Kubernetes' back-off between the pods of one index: 10 s after the first failure, then doubled each time.
BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 10.0, 600.0
# A pod has 30 s to end; on a node that does not respond, its end is never reported.
ENDING_SECONDS = 60.0
LAST_WORDS = 5
COUNTS_SECONDS = 10.0
FINAL = (10, 11, 14, 42, 43, 44, 45, 46)
"""Exit codes of pods that identify the error; any other becomes WorkFailed."""
STARTING, NO_NODE_YET, NEXT_TRY = "starting", "no node yet", "waits before the next try"
ERROR = re.compile(r"\S+ \S+ E ")  # of a line in `worker.LOG_FORMAT`
COUNT = re.compile(r" \(× \d+\)$")
STOPPED = errors.Stopped.exit_code
# From the second try on, the kubelet writes this before the reason.
BACK_OFF = re.compile(r'^Back-off pulling image "[^"]*"(: )?')
# The scheduler appends that preemption of other pods would not help.
PREEMPTION = re.compile(r"\.? (?:no new claims to deallocate|preemption:)")


@dataclass(frozen=True)
class View:
    """A Job at one moment: `pending` lists why pods do not run, `failures` how pods failed, `why` the Job's end."""

    wanted: int
    done: int = 0
    running: int = 0
    waiting: int = 0
    failed: int = 0
    placed: int = 0
    pending: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    ended: str = ""
    why: str = ""
    suspended: bool = False
    """Kueue or a user has suspended the Job; that is no failure, however long it lasts."""

    def __str__(self) -> str:
        counts = [(self.running, "running"), (self.waiting, "pending"), (self.failed, "failed")]
        return ", ".join(f"{count} {word}" for count, word in counts if count) or "no pods yet"


class Teller:
    """Reports changes of a Job in lines: reasons and failures at once, `counts` at most every `COUNTS_SECONDS`."""

    def __init__(self, say: Callable[[str], None], *, counts: bool = True) -> None:
        self._say, self._count = say, counts
        self._reported: set[str] = set()
        self._counted, self._counts = -COUNTS_SECONDS, ""

    def __call__(self, what: str, seen: View) -> None:
        pending = [reason for reason in seen.pending if not reason.startswith((STARTING, NO_NODE_YET))]
        for words in (*(f"pending: {COUNT.sub('', reason)}" for reason in pending), *seen.failures):
            if words not in self._reported:
                self._say(f"{what}: {words}")
                self._reported.add(words)
        counts = f"{seen}; {seen.done} of {seen.wanted} pods done"
        if self._count and counts != self._counts and time.monotonic() - self._counted >= COUNTS_SECONDS:
            self._counts, self._counted = counts, time.monotonic()
            self._say(f"{what}: {counts}")


def view(job: Dict, pods: Iterable[Dict], events: Sequence[Dict] = (), now: float | None = None) -> View:
    """Summarise a Job from its pods and events; `now` is in seconds since 1970, by default the current time."""
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
        failures=tuple(_counted(_failure(job, pod) for pod in pods if phase(pod) == "Failed")),
        ended=str(end.get("type", "")),
        why=f"{end.get('reason', '')}: {end.get('message', '')}" if end else "",
        suspended=bool(job["spec"].get("suspend")) and not end,
    )


def phase(pod: Dict) -> str:
    """Return Pending, Running, Succeeded or Failed, by the worker's container: injected containers may run longer."""
    code = _exit(pod)
    found = str((pod.get("status") or {}).get("phase", "Pending"))
    return found if code is None or found != "Running" else "Failed" if code else "Succeeded"


def kept_open(pod: Dict) -> list[str]:
    """List the containers that still run after the worker has ended, so that Kubernetes counts the pod as running."""
    status = pod.get("status") or {}
    if status.get("phase") != "Running" or _exit(pod) is None:
        return []
    return [each["name"] for each in status.get("containerStatuses") or () if "running" in (each.get("state") or {})]


def all_kept_open(pods: Iterable[Dict]) -> bool:
    """Return whether all workers have ended and only other containers keep the Job active."""
    here = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    return any(map(kept_open, here)) and all(phase(pod) in ("Succeeded", "Failed") for pod in here)


def has_others(pods: Iterable[Dict]) -> bool:
    """Return whether any pod has containers beside its worker."""
    return any(len((pod.get("status") or {}).get("containerStatuses") or ()) > 1 for pod in pods)


def kept_open_failure(job: Dict, pods: Iterable[Dict], what: str, submit: str) -> WmError:
    """Return the error for a Job that stays active although its workers ended without a commit."""
    pods = [pod for pod in pods if phase(pod) == "Failed"] or list(pods)
    names = sorted({name for pod in pods for name in kept_open(pod)})
    error = failure(job, pods, what, submit, submit)
    open_by = f"container {', '.join(names)} keeps the pods open"
    return type(error)(
        f"{error.message}\n{open_by}, so Kubernetes neither ends the Job nor tries again",
        next=f"{submit} -o kubernetes.sidecars=false --replace",
    )


def backoff_until(pod: Dict) -> float:
    """Return when Kubernetes creates the next pod in place of this failed one, in seconds since 1970."""
    counts = pod["metadata"].get("annotations") or {}
    before = sum(int(counts.get(name) or 0) for name in (COUNTED, IGNORED))
    delay: float = min(BACKOFF_SECONDS * 2 ** min(before, 10), LONGEST_BACKOFF_SECONDS)
    return _seconds(_terminated(pod).get("finishedAt")) + delay


def disrupted(pod: Dict) -> bool:
    """Return whether a pod failed because it was drained, preempted or deleted, or because its node was lost."""
    return bool(_disruption(pod)) or _exit(pod) == STOPPED


def ended(job: Dict) -> bool:
    """Return whether the Job is complete or failed, so that it starts no more pods."""
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions)


def exit_words(code: int) -> str:
    """Return an exit code with its name: `exit 43 (ConfigError)`, `exit 137 (SIGKILL)`."""
    kind = errors.of_code(code)
    name = kind.__name__ if kind and kind is not WmError else ""
    if not name and code > 128:
        name = next((s.name for s in signal.Signals if s == code - 128), "")
    return f"exit {code}" + (f" ({name})" if name else "")


def failure(job: Dict, pods: Iterable[Dict], what: str, submit: str, logs: str) -> WmError:
    """Return the error for a failed Job: that of its pods' exit code if it is in `FINAL`, else WorkFailed.

    `what` names the work in the message; `submit` and `logs` are the commands for it.
    """
    seen = view(job, pods)
    failed = [pod for pod in pods if phase(pod) == "Failed"]
    by_policy = re.search(r"exit code (\d+)", seen.why)  # of the pod that triggered the failure policy, deleted or not
    codes = [int(by_policy[1])] if by_policy else [code for pod in failed if (code := _exit(pod)) is not None]
    kind = next((errors.of_code(code) for code in codes if code in FINAL), None) or WorkFailed
    words = next((words for pod in failed if _exit(pod) in codes[:1] and (words := last_words(pod))), "")
    why = "; ".join(seen.failures) or seen.why
    if "OOMKilled" in why:
        stage = job["metadata"]["labels"]["app.kubernetes.io/component"]
        return WorkFailed(f"{what} failed: {why}", next=f"{submit} -o kubernetes.resources.{stage}.memory=…")
    return kind(f"{what} failed: {why}" + (f":\n{words}" if words else ""), next=logs)


def last_words(pod: Dict) -> str:
    """Return the last error in the worker's termination message, shortened, else the message's last lines."""
    lines = str(_terminated(pod).get("message") or "").strip().splitlines()
    errors_at = [number for number, line in enumerate(lines) if ERROR.match(line)]
    chosen = lines[errors_at[-1] :] if errors_at else lines[-LAST_WORDS:]
    chosen = chosen if len(chosen) <= LAST_WORDS else [chosen[0], "…", *chosen[2 - LAST_WORDS :]]
    return "\n".join(f"  {line}" for line in chosen)


def _pending(
    job: Dict, waiting: Sequence[Dict], pods: Sequence[Dict], events: Sequence[Dict], now: float
) -> tuple[str, ...]:
    if job["spec"].get("suspend"):
        queue = job["metadata"]["labels"].get(QUEUE)
        messages = [
            event["message"] for event in events if event["reason"] in ("Pending", "QuotaReserved", "Suspended")
        ]
        place = f"waits in the queue {queue}" if queue else "is suspended"
        return (f"the Job {place}" + (f": {messages[-1]}" if messages else ""),)
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
    """Return the newest pod of each index that waits for a retry; empty while any pod of the Job runs or is pending."""
    newest: dict[int, Dict] = {}
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", ""))):
        newest[index(pod)] = pod
    if any(phase(pod) in ("Pending", "Running") or kept_open(pod) for pod in newest.values()):
        return []
    over = _indexes((job.get("status") or {}).get("failedIndexes", ""))
    return [pod for number, pod in sorted(newest.items()) if phase(pod) == "Failed" and number not in over]


def _indexes(text: str) -> set[int]:
    """Return the indexes in a Job status's notation, such as 1,3-5."""
    ranges = [each.partition("-") for each in text.split(",") if each]
    return {number for low, _, high in ranges for number in range(int(low), int(high or low) + 1)}


def _next_try(pods: Sequence[Dict], now: float) -> str:
    until = min(map(backoff_until, pods))
    if until <= now:
        return NEXT_TRY
    return f"{NEXT_TRY}: Kubernetes starts the next pod at {_clock(until)}, and waits longer after each that failed"


def _clock(seconds: float) -> str:
    """Return the local time of day; unlike a countdown, it keeps a message equal, so that `Teller` reports it once."""
    return datetime.fromtimestamp(seconds).strftime("%H:%M:%S")


def _leaves_late(pod: Dict, now: float) -> bool:
    """Return whether a pod is still there `ENDING_SECONDS` after its deletion timestamp."""
    deleted = pod["metadata"].get("deletionTimestamp")
    return bool(deleted) and phase(pod) in ("Pending", "Running") and now - _seconds(deleted) > ENDING_SECONDS


def _ending(pod: Dict) -> str:
    until, node = _seconds(pod["metadata"]["deletionTimestamp"]), (pod.get("spec") or {}).get("nodeName", "")
    message = _disruption(pod).get("message", "")
    why = f" ({_plain(message, pod)})" if message else ""
    return (
        f"index {index(pod)}: its pod should have ended by {_clock(until)}{why}, and node {node} does not say that it"
        f" has; before that there is no other. If the node is lost: kubectl delete node {node}"
    )


def _disruption(pod: Dict) -> Dict:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return next((c for c in conditions if c["type"] == "DisruptionTarget" and c["status"] == "True"), {})


def _seconds(moment: Any) -> float:
    """Return the seconds since 1970 of an RFC 3339 time; 0 for any other value."""
    try:
        return datetime.fromisoformat(str(moment).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0


def _why(pod: Dict) -> str:
    """Return why a pod does not run yet."""
    status = pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            message = PREEMPTION.split(str(condition.get("message", "")))[0]
            return f"no node: {message}" if message else NO_NODE_YET
    for each in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        waiting = (each.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"):
            message = BACK_OFF.sub("", _plain(waiting.get("message", ""), pod))
            return f"image {each['image']} cannot be pulled: {message or reason}"
        if reason and reason not in ("ContainerCreating", "PodInitializing"):
            return f"{reason}: {_plain(waiting.get('message', ''), pod)}"
    return STARTING if (pod.get("spec") or {}).get("nodeName") else NO_NODE_YET


def _failure(job: Dict, pod: Dict) -> str:
    """Return how a pod failed, with its index."""
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
    """Return which of the pod's containers failed; empty if none did."""
    for name, ended in _ended_containers(pod):
        if ended.get("exitCode"):
            return f"container {name} failed, and not the worker: {exit_words(ended['exitCode'])}"
    return ""


def _ended_containers(pod: Dict) -> list[tuple[str, Dict]]:
    found = (pod.get("status") or {}).get("containerStatuses") or ()
    return [(each["name"], each["state"]["terminated"]) for each in found if "terminated" in (each.get("state") or {})]


def _terminated(pod: Dict) -> Dict:
    """Return the terminated state of the worker's container; empty until it has ended."""
    return dict(_ended_containers(pod)).get(CONTAINER, {})


def _exit(pod: Dict) -> int | None:
    return _terminated(pod).get("exitCode")


def _container(job: Dict) -> Dict:
    containers = job["spec"]["template"]["spec"]["containers"]
    return next(each for each in containers if each["name"] == CONTAINER)


def index(pod: Dict) -> int:
    """Return the pod's completion index in its Job."""
    return int((pod["metadata"].get("annotations") or {}).get(INDEX, 0))


def _plain(message: str, of: Dict) -> str:
    """Return the message in one line, with pods' names cut to the Job's; `of` is the Job or one of its pods."""
    name = of["metadata"].get("labels", {}).get(JOB_NAME) or of["metadata"]["name"]
    plain = " ".join(message.split()).removeprefix("Error creating: ")
    return re.sub(rf"{re.escape(name)}-\d+(-[a-z0-9]*)?", name, plain)


def _counted(words: Iterable[str]) -> Iterable[str]:
    """Yield each text once, the most frequent first, with its number of occurrences if it has several."""
    for word, count in Counter(words).most_common():
        yield f"{word} (× {count})" if count > 1 else word
