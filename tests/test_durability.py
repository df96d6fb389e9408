"""A folder on file systems that forget what was not fsynced, or that refuse locks and links."""

import errno
import fcntl
import json
import os
from pathlib import Path

import pytest

from worldmodels import artifacts
from worldmodels.artifacts import Name, publishing
from worldmodels.config import Config
from worldmodels.errors import StoreError
from worldmodels.store import LocalStore


class PowerFailure:
    """Notes what is fsynced. A file survives if it was, and if each folder was after it got its name there."""

    def __init__(self, monkeypatch, root: Path) -> None:
        self._root, self._files, self._folders = root, set(), {}
        fsync = os.fsync

        def noting(descriptor):
            fsync(descriptor)
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            if path.is_dir():
                self._folders[path] = {(each.name, each.stat().st_ino) for each in path.iterdir()}
            else:
                self._files.add(os.fstat(descriptor).st_ino)

        monkeypatch.setattr(os, "fsync", noting)

    def survives(self, path: Path) -> bool:
        named = all(
            (each.name, each.stat().st_ino) in self._folders.get(each.parent, ())
            for each in (path, *path.parents)
            if self._root in each.parents
        )
        return named and path.stat().st_ino in self._files


@pytest.fixture
def power(monkeypatch, tmp_path):
    return PowerFailure(monkeypatch, tmp_path)


def commit(store, tmp_path):
    """A shard, and then a whole artifact of it and of a file."""
    work = artifacts.identity(Name("run", 1, "vae"), Config(), ("vae",), {})
    (tmp_path / "results" / "below").mkdir(parents=True)
    (tmp_path / "results" / "below" / "weights").write_bytes(b"weights")
    publishing.commit_shard(store, work, 0, "attempt", {"frames": b"frames"})
    shards = [json.loads(store.get(work.shard_key(0)))]
    files = publishing.upload(store, work.name, "attempt", tmp_path / "results")
    made = {"finished": "2026-01-01", "seconds": 1.0}
    publishing.commit(store, work, files=files, telemetry={}, shards=shards, resolved={}, made=made)
    return [work.shard_key(0), work.manifest_key]


def named(store, manifests):
    for key in manifests:
        yield key
        for file in artifacts.stored_files(json.loads(store.get(key))):
            yield file["key"]


@pytest.mark.parametrize("made_by_others", ["", "run/iter-1/vae/data", "run/iter-1"])
def test_what_is_committed_survives_a_power_failure_with_all_that_it_names(power, tmp_path, made_by_others):
    """Others may have made the upper folders, and not fsynced them yet."""
    place = tmp_path / "disk" / "store"
    (tmp_path / "disk").mkdir()
    power._folders[tmp_path] = {("disk", (tmp_path / "disk").stat().st_ino)}
    store = LocalStore(place)
    with store.lock("run"):
        if made_by_others:
            (place / made_by_others).mkdir(parents=True)
        keys = list(named(store, commit(store, tmp_path)))
    assert len(keys) == 5
    assert [key for key in keys if not power.survives(place / key)] == []


def test_a_checkpoint_survives_as_well(power, tmp_path):
    store = LocalStore(tmp_path / "store")
    store.put("run/iter-1/vae/work/checkpoints/1.npz", b"state")
    assert power.survives(tmp_path / "store/run/iter-1/vae/work/checkpoints/1.npz")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_refused_by_name(monkeypatch, tmp_path, number):
    def flock(file, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    store = LocalStore(tmp_path / "store")
    with pytest.raises(StoreError, match=r"its file system has no locks.*use a folder on another one") as caught:
        store.lock("run").__enter__()
    assert caught.value.next == f"findmnt -T {tmp_path}/store"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_hard_links_is_refused_by_name(monkeypatch, tmp_path, number):
    def link(source, target, **folders):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    store = LocalStore(tmp_path / "store")
    with pytest.raises(StoreError, match="its file system has no hard links") as caught:
        store.create("a/b", b"once")
    assert caught.value.next == f"findmnt -T {tmp_path}/store"
    assert not list((tmp_path / "store" / "a").iterdir())


def test_scratch_needs_no_locks(monkeypatch, tmp_path):
    from worldmodels.store.disk_cache import scratch

    def flock(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with scratch("vae", tmp_path) as folder:
        assert folder.is_dir()
    assert not folder.exists()


def test_a_folder_that_cannot_be_fsynced_is_no_error(monkeypatch, tmp_path):
    """As on some network file systems, which keep folders safe themselves."""
    fsync = os.fsync

    def refusing(descriptor):
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refusing)
    store = LocalStore(tmp_path / "store")
    assert store.create("a/b", b"once") and store.get("a/b") == b"once"
