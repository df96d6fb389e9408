"""Copies of runs between stores: data first, manifests last, so that readers find the data of every manifest.

Keys stay, and manifests are copied byte for byte. Not copied: data that no manifest or record names, retired manifests,
heartbeats, the blocks of an unfinished generation (workers drive that generation again), and the settings where to
compute, which earlier versions stored in config.json.
"""

import re
import shlex
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from .. import artifacts, config, stages, stored
from ..artifacts import FileSet, Name, Reading
from ..errors import ConfigError, Conflict, CorruptArtifact, StoreError
from ..store import Entry, LocalStore, Store, bounded, too_large
from .entries import split, works
from .parallel import each

CHECKPOINTS = "checkpoints/"


@dataclass(frozen=True)
class Content:
    """A file that a manifest or a shard's record names."""

    key: str
    size: int
    sha256: str
    name: Name


@dataclass
class CopyPlan:
    """The objects to copy, in their order; `there` are the destination's objects, by key.

    `suspects` exist there and are to be read back; `skipped` exist there and stay.
    """

    run: str
    there: Mapping[str, Entry]
    suspects: dict[str, Content] = field(default_factory=dict)
    contents: dict[str, Content] = field(default_factory=dict)
    configs: list[Entry] = field(default_factory=list)
    latest: list[Entry] = field(default_factory=list)
    once: list[list[Entry]] = field(default_factory=list)
    records: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)

    @property
    def count(self) -> int:
        named = len(self.contents) + len(self.configs) + len(self.latest) + len(self.records) + len(self.manifests)
        return named + sum(map(len, self.once))

    @property
    def bytes(self) -> int:
        small = sum(map(len, (*self.records.values(), *self.manifests.values())))
        listed = sum(entry.size for entry in chain(self.configs, self.latest, *self.once))
        return small + listed + sum(item.size for item in self.contents.values())

    @property
    def bytes_to_check(self) -> int:
        return sum(item.size for item in self.suspects.values())


def check_places(source: Store, target: Store) -> None:
    """Raise ConfigError if both are the same store, or if one is the folder of a run."""
    for store in (source, target):
        if any(set(store.folders(f"{f}/")) & set(stages.STAGES) for f in store.folders("") if f.startswith("iter-")):
            parent, _, run = store.uri.rstrip("/").rpartition("/")
            places = [parent or "." if s is store else s.uri for s in (source, target)]
            raise ConfigError(
                f"{store.uri} is a run; SRC and DST are the stores that runs are in",
                next=f"wm cp {shlex.join(places)} --run {run}",
            )
    if _place(source) == _place(target):
        raise ConfigError(f"{target.uri} is the store to copy from and to copy to", next="wm cp --help")


def _place(store: Store) -> Any:
    return store.root.resolve() if isinstance(store, LocalStore) else (getattr(store, "endpoint", ""), store.uri)


def plan(
    source: Store,
    target: Store,
    run: str,
    *,
    verify: bool = False,
    show: Callable[[str], None] = lambda where: None,
) -> CopyPlan:
    """Plan the copy of a run; raise Conflict if the destination has committed another artifact.

    An object of the right size at the destination counts as copied, since a store has no partial objects. With `verify`
    its content is read back and checked in its turn. `show` receives the current stage.
    """
    found = CopyPlan(run, {entry.key: entry for entry in target.entries(f"{run}/")})
    for iteration in artifacts.iterations(source, run):
        _take_latest(found, source.entries(artifacts.config_key(run, iteration)), found.configs)
        for stage in source.folders(f"{run}/iter-{iteration}/"):
            if stage in stages.STAGES:
                show(f"{run}/iter-{iteration}/{stage}")
                _plan_stage(found, source, target, Name(run, iteration, stage), verify)
    return found


def _plan_stage(found: CopyPlan, source: Store, target: Store, name: Name, verify: bool) -> None:
    for key in artifacts.manifest_keys(source, name):  # before their data, which stays while a manifest names it
        data = source.get(key)
        if data is None:
            continue
        manifest = artifacts.parse_manifest(data, key, source.uri)
        if not _committed(source.uri, target, name, key, manifest):
            found.manifests[key] = data
            _take_contents(found, name, manifest, verify)
        else:
            found.skipped.add(key)
            if verify and target.get(key) == data:  # else it names the files of another attempt
                _take_contents(found, name, manifest, verify)
    for work in works(source, name):
        _plan_records(found, source, name, work, verify)
        _plan_work(found, source, name, name.key(work, ""))
    for folder in ("live/", "logs/", "spent/"):
        _take_latest(found, source.entries(name.key(folder)), found.latest)


def _committed(source: str, target: Store, name: Name, key: str, manifest: Mapping[str, Any]) -> bool:
    """Return whether the destination has this artifact, from any attempt; raise Conflict if it has another digest."""
    there = artifacts.read_manifest(target, key)
    if there is None:
        return False
    ours, theirs = (str(one.get("digest"))[:12] for one in (manifest, there))
    if ours != theirs:
        raise Conflict(
            f"{key} has digest {ours} in {source}, and {theirs} in {target.uri}; another store would keep both",
            next=f"wm show {name} --store {target.uri}",
        )
    return True


def _take_contents(found: CopyPlan, name: Name, manifest: Mapping[str, Any], verify: bool) -> None:
    for file in artifacts.stored_files(manifest):
        key = _inside(found.run, file["key"])
        there, content = found.there.get(key), Content(key, file["size"], file["sha256"], name)
        if there is None or there.size != content.size:
            found.contents[key] = content
        elif verify:
            found.suspects[key] = content
        else:
            found.skipped.add(key)


def _plan_records(found: CopyPlan, source: Store, name: Name, work: str, verify: bool) -> None:
    """Add missing shard records and their files; a record that the destination has stays."""
    keys = [entry.key for entry in source.entries(name.key(work, "shards/"))]
    found.skipped |= found.there.keys() & set(keys)
    for key, data in each(lambda key: (key, source.get(key)), [key for key in keys if key not in found.there]):
        if data is not None:
            found.records[_inside(found.run, key)] = data
            record = artifacts.parse_record(data, key, source.uri)
            _take_contents(found, name, record, verify)


def _plan_work(found: CopyPlan, source: Store, name: Name, prefix: str) -> None:
    patterns = stages.stage(name.stage).resumes
    ordered: list[list[Entry]] = [[] for _ in patterns]
    for entry in source.entries(prefix):
        rest = _inside(found.run, entry.key).removeprefix(prefix)
        if rest.startswith(CHECKPOINTS):
            _take_latest(found, [entry], found.latest)
        for part, pattern in zip(ordered, patterns, strict=True):
            if re.fullmatch(pattern, rest):
                part.append(entry)
    there, new = split(chain.from_iterable(ordered), lambda entry: entry.key in found.there)
    found.skipped |= {entry.key for entry in there}
    found.once += [new] if new else []


def _take_latest(found: CopyPlan, entries: Iterable[Entry], into: list[Entry]) -> None:
    """Add entries that are overwritten in place, unless the destination's is newer, or as old and of the same size.

    Times are compared in whole seconds.
    """
    for entry in entries:
        there = found.there.get(_inside(found.run, entry.key))
        if there is None or (int(there.modified), there.size == entry.size) < (int(entry.modified), True):
            into.append(entry)
        else:
            found.skipped.add(entry.key)


def _inside(run: str, key: str) -> str:
    """Return the key; raise CorruptArtifact if it leads out of the run, where it would be a path in a folder."""
    if not key.startswith(f"{run}/") or set(key.split("/")) & {"", ".", ".."}:
        raise CorruptArtifact(f"the key {key!r} does not belong to run {run}", next=f"wm ls {run}")
    return key


def copy(
    found: CopyPlan, source: Store, target: Store, advance: Callable[[int], None] = lambda bytes: None
) -> list[Content]:
    """Execute the plan; `advance` receives the bytes copied or checked. Return the damaged content.

    Raise CorruptArtifact for a file that differs from its manifest, Conflict if another command has committed another
    manifest meanwhile. A second call with the same stores resumes.
    """
    with tempfile.TemporaryDirectory(prefix="wm-cp-", ignore_cleanup_errors=True) as scratch:
        carrier = Carrier(source, target, Path(scratch))
        phases: list[Iterator[int]] = [
            each(carrier.check, found.suspects.values()),
            each(carrier.content, found.contents.values()),
            each(carrier.config, found.configs),
            each(carrier.latest, found.latest),
            each(carrier.once, found.once),
            each(carrier.record, found.records.items()),
            map(carrier.manifest, found.manifests.items()),
        ]
        for bytes in chain.from_iterable(phases):  # a phase begins after the previous one has ended
            advance(bytes)
        return carrier.damaged


@dataclass(frozen=True)
class Carrier:
    """Copies or checks one item per call and returns its bytes; threads share it."""

    source: Store
    target: Store
    scratch: Path
    damaged: list[Content] = field(default_factory=list)

    def check(self, item: Content) -> int:
        with _folder(self.scratch) as own:
            try:
                _checked(self.target, item, own)
                return item.size
            except CorruptArtifact:
                self.damaged.append(item)
        return self.content(item)

    def content(self, item: Content) -> int:
        with _folder(self.scratch) as own:
            self.target.upload(item.key, _checked(self.source, item, own))
        return item.size

    def config(self, entry: Entry) -> int:
        repair = f"wm run --run {entry.key.partition('/')[0]} --preset demo"
        if remembered := artifacts.read_json(self.source, entry.key, stored.CONFIG, repair):
            self.target.put(entry.key, stored.encode(config.without_personal(remembered), indent=1))
        return entry.size

    def latest(self, entry: Entry) -> int:
        with _folder(self.scratch) as own:
            path = own / "copy"
            with open(path, "xb") as file:
                error = too_large(self.source, entry.key, stored.FILE_BYTES)
                there = self.source.receive(entry.key, bounded(file, stored.FILE_BYTES, error))
            if there:  # else it was removed meanwhile, as old checkpoints are
                self.target.upload(entry.key, path)
        return entry.size

    def once(self, entries: list[Entry]) -> int:
        for entry in entries:
            data = self.source.get(entry.key)
            if data is None:
                raise StoreError(f"{entry.key} was listed and is gone from {self.source.uri}", next="wm ls")
            self.target.create(entry.key, data)
        return sum(entry.size for entry in entries)

    def record(self, item: tuple[str, bytes]) -> int:
        self.target.create(*item)
        return len(item[1])

    def manifest(self, item: tuple[str, bytes]) -> int:
        key, data = item
        if not self.target.create(key, data):
            manifest = artifacts.parse_manifest(data, key, self.source.uri)
            _committed(self.source.uri, self.target, Name.of(key), key, manifest)
        return len(data)


def _checked(store: Store, item: Content, own: Path) -> Path:
    """Return a local file with the content, read from `store`; raise CorruptArtifact if it differs."""
    entry: stored.File = {"key": item.key, "size": item.size, "sha256": item.sha256}
    repair = f"{artifacts.repair_command(item.name)} --store {store.uri}"
    return FileSet(store, Reading(own), str(item.name), {"copy": entry}, repair).path("copy")


@contextmanager
def _folder(scratch: Path) -> Iterator[Path]:
    """Make a folder for one transfer, so that the disk holds only files in transit."""
    with tempfile.TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True) as own:
        yield Path(own)
