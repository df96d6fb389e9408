import buckets
import pytest
from faults import Clock, Unlucky
from places import PREFIX

from worldmodels.store import LocalStore
from worldmodels.store.s3.store import S3Store


@pytest.fixture
def folder(tmp_path):
    return LocalStore(tmp_path / "store")


@pytest.fixture
def bucket(endpoint):
    return buckets.open_bucket(endpoint, buckets.fresh_prefix(), lease_seconds=1.0)


@pytest.fixture(params=["folder", "bucket"])
def store(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["folder", "bucket"])
def target(request, tmp_path):
    if request.param == "folder":
        return LocalStore(tmp_path / "target")
    return buckets.open_bucket(request.getfixturevalue("endpoint"), buckets.fresh_prefix())


@pytest.fixture
def unlucky(endpoint):
    """A store of its own whose client fails as planned."""

    def make(**plan):
        clock, fake = Clock(), Unlucky(buckets.client(endpoint), **plan)
        store = S3Store(fake, buckets.BUCKET, PREFIX, clock=clock, sleep=clock.sleep)
        store.calls = fake.calls
        return store

    return make
