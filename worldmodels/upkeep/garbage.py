"""Garbage in a store, and its removal.

`survey` lists data first, then reads manifests and records; only listed data is garbage, so a commit in between loses
nothing. Never touched: manifests in use, shard records, checkpoints, generations, live/, logs/, spent/.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from .. import artifacts, runner, stages, stored
from ..artifacts import Identity, Name
from ..config import Config
from ..errors import CorruptArtifact, WmError
from ..planning import Task, TaskState
from ..store import Entry, Leftover, Store, process_identity
from ..stored import Manifest, Record
from .entries import split, works
from .parallel import each
from .store_checks import CORNER

# Ten beats of `runner.Heartbeat`: a process that is suspended for longer counts as dead.
LIVE_SECONDS = 600.0
AT_ONCE = 1000


@dataclass(frozen=True)
class Garbage:
    """Removable objects of one place, and the reason."""

    where: str
    why: str
    keys: tuple[str, ...]
    bytes: int
    leftovers: tuple[Leftover, ...] = ()

    @property
    def count(self) -> int:
        return len(self.keys) + len(self.leftovers)


@dataclass(frozen=True)
class Kept:
    """Objects that stay although no artifact needs them, and the reason."""

    where: str
    why: str
    count: int
    bytes: int


@dataclass
class Survey:
    garbage: list[Garbage] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)


@dataclass(frozen=True)
class Ages:
    """Ages by the store's clock; objects younger than `horizon` seconds stay."""

    store: Store
    horizon: float

    def old(self, modified: float) -> bool:
        return self.horizon == 0 or self.store.now() - modified >= self.horizon  # clocks may tick in whole seconds


def survey(store: Store, run: str, horizon: float, *, show: Callable[[str], None] = lambda where: None) -> Survey:
    """Return a run's garbage, and objects that stay although they seem unused. `show` receives each stage's name."""
    found, ages = Survey(), Ages(store, horizon)
    live: set[str] = set()
    for iteration in artifacts.iterations(store, run):
        for stage in store.folders(f"{run}/iter-{iteration}/"):
            if stage in stages.STAGES:
                show(f"{run}/iter-{iteration}/{stage}")
                live |= _stage(store, Name(run, iteration, stage), ages, found)
    leftovers = [left for left in store.leftovers(f"{run}/") if not live & set(left.key.split("/"))]
    found.garbage += _leftovers(leftovers, ages)
    return found


def outside(store: Store, horizon: float) -> Survey:
    """Return garbage outside of runs: locks on runs that are gone, files of killed `wm doctor`s."""
    ages, present = Ages(store, horizon), set(store.folders(""))
    lost = [left for left in store.leftovers("") if left.key.split("/")[0] not in present]
    corners = [entry for entry in store.entries(CORNER) if ages.old(entry.modified)]
    return Survey([*_leftovers(lost, ages), *_by_folder(corners, "of a `wm doctor` that was killed", depth=1)])


def remove(store: Store, found: Survey, *, advance: Callable[[int], None] = lambda count: None) -> None:
    """Remove a survey's garbage, a thousand objects at a time; `advance` receives the number of each removal."""
    for garbage in found.garbage:
        for start in range(0, len(garbage.keys), AT_ONCE):
            some = garbage.keys[start : start + AT_ONCE]
            store.delete_many(some)
            advance(len(some))
        for leftover in garbage.leftovers:
            store.discard(leftover)
            advance(1)


def _stage(store: Store, name: Name, ages: Ages, found: Survey) -> set[str]:
    """Add a stage's garbage and kept objects to `found`; return its active attempts."""
    data = list(store.entries(name.key("data/")))  # before the manifests and records that may name it
    live, dead = _attempts(store, name)
    manifests = artifacts.manifests(store, name)
    retired = list(store.entries(name.key("retired/")))
    unnamed = _without(data, manifests)
    if unnamed:
        unnamed = _without(unnamed, _records(store, name))
    under_way, idle = split(unnamed, lambda entry: _attempt(name, entry) in live)
    old, young = split(idle, lambda entry: ages.old(entry.modified))
    retired_long, retired_lately = split(retired, lambda entry: ages.old(entry.modified))
    try:
        gone, doubtful = _without(old, _read(store, retired_lately)), []
    except CorruptArtifact:
        gone, doubtful = [], old
    found.garbage += _by_folder(gone, "nothing names it any more", depth=5)
    found.garbage += _by_folder(retired_long, "taken out of use by --redo", depth=4)
    found.garbage += _by_folder(dead, "heartbeats of attempts that are dead", depth=4)
    found.kept += _kept(name.key("data"), "of attempts under way", under_way)
    found.kept += _kept(name.key("data"), "too young", young)
    found.kept += _kept(name.key("data"), "what was retired lately cannot be read, and may name it", doubtful)
    found.kept += _superseded(store, name, manifests)
    return live


def _attempt(name: Name, entry: Entry) -> str:
    return entry.key.removeprefix(name.key("data/")).partition("/")[0]


def _attempts(store: Store, name: Name) -> tuple[set[str], list[Entry]]:
    """Return the stage's active attempts, and the heartbeats of dead ones."""
    live: set[str] = set()
    dead: list[Entry] = []
    for beat in store.entries(runner.alive_key(name, "")):
        if store.now() - beat.modified < LIVE_SECONDS and not _ended(store.get(beat.key)):
            live.add(beat.key.rpartition("/")[2])
        else:
            dead.append(beat)
    return live, dead


def _ended(beat: bytes | None) -> bool:
    """Return whether a heartbeat's process has certainly ended: it ran on this machine, and no longer does."""
    return process_identity.ended(stored.advice(beat, stored.SIGNATURE) or {})


def _without(entries: list[Entry], manifests: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """Return the entries that no manifest (or record) names."""
    named = {file["key"] for manifest in manifests for file in artifacts.stored_files(manifest)}
    return [entry for entry in entries if entry.key not in named]


def _read(store: Store, entries: Iterable[Entry]) -> Iterator[Manifest]:
    for entry in entries:
        if manifest := artifacts.read_manifest(store, entry.key):
            yield manifest


def _records(store: Store, name: Name) -> Iterator[Record]:
    """Yield every shard's record, from all workspaces of the stage."""
    keys = [entry.key for work in works(store, name) for entry in store.entries(name.key(work, "shards/"))]
    for record in each(lambda key: artifacts.read_record(store, key), keys):
        if record:
            yield record


def _by_folder(entries: Iterable[Entry], why: str, depth: int) -> list[Garbage]:
    """Return one Garbage per folder, `depth` names deep; the entries are in key order."""
    groups = groupby(entries, key=lambda entry: "/".join(entry.key.split("/")[:depth]))
    return [_garbage(where, why, list(some)) for where, some in groups]


def _garbage(where: str, why: str, entries: list[Entry]) -> Garbage:
    return Garbage(where, why, tuple(entry.key for entry in entries), sum(entry.size for entry in entries))


def _leftovers(found: Iterable[Leftover], ages: Ages) -> list[Garbage]:
    return [
        Garbage(left.key, left.kind, (), left.size, (left,))
        for left in sorted(found, key=lambda left: (left.key, left.id))
        if ages.old(left.modified)
    ]


def _kept(where: str, why: str, entries: list[Entry]) -> list[Kept]:
    return [Kept(where, why, len(entries), sum(entry.size for entry in entries))] if entries else []


def _superseded(store: Store, name: Name, manifests: list[dict[str, Any]]) -> list[Kept]:
    """Return workspaces that neither artifacts nor the run's config continue; empty if that is unknown."""
    there = works(store, name)
    needed = {Identity(name, m["config"], m["extent"], m["inputs"]).work for m in manifests}
    if not set(there) - needed:
        return []
    try:
        found = artifacts.read_json(store, artifacts.config_key(name.run, name.iteration), stored.CONFIG, "wm config")
        if found is not None:
            task = Task(name.run, name.iteration, name.stage, Config.model_validate(found["config"]))
            needed.add(TaskState(store, task).identity.work)
    except (WmError, ValueError, KeyError):  # inputs that are being made again; a config of another version
        return []
    kept = []
    for work in there:
        if work not in needed:
            kept += _kept(name.key(work), "superseded work", list(store.entries(name.key(work, ""))))
    return kept
