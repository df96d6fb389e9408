"""From a Job, its pods and its events to what a person wants to know: pure functions of plain dicts.

https://kubernetes.io/docs/concepts/workloads/controllers/job/ and …/pods/pod-lifecycle/
"""

import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import errors
from ..errors import WmError, WorkFailed
from .manifest import CONTAINER
from .refusals import QUOTA

Dict = Mapping[str, Any]
INDEX = "batch.kubernetes.io/job-completion-index"
JOB_NAME = "batch.kubernetes.io/job-name"
QUEUE = "kueue.x-k8s.io/queue-name"
LAST_WORDS = 5
COUNTS_SECONDS = 10.0
FINAL = (10, 11, 14, 42, 43, 44, 45)
"""Exit codes of pods that say what failed; after any other, all one knows is that the work did."""
STARTING, NO_NODE_YET = "starting", "no node yet"
ERROR = re.compile(r"\S+ \S+ E ")  # as `worker.LOG_FORMAT` writes it
COUNT = re.compile(r" \(× \d+\)$")
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


def view(job: Dict, pods: Iterable[Dict], events: Sequence[Dict] = ()) -> View:
    """What there is to say of a Job whose pods and events these are."""
    pods, status = sorted(pods, key=index), job.get("status") or {}
    here = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    waiting = [pod for pod in here if phase(pod) == "Pending"]
    ended = {c["type"]: c for c in status.get("conditions") or () if c["status"] == "True"}
    end: Dict = next((ended[name] for name in ("Complete", "Failed") if name in ended), {})
    return View(
        wanted=job["spec"].get("completions") or 1,
        done=status.get("succeeded") or 0,
        running=sum(phase(pod) == "Running" for pod in here),
        waiting=len(waiting),
        failed=max(status.get("failed") or 0, sum(phase(pod) == "Failed" for pod in pods)),
        placed=sum(bool((pod.get("spec") or {}).get("nodeName")) for pod in here),
        pending=() if end else _pending(job, waiting, here, events),
        falls=tuple(_counted(_fall(job, pod) for pod in pods if phase(pod) == "Failed")),
        ended=str(end.get("type", "")),
        why=f"{end.get('reason', '')}: {end.get('message', '')}" if end else "",
    )


def phase(pod: Dict) -> str:
    return str((pod.get("status") or {}).get("phase", "Pending"))


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


def _pending(job: Dict, waiting: Sequence[Dict], here: Sequence[Dict], events: Sequence[Dict]) -> tuple[str, ...]:
    if job["spec"].get("suspend"):
        queue = job["metadata"]["labels"].get(QUEUE)
        said = [event["message"] for event in events if event["reason"] in ("Pending", "QuotaReserved", "Suspended")]
        place = f"waits in the queue {queue}" if queue else "is suspended"
        return (f"the Job {place}" + (f": {said[-1]}" if said else ""),)
    words = list(_counted(_why(pod) for pod in waiting))
    refused = [event for event in events if event["reason"] == "FailedCreate"]
    if refused and not any(phase(pod) == "Running" for pod in here):
        quota = QUOTA.search(refused[-1]["message"])
        why = f"quota {quota[1]} is used up: {quota[2]}" if quota else _plain(refused[-1]["message"], job)
        words.append(f"pods cannot be made: {why}")
    if not words and not here and (job.get("status") or {}).get("failed"):
        words.append("waits before the next try")
    return tuple(words)


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
            why = _plain(waiting.get("message", ""), pod).rsplit(": ", 1)[-1]
            return f"image {each['image']} cannot be pulled: {why or reason}"
        if reason and reason not in ("ContainerCreating", "PodInitializing"):
            return f"{reason}: {_plain(waiting.get('message', ''), pod)}"
    return STARTING if (pod.get("spec") or {}).get("nodeName") else NO_NODE_YET


def _fall(job: Dict, pod: Dict) -> str:
    """How a pod failed, by name."""
    return f"index {index(pod)}: {_reason(job, pod)}"


def _reason(job: Dict, pod: Dict) -> str:
    status, code = pod.get("status") or {}, _exit(pod)
    disrupted = [c for c in status.get("conditions") or () if c["type"] == "DisruptionTarget" and c["status"] == "True"]
    if _terminated(pod).get("reason") == "OOMKilled":
        limit = _container(job)["resources"]["limits"]["memory"]
        return f"OOMKilled (it may use {limit} of memory)"
    if status.get("reason"):  # Evicted, DeadlineExceeded, NodeLost
        return f"{status['reason']}: {_plain(status.get('message', ''), pod)}".strip(": ")
    if disrupted:
        return f"{disrupted[0].get('reason', 'disrupted')}: {_plain(disrupted[0].get('message', ''), pod)}".strip(": ")
    return "failed" if code is None else exit_words(code)


def _terminated(pod: Dict) -> Dict:
    found = (pod.get("status") or {}).get("containerStatuses") or ()
    return next((each["state"]["terminated"] for each in found if "terminated" in (each.get("state") or {})), {})


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
