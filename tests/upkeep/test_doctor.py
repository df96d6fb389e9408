"""Is a store fit for use? A folder, a real S3 server, and what some servers and identities lack."""

import contextlib
import time

import buckets
import pytest
from faults import Clock, fine, refused
from places import Careless, keys

from worldmodels.errors import StoreError
from worldmodels.store import LocalStore
from worldmodels.store.s3.store import S3Store
from worldmodels.upkeep import checks, doctor


def found(visit, name):
    """The finding of that name; the visit ends there."""
    with contextlib.closing(visit):
        return next(finding for finding in visit if finding.name == name)


def test_a_healthy_store_passes_every_check_and_nothing_is_left(target):
    assert [finding for finding in doctor.check(target) if finding.state != "ok"] == []
    assert (keys(target), target.folders(""), list(target.leftovers(""))) == ([], [], [])


def test_a_folder_that_was_not_there_is_not_there_afterwards(tmp_path):
    assert checks.require(doctor.check(LocalStore(tmp_path / "a" / "b")), "it") is None
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_visit_leaves_nothing(store):
    assert found(doctor.check(store), "create once").state == "ok"
    assert keys(store) == []


def test_a_server_that_overlooks_conditions_is_caught(endpoint):
    client = Careless(buckets.client(endpoint), "IfNoneMatch", "IfMatch")
    told = list(doctor.check(S3Store(client, buckets.BUCKET, buckets.fresh_prefix())))
    (once,) = (finding for finding in told if finding.name == "create once")
    assert (once.state, "is If-None-Match overlooked?" in once.words) == ("fail", True)
    assert {finding.state for finding in told if finding.name in ("create race", "lock")} == {"skipped"}


def test_a_server_that_overlooks_if_match_is_warned_of(endpoint):
    client = Careless(buckets.client(endpoint), "IfMatch")
    visit = doctor.check(S3Store(client, buckets.BUCKET, buckets.fresh_prefix()))
    assert found(visit, "replace if unchanged").state == "warn"


def test_who_may_only_read_is_told_what_is_missing(endpoint):
    store = S3Store(buckets.client(endpoint, "reader"), buckets.BUCKET, buckets.fresh_prefix())
    with pytest.raises(StoreError, match="1 of 16 checks failed: write") as caught:
        checks.require(doctor.check(store), "the store")
    assert caught.value.next == "cat k8s/s3-policy.json"


def test_a_wrong_endpoint_fails_once_and_the_rest_is_skipped():
    clock, url = Clock(), f"http://127.0.0.1:{buckets.free_ports(1)[0]}"
    store = S3Store(buckets.client(url), "bucket", deadline=doctor.DEADLINE_SECONDS, clock=clock, sleep=clock.sleep)
    first, *rest = doctor.check(store)
    assert (first.name, first.state, {finding.state for finding in rest}) == ("endpoint", "fail", {"skipped"})
    assert clock.time <= doctor.DEADLINE_SECONDS


@pytest.mark.parametrize(
    ("plan", "check", "state"),
    [
        ({"get_object": [refused("AccessDenied", 403)]}, "absent key", "fail"),
        ({"list_objects_v2": [refused("NoSuchBucket", 404)] * 2}, "list", "fail"),
        ({"put_object": [fine, refused("AccessDenied", 403)]}, "delete", "fail"),
        ({"list_multipart_uploads": [refused("AccessDenied", 403)]}, "unfinished uploads", "warn"),
        ({"put_object": [refused("ExpiredToken", 400)]}, "write", "fail"),
    ],
)
def test_each_refusal_is_one_finding_with_a_command(unlucky, plan, check, state):
    finding = found(doctor.check(unlucky(**plan)), check)
    assert (finding.state, bool(finding.next)) == (state, True)


@pytest.mark.parametrize(("minutes", "words"), [(-10, "10 min ahead of"), (10, "10 min behind")])
def test_clocks_that_differ_are_warned_of(store, minutes, words):
    clock = found(doctor.check(store, lambda: time.time() + 60 * minutes), "clock")
    assert clock.state == "warn" and words in clock.words


def test_a_check_is_skipped_when_what_it_needs_failed_and_not_when_it_warned():
    def raises():
        raise StoreError("words", next="command")

    no, maybe = (lambda: checks.Finding("fail", "no")), (lambda: checks.warn("hm", "next"))
    these = [checks.Check("a", raises), checks.Check("b", no, ("a",)), checks.Check("c", maybe)]
    told = list(checks.examine([*these, checks.Check("d", no, ("c",)), checks.Check("e", no, ("b",))]))
    assert [finding.state for finding in told] == ["fail", "skipped", "warn", "fail", "skipped"]
    assert (told[0].words, told[0].next) == ("words", "command")
