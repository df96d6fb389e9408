import time
from datetime import UTC, datetime

import api
import pytest
from api import Api, away, status

from worldmodels.config import resolve
from worldmodels.errors import ClusterError, ConfigError, Conflict, Pending, WorkFailed
from worldmodels.executors.kubernetes import job_spec, job_status, submission
from worldmodels.executors.kubernetes.submission import KubernetesExecutor, Pods, Work
from worldmodels.planning import Task

STORE = "s3://bucket"
ENDED = {"conditions": [api.condition("Complete")]}


@pytest.fixture
def server():
    return Api()


def rollouts(*overrides):
    config, _ = resolve("demo", (), overrides)
    return job_spec.job(Task("demo", 1, "rollouts", config), STORE)


def work(*overrides, committed=lambda: False):
    return Work(rollouts(*overrides), committed)


def go(server, *overrides, **options):
    executor = KubernetesExecutor(server.cluster(), sleep=lambda seconds: None, **options)
    return executor.ensure(work(*overrides))


def posts(server):
    return [path for method, path, _ in server.requests if method == "POST"]


def test_submitting_twice_is_one_job(server):
    assert go(server) == "created"
    assert go(server) == "attached"
    assert len(server.jobs) == 1


def test_whoever_submits_may_have_other_prices_and_another_context(server):
    go(server)
    assert (
        go(server, "kubernetes.context=mine", "kubernetes.pending_seconds=5", "kubernetes.prices.cpu_hour=1.0")
        == "attached"
    )


def test_an_active_job_with_other_settings_stays_and_the_difference_is_named(server):
    go(server)
    with pytest.raises(Conflict, match=r"kubernetes\.pods.rollouts is 4 there and 9 here") as caught:
        go(server, "kubernetes.pods.rollouts=9")
    assert "--replace" in caught.value.next
    assert server.jobs[work().name]["spec"]["completions"] == 4


def test_unless_it_is_to_be_replaced(server):
    go(server)
    assert go(server, "kubernetes.pods.rollouts=9", replace=True) == "created"
    assert server.jobs[work().name]["spec"]["completions"] == 9


@pytest.mark.parametrize("kind", ["Complete", "Failed"])
def test_a_job_that_ended_without_its_work_is_made_again(server, kind):
    go(server)
    first = server.jobs[work().name]
    first["status"] = {"conditions": [api.condition(kind)]}
    assert go(server) == "created"
    assert server.jobs[work().name]["metadata"]["uid"] != first["metadata"]["uid"]
    delete = next(body for method, _, body in server.requests if method == "DELETE")
    assert delete == {"propagationPolicy": "Foreground", "preconditions": {"uid": first["metadata"]["uid"]}}


def test_work_that_is_committed_needs_no_job(server):
    assert KubernetesExecutor(server.cluster()).ensure(work(committed=lambda: True)) == "committed"
    assert not posts(server)


def test_a_job_that_ends_while_it_is_looked_at_is_not_made_again(server):
    go(server)
    server.jobs[work().name]["status"] = ENDED
    assert KubernetesExecutor(server.cluster()).ensure(work(committed=lambda: True)) == "committed"
    assert len(posts(server)) == 1


def test_a_job_that_is_being_deleted_is_waited_for(server):
    go(server)
    server.jobs[work().name]["metadata"]["deletionTimestamp"] = "now"
    assert go(server) == "created"


def test_two_who_submit_at_once_make_one_job(server):
    other = Api()
    go(other)
    server.faults = [None, lambda: server.jobs.update(other.jobs)]
    assert go(server) == "attached"
    assert len(posts(server)) == 1


def test_an_answer_that_was_lost_does_not_make_a_second_job(server):
    go(server)
    made = dict(server.jobs)
    server.jobs.clear()
    server.faults = [None, lambda: server.jobs.update(made) or away()]
    assert go(server) == "attached"


def test_a_job_whose_pods_do_not_end_is_given_up(server):
    go(server)
    server.jobs[work().name]["status"] = ENDED
    server.faults = [None, None] + [(200, server.jobs[work().name])] * 1000
    with pytest.raises(ClusterError, match="a pod of it does not end"):
        go(server)


# Waiting


def live(server, *pods, **status):
    """A Job in that state, with those pods."""
    job = {**rollouts(), "status": status}
    job["metadata"] |= {"uid": "1", "creationTimestamp": "1"}
    server.jobs[job["metadata"]["name"]] = job
    for pod in pods:
        pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] = job["metadata"]["name"]
    server.pods = list(pods)


def wait_for(server, committed=lambda: False, pending_seconds=100.0, **options):
    seen = []
    executor = KubernetesExecutor(server.cluster(), pending_seconds=pending_seconds, poll_seconds=0.01, **options)
    executor.wait(work(committed=committed), lambda view, pods: seen.append(view))
    return seen


def after(count):
    """False that often, then True."""
    answers = iter([False] * count)
    return lambda: next(answers, True)


def test_what_counts_is_the_store_though_the_job_is_gone_or_failed(server):
    wait_for(server, lambda: True)
    live(server, conditions=[api.condition("Failed")])
    wait_for(server, lambda: True)


def test_changes_are_shown_as_they_come(server):
    live(server, api.pod(0))
    events = [("MODIFIED", api.pod(0, "Running")), ("DELETED", api.pod(0))]
    server.streams = [[{"type": kind, "object": pod}] for kind, pod in events]
    states = [(view.waiting, view.running) for view in wait_for(server, after(2))]
    assert list(dict.fromkeys(states)) == [(1, 0), (0, 1), (0, 0)]


def test_after_a_watch_expired_pods_are_listed_again(server):
    live(server, api.pod(0))
    server.streams = [[{"type": "ERROR", "object": {"code": 410}}]]
    wait_for(server, after(2))
    assert sum("/pods?" in path and "watch" not in path for _, path, _ in server.requests) == 2


def test_a_cluster_that_is_away_for_a_while_ends_no_waiting(server):
    live(server, api.pod(0, "Running"))
    server.faults = [None, None, None, *[away()] * 5]
    wait_for(server, after(3))
    assert len(server.said) == 2


def test_a_job_that_a_user_deleted_is_told_with_the_way_on(server):
    with pytest.raises(ClusterError, match="deleted by another user") as caught:
        wait_for(server)
    assert caught.value.next == "wm submit rollouts --run demo"


def test_a_job_that_failed_raises_what_its_pods_raised(server):
    live(server, api.fell(43, message="no such setting"), conditions=[api.condition("Failed", "PodFailurePolicy")])
    with pytest.raises(ConfigError, match="no such setting"):
        wait_for(server)


def test_a_job_that_is_complete_without_its_work_wrote_elsewhere(server):
    live(server, **ENDED)
    with pytest.raises(WorkFailed, match="do its pods write elsewhere"):
        wait_for(server)


def test_pods_that_never_run_are_given_up_and_the_job_stays(server):
    live(server, api.waits("CreateContainerConfigError", 'secret "wm-s3" not found'))
    with pytest.raises(Pending, match='secret "wm-s3" not found') as caught:
        wait_for(server, pending_seconds=0.05)
    assert caught.value.exit_code == 16
    assert caught.value.next == "wm attach rollouts --run demo, or wm cancel rollouts --run demo"
    assert server.jobs


def test_once_a_pod_ran_waiting_has_no_end(server):
    live(server, api.waits("ImagePullBackOff"), failed=1)
    wait_for(server, after(20), pending_seconds=0.01)


def test_what_a_queue_or_a_person_holds_back_is_no_failure(server):
    live(server)
    server.jobs[work().name]["spec"] = {**server.jobs[work().name]["spec"], "suspend": True}
    wait_for(server, after(20), pending_seconds=0.01)
    with pytest.raises(Pending, match="the Job is suspended"):
        wait_for(server, pending_seconds=0.01, queue_seconds=0.05)


def test_workers_that_ended_end_the_waiting_whatever_else_goes_on(server):
    live(server, api.beside(api.fell(43, message="no such setting")))
    with pytest.raises(ConfigError, match="no such setting") as caught:
        wait_for(server)
    assert "container istio-proxy keeps the pods open, so Kubernetes neither ends the Job" in caught.value.message
    assert caught.value.next == "wm submit rollouts --run demo -o kubernetes.sidecars=false --replace"


def test_but_not_while_another_pod_is_at_work(server):
    live(server, api.beside(api.fell(13)), api.pod(1, "Running"))
    wait_for(server, after(20))


def test_a_job_that_others_keep_open_goes_once_its_work_is_committed(server):
    live(server, api.beside(api.succeeded(0)), api.beside(api.succeeded(1)))
    said = []
    wait_for(server, after(3), say=said.append)
    assert not server.jobs
    assert "container istio-proxy does not end (-o kubernetes.sidecars=false" in said[0]


def test_a_job_that_ends_by_itself_stays(server):
    live(server, api.succeeded(0))
    wait_for(server, after(3))
    assert server.jobs


def disrupted(index, *, ago=0.0, ignored=5, code=143):
    ended = datetime.fromtimestamp(time.time() - ago, UTC).isoformat()
    pod = api.fell(code, index)
    pod["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = ended
    pod["metadata"]["annotations"][job_status.IGNORED] = str(ignored)
    return pod


def test_a_job_whose_pods_were_all_disrupted_is_made_anew_at_once(server):
    live(server, disrupted(0), disrupted(1))
    first = server.jobs[work().name]
    labels = first["spec"]["template"]["metadata"]["labels"]
    first["spec"] |= {"selector": {"matchLabels": {"a": "b"}}, "completions": 9}
    first["spec"]["template"]["metadata"] |= {"labels": {**labels, "controller-uid": "1", "job-name": "x"}}
    said, server.made = [], lambda job: server.pods.clear()
    wait_for(server, after(2), say=said.append)
    (again,) = server.jobs.values()
    assert again["metadata"]["uid"] != first["metadata"]["uid"]
    assert again["spec"]["completions"] == 9  # as `wm scale` left it
    assert "selector" not in again["spec"]
    assert again["spec"]["template"]["metadata"]["labels"] == labels
    assert "Job wm-rollouts-demo-" in said[0] and "is made anew" in said[0]


@pytest.mark.parametrize(
    "pods",
    [
        [disrupted(0), disrupted(1, code=137)],
        [disrupted(0), api.pod(1, "Running")],
        [disrupted(0, ago=310)],
        [disrupted(0, ignored=0)],
    ],
    ids=["one failed by itself", "one runs", "its turn comes", "Kubernetes waits no longer"],
)
def test_and_not_otherwise(server, pods):
    live(server, *pods)
    wait_for(server, after(3))
    assert not posts(server)


def test_a_job_that_another_makes_anew_is_waited_for(server):
    live(server, api.pod(0))
    server.faults = [status(404, "not found")] * 2
    wait_for(server, after(4))


def test_a_pod_that_failed_is_remembered_though_it_was_deleted(server):
    server.streams = [[{"type": kind, "object": api.fell(143)} for kind in ("MODIFIED", "DELETED")]]
    pods = Pods(server.cluster(), work().name)
    list(pods.follow(0.01))
    assert [job_status.phase(pod) for pod in pods.now()] == ["Failed"]


def test_pods_are_kept_without_the_config_that_each_carries(server):
    live(server, api.pod(0))
    server.pods[0]["spec"]["containers"] = [{"env": "long"}]
    pods = Pods(server.cluster(), work().name)
    pods.look()
    assert pods.now()[0]["spec"] == {"nodeName": "a"}


class Elsewhere:
    uri = "s3://other"


class Here:
    uri = STORE


def test_jobs_are_found_by_store_run_stage_and_iteration(server):
    go(server)
    cluster = server.cluster()
    assert len(submission.find(cluster, Here, "demo", "rollouts", 1)) == 1
    assert not submission.find(cluster, Here, "demo", "vae")
    assert not submission.find(cluster, Elsewhere, "demo")
