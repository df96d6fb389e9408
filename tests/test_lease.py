"""Locks on a bucket, on two S3 servers: who holds one, who is dead, and who may take it."""

import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import buckets
import pytest
from fire import Fire

from worldmodels.errors import Busy, StoreError
from worldmodels.store.s3.store import S3Store


@pytest.fixture(params=["seaweedfs", "moto"])
def endpoint(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def prefix() -> str:
    return buckets.fresh_prefix()


@pytest.fixture
def store(endpoint, prefix) -> S3Store:
    return buckets.open_bucket(endpoint, prefix)


def test_a_dead_holders_lease_ends_and_a_live_ones_does_not(endpoint, prefix):
    open_store = partial(buckets.open_bucket, endpoint, prefix, lease_seconds=2.0)
    with open_store().lock("run"):
        time.sleep(3.5)
        with pytest.raises(Busy, match=r"its lease ends in \d s"), open_store().lock("run"):
            pass


def test_a_lease_whose_holder_was_killed_is_free_at_once_on_its_machine_and_in_a_minute_elsewhere(
    store, endpoint, prefix
):
    code = f"import time, buckets\nwith buckets.open_bucket({endpoint!r}, {prefix!r}).lock('run'): time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)})
    deadline = time.monotonic() + 30
    while not (lease := store.get(".run.lock")):
        assert time.monotonic() < deadline
    holder.kill()
    holder.wait()
    store.put(".run.lock", lease.replace(b'"machine": "', b'"machine": "another '))
    with pytest.raises(Busy, match=r"its lease ends in \d\d s"), store.lock("run"):
        pass
    store.put(".run.lock", lease)
    with store.lock("run"):
        pass


def test_of_many_that_find_a_dead_lease_one_takes_it(endpoint, prefix, store):
    store.put(".run.lock", b'{"holder": "dead", "seconds": -5}')
    held, done = [], threading.Event()

    def take() -> None:
        try:
            with buckets.open_bucket(endpoint, prefix).lock("run"):
                held.append(1)
                done.wait(10)
        except Busy:
            pass
        finally:
            finished.release()

    finished = threading.Semaphore(0)
    threads = [threading.Thread(target=take) for _ in range(8)]
    [t.start() for t in threads]
    [finished.acquire(timeout=10) for _ in threads[:-1]]
    done.set()
    [t.join() for t in threads]
    assert len(held) == 1
    assert store.get(".run.lock") is None


def test_a_server_that_overlooks_conditions_is_refused(moto, prefix):
    with Fire(moto, 0.0, without=frozenset({"if-none-match"})) as fire:
        store = buckets.open_bucket(fire.url, prefix)
        with pytest.raises(StoreError, match="overlooks If-None-Match"), store.lock("run"):
            pass
        assert store.get(".run.lock") is None


def test_a_holder_that_lost_its_lease_does_not_take_it_from_the_next(endpoint, prefix, store, caplog):
    with buckets.open_bucket(endpoint, prefix, lease_seconds=1.0).lock("run"):
        store.put(".run.lock", b'{"holder": "another"}')
        deadline = time.monotonic() + 5
        while "was taken over" not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert store.get(".run.lock") == b'{"holder": "another"}'
