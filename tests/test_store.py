import errno
import multiprocessing
import threading
from pathlib import Path

import pytest

from worldmodels.errors import Busy, ConfigError, StoreError
from worldmodels.store import LocalStore, open_store


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_put_overwrites_and_get_returns_none_for_what_is_not_there(store):
    assert store.get("a/b") is None
    store.put("a/b", b"one")
    store.put("a/b", b"two")
    assert store.get("a/b") == b"two"


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


def test_entries_are_sorted_and_hide_temporary_files(store):
    for key in ("r/b", "r/a/c", "q"):
        store.put(key, b"12")
    (store.root / "r" / ".b.123").write_bytes(b"half")
    assert [(e.key, e.size) for e in store.entries("r/")] == [("r/a/c", 2), ("r/b", 2)]
    assert store.folders("r/") == ["a"]
    assert list(store.entries("nothing/")) == []


def test_delete_is_silent_about_what_is_gone(store):
    store.put("a", b"")
    store.delete("a")
    store.delete("a")
    assert store.get("a") is None


def test_follow_appends_so_that_tail_goes_on(store):
    store.follow("log", b"one\n")
    with open(store.root / "log", "rb") as reader:
        assert reader.read() == b"one\n"
        store.follow("log", b"one\ntwo\n")
        assert reader.read() == b"two\n"
    store.follow("log", b"new\n")
    assert store.get("log") == b"new\n"


def test_upload_and_fetch_give_the_same_bytes(store, tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    store.upload("a/file", tmp_path / "file")
    assert store.fetch("a/file", tmp_path).read_bytes() == b"content"
    assert store.fetch("a/other", tmp_path) is None


def test_no_temporary_files_are_left(store, tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    store.put("a/x", b"")
    store.create("a/x", b"")
    store.upload("a/y", tmp_path / "file")
    assert sorted(path.name for path in (store.root / "a").iterdir()) == ["x", "y"]


@pytest.mark.parametrize(
    "action", [lambda s: s.put("k", b""), lambda s: s.create("k", b""), lambda s: s.follow("k", b"")]
)
def test_a_store_that_is_a_file_is_refused_with_its_name(tmp_path, action):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file") as caught:
        action(LocalStore(tmp_path / "file"))
    assert caught.value.next


def test_a_full_disk_is_named(store):
    with pytest.raises(StoreError, match="cannot write key: the disk is full") as caught, store._errors("write", "key"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.next.startswith("df -h")


def _hold(root: Path, ready, release) -> None:
    with LocalStore(root).lock("run"):
        ready.set()
        release.wait(20)


def test_a_lock_is_held_alone_and_dies_with_its_process(store):
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(store.root, ready, release))
    holder.start()
    assert ready.wait(20)
    with pytest.raises(Busy, match="run"), store.lock("run"):
        pass
    holder.kill()
    holder.join()
    with store.lock("run"):
        pass


def test_unknown_kinds_of_store_are_refused():
    with pytest.raises(ConfigError, match="ftp://x"):
        open_store("ftp://x")
