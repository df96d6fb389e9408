"""Feeding training: bounded memory and disk, reading ahead, and what goes wrong on the way."""

import hashlib
import os
import sys
import threading
import tracemalloc
from pathlib import Path
from subprocess import PIPE, Popen

import buckets
import numpy as np
import pytest
from fakes import rollouts
from faults import Clock, Unlucky, fine, refused

from worldmodels import mmap_array
from worldmodels.artifacts import FileSet, Reading, Shard, digest
from worldmodels.context import ProgressReporter
from worldmodels.errors import CorruptArtifact, Stopped, StoreError
from worldmodels.rollouts import episodes
from worldmodels.store import LocalStore
from worldmodels.store.disk_cache import ALIVE, Disk, scratch
from worldmodels.store.s3.store import CHUNK_BYTES, PARTS_AT_ONCE, S3Store
from worldmodels.training import stream as data


def held(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def shards(store, reading, contents):
    """Shards of one file, `x`, each."""
    for key, content in contents.items():
        store.put(key, content)
    entries = [{"x": {"key": k, "size": len(c), "sha256": digest(c)}} for k, c in contents.items()]
    return [Shard(i, "", FileSet(store, reading, f"shard {i}", e, "wm again")) for i, e in enumerate(entries)]


# On disk.


def test_the_disk_holds_no_more_than_its_limit_and_what_was_used_last(tmp_path):
    disk = Disk(tmp_path, 25)
    for key in ("a", "b"):
        disk.put(key, key.encode() * 10)
    disk.get("a")
    disk.put("c", b"c" * 10)
    assert [key for key in "abc" if disk.get(key)] == ["a", "c"]
    disk.put("larger than all", bytes(26))
    assert held(tmp_path) == 20


def test_threads_that_share_a_small_disk_read_what_was_put(tmp_path):
    disk, wrong = Disk(tmp_path, 10_000), []

    def use(seed):
        for number in np.random.default_rng(seed).integers(0, 20, 200).tolist():
            wrong.extend([number] if disk.get(str(number)) not in (None, bytes([number]) * 2000) else [])
            disk.put(str(number), bytes([number]) * 2000)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not wrong and held(tmp_path) <= 10_000


def test_a_full_disk_names_the_folder_and_the_setting(tmp_path):
    (tmp_path / hashlib.sha256(b"key").hexdigest()).symlink_to("/dev/full")
    with pytest.raises(StoreError, match=r"cannot keep a copy of key in .*: No space left on device") as caught:
        Disk(tmp_path, 2**20).put("key", b"data")
    assert caught.value.next == "wm run -o execution.disk_mb=0" and held(tmp_path) == 0


def test_a_closed_disk_writes_no_more(tmp_path):
    with Disk(tmp_path, 100) as disk:
        disk.put("a", b"a")
    disk.put("b", b"b")
    assert held(tmp_path) == 1


HOLD = """
import sys, pathlib, worldmodels.store.disk_cache as disk
with disk.scratch("x", pathlib.Path(sys.argv[1])) as folder:
    print(folder, flush=True)
    input()
"""


def test_the_folder_of_a_killed_process_is_removed_when_another_begins(tmp_path):
    held = [Popen([sys.executable, "-c", HOLD, tmp_path], stdin=PIPE, stdout=PIPE, text=True) for _ in range(2)]
    dead, alive = (Path(process.stdout.readline().strip()) for process in held)
    held[0].kill()
    held[0].communicate()
    for folder in (dead, alive):
        os.utime(folder / ALIVE, (0, 0))
    with scratch("y", tmp_path) as fresh:
        assert set(tmp_path.iterdir()) == {alive, fresh}
    held[1].communicate("\n")
    assert list(tmp_path.iterdir()) == []


# From the store.


@pytest.fixture
def far(endpoint):
    """A bucket whose requests are counted."""
    client = Unlucky(buckets.client(endpoint))
    store = S3Store(client, buckets.BUCKET, buckets.fresh_prefix())
    store.calls = client.calls
    return store


def test_what_the_disk_has_is_not_fetched_again(far, tmp_path):
    four = shards(far, Reading(tmp_path, Disk(tmp_path, 25)), {key: key.encode() * 10 for key in "abcd"})
    for _ in range(2):
        assert [shard.read("x")[:1] for shard in four[2:]] == [b"c", b"d"]
    assert far.calls.count("get_object") == 2
    assert [shard.read("x")[:1] for shard in four] == [b"a", b"b", b"c", b"d"]
    assert far.calls.count("get_object") == 6 and held(tmp_path) == 20


def test_a_copy_that_changed_on_disk_is_fetched_again(far, tmp_path):
    (shard,) = shards(far, Reading(tmp_path, Disk(tmp_path, 100)), {"a": b"right"})
    shard.read("x")
    next(tmp_path.iterdir()).write_bytes(b"wrong")
    assert shard.read("x") == b"right" == shard.read("x")
    assert far.calls.count("get_object") == 2


def test_a_folder_is_read_where_it_is(tmp_path):
    (shard,) = shards(LocalStore(tmp_path / "store"), Reading(tmp_path / "scratch"), {"a": b"data"})
    assert shard.read("x") == b"data" and not (tmp_path / "scratch").exists()


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_bytes_that_are_gone_or_changed_are_told_by_name(place, request, tmp_path):
    store = LocalStore(tmp_path / "store") if place == "folder" else request.getfixturevalue("far")
    gone, changed, cut = shards(store, Reading(tmp_path), {"k/gone": b"12", "k/changed": b"12", "k/cut": b"12"})
    store.delete("k/gone")
    store.put("k/changed", b"21")
    store.put("k/cut", b"1")
    for shard, words in ((gone, "k/gone is gone"), (changed, "k/changed has changed"), (cut, "k/cut has 1 bytes")):
        with pytest.raises(CorruptArtifact, match=f"shard {shard.index}: .*{words}") as caught:
            shard.read("x")
        assert caught.value.next == "wm again"


def test_a_pool_that_cannot_be_read_ends_the_stream_with_its_error(endpoint, tmp_path):
    clock = Clock()
    client = Unlucky(buckets.client(endpoint), get_object=[fine, fine, *[refused("SlowDown", 503)] * 999])
    store = S3Store(client, buckets.BUCKET, buckets.fresh_prefix(), clock=clock, sleep=clock.sleep)
    found = shards(store, Reading(tmp_path), {key: bytes(8) for key in "abcd"})
    cache = data.Cache(lambda i: np.frombuffer(found[i].read("x"), np.uint8), len, 0)
    stream = data.Prefetch(data.batches(cache, 4, per_pool=2, batch=4, epochs=1, seed=1))
    with pytest.raises(StoreError, match="SlowDown"):
        list(stream)


def test_arriving_bytes_are_a_sign_of_life(far, tmp_path):
    reporter, heard = ProgressReporter(None), []
    hear = lambda: (reporter.touch(), heard.append(reporter.beat))  # noqa: E731
    (shard,) = shards(far, Reading(tmp_path, heard=hear), {"a": bytes(2**20)})
    before = reporter.beat
    shard.read("x")
    assert len(heard) >= 2**20 / CHUNK_BYTES and reporter.beat > before


def test_parts_go_a_few_at_once(endpoint, tmp_path):
    now, most, lock = [0], [0], threading.Lock()

    def slowly(call):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        try:
            return call()
        finally:
            with lock:
                now[0] -= 1

    client, path = Unlucky(buckets.client(endpoint), upload_part=[slowly] * 9), tmp_path / "large"
    path.write_bytes(bytes(range(250)) * (9 * 20 * 1024))
    store = S3Store(client, buckets.BUCKET, buckets.fresh_prefix(), part_bytes=5 * 2**20)
    store.upload("large", path)
    assert 1 < most[0] <= PARTS_AT_ONCE
    assert store.get("large") == path.read_bytes()


# Ahead of training.


def counted(limit, size=10):
    decoded = []
    return decoded, data.Cache(lambda i: decoded.append(i) or np.zeros(size, np.uint8), len, limit)


def test_the_shards_of_a_pool_are_read_side_by_side_and_come_in_order():
    together = threading.Barrier(data.READERS, timeout=20)
    cache = data.Cache(lambda i: (together.wait(), i)[1], lambda i: 1, 100)
    assert cache(range(2 * data.READERS)) == [*range(2 * data.READERS)]


def test_a_pass_over_all_shards_drops_none_that_is_kept():
    decoded, cache = counted(limit=40)
    cache([0, 1])
    assert len(list(cache.each(range(10)))) == 10
    cache([0, 1])
    assert decoded.count(0) == decoded.count(1) == 1


def test_no_more_is_worked_on_than_was_asked_for():
    begun = []
    items = data.ahead(range(100), begun.append, 3)
    next(items)
    assert len(begun) <= 4


def test_rows_of_arrays_are_those_of_the_arrays_put_together():
    arrays = [np.arange(n * 2).reshape(n, 2) + 100 * n for n in (3, 1, 5)]
    rows = np.random.default_rng(0).permutation(9)
    assert np.array_equal(data.gather(arrays, rows), np.concatenate(arrays)[rows])


def test_the_order_of_the_data_is_what_earlier_artifacts_were_made_with():
    arrays = [np.stack([np.full(n, i), np.arange(n)], 1) for i, n in enumerate((7, 9, 5, 8, 6))]
    batches = data.batches(lambda s: [arrays[i] for i in s], 5, per_pool=2, batch=4, epochs=2, seed=1)
    assert digest(repr([frames.tolist() for frames, _ in batches]).encode())[:12] == "f8b8be33d5c2"


def peak(count):
    """Bytes at most while so many shards of a megabyte are streamed."""
    cache = data.Cache(lambda i: np.full((100, 100, 100), i, np.uint8), lambda found: found.nbytes, 12 * 10**6)
    tracemalloc.start()
    for _ in data.Prefetch(data.batches(cache, count, per_pool=4, batch=50, epochs=1, seed=1)):
        pass
    try:
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_200_mb_stream_through_a_cache_of_12_mb_two_pools_of_4_and_a_few_batches():
    assert peak(200) < 24 * 10**6


@pytest.mark.parametrize("count", [10, 100_000])
def test_a_mapped_array_is_an_array(count):
    array = np.arange(count, dtype=np.float32).reshape(-1, 5)
    found = mmap_array.copy(array)
    assert np.array_equal(found, array) and found.flags.writeable and not np.shares_memory(found, array)


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_mapped_array_goes_back_to_the_system_though_others_stay():
    arrays = [mmap_array.copy(np.ones(2**20, np.uint8)) for _ in range(100)]
    before = resident()
    del arrays[::2]
    assert before - resident() > 45 * 2**20


def test_frames_are_those_of_the_episodes(tmp_path):
    (shard,) = rollouts(tmp_path / "shards", shards=1, episodes=3).shards
    assert np.array_equal(episodes.frames(shard), np.concatenate([e.frames for e in episodes.read(shard, 3)]))


# Waiting.


def test_a_waiting_caller_is_asked_now_and_then():
    def refuse():
        raise Stopped("asked")

    come = threading.Event()
    stream = data.Prefetch(iter(come.wait, True), waiting=refuse)
    with pytest.raises(Stopped, match="asked"):
        next(stream)
    come.set()
    stream.close()
