"""The recipes of docs/extending.md for parts: the page's own code, in whole runs of the real commands."""

import itertools
import json
import os
import re
import runpy
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import test_store
from command import Wm

from worldmodels import artifacts, parts
from worldmodels.artifacts import Name, publishing
from worldmodels.config import Architecture, resolve
from worldmodels.control.evolution import Evolution, Settings
from worldmodels.envs.car_racing import SPEC
from worldmodels.errors import Busy, ConfigError, StoreError
from worldmodels.networks import build
from worldmodels.store import Entry, Leftover, Store

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
MODULES = re.compile(r"^ *`worldmodels/([a-z_/]+)\.py`:$\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINES = re.compile(r'`([A-Z]+)` in `worldmodels/parts\.py`:\n\n```python\n("[\w-]+"): ("[\w.:]+"),\n```')


ADDS = """
import importlib.util, sys

class Page:
    @staticmethod
    def find_spec(name, path, target=None):
        file = MODULES.get(name)
        return importlib.util.spec_from_file_location(name, file) if file else None

sys.meta_path.insert(0, Page)
from worldmodels import parts
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH: every process of a command has the page's modules and lines, as if they were written."""
    folder, modules = tmp_path_factory.mktemp("extended"), {}
    for path, code in MODULES.findall(PAGE):
        file = folder / f"{Path(path).name}.py"
        file.write_text(code)
        modules["worldmodels." + path.replace("/", ".")] = str(file)
    lines = [f"parts.{table}[{name}] = {where}" for table, name, where in LINES.findall(PAGE)]
    (folder / "sitecustomize.py").write_text("\n".join([f"MODULES = {modules}", ADDS, *lines]))
    return folder


@pytest.fixture
def mine(extended: Path, make_wm: Callable[..., Wm]) -> Wm:
    return make_wm(PYTHONPATH=os.pathsep.join([str(extended), os.environ.get("PYTHONPATH", "")]))


@pytest.fixture
def added(extended: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same in this process."""
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[:])
    tables = (parts.ENVIRONMENTS, parts.CONTROLLERS, parts.STRATEGIES)
    before = [dict(table) for table in tables]
    runpy.run_path(str(extended / "sitecustomize.py"))
    yield
    for table, lines in zip(tables, before, strict=True):
        table.clear()
        table.update(lines)


def test_the_page_has_a_module_and_a_line_for_each_part() -> None:
    assert [path for path, _ in MODULES.findall(PAGE)] == ["envs/reach", "networks/unbiased", "control/best_of"]
    assert [table for table, _, _ in LINES.findall(PAGE)] == ["ENVIRONMENTS", "CONTROLLERS", "STRATEGIES"]


def test_a_whole_run_with_an_environment_a_controller_and_a_strategy_of_ones_own(mine: Wm) -> None:
    options = ("env=Reach-v0", "controller.network=unbiased", "controller.strategy=best-of", "controller.generations=6")
    mine.ok(*itertools.chain.from_iterable(("-o", option) for option in options))
    controller = json.loads(mine("show", "controller", "--json").stdout)["manifests"][-1]
    chosen = {key: value for key, value in controller["config"].items() if key in ("env", "controller.network")}
    assert chosen == {"env": "Reach-v0", "controller.network": "unbiased"}
    assert np.load(mine.store / controller["files"]["mean.npy"]["key"]).shape == (2 * 8,)
    scores = json.loads(mine("evaluate", "--seeds", "300000000:300000004", "--json").stdout)
    assert scores["env"] == "Reach-v0" and {row["tiles_total"] for row in scores["scores"]} == {10}
    page = (mine.store / "tiny/iter-1/report/live/report.html").read_text()
    assert "cannot be made" not in page and "Not here yet" not in page
    mine.ok("rollouts", "--iteration", "2")
    unseen = mine("evaluate", "--seeds", "300000000:300000001", "--renderer", "gymnasium")
    assert unseen.returncode == 43 and "renderers: fast" in unseen.stderr
    refused = mine.run("rollouts", "--iteration", "2", "-o", "env=CarRacing-v3", "--redo")
    assert refused.returncode == 10
    assert "tiny/iter-1/vae was made with env = 'Reach-v0'" in refused.stderr and "-o env=Reach-v0" in refused.stderr


def test_a_part_that_there_is_not_is_named_with_those_that_there_are() -> None:
    for setting, known in (
        ("env", "CarRacing-v3"),
        ("controller.network", "layers"),
        ("controller.strategy", "cma-es"),
    ):
        with pytest.raises(ConfigError, match=rf"{setting} = 'os:system'.*known: {known}"):
            resolve("demo", (), [f"{setting}=os:system"])


def test_random_actions_and_squashed_ones_are_those_of_the_environment(added: None) -> None:
    spec = parts.load(parts.ENVIRONMENTS, "Reach-v0")
    actions = spec.random_actions(np.random.default_rng(0), 50, 8.0)
    assert actions.shape == (50, spec.actions) and actions.dtype == np.float32
    z, h = np.zeros((3, 4), np.float32), np.zeros((3, 2), np.float32)
    for env in (spec, SPEC):
        c = build(env, Architecture(), 4, 2)
        assert c.act(np.ones((3, c.parameters), np.float32), z, h).shape == (3, env.actions)


def test_a_controllers_row_does_not_depend_on_its_batch(added: None) -> None:
    rng, c = np.random.default_rng(1), build(SPEC, Architecture(network="unbiased"), 32, 256)
    params, z, h = (rng.standard_normal((9, n), dtype=np.float32) for n in (c.parameters, 32, 256))
    alone = [c.act(params[i : i + 1], z[i : i + 1], h[i : i + 1]) for i in range(9)]
    assert np.array_equal(c.act(params, z, h), np.concatenate(alone))


def test_a_strategy_repeats_bit_for_bit_and_improves(added: None) -> None:
    def course() -> tuple[list[bytes], np.ndarray]:
        evolution, found = Evolution(Settings(1, 10, 16, 1, 0.1, strategy="best-of")), []
        for _ in range(40):
            candidates = evolution.ask(1)
            evolution.tell(candidates, [-float(((x - 1) ** 2).sum()) for x in candidates])
            found.append(candidates.tobytes())
        return found, evolution.mean

    (first, mean), (second, _) = course(), course()
    assert first == second and ((mean - 1) ** 2).sum() < 2


class MemoryStore:
    """Objects in a dict of this process."""

    uri, publish_seconds, local = "memory://", 0.0, True

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, float]] = {}
        self._held: set[str] = set()
        self._alone = threading.Lock()

    def get(self, key: str) -> bytes | None:
        return self._objects[key][0] if key in self._objects else None

    def receive(self, key: str, sink: IO[bytes]) -> bool:
        if (data := self.get(key)) is not None:
            sink.write(data)
        return data is not None

    def put(self, key: str, data: bytes) -> None:
        self._objects[key] = (bytes(data), self.now())

    def create(self, key: str, data: bytes) -> bool:
        with self._alone:
            if key in self._objects:
                return False
            self.put(key, data)
            return True

    def upload(self, key: str, path: Path) -> None:
        self.put(key, path.read_bytes())

    def copy(self, source: str, target: str) -> None:
        if (data := self.get(source)) is None:
            raise StoreError(f"cannot copy {source}: it is not there")
        self.put(target, data)

    def follow(self, key: str, data: bytes) -> None:
        self.put(key, data)

    def entries(self, prefix: str) -> Iterator[Entry]:
        found = sorted(item for item in self._objects.items() if item[0].startswith(prefix))
        return (Entry(key, len(data), at) for key, (data, at) in found)

    def folders(self, prefix: str) -> list[str]:
        below = (key.removeprefix(prefix) for key in self._objects if key.startswith(prefix))
        return sorted({key.partition("/")[0] for key in below if "/" in key})

    def modified(self, key: str) -> float | None:
        return self._objects[key][1] if key in self._objects else None

    def delete(self, key: str) -> None:
        self._objects.pop(key, None)

    def delete_many(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.delete(key)

    def leftovers(self, prefix: str) -> Iterator[Leftover]:
        return iter(())

    def discard(self, leftover: Leftover) -> None: ...

    def now(self) -> float:
        return time.time()

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        with self._alone:
            if name in self._held:
                raise Busy(f"{name} is held")
            self._held.add(name)
        try:
            yield
        finally:
            self._held.discard(name)


PROMISES = [
    test_store.test_put_overwrites_and_get_returns_none_for_what_is_not_there,
    test_store.test_create_never_overwrites,
    test_store.test_of_many_creators_exactly_one_wins,
    test_store.test_entries_are_in_key_order_with_size_and_time,
    test_store.test_delete_is_silent_about_what_is_gone,
    test_store.test_follow_shows_the_text_so_far,
    test_store.test_a_copy_has_the_content_and_later_writes_to_one_spare_the_other,
    test_store.test_a_copy_of_nothing_is_refused_with_its_name,
    test_store.test_a_lock_is_given_back,
]


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_a_store_keeps_the_promises(promise: Callable[[Store], None]) -> None:
    promise(MemoryStore())


def test_a_store_holds_files_and_locks(tmp_path: Path) -> None:
    store: Store = MemoryStore()
    test_store.test_an_uploaded_file_is_read_back(store, tmp_path)
    with store.lock("run"), pytest.raises(Busy), store.lock("run"):
        pass


def test_an_artifact_is_committed_to_a_store_and_read_back(tmp_path: Path) -> None:
    store: Store = MemoryStore()
    work = artifacts.identity(Name("run", 1, "vae"), resolve("demo")[0], ("vae",), {})
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "weights").write_bytes(b"content")
    files = publishing.upload(store, work.name, "attempt", tmp_path / "results")
    made = {"finished": "now"}
    manifest = publishing.commit(store, work, files=files, telemetry={}, shards=[], resolved={}, made=made)
    assert artifacts.load(store, work.name, manifest, tmp_path / "scratch").path("weights").read_bytes() == b"content"
