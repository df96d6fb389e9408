import api
import pytest
from api import Api
from receiver import receiving

from worldmodels.artifacts import publishing
from worldmodels.config import resolve
from worldmodels.errors import Conflict, LimitReached, WorkFailed
from worldmodels.executors import pipeline
from worldmodels.executors.budget import Limits
from worldmodels.executors.kubernetes import job_spec
from worldmodels.executors.kubernetes.job_spec import Pipeline
from worldmodels.executors.notices import Notifier
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


def drive(server, store, iterations=1, *overrides, limits=Limits(), url=""):  # noqa: B008 - it is frozen
    configs = tuple(resolve("demo", (), overrides, iteration=i)[0] for i in range(1, iterations + 1))
    said = []
    notifier = Notifier(url, store, "demo", said.append)
    try:
        pipeline.drive(server.cluster(), store, Pipeline("demo", configs), said.append, limits, notifier)
    finally:
        notifier.close()
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


def environment_of(job):
    return job["spec"]["template"]["spec"]["containers"][0]["env"]


def test_a_limit_ends_the_jobs_of_the_run_and_goes_on_with_a_higher_one(store):
    server = Api()

    def made(job):
        if "vae" not in job["metadata"]["name"]:
            job["status"] = {"conditions": [api.condition("Complete")]}
            return commit(store, job)
        return server.pods.append(api.pod(0, "Running", job=job["metadata"]["name"]))

    server.made = made
    with pytest.raises(LimitReached, match="--max-hours is") as caught:
        drive(server, store, limits=Limits(hours=0.0005))
    assert caught.value.next == "wm submit pipeline --max-hours 0.001"
    assert submitted(server) == [("1", "rollouts")]  # V's Job is gone, and its pod ends as if it were cancelled
    assert list(store.root.glob("demo/iter-1/vae/spent/*.json"))
    server.made = lambda job: commit(store, job)
    assert drive(server, store, limits=Limits(hours=1))[-1] == "demo: everything is committed"


def test_the_pipeline_posts_each_stage(store):
    server = Api()
    server.made = lambda job: commit(store, job)
    with receiving() as receiver:
        drive(server, store, url=receiver.url)
    assert [each["stage"] for each in receiver.got] == [*STAGES, None]
    assert [each["event"] for each in receiver.got] == ["committed"] * len(STAGES) + ["finished"]


def test_the_pipelines_url_comes_from_a_secret_and_no_other_job_has_it():
    config = resolve("demo", (), ["kubernetes.notify_secret=chat", "kubernetes.prices.cpu_hour=0.04"])[0]
    limits = Limits(2.0, 5.0, config.kubernetes.prices)
    job = job_spec.pipeline_job(Pipeline("demo", (config,)), "s3://bucket", limits.to_json())
    found = {each["name"]: each for each in environment_of(job)}
    assert found["WM_NOTIFY"]["valueFrom"] == {"secretKeyRef": {"name": "chat", "key": "WM_NOTIFY"}}
    assert Limits.from_json(found["WM_LIMITS"]["value"]) == limits
    stage = job_spec.job(Task("demo", 1, "vae", config), "s3://bucket")
    assert "WM_NOTIFY" not in str(stage) and "chat" not in str(stage)
    plain = job_spec.job(Task("demo", 1, "vae", resolve("demo")[0]), "s3://bucket")
    assert job_spec.spec_digest(stage) == job_spec.spec_digest(plain)
