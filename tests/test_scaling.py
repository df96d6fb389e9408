"""More or fewer pods for a Job that is at work."""

import api
import pytest
from api import Api

from worldmodels.config import resolve
from worldmodels.errors import ClusterError
from worldmodels.executors.kubernetes import job_spec
from worldmodels.executors.kubernetes.scaling import pause, scale
from worldmodels.executors.kubernetes.submission import KubernetesExecutor, Work
from worldmodels.planning import Task


@pytest.fixture
def server():
    return Api()


def submitted(server, *overrides):
    config, _ = resolve("demo", (), overrides)
    work = Work(job_spec.job(Task("demo", 1, "controller", config), "s3://bucket"), lambda: False)
    KubernetesExecutor(server.cluster()).ensure(work)
    return Work(server.jobs[work.name], work.committed)


def test_the_number_changes_in_one_request_so_that_the_job_stays_elastic(server):
    work = submitted(server, "kubernetes.pods.controller=4")
    assert scale(server.cluster(), work, 9) == 4
    method, _, body = server.requests[-1]
    assert method == "PATCH" and body["spec"] == {"completions": 9, "parallelism": 9}


def test_the_number_that_is_there_needs_no_request(server):
    work = submitted(server, "kubernetes.pods.controller=4")
    asked = len(server.requests)
    assert scale(server.cluster(), work, 4) == 4
    assert len(server.requests) == asked


def test_who_submits_it_again_finds_it_scaled(server):
    work = submitted(server)
    scale(server.cluster(), work, 9)
    assert KubernetesExecutor(server.cluster()).ensure(work) == "attached"
    assert server.jobs[work.name]["spec"]["completions"] == 9


def test_a_pause_and_its_end(server):
    work = submitted(server)
    assert pause(server.cluster(), work, paused=True) and server.jobs[work.name]["spec"]["suspend"]
    assert not pause(server.cluster(), work, paused=True)
    assert pause(server.cluster(), work, paused=False) and not server.jobs[work.name]["spec"]["suspend"]


def test_another_job_of_the_same_name_is_left_alone(server):
    work = submitted(server)
    other = {**work.job, "metadata": {**work.job["metadata"], "uid": "another"}}
    server.jobs[work.name] = other
    with pytest.raises(ClusterError, match="does not match"):
        scale(server.cluster(), work, 9)


def test_what_has_ended_is_submitted_anew(server):
    work = submitted(server)
    work.job["status"] = {"conditions": [api.condition("Complete")]}
    with pytest.raises(ClusterError, match="has ended") as caught:
        scale(server.cluster(), work, 9)
    assert caught.value.next == "wm submit controller --run demo"


def test_what_kueue_admitted_stays_as_it_is(server):
    work = submitted(server, "kubernetes.queue=gpus")
    with pytest.raises(ClusterError, match="in the queue gpus"):
        pause(server.cluster(), work, paused=False)
