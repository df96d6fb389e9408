import api
import pytest

from worldmodels import errors
from worldmodels.executors import watching
from worldmodels.executors.watching import Teller, View, exit_words, failure, view

SCHEDULER = (
    "0/3 nodes are available: 1 node(s) had untolerated taint {a: b}, 2 Insufficient nvidia.com/gpu."
    " no new claims to deallocate, preemption: 0/3 nodes are available: 3 No preemption victims found."
)
PULL = 'Back-off pulling image "wm:1": ErrImagePull: rpc error: code = NotFound desc = wm:1: not found'


def unscheduled(message):
    return api.pod(node="", conditions=[api.condition("PodScheduled", "Unschedulable", message, "False")])


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        (unscheduled(SCHEDULER), "no node: 0/3 nodes are available: 1 node(s) had untolerated taint {a: b},"
         " 2 Insufficient nvidia.com/gpu"),
        (unscheduled(""), "no node yet"),
        (api.waits("ImagePullBackOff", PULL), "image wm:1 cannot be pulled: not found"),
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
    job["metadata"]["labels"][watching.QUEUE] = "research"
    held = [{"reason": "Pending", "message": "insufficient quota"}]
    assert view(job, [], held).pending == ("the Job waits in the queue research: insufficient quota",)


def test_between_tries_there_is_no_pod():
    assert view(api.job(failed=1), []).pending == ("waits before the next try",)


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
    assert view(api.job(), [pod]).falls == (words,)


def test_what_is_the_same_is_said_once():
    pods = [api.fell(44, 1), api.fell(44, 1), api.fell(44, 2)]
    assert view(api.job(), pods).falls == ("index 1: exit 44 (Hung) (× 2)", "index 2: exit 44 (Hung)")


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
    words = watching.last_words(api.fell(44, message="\n".join(lines))).split()
    assert words == ["2026-01-01", "00:00:00", "E", "no", "progress", "…", "6", "7", "8"]


def test_who_needs_more_memory_is_told_where_to_say_so():
    error = failed("FailedIndexes", "", api.fell(137, reason="OOMKilled"))
    assert error.next == "wm submit vae -o kubernetes.resources.vae.memory=…"


def test_news_is_told_once():
    said = []
    tell = Teller(said.append)
    tell("vae", View(2, waiting=1, pending=("no node: full",)))
    tell("vae", View(2, waiting=2, pending=("no node: full (× 2)", "starting")))
    tell("vae", View(2, running=2, falls=("index 0: exit 44 (Hung)",)))
    assert said == ["vae: pending: no node: full", "vae: 1 pending; 0 of 2 pods done", "vae: index 0: exit 44 (Hung)"]
