"""The promises of every store (a folder, two S3 servers, one of them also under fire), and of folders only."""

import errno
import multiprocessing
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import buckets
import pytest

from worldmodels.errors import Busy, ConfigError, StoreError
from worldmodels.store import LocalStore, Store, open_store

LEASE_SECONDS = 2.0


@pytest.fixture(params=["folder", "endpoint", "moto", "fire"])
def reopen(request, tmp_path) -> Callable[[], Store]:
    """Opens the same store again, in another process if need be."""
    if request.param == "folder":
        return partial(LocalStore, tmp_path / "store")
    url = request.getfixturevalue(request.param)
    return partial(buckets.open_bucket, url, buckets.fresh_prefix(), LEASE_SECONDS)


@pytest.fixture
def store(reopen) -> Store:
    return reopen()


@pytest.fixture
def folder(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_put_overwrites_and_get_returns_none_for_what_is_not_there(store):
    assert store.get("a/b") is None
    store.put("a/b", b"one")
    store.put("a/b", b"two")
    assert store.get("a/b") == b"two"
    store.put("empty", b"")
    assert store.get("empty") == b""


def test_create_never_overwrites(store):
    assert store.create("a", b"first")
    assert not store.create("a", b"second")
    assert store.get("a") == b"first"


def test_of_many_creators_exactly_one_wins(store):
    won: list[int] = []

    def create(i: int) -> None:
        if store.create("key", str(i).encode() * 1000):
            won.append(i)

    threads = [threading.Thread(target=create, args=(i,)) for i in range(32)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(won) == 1
    assert store.get("key") == str(won[0]).encode() * 1000


def test_entries_are_in_key_order_with_size_and_time(store):
    for key in ("r/b", "r/a/c", "r/a.txt", "q"):
        store.put(key, b"12")
    assert [(e.key, e.size) for e in store.entries("r/")] == [("r/a.txt", 2), ("r/a/c", 2), ("r/b", 2)]
    assert [e.key for e in store.entries("r/a")] == ["r/a.txt", "r/a/c"]
    assert list(store.entries("nothing/")) == []
    assert all(abs(store.now() - e.modified) < 5 for e in store.entries(""))
    assert [store.modified(e.key) for e in store.entries("")] == [e.modified for e in store.entries("")]
    assert store.modified("nothing") is None


def test_folders_are_what_has_objects_below(store):
    for key in ("r/b", "r/a/c", "s/d"):
        store.put(key, b"12")
    assert (store.folders("r/"), store.folders(""), store.folders("none/")) == (["a"], ["r", "s"], [])


def test_a_lock_is_not_listed(store):
    with store.lock("run"), store.lock("run/part"):
        assert (list(store.entries("")), store.folders("")) == ([], ["run"])


def test_delete_is_silent_about_what_is_gone(store):
    store.put("a", b"")
    store.delete("a")
    store.delete("a")
    assert store.get("a") is None


def test_follow_shows_the_text_so_far(store):
    for text in (b"one\n", b"one\ntwo\n", b"new\n"):
        store.follow("log", text)
        assert store.get("log") == text


def test_an_uploaded_file_is_read_back(store, tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    store.upload("a/file", tmp_path / "file")
    assert store.get("a/file") == b"content"
    assert store.get("a/other") is None


def test_a_copy_has_the_content_and_later_writes_to_one_spare_the_other(store):
    for key, content in (("a/file", b"one"), ("a/empty", b"")):
        store.put(key, content)
        for _ in "ab":
            store.copy(key, f"b/c/{key}")
        assert store.get(f"b/c/{key}") == content
    store.follow("a/file", b"one, two")
    store.put("b/c/a/empty", b"three")
    assert [store.get(key) for key in ("a/file", "b/c/a/file", "a/empty")] == [b"one, two", b"one", b""]
    store.delete("a/file")
    assert store.get("b/c/a/file") == b"one"


def test_a_copy_of_nothing_is_refused_with_its_name(store):
    with pytest.raises(StoreError, match="cannot copy a/file"):
        store.copy("a/file", "b/file")
    assert store.get("b/file") is None


def _hold(reopen, ready, release) -> None:
    with reopen().lock("run"):
        ready.set()
        release.wait(20)


def test_a_lock_is_held_alone_and_ends_with_its_process(reopen, store):
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(reopen, ready, release))
    holder.start()
    assert ready.wait(20)
    with pytest.raises(Busy, match="run"), store.lock("run"):
        pass
    holder.kill()
    holder.join()
    deadline = time.monotonic() + LEASE_SECONDS + 5
    while True:
        try:
            with store.lock("run"):
                break
        except Busy:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_a_lock_is_given_back(store):
    for _ in range(2):
        with store.lock("run"):
            pass


@pytest.mark.parametrize("uri", ["ftp://x", "s3://", "s3://no name/x"])
def test_unknown_kinds_of_store_are_refused(uri):
    with pytest.raises(ConfigError, match=uri) as caught:
        open_store(uri)
    assert caught.value.next


def test_a_folder_needs_no_boto3():
    code = "import sys, worldmodels.store as s; s.open_store('x'); sys.exit('boto3' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# Only a folder.


def test_follow_appends_so_that_tail_goes_on(folder):
    folder.follow("log", b"one\n")
    with open(folder.root / "log", "rb") as reader:
        assert reader.read() == b"one\n"
        folder.follow("log", b"one\ntwo\n")
        assert reader.read() == b"two\n"


def test_no_temporary_files_are_left(folder, tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    folder.put("a/x", b"")
    folder.create("a/x", b"")
    folder.upload("a/y", tmp_path / "file")
    for _ in "ab":
        folder.copy("a/y", "a/z")
    assert sorted(path.name for path in (folder.root / "a").iterdir()) == ["x", "y", "z"]


def test_temporary_files_are_not_listed(folder):
    folder.put("r/b", b"12")
    (folder.root / "r" / ".b.123").write_bytes(b"half")
    assert [e.key for e in folder.entries("r/")] == ["r/b"]


@pytest.mark.parametrize(
    "action", [lambda s: s.put("k", b""), lambda s: s.create("k", b""), lambda s: s.follow("k", b"")]
)
def test_a_store_that_is_a_file_is_refused_with_its_name(tmp_path, action):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file") as caught:
        action(LocalStore(tmp_path / "file"))
    assert caught.value.next


def test_a_full_disk_is_named(folder):
    with (
        pytest.raises(StoreError, match="cannot write key: the disk is full") as caught,
        folder._errors("write", "key"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.next.startswith("df -h")
