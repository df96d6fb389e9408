"""Pods that fail without getting on, and those that do get on."""

import pytest

from worldmodels import artifacts
from worldmodels.artifacts import Name, publishing
from worldmodels.config import resolve
from worldmodels.errors import StoreError, WorkFailed
from worldmodels.executors import patience, pod
from worldmodels.executors.kubernetes import job_spec
from worldmodels.planning import Task, TaskState
from worldmodels.store import LocalStore

TASK = Task("demo", 1, "rollouts", resolve("demo")[0])


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path)


@pytest.fixture
def starts(store):
    """A pod of index 2 that starts after so many failures."""
    return lambda failures: patience.check(store, TASK, 2, failures)


def gain(store, index):
    publishing.commit_shard(store, TaskState(store, TASK).identity, index, "attempt", {"frames": b"data"})


def test_the_fourth_pod_gives_up_where_three_got_nowhere(starts):
    for failures in range(3):
        starts(failures)
    with pytest.raises(WorkFailed, match="rollouts: index 2 failed 3 times and nothing was gained") as caught:
        starts(3)
    assert caught.value.next == "wm logs rollouts --run demo --iteration 1"


def test_whoever_submits_again_tries_three_times_again(starts):
    for failures in range(3):
        starts(failures)
    with pytest.raises(WorkFailed):
        starts(3)
    for failures in range(3):
        starts(failures)


def test_a_shard_in_between_is_progress(store, starts):
    for failures in range(50):
        starts(failures)
        gain(store, failures)


def test_a_pod_that_was_disrupted_did_not_fail(starts):
    for _ in range(10):
        starts(2)


def test_a_store_that_was_away_counts_once(store, starts, monkeypatch):
    starts(1)
    away = StoreError("away")

    def fail(*_):
        raise away

    with monkeypatch.context() as patched:
        patched.setattr(store, "entries", fail)
        for failures in range(2, 9):
            with pytest.raises(StoreError):
                starts(failures)
    starts(9)


@pytest.mark.parametrize("note", [b"not JSON", b"[]", b'{"starts": "many"}'])
def test_a_note_that_cannot_be_read_is_none(store, starts, note):
    store.put(TaskState(store, TASK).identity.work_key("failures", "2"), note)
    starts(3)


def test_a_checkpoint_is_progress_too(store, starts):
    starts(1)
    starts(2)
    store.put(TaskState(store, TASK).identity.work_key("checkpoints/00000010.npz"), b"data")
    starts(3)


def test_a_generation_is_progress_of_an_evolution(store):
    work = artifacts.identity(Name("demo", 1, "controller"), TASK.config, ("controller",), {})
    before = patience._progress(store, work)
    store.put(work.work_key("generations/00001/params"), b"data")
    assert patience._progress(store, work) != before


def test_a_pod_asks_before_it_works_and_ends_its_index(store, starts, caplog):
    environment = {"WM_TASK": TASK.to_json(), "WM_STORE": store.uri, "JOB_COMPLETION_INDEX": "2"}
    for failures in (1, 2):
        starts(failures)
    assert pod.main({**environment, "WM_FAILURES": "3"}) == 42
    rules = job_spec.job(TASK, "s3://bucket")["spec"]["podFailurePolicy"]["rules"]
    assert {"FailIndex": [42]} in [{r["action"]: r.get("onExitCodes", {}).get("values")} for r in rules]
    assert "nothing was gained in between" in caplog.text


def test_kubernetes_tells_a_pod_how_often_its_index_failed():
    (container,) = job_spec.job(TASK, "s3://bucket")["spec"]["template"]["spec"]["containers"]
    told = {each["name"]: each.get("valueFrom") for each in container["env"]}["WM_FAILURES"]
    assert told == {"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-index-failure-count']"}}
