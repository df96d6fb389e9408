import api
import pytest
from api import Api

from worldmodels.artifacts import publishing
from worldmodels.config import resolve
from worldmodels.errors import Conflict, WorkFailed
from worldmodels.executors import pipeline
from worldmodels.executors.kubernetes.job_spec import Pipeline
from worldmodels.planning import Task, TaskState
from worldmodels.stages import STAGES
from worldmodels.store import LocalStore


@pytest.fixture
def store(tmp_path):
    """A folder that goes by a bucket's name, as pods would want it."""
    store = LocalStore(tmp_path)
    store.uri = "s3://bucket"
    return store


def commit(store, job):
    """Act as the Job's pods."""
    environment = {each["name"]: each.get("value") for each in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    task = Task.from_json(environment["WM_TASK"].replace("$$", "$"))
    made = {"finished": "2026-01-01", "seconds": 1.0}
    publishing.commit(store, TaskState(store, task).identity, files={}, telemetry={}, shards=[], resolved={}, made=made)


def fail(store, job):
    job["status"] = {"conditions": [api.condition("Failed", "FailedIndexes", "Job has failed indexes")]}


def drive(server, store, iterations=1, *overrides):
    configs = tuple(resolve("demo", (), overrides, iteration=i)[0] for i in range(1, iterations + 1))
    said = []
    pipeline.drive(server.cluster(), store, Pipeline("demo", configs), said.append)
    return said


def submitted(server):
    labels = [job["metadata"]["labels"] for job in server.jobs.values()]
    return [(label["worldmodels/iteration"], label["app.kubernetes.io/component"]) for label in labels]


def test_every_stage_of_every_iteration_becomes_a_job_in_order(store):
    server = Api()
    server.made = lambda job: commit(store, job)
    said = drive(server, store, 2)
    assert submitted(server) == [(str(i), stage) for i in (1, 2) for stage in STAGES]
    assert said[0] == "demo: 14 stages (iterations: 2), 0 of them committed"
    assert said[-1] == "demo: everything is committed"


def test_a_pipeline_that_was_killed_goes_on_from_what_is_there(store):
    server = Api()
    server.made = lambda job: commit(store, job) if "vae" not in job["metadata"]["name"] else fail(store, job)
    with pytest.raises(WorkFailed, match="demo/iter-1/vae failed"):
        drive(server, store)
    again = Api()
    again.made = lambda job: commit(store, job)
    drive(again, store)
    assert submitted(again) == [("1", stage) for stage in list(STAGES)[1:]]
    nothing = Api()
    drive(nothing, store)
    assert not nothing.jobs


def test_what_is_committed_with_other_settings_ends_it(store):
    server = Api()
    server.made = lambda job: commit(store, job)
    drive(server, store)
    with pytest.raises(Conflict, match=r"vae\.epochs was \d+ and is now 9"):
        drive(Api(), store, 1, "vae.epochs=9")
