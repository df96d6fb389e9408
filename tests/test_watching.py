from datetime import UTC, datetime, timedelta

import api
import pytest

from worldmodels import errors
from worldmodels.executors.kubernetes import job_status
from worldmodels.executors.kubernetes.job_status import Teller, View, exit_words, failure, view

SCHEDULER = (
    "0/3 nodes are available: 1 node(s) had untolerated taint {a: b}, 2 Insufficient nvidia.com/gpu."
    " no new claims to deallocate, preemption: 0/3 nodes are available: 3 No preemption victims found."
)
PULL = 'Back-off pulling image "wm:1": ErrImagePull: rpc error: code = NotFound desc = wm:1: not found'
DENIED = 'failed to pull "wm:1": failed to authorize: unexpected status: 401 Unauthorized: log in first'


def unscheduled(message):
    return api.pod(node="", conditions=[api.condition("PodScheduled", "Unschedulable", message, "False")])


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        (unscheduled(SCHEDULER), "no node: 0/3 nodes are available: 1 node(s) had untolerated taint {a: b},"
         " 2 Insufficient nvidia.com/gpu"),
        (unscheduled(""), "no node yet"),
        (api.waits("ImagePullBackOff", PULL),
         "image wm:1 cannot be pulled: ErrImagePull: rpc error: code = NotFound desc = wm:1: not found"),
        (api.waits("ErrImagePull", DENIED), f"image wm:1 cannot be pulled: {DENIED}"),
        (api.waits("InvalidImageName"), "image wm:1 cannot be pulled: InvalidImageName"),
        (api.waits("CreateContainerConfigError", 'secret "wm-s3" not found'),
         'CreateContainerConfigError: secret "wm-s3" not found'),
        (api.waits("ContainerCreating"), "starting"),
        (api.pod(), "starting"),
        (api.pod(node=""), "no node yet"),
    ],
)  # fmt: skip
def test_why_a_pod_is_pending(pod, words):
    assert view(api.job(), [pod]).pending == (words,)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ('Error creating: pods "wm-vae-demo-1-0-x2x4z" is forbidden: exceeded quota: q, requested: pods=1, used: 4',
         "pods cannot be made: quota q is used up: requested: pods=1, used: 4"),
        ('Error creating: pods "wm-vae-demo-1-0-" is forbidden: serviceaccount "wm-worker" not found',
         'pods cannot be made: pods "wm-vae-demo-1" is forbidden: serviceaccount "wm-worker" not found'),
    ],
)  # fmt: skip
def test_why_there_are_no_pods(message, words):
    assert view(api.job(), [], [{"reason": "FailedCreate", "message": message}]).pending == (words,)


def test_pods_that_could_not_be_made_are_no_news_once_others_run():
    events = [{"reason": "FailedCreate", "message": "quota"}]
    assert view(api.job(), [api.pod(0, "Running")], events).pending == ()


def test_a_queue_says_why_it_holds_a_job_back():
    job = api.job()
    job["spec"]["suspend"] = True
    assert view(job, []).pending == ("the Job is suspended",)
    job["metadata"]["labels"][job_status.QUEUE] = "research"
    held = [{"reason": "Pending", "message": "insufficient quota"}]
    assert view(job, [], held).pending == ("the Job waits in the queue research: insufficient quota",)


def test_between_tries_there_is_no_pod():
    assert view(api.job(failed=1), []).pending == ("waits before the next try",)


BASE = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


def tried(index, failures, ignored, code=143, after=0):
    """A pod that failed so many seconds after noon, and how often its index had failed before."""
    pod = api.fell(code, index)
    ended = (BASE + timedelta(seconds=after)).isoformat().replace("+00:00", "Z")
    pod["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = ended
    counts = {job_status.COUNTED: str(failures), job_status.IGNORED: str(ignored)}
    pod["metadata"]["annotations"] |= counts
    return pod


@pytest.mark.parametrize(
    ("failures", "ignored", "delay"), [(0, 0, 10), (0, 1, 20), (2, 1, 80), (3, 3, 600), (0, 50, 600)]
)
def test_how_long_kubernetes_waits_is_said_and_until_when(failures, ignored, delay):
    pods, noon = [tried(0, failures, ignored, after=3)], BASE.timestamp()
    (words,) = view(api.job(failed=1), pods, now=noon + 5).pending
    until = datetime.fromtimestamp(noon + 3 + delay).strftime("%H:%M:%S")
    assert words.startswith(f"waits before the next try: Kubernetes starts the next pod at {until}")
    assert view(api.job(failed=1), pods, now=noon + 700).pending == ("waits before the next try",)


def test_an_index_that_is_over_is_not_waited_for():
    assert job_status.waiting_to_retry(api.job(failedIndexes="0,2-3"), [tried(n, 0, 0) for n in range(4)]) == [
        tried(1, 0, 0)
    ]
    assert job_status.waiting_to_retry(api.job(), [tried(0, 0, 0), api.pod(1, "Running")]) == []


def test_a_pod_that_does_not_end_on_a_lost_node_is_explained():
    pod = api.pod(1, "Running", node="lost", conditions=[
        api.condition("DisruptionTarget", "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"),
    ])  # fmt: skip
    pod["metadata"]["deletionTimestamp"] = BASE.isoformat().replace("+00:00", "Z")
    assert view(api.job(), [pod], now=BASE.timestamp() + 30).pending == ()
    (words,) = view(api.job(), [pod], now=BASE.timestamp() + 90).pending
    assert words.startswith("index 1: its pod should have ended by ")
    assert "due to NoExecute taint" in words and words.endswith("kubectl delete node lost")


# Containers that others added.


def test_only_the_worker_counts():
    seen = view(api.job(), [api.beside(api.fell(43)), api.beside(api.succeeded(1))])
    assert (seen.running, seen.failed, seen.done) == (0, 1, 1)
    assert seen.failures == ("index 0: exit 43 (ConfigError)",)
    assert seen.pending == ("container istio-proxy keeps the pod open although its worker has ended (× 2)",)


def test_while_the_worker_is_at_work_others_may_end():
    worker = {"name": "worker", "image": "wm:1", "state": {"running": {}}}
    ended = {"terminated": {"exitCode": 1, "reason": "Error"}}
    seen = view(api.job(), [api.beside(api.pod(0, "Running", containerStatuses=[worker]), **ended)])
    assert (seen.running, seen.failed, seen.pending, seen.failures) == (1, 0, (), ())


def test_a_container_that_failed_beside_the_worker_is_named():
    pod = api.beside(api.fell(0), terminated={"exitCode": 137, "reason": "OOMKilled"})
    assert view(api.job(), [pod]).failures == (
        "index 0: container istio-proxy failed, and not the worker: exit 137 (SIGKILL)",
    )


def test_the_workers_words_are_the_errors():
    error = failed("FailedIndexes", "", api.beside(api.fell(43, message="no such setting"), terminated={"exitCode": 0}))
    assert type(error) is errors.ConfigError
    assert "no such setting" in error.message


def evicted(**status):
    return api.pod(0, "Failed", **status)


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        (api.fell(137, reason="OOMKilled"), "index 0: OOMKilled (it may use 2Gi of memory)"),
        (api.fell(137), "index 0: exit 137 (SIGKILL)"),
        (api.fell(43), "index 0: exit 43 (ConfigError)"),
        (api.fell(44), "index 0: exit 44 (Hung)"),
        (api.fell(7), "index 0: exit 7"),
        (evicted(reason="Evicted", message="low on\nmemory"), "index 0: Evicted: low on memory"),
        (evicted(conditions=[api.condition("DisruptionTarget", "PreemptionByScheduler", "for another")]),
         "index 0: PreemptionByScheduler: for another"),
        (evicted(), "index 0: failed"),
    ],
)  # fmt: skip
def test_how_a_pod_fell(pod, words):
    assert view(api.job(), [pod]).failures == (words,)


def test_what_is_the_same_is_said_once():
    pods = [api.fell(44, 1), api.fell(44, 1), api.fell(44, 2)]
    assert view(api.job(), pods).failures == ("index 1: exit 44 (Hung) (× 2)", "index 2: exit 44 (Hung)")


def test_counts():
    pods = [api.pod(0, "Running"), api.pod(1), api.pod(2, "Succeeded"), api.fell(1, 3)]
    seen = view(api.job(succeeded=1, failed=2), pods)
    assert (seen.running, seen.waiting, seen.done, seen.failed, seen.wanted) == (1, 1, 1, 2, 2)
    assert str(seen) == "1 running, 1 pending, 2 failed"


@pytest.mark.parametrize(("code", "words"), [(42, "exit 42 (WorkFailed)"), (139, "exit 139 (SIGSEGV)"), (1, "exit 1")])
def test_exit_codes_have_names(code, words):
    assert exit_words(code) == words


def failed(reason, message, *pods):
    job = api.job(conditions=[api.condition("Failed", reason, message)])
    return failure(job, pods, "demo/iter-1/vae", "wm submit vae", "wm logs vae")


@pytest.mark.parametrize(
    ("code", "kind"),
    [(10, errors.Conflict), (11, errors.MissingInput), (42, errors.WorkFailed), (43, errors.ConfigError),
     (44, errors.Hung), (13, errors.WorkFailed), (1, errors.WorkFailed), (137, errors.WorkFailed)],
)  # fmt: skip
def test_a_failed_job_fails_as_its_pods_did(code, kind):
    error = failed("FailedIndexes", "Job has failed indexes", api.fell(code, message="first\nit broke"))
    assert type(error) is kind
    assert "it broke" in error.message
    assert error.next == "wm logs vae"


def test_the_code_that_the_policy_stopped_at_counts_though_its_pod_is_gone():
    message = "Container worker for pod wm/x failed with exit code 43 matching FailJob rule at index 2"
    assert type(failed("PodFailurePolicy", message)) is errors.ConfigError
    assert type(failed("PodFailurePolicy", message, api.fell(44))) is errors.ConfigError


def test_of_a_long_farewell_the_error_and_the_end_are_shown():
    lines = ["a E first", *"bcd", "2026-01-01 00:00:00 E no progress", *map(str, range(9))]
    words = job_status.last_words(api.fell(44, message="\n".join(lines))).split()
    assert words == ["2026-01-01", "00:00:00", "E", "no", "progress", "…", "6", "7", "8"]


def test_who_needs_more_memory_is_told_where_to_say_so():
    error = failed("FailedIndexes", "", api.fell(137, reason="OOMKilled"))
    assert error.next == "wm submit vae -o kubernetes.resources.vae.memory=…"


def test_news_is_told_once():
    said = []
    tell = Teller(said.append)
    tell("vae", View(2, waiting=1, pending=("no node: full",)))
    tell("vae", View(2, waiting=2, pending=("no node: full (× 2)", "starting")))
    tell("vae", View(2, running=2, failures=("index 0: exit 44 (Hung)",)))
    assert said == ["vae: pending: no node: full", "vae: 1 pending; 0 of 2 pods done", "vae: index 0: exit 44 (Hung)"]
