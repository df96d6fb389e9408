"""A bucket under fire: real S3 servers behind clients that fail and connections that break."""

import io
import logging
import random
import subprocess
import sys
import threading

import boto3
import buckets
import pytest
from botocore.exceptions import ResponseStreamingError
from faults import TIMEOUT, TRANSIENT, Clock, Proxy, Unlucky, damaged, fine, lost, raised, refused

from worldmodels.errors import StoreError
from worldmodels.store.s3.retry import DEADLINE_SECONDS, FIRST_ANSWER_SECONDS
from worldmodels.store.s3.store import S3Store, make_client

PART_BYTES = 5 * 2**20


@pytest.fixture(params=["seaweedfs", "moto"])
def endpoint(request):
    """Two S3 servers. Marks name the differences between them and the reasons."""
    return request.getfixturevalue(request.param)


# moto checks neither signatures nor who may do what.
seaweedfs_only = pytest.mark.parametrize("endpoint", ["seaweedfs"], indirect=True)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def prefix() -> str:
    return buckets.fresh_prefix()


@pytest.fixture
def unlucky(endpoint, prefix, clock):
    """A store whose client fails as planned, with pauses that take no time."""

    def make(**plan) -> S3Store:
        client = Unlucky(buckets.client(endpoint), **plan)
        store = S3Store(client, buckets.BUCKET, prefix, clock=clock, sleep=clock.sleep, part_bytes=PART_BYTES)
        store.calls = client.calls
        return store

    return make


@pytest.fixture
def store(unlucky) -> S3Store:
    """The same place without faults."""
    return unlucky()


@pytest.fixture
def behind(endpoint, prefix):
    """A store behind a proxy: real connections, really cut."""

    def make(proxy: Proxy, read_seconds: float = 20.0) -> S3Store:
        return S3Store(buckets.client(proxy.url, read_seconds=read_seconds), buckets.BUCKET, prefix)

    return make


# Trying again.


@pytest.mark.parametrize("fault", TRANSIENT)
def test_what_may_pass_is_tried_again(unlucky, store, fault):
    store.put("key", b"data")
    assert unlucky(get_object=[fault, fault]).get("key") == b"data"
    unlucky(put_object=[fine, fault]).put("key", b"more")
    assert unlucky(list_objects_v2=[fault]).folders("") == []
    unlucky(delete_object=[fault]).delete("key")
    assert store.get("key") is None


def test_a_bad_hour_in_which_half_of_all_calls_fail_loses_nothing(unlucky, store):
    chance = random.Random(1)

    def half(call):
        return chance.choice([fine, refused("SlowDown", 503), lost(TIMEOUT)])(call)

    bad = unlucky(always=half)
    for i in range(50):
        assert bad.create(f"a/{i:02}", str(i).encode())
        assert not bad.create(f"a/{i:02}", b"other")
    assert [bad.get(entry.key) for entry in bad.entries("a/")] == [str(i).encode() for i in range(50)]
    for i in range(50):
        bad.delete(f"a/{i:02}")
    assert list(store.entries("")) == []


def test_retries_are_told_once_when_the_operation_ends(unlucky, caplog):
    with caplog.at_level(logging.WARNING, "wm.store"):
        unlucky(put_object=[*TRANSIENT[:3], TRANSIENT[0]]).put("some/key", b"")
    (record,) = caplog.records
    assert "some/key took 5 tries" in record.getMessage()
    assert "500 InternalError × 2, 502 Bad Gateway, 503 ServiceUnavailable" in record.getMessage()


def test_trouble_that_lasts_is_told_before_it_ends(unlucky, caplog):
    unlucky(put_object=[refused("SlowDown", 503)] * 12).put("some/key", b"")
    first, last = caplog.messages
    assert "cannot write some/key yet: 503 SlowDown" in first
    assert "took 13 tries" in last


def test_no_try_begins_after_the_deadline(unlucky, clock):
    with pytest.raises(StoreError, match=r"cannot write key: SlowDown: words; gave up after \d+ tries"):
        unlucky(always=refused("SlowDown", 503)).put("key", b"")
    assert DEADLINE_SECONDS / 2 < clock.time <= DEADLINE_SECONDS


def test_pauses_grow_and_are_jittered(unlucky, clock):
    with pytest.raises(StoreError):
        unlucky(always=refused("SlowDown", 503)).put("key", b"")
    assert len(set(clock.slept)) == len(clock.slept)
    assert max(clock.slept[:3]) < 1 < max(clock.slept) <= 10


def test_a_wrong_endpoint_is_told_soon_and_by_name(clock):
    url = f"http://127.0.0.1:{buckets.free_ports(1)[0]}"
    store = S3Store(buckets.client(url), "bucket", "prefix", clock=clock, sleep=clock.sleep)
    with pytest.raises(StoreError, match=rf"store s3://bucket/prefix at {url}: cannot read key: nothing answers") as e:
        store.get("key")
    assert clock.time <= FIRST_ANSWER_SECONDS
    assert "AWS_ENDPOINT_URL_S3" in e.value.next


CUT_ANYWHERE = {
    "get": lambda store, whole: store.get("a/key") == whole.get("a/key"),
    "modified": lambda store, whole: store.modified("a/key") == whole.modified("a/key"),
    "entries": lambda store, whole: list(store.entries("a/")) == list(whole.entries("a/")),
    "folders": lambda store, whole: store.folders("") == ["a"],
    "put": lambda store, whole: store.put("a/key", b"new") or whole.get("a/key") == b"new",
    "create nothing": lambda store, whole: not store.create("a/key", b"new"),
    "create": lambda store, whole: store.create("a/new", b"new"),
}


@pytest.mark.filterwarnings("ignore:tzname")
@pytest.mark.parametrize("name", CUT_ANYWHERE)
def test_an_answer_cut_anywhere_is_not_taken_for_a_whole_one(endpoint, prefix, store, clock, name):
    store.put("a/key", b"data")
    lengths = range(12, 1200, 1 if name == "modified" else 7)  # of the first, second, ... try's answer
    with Proxy(endpoint, *lengths) as proxy:
        client = buckets.client(proxy.url)
        cut = S3Store(client, buckets.BUCKET, prefix, clock=clock, sleep=clock.sleep, deadline=1e9)
        assert CUT_ANYWHERE[name](cut, store)


# Create-only.


@pytest.mark.parametrize("fault", [lost(TIMEOUT), lost(ResponseStreamingError(error="cut"))])
def test_a_creation_whose_answer_was_lost_is_ours(unlucky, store, fault):
    assert unlucky(put_object=[fault]).create("key", b"ours")
    assert store.get("key") == b"ours"


@pytest.mark.parametrize("arrives", [0, 25])
def test_a_creation_whose_answer_was_cut_is_whole_and_ours(endpoint, behind, store, arrives):
    with Proxy(endpoint, arrives) as proxy:
        assert behind(proxy).create("key", b"ours")
    assert store.get("key") == b"ours"


def test_somebody_elses_object_is_not_ours_even_after_lost_requests(unlucky, store):
    store.put("key", b"theirs")
    assert not unlucky(put_object=[raised(TIMEOUT)]).create("key", b"ours")
    assert store.get("key") == b"theirs"


def test_equal_bytes_of_somebody_else_are_not_ours_unless_a_request_was_lost(unlucky, store):
    store.put("key", b"same")
    assert not unlucky(put_object=[refused("ConditionalRequestConflict", 409)]).create("key", b"same")


def test_a_conflict_is_tried_again(unlucky):
    assert unlucky(put_object=[refused("ConditionalRequestConflict", 409)] * 3).create("key", b"ours")


def test_of_32_creators_whose_answers_are_lost_one_wins(unlucky, store):
    won: list[bytes] = []

    def create(i: int) -> None:
        data = str(i).encode()
        if unlucky(put_object=[lost(TIMEOUT), refused("SlowDown", 503)]).create("key", data):
            won.append(data)

    threads = [threading.Thread(target=create, args=(i,)) for i in range(32)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert won == [store.get("key")]


# Bodies.


def test_a_cut_body_goes_on_where_it_was_cut(endpoint, behind, store):
    data = bytes(range(256)) * 4096 * 6
    store.put("key", data)
    with Proxy(endpoint, 3 * 2**20, 2 * 2**20) as proxy:
        assert behind(proxy).get("key") == data
        assert proxy.relayed < 1.5 * len(data)


def test_a_cut_body_is_begun_anew_when_the_object_has_changed(endpoint, behind, store, tmp_path):
    store.put("key", b"old" * 2**20)
    with Proxy(endpoint, 2**20) as proxy:
        reader = behind(proxy)
        send = reader._send

        def overwritten_meanwhile(method, **arguments):
            if "Range" in arguments:
                store.put("key", b"new")
            return send(method, **arguments)

        reader._send = overwritten_meanwhile
        assert reader.get("key") == b"new"


def test_a_damaged_body_is_read_again_from_its_beginning(unlucky, store):
    store.put("key", b"good")
    assert unlucky(get_object=[damaged, damaged]).get("key") == b"good"


def test_a_silent_connection_is_given_up_and_tried_again(endpoint, behind, store):
    store.put("key", b"data")
    with Proxy(endpoint, -1) as proxy:
        assert behind(proxy, read_seconds=0.3).get("key") == b"data"


@pytest.fixture
def large(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(bytes(range(251)) * (PART_BYTES // 100))
    return path


def test_a_large_file_goes_in_parts_each_tried_on_its_own(unlucky, store, large):
    sender = unlucky(upload_part=[fine, raised(TIMEOUT)], create_multipart_upload=[refused("SlowDown", 503)])
    sender.upload("large", large)
    assert (sender.calls.count("upload_part"), sender.calls.count("put_object")) == (4, 0)
    assert store.get("large") == large.read_bytes()


def test_a_large_file_comes_through_fire_whole(fire, prefix, large):
    store = S3Store(buckets.client(fire), buckets.BUCKET, prefix, part_bytes=PART_BYTES)
    store.upload("large", large)
    assert store.get("large") == large.read_bytes()


def test_the_checksums_that_aws_is_sent_do_no_harm(endpoint, prefix, store, large):
    session = boto3.session.Session(buckets.KEY, buckets.SECRET, region_name="us-east-1")
    sender = S3Store(session.client("s3", endpoint_url=endpoint), buckets.BUCKET, prefix, part_bytes=PART_BYTES)
    sender.upload("large", large)
    sender.put("small", b"data")
    assert sender.get("large") == large.read_bytes()
    assert (sender.get("small"), store.get("small")) == (b"data", b"data")


def test_a_completion_whose_answer_was_lost_is_a_completion(unlucky, store, large):
    unlucky(complete_multipart_upload=[lost(TIMEOUT)]).upload("large", large)
    assert [entry.size for entry in store.entries("large")] == [large.stat().st_size]


def test_an_upload_that_fails_leaves_no_parts(endpoint, unlucky, store, prefix, large):
    with pytest.raises(StoreError, match=r"cannot write large, part \d: access is denied"):
        unlucky(upload_part=[fine, refused("AccessDenied", 403)]).upload("large", large)
    assert store.get("large") is None
    uploads = buckets.client(endpoint).list_multipart_uploads(Bucket=buckets.BUCKET).get("Uploads", [])
    assert [upload for upload in uploads if upload["Key"].startswith(prefix)] == []


# Errors that retries cannot mend.


@seaweedfs_only
@pytest.mark.parametrize(
    ("key", "secret", "words"),
    [
        (buckets.KEY, "another-secret-not-to-be-seen", "SignatureDoesNotMatch"),
        ("nobody", "another-secret-not-to-be-seen", "InvalidAccessKeyId"),
        ("reader", buckets.SECRET, "AccessDenied"),
    ],
)
def test_wrong_credentials_are_told_at_once_and_never_shown(endpoint, clock, caplog, key, secret, words):
    store = S3Store(buckets.client(endpoint, key, secret), buckets.BUCKET, "x", clock=clock, sleep=clock.sleep)
    with pytest.raises(StoreError, match=f"store s3://bucket/x at {endpoint}: cannot write key: .*{words}") as caught:
        store.put("key", b"")
    assert clock.slept == []
    assert caught.value.next
    assert secret not in f"{caught.value.message}{caught.value.next}{caplog.text}"


def test_a_bucket_that_is_not_there_is_named(endpoint, clock):
    store = S3Store(buckets.client(endpoint), "elsewhere", clock=clock, sleep=clock.sleep)
    for action in (lambda: store.get("k"), lambda: store.put("k", b""), lambda: list(store.entries(""))):
        with pytest.raises(StoreError, match=r"s3://elsewhere .*no such bucket") as caught:
            action()
        assert caught.value.next == "aws s3 mb s3://elsewhere"
    assert clock.slept == []


def test_a_refusal_of_a_key_that_may_be_absent_is_explained(unlucky):
    with pytest.raises(StoreError, match="without s3:ListBucket"):
        unlucky(get_object=[refused("AccessDenied", 403)]).get("key")


@pytest.mark.parametrize("code", ["ExpiredToken", "RequestTimeTooSkewed", "PermanentRedirect", "Whatever"])
def test_other_refusals_are_told_at_once(unlucky, clock, code):
    with pytest.raises(StoreError, match=code):
        unlucky(put_object=[refused(code, 400)]).put("key", b"")
    assert clock.slept == []


def test_a_password_in_the_endpoint_is_not_shown(clock):
    client = make_client(endpoint_url="http://me:hush@127.0.0.1:1", region_name="us-east-1",
                         aws_access_key_id="a", aws_secret_access_key="b")  # fmt: skip
    with pytest.raises(StoreError) as caught:
        S3Store(client, "bucket", deadline=1, clock=clock, sleep=clock.sleep).get("key")
    assert "hush" not in caught.value.message + caught.value.next


@pytest.mark.parametrize("encryption", ["AES256", "aws:kms", "aws:kms arn:aws:kms:key"])
@pytest.mark.parametrize("endpoint", ["moto"], indirect=True)
def test_a_bucket_is_told_how_to_encrypt(endpoint, prefix, monkeypatch, encryption):
    monkeypatch.setenv("WM_S3_ENCRYPTION", encryption)
    client = buckets.client.__wrapped__(endpoint)
    store = S3Store(client, buckets.BUCKET, prefix, part_bytes=PART_BYTES)
    store.put("small", b"data")
    store.create("once", b"data")
    store._write_parts("large", io.BytesIO(bytes(PART_BYTES + 1)), PART_BYTES + 1, {})
    for key in ("small", "once", "large"):
        told = client.head_object(Bucket=buckets.BUCKET, Key=store.full(key))
        assert told["ServerSideEncryption"] == encryption.partition(" ")[0]
        assert told.get("SSEKMSKeyId", "") == encryption.partition(" ")[2]


# Time.


def test_ages_are_by_the_servers_clock(store, clock):
    store.put("key", b"")
    clock.time += 30
    (entry,) = store.entries("key")
    clock.time += 30
    assert 29 <= store.now() - entry.modified <= 32


# As a user calls it: what a server's kind adds was seen above, so one is enough.


def wm(*arguments, **environment):
    command = [sys.executable, "-m", "wm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"} | environment)


@seaweedfs_only
def test_commands_take_a_bucket(endpoint, prefix, store):
    store.put("tiny/iter-1/vae/logs/a.log", b"a line\n")
    place = buckets.environment(endpoint) | {"WM_STORE": f"s3://{buckets.BUCKET}/{prefix}"}
    assert wm("logs", "vae", "--run", "tiny", **place).stdout == "a line\n"
    assert "nothing is committed in s3://bucket/" in wm("ls", **place).stdout


@seaweedfs_only
def test_a_bucket_without_credentials_has_one_message_and_a_next_command(endpoint):
    place = {name: value for name, value in buckets.environment(endpoint).items() if "KEY" not in name}
    done = wm("ls", "--store", "s3://bucket/x", **place)
    assert done.returncode == 13
    assert "no credentials were found" in done.stderr
    assert "next: export AWS_ACCESS_KEY_ID=" in done.stderr
    assert "Traceback" not in done.stderr


@seaweedfs_only
def test_a_stage_run_on_a_bucket_gives_the_same_digest_as_on_a_folder(endpoint, prefix, make_wm):
    remote = make_wm(**buckets.environment(endpoint), WM_STORE=f"s3://{buckets.BUCKET}/{prefix}")
    local = make_wm()
    for each in (remote, local):
        each.ok("rollouts", "-o", "rollouts.episodes=4", "-o", "rollouts.steps=20", "--workers", "1")
    assert remote.digests() == local.digests()
    assert "shard 0 is committed" in remote("logs", "rollouts").stdout


@seaweedfs_only
@pytest.mark.slow
def test_the_main_job_on_a_bucket_gives_the_same_digests_as_on_a_folder(endpoint, prefix, make_wm):
    uri = f"s3://{buckets.BUCKET}/{prefix}"
    remote, local = make_wm(**buckets.environment(endpoint), WM_STORE=uri), make_wm()
    assert f"report: {uri}/tiny/iter-1/report/live/report.html" in remote.ok()
    local.ok()
    assert remote.digests() == local.digests()
