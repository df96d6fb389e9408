"""Verification of committed objects: `verify` reads all of them and changes nothing.

Committed are manifests and the files that they name, shards' records and theirs, an evolution's generations, and the
settings of a run's last start; checkpoints are read as well. Logs, live tables and heartbeats are not committed: no
manifest or record defines their content.
"""

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any, cast

from .. import artifacts, npz, stages, stored
from ..artifacts import Identity, Name
from ..control import components, warm_start
from ..control.records import BlockResult, Generation, unpack
from ..errors import CorruptArtifact, MissingInput
from ..store import GET_BYTES, Store, bounded, read, too_large
from .entries import works
from .parallel import each

RESULT = re.compile(r"(generations/[0-9]{5}/)results/([0-9]{5,6})")
SHARED = {components.KEY: components.Components._fields, warm_start.KEY: ("parameters",)}  # and their arrays
Check = tuple[str, Callable[[], int]]  # a key, and a function that returns its size or raises CorruptArtifact


@dataclass(frozen=True)
class Damage:
    """A damaged object: its key, and the kind of damage."""

    key: str
    why: str


@dataclass
class Verdict:
    """The result for one run: the objects and bytes read, and the damage."""

    objects: int = 0
    bytes: int = 0
    damage: list[Damage] = field(default_factory=list)


def verify(store: Store, run: str, *, show: Callable[[str], None] = lambda words: None) -> Verdict:
    """Read a run's committed objects; `show` receives the present place and the megabytes read so far."""
    found = Verdict()
    for where, checks in _places(store, run):
        for result in each(_verdict, _listed(where, checks)):
            if result is None:
                continue
            found.objects += 1
            if isinstance(result, Damage):
                found.damage.append(result)
            else:
                found.bytes += result
            show(f"{where}  {found.bytes / 1e6:.1f} MB")
    found.damage.sort(key=lambda damage: damage.key)
    return found


def _places(store: Store, run: str) -> Iterator[tuple[str, Iterable[Check]]]:
    for iteration in artifacts.iterations(store, run):
        where = f"{run}/iter-{iteration}"
        yield where, _config(store, run, iteration)
        for stage in store.folders(f"{where}/"):
            if stage in stages.STAGES:
                name = Name(run, iteration, stage)
                yield str(name), _committed(store, name)
                for work in works(store, name):
                    yield str(name), _work(store, name, work)


def _listed(where: str, checks: Iterable[Check]) -> list[Check]:
    """List the checks; if the listing itself fails, add a check that raises its error."""
    found = []
    try:
        for check in checks:
            found.append(check)
    except CorruptArtifact as error:
        found.append((where, partial(_fail, error)))
    return found


def _fail(error: CorruptArtifact) -> int:
    raise error


def _verdict(check: Check) -> Damage | int | None:
    """Return the object's size, its damage, or None if the store leaves it out (`store/packaged.py`)."""
    key, look = check
    try:
        return look()
    except CorruptArtifact as error:
        return Damage(key, error.message)
    except MissingInput:
        return None


def _config(store: Store, run: str, iteration: int) -> Iterator[Check]:
    for entry in store.entries(artifacts.config_key(run, iteration)):
        yield entry.key, partial(_read, store, entry.key, partial(_json, stored.CONFIG), stored.CONFIG.limit)


def _committed(store: Store, name: Name) -> Iterator[Check]:
    """Yield the checks of a stage's manifests and their files."""
    files: dict[str, Mapping[str, Any]] = {}
    for key in artifacts.manifest_keys(store, name):
        yield (
            key,
            partial(_read, store, key, partial(_manifest, store, key), stored.JSON_BYTES),
        )
    for manifest in artifacts.examined(store, name)[0]:
        files |= {file["key"]: file for file in artifacts.stored_files(manifest)}
    for key, file in files.items():
        yield key, partial(_file, store, file)


def _manifest(store: Store, key: str, data: bytes, label: str) -> None:
    artifacts.parse_manifest(data, key, store.uri)


def _work(store: Store, name: Name, work: str) -> Iterator[Check]:
    """Yield the checks of a workspace: shard records and their files, an evolution's objects, checkpoints."""
    prefix, blocks = name.key(work, ""), {}
    for entry in store.entries(prefix):
        key, rest = entry.key, entry.key.removeprefix(prefix)
        of_block = RESULT.fullmatch(rest)
        if rest.startswith("shards/"):
            yield from _record(store, key)
        elif rest.startswith("checkpoints/"):
            yield key, partial(_read, store, key, lambda data, label: npz.load(data), stored.FILE_BYTES)
        elif rest.startswith("generations/") and rest.endswith("/params"):
            blocks[rest.removesuffix("params")] = key
            yield key, partial(_read, store, key, partial(_generation, rest))
        elif of_block:
            yield key, partial(_read, store, key, partial(_result, store, blocks.get(of_block[1], ""), rest))
        elif rest.startswith("final/"):
            yield key, partial(_read, store, key, partial(_final, rest))
        elif rest == "settings":
            yield key, partial(_read, store, key, partial(_json, stored.EVOLUTION))
        elif rest == "inputs":
            yield key, partial(_read, store, key, partial(_inputs, store, name, work))
        elif rest in SHARED:
            yield key, partial(_read, store, key, partial(_shared, SHARED[rest]))


def _read(store: Store, key: str, look: Callable[[bytes, str], object], limit: int = GET_BYTES) -> int:
    """Read an object into memory, check it with `look`, and return its size; raise CorruptArtifact if it is damaged."""
    data, label = read(store, key, limit), f"{key} in {store.uri}"
    if data is not None:  # else it was removed meanwhile
        try:
            look(data, label)
        except ValueError as error:
            raise CorruptArtifact(f"{label} is damaged: {error}") from error
    return len(data or b"")


def _json(model: stored.Model, data: bytes, label: str) -> None:
    stored.parse(data, model, label, "")


def _record(store: Store, key: str) -> Iterator[Check]:
    yield key, partial(_read, store, key, lambda data, label: artifacts.parse_record(data, key, store.uri))
    try:
        record = artifacts.read_record(store, key)
    except CorruptArtifact:
        return
    for file in artifacts.stored_files(record or {}):
        yield file["key"], partial(_file, store, file)


class _Sum:
    """A sink that counts the bytes written and computes their SHA-256; truncation resets both."""

    def __init__(self) -> None:
        self.truncate()

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        self.size += len(data)
        return len(data)

    def tell(self) -> int:
        return self.size

    def seek(self, place: int) -> int:
        return place

    def truncate(self) -> None:
        self.hash, self.size = hashlib.sha256(), 0


def _file(store: Store, file: Mapping[str, Any]) -> int:
    sink, key = _Sum(), file["key"]
    if not store.receive(key, bounded(cast(IO[bytes], sink), file["size"], too_large(store, key, file["size"]))):
        raise CorruptArtifact(f"{key} is gone from {store.uri}")
    if (sink.size, sink.hash.hexdigest()) != (file["size"], file["sha256"]):
        raise CorruptArtifact(f"{key} in {store.uri} has changed since it was committed (SHA-256)")
    return sink.size


def _generation(rest: str, data: bytes, label: str) -> None:
    Generation.decode(data, rest)
    _as_saved(data)


def _final(rest: str, data: bytes, label: str) -> None:
    unpack(data, rest)
    _as_saved(data)


def _shared(names: Sequence[str], data: bytes, label: str) -> None:
    _as_saved(data, *names)


def _as_saved(data: bytes, *names: str) -> None:
    """Raise ValueError unless `npz.save` writes exactly these bytes for their arrays, which are all or have `names`."""
    again = io.BytesIO()
    npz.save(again, **npz.load(data, *names))
    if again.getvalue() != data:
        raise ValueError("its bytes are not those that its arrays are stored as")


def _result(store: Store, params: str, rest: str, data: bytes, label: str) -> None:
    match = RESULT.fullmatch(rest)
    assert match is not None
    try:
        generation = Generation.decode(store.get(params) or b"", f"{match[1]}params")
    except CorruptArtifact:  # reported for the params; without them, the number of episodes is unknown
        stored.parse(data, stored.RESULT, label, "")
        return
    if int(match[2]) >= len(generation.blocks):
        raise ValueError("its generation has no such block")
    BlockResult.decode(data, rest, generation.blocks[int(match[2])].count)


def _inputs(store: Store, name: Name, work: str, data: bytes, label: str) -> None:
    """Raise ValueError if a workspace's inputs differ from those that its manifests name."""
    stored.parse(data, stored.INPUTS, label, "")
    for manifest in artifacts.examined(store, name)[0]:
        same = Identity(name, manifest["config"], manifest["extent"], manifest["inputs"]).work == work
        if same and data != json.dumps(manifest["inputs"], sort_keys=True).encode():
            raise ValueError("the manifest of the same work names other inputs")
