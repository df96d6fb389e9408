"""Names, keys, digests and manifests of artifacts, and their reading; `publishing.py` commits them.

    <run>/iter-<n>/<stage>/manifest[-<extent>].json  the manifest: one atomic write commits the artifact
    <run>/iter-<n>/<stage>/data/<attempt>/<name>     its files, under a key that no other attempt uses
    <run>/iter-<n>/<stage>/<work>/…                  shard records, checkpoints, generations: the workspace;
                                                     <work> is a digest of config and inputs
    <run>/iter-<n>/<stage>/live/…, logs/…            telemetry for users; stages do not read it

An *artifact digest* covers the config, the inputs' digests and the content of every result file; not attempts, times,
hosts or versions. So the same config gives the same digest on every machine, with or without interruptions.
"""

import hashlib
import io
import json
import os
import re
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from pydantic import ValidationError

from . import parts, stored
from .config import EXECUTION, EXTENT, LATER, Architecture, Config, fields, flatten
from .errors import ConfigError, CorruptArtifact, MissingInput, StoreError
from .store import Store, bounded, read
from .store.causes import explain
from .store.disk_cache import Disk
from .stored import File, Manifest, Record

Files = dict[str, File]
RUN_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,46}[a-z0-9])?")
ITERATION = re.compile(r"iter-([1-9][0-9]?)")


def digest(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON, or of bytes."""
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Name:
    """Name of a stage in one run and iteration, and prefix of its keys. Raises ConfigError for an invalid run name."""

    run: str
    iteration: int
    stage: str

    def __post_init__(self) -> None:
        if not RUN_NAME.fullmatch(self.run):
            raise ConfigError(
                f"run name {self.run!r}: use 1 to 48 of a-z 0-9 . _ - beginning and ending with a letter or digit",
                next="wm run --run my-run",
            )

    def __str__(self) -> str:
        return f"{self.run}/{self.input}"

    @property
    def input(self) -> str:
        """Return the artifact's name in manifests of the same run."""
        return f"iter-{self.iteration}/{self.stage}"

    def key(self, *parts: str) -> str:
        return "/".join((str(self), *parts))

    @classmethod
    def of(cls, key: str) -> "Name":
        """Return the name whose prefix the key has."""
        run, iteration, stage = key.split("/")[:3]
        return cls(run, int(iteration.removeprefix("iter-")), stage)


@dataclass(frozen=True)
class Identity:
    """The settings (`config` and `extent`) and the inputs' digests that decide a stage's artifact."""

    name: Name
    config: Mapping[str, Any]
    extent: Mapping[str, Any]
    inputs: Mapping[str, str]

    @property
    def work(self) -> str:
        """Return the workspace's name, which excludes the extent: a larger extent continues in the same workspace."""
        return digest({"config": self.config, "inputs": self.inputs})[:16]

    @property
    def manifest_key(self) -> str:
        """Return the manifest's key, with the extent: its first setting as the value alone, others with their names."""
        (_, value), *others = self.extent.items() or [("", None)]
        words = [] if value is None else [str(value).replace(":", "to")]
        words += [f"{key.rpartition('.')[2]}{value!r}".removesuffix(".0") for key, value in others]
        return self.name.key(f"{'-'.join(['manifest', *words])}.json")

    def work_key(self, *parts: str) -> str:
        return self.name.key(self.work, *parts)

    def shard_key(self, index: int) -> str:
        return self.work_key("shards", f"{index:05d}.json")

    def digest_of(self, files: Iterable[tuple[str, str]]) -> str:
        """Return the artifact digest, from (logical name, SHA-256) of every result file."""
        return digest([{**self.config, **self.extent}, dict(self.inputs), sorted(files)])

    def differences(self, manifest: Mapping[str, Any]) -> list[str]:
        """List the differences between this identity and a committed manifest as messages."""
        there = {**manifest["config"], **manifest["extent"]}
        here = {**self.config, **self.extent}
        words = [
            f"{key} was {there.get(key)!r} and is now {here.get(key)!r}"
            for key in sorted({*there, *here})
            if there.get(key) != here.get(key)
        ]
        if not words:
            before, now = manifest["inputs"], self.inputs
            words = [
                f"its input {key} was {before.get(key, 'none')[:12]} and is now {now.get(key, 'none')[:12]}"
                for key in sorted({*before, *now})
                if before.get(key) != now.get(key)
            ]
        return words


def identity(name: Name, config: Config, sections: Iterable[str], inputs: Mapping[str, str]) -> Identity:
    """Return the identity of a stage's artifact under `config`; `inputs` are digests by `iter-<n>/<stage>`."""
    config_part: dict[str, Any] = {"seed": config.seed}
    if config.env != environment({}):
        config_part["env"] = config.env
    extent: dict[str, Any] = {}
    for section in sections:
        model = getattr(config, section)
        roles = {role["role"]: set(fields(type(model), role=role["role"])) for role in (EXECUTION, EXTENT, LATER)}
        usual = type(model)().model_dump()
        for key, value in flatten(model.model_dump()):
            if key in roles["extent"]:
                if value is not None:
                    extent[f"{section}.{key}"] = value
            elif key not in roles["execution"] and not (key in roles["later"] and value == usual[key]):
                config_part[f"{section}.{key}"] = value
    return Identity(name, config_part, extent, inputs)


def environment(config: Mapping[str, Any]) -> Any:
    """Return the environment of a manifest's config, which omits the default."""
    return config.get("env", Config.model_fields["env"].default)


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Reading:
    """How stored files are read: folder for copies, disk cache for files that are read again, callback per chunk."""

    scratch: Path
    disk: Disk | None = None
    heard: Callable[[], None] = lambda: None


@dataclass
class FileSet:
    """Stored files by logical name; each read is checked against the manifest's SHA-256.

    `path` and `read` raise MissingInput if the manifest names no such file, CorruptArtifact if its bytes are gone or
    changed, StoreError if the store or the disk fails.
    """

    store: Store
    reading: Reading
    label: str
    files: Files
    next: str
    _verified: dict[str, Path] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """Return the path of a copy in scratch that stays until the attempt ends.

        The copy gets this name after the check; its folder is named by its SHA-256.
        """
        if name in self._verified:
            return self._verified[name]
        entry, scratch = self._entry(name), self.reading.scratch
        target = scratch / str(entry["sha256"]) / PurePosixPath(name).name
        part = scratch / f".{entry['sha256']}.{uuid.uuid4().hex}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.save(name, part)
            os.replace(part, target)
        except OSError as error:
            reason, command = explain(error, str(scratch))
            raise StoreError(
                f"store {self.store.uri}: cannot copy {entry['key']} to {scratch}: {reason}", next=command
            ) from error
        finally:
            part.unlink(missing_ok=True)
        self._verified[name] = target
        return target

    def save(self, name: str, path: Path) -> None:
        """Write the content to a new file and check it; the file remains if the check raises CorruptArtifact."""
        entry = self._entry(name)
        with open(path, "xb") as file:
            if not self.store.receive(entry["key"], self._arriving(file, entry)):
                raise self._gone(entry)
            size = file.tell()
        self._check(entry, size, sha256(path) if size == entry["size"] else "")

    def read(self, name: str) -> bytes:
        """Return the content. A bucket's files are also cached on disk while it has room; each read is checked."""
        entry, disk = self._entry(name), self.reading.disk
        key = entry["key"]
        if disk and (copy := disk.get(key)) is not None and digest(copy) == entry["sha256"]:
            self.reading.heard()
            return copy
        arriving = io.BytesIO()
        if not self.store.receive(key, self._arriving(arriving, entry)):
            raise self._gone(entry)
        data = arriving.getvalue()
        self._check(entry, len(data), digest(data))
        if disk:
            disk.put(key, data)
        return data

    def _entry(self, name: str) -> File:
        entry = self.files.get(name)
        if entry is None:
            raise MissingInput(
                f"{self.label} has no file {name!r}; it has {', '.join(sorted(self.files))}", next=self.next
            )
        return entry

    def _arriving(self, sink: IO[bytes], entry: File) -> IO[bytes]:
        """Return `sink`, limited to the manifest's size: more bytes raise CorruptArtifact."""
        words = f"{self.label}: {entry['key']} has more than the {entry['size']} bytes that it had"
        return bounded(sink, entry["size"], CorruptArtifact(words, next=self.next), self.reading.heard)

    def _gone(self, entry: File) -> CorruptArtifact:
        return CorruptArtifact(f"{self.label}: the file {entry['key']} is gone from {self.store.uri}", next=self.next)

    def _check(self, entry: File, size: int, found: str) -> None:
        if size != entry["size"]:
            raise CorruptArtifact(f"{self.label}: {entry['key']} has {size} bytes, not {entry['size']}", next=self.next)
        if found != entry["sha256"]:
            raise CorruptArtifact(
                f"{self.label}: {entry['key']} has changed since it was committed (SHA-256)", next=self.next
            )


@dataclass(frozen=True, eq=False)
class Shard:
    """One committed piece of a sharded artifact."""

    index: int
    digest: str
    files: FileSet

    @property
    def repair(self) -> str:
        """Return the command that makes the shard again if it is damaged."""
        return self.files.next

    def read(self, name: str) -> bytes:
        return self.files.read(name)


@dataclass(frozen=True, eq=False)
class Artifact:
    """A committed artifact, as its manifest describes it."""

    name: Name
    manifest: Mapping[str, Any]
    files: FileSet
    shards: tuple[Shard, ...]

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])

    @property
    def stage(self) -> str:
        return self.name.stage

    @property
    def shard_episodes(self) -> int:
        """Return the episodes per shard of rollouts. Raise CorruptArtifact if the manifest's config lacks them."""
        size = self.manifest["config"].get("rollouts.shard_episodes")
        if not isinstance(size, int) or size < 1:
            raise CorruptArtifact(f"{self.name}: rollouts.shard_episodes = {size!r:.50}", next=self.files.next)
        return size

    @property
    def env(self) -> str:
        """Return the name of its environment. Raise CorruptArtifact for one that there is not."""
        if (name := environment(self.manifest["config"])) not in tuple(parts.ENVIRONMENTS):
            raise CorruptArtifact(f"{self.name}: env = {name!r:.100} is no environment", next=self.files.next)
        return str(name)

    @property
    def architecture(self) -> Architecture:
        """Return C's architecture from a controller's manifest. Raise CorruptArtifact for one that cannot be.

        A manifest omits settings that have their default.
        """
        named = {name: self.manifest["config"].get(f"controller.{name}") for name in Architecture.model_fields}
        try:
            return Architecture.model_validate({name: value for name, value in named.items() if value is not None})
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]
            words = f"controller.{'.'.join(map(str, reason['loc']))} = {reason['input']!r:.50}: {reason['msg']:.200}"
            raise CorruptArtifact(f"{self.name}: {words}", next=self.files.next) from None

    def path(self, name: str) -> Path:
        return self.files.path(name)


def read_json(store: Store, key: str, model: stored.Model, next: str) -> dict[str, Any] | None:
    """Return a stored JSON object, or None. Raise CorruptArtifact if it exists and does not fit the model."""
    data = read(store, key, model.limit)
    return None if data is None else stored.parse(data, model, f"{key} in {store.uri}", next)


def read_manifest(store: Store, key: str) -> Manifest | None:
    """Return the manifest at `key`, or None. Raise CorruptArtifact if it is damaged or of another stage."""
    data = read(store, key, stored.MANIFEST.limit)
    return None if data is None else parse_manifest(data, key, store.uri)


def parse_manifest(data: bytes, key: str, uri: str) -> Manifest:
    """Return what `read_manifest` does, from bytes that were read from the store at `uri`."""
    name = Name.of(key)
    label, repair = f"{key} in {uri}", repair_command(name)
    found: Manifest = stored.parse(data, stored.MANIFEST, label, repair)
    indices = [shard["index"] for shard in found["shards"]]
    work = Identity(name, found["config"], found["extent"], found["inputs"])
    wrong = [_wrong_record(shard, name) for shard in found["shards"]] + [_wrong_keys(found, name)]
    if found["artifact"] != str(name):
        wrong.append(f"it says that it is {found['artifact']}")
    elif indices != sorted(set(indices)) or any("failed" in shard for shard in found["shards"]):
        wrong.append("its shards are out of order")
    elif name.input in found["inputs"]:
        wrong.append("it is its own input")
    elif found["digest"] != work.digest_of(contents(found["files"], found["shards"])):
        wrong.append("it is not what its digest says")
    if reasons := [reason for reason in wrong if reason]:
        raise CorruptArtifact(f"{label} is damaged: {reasons[0]}", next=repair)
    return found


def read_record(store: Store, key: str) -> Record | None:
    """Return the shard's record at `key`, or None. Raise CorruptArtifact if it is no record of that shard."""
    data = read(store, key, stored.RECORD.limit)
    return None if data is None else parse_record(data, key, store.uri)


def parse_record(data: bytes, key: str, uri: str) -> Record:
    """Return what `read_record` does, from bytes that were read from the store at `uri`."""
    name = Name.of(key)
    label, repair = f"{key} in {uri}", repair_command(name)
    found: Record = stored.parse(data, stored.RECORD, label, repair)
    reason = _wrong_record(found, name)
    if not key.endswith(f"/shards/{found['index']:05d}.json"):
        reason = f"it says that it is shard {found['index']}"
    if reason:
        raise CorruptArtifact(f"{label} is damaged: {reason}", next=repair)
    return found


def _wrong_record(record: Mapping[str, Any], name: Name) -> str:
    """Return the first error in a shard's record; empty if it is sound."""
    if ("failed" in record) == ("files" in record) or ("files" in record) != ("digest" in record):
        return f"shard {record['index']} has neither failed nor files"
    if "files" in record and record["digest"] != shard_digest(record["files"]):
        return f"shard {record['index']} is not what its digest says"
    return _wrong_keys(record, name)


def _wrong_keys(part: Mapping[str, Any], name: Name) -> str:
    """Return the first file key outside the stage's data folder, as a message; empty if all are inside.

    Otherwise other stages' files would be read, copied or kept for this one.
    """
    place = name.key("data/")
    files = (*part.get("files", {}).values(), *part.get("telemetry", {}).values())
    return next(
        (f"the key {file['key']} is not below {place}" for file in files if not file["key"].startswith(place)), ""
    )


def shard_digest(files: Files) -> str:
    return digest(sorted((name, file["sha256"]) for name, file in files.items()))


def contents(files: Files, shards: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return (logical name, SHA-256) of an artifact's result files: its own, and its shards'."""
    own = [(name, file["sha256"]) for name, file in files.items()]
    return own + [
        (f"shard-{shard['index']:05d}/{name}", file["sha256"])
        for shard in shards
        for name, file in shard.get("files", {}).items()
    ]


def repair_command(name: Name) -> str:
    return f"wm run {name.stage} --run {name.run} --iteration {name.iteration} --redo"


def load(store: Store, name: Name, manifest: Mapping[str, Any], reading: Path | Reading) -> Artifact:
    """Return the artifact of a manifest without reading its files. If `reading` is a path, copies of files go there."""
    repair = repair_command(name)
    reading = Reading(reading) if isinstance(reading, Path) else reading
    shards = tuple(
        Shard(s["index"], s["digest"], FileSet(store, reading, f"shard {s['index']} of {name}", s["files"], repair))
        for s in manifest.get("shards", ())
    )
    files = {**manifest["telemetry"], **manifest["files"]}
    return Artifact(name, manifest, FileSet(store, reading, str(name), files, repair), shards)


def stored_files(manifest: Mapping[str, Any]) -> Iterator[File]:
    """Yield key, size and SHA-256 of every file that a manifest, or a shard's record, names."""
    for part in (manifest, *manifest.get("shards", ())):
        yield from part.get("files", {}).values()
        yield from part.get("telemetry", {}).values()


def scores(evaluation: Artifact) -> stored.Scores:
    """Read the scores of a committed evaluation; raise CorruptArtifact if they are damaged."""
    name, data = evaluation.name, evaluation.path("scores.json").read_bytes()
    found: stored.Scores = stored.parse(data, stored.SCORES, f"{name}: scores.json", repair_command(name))
    return found


def stored_scores(store: Store, manifest: Mapping[str, Any]) -> stored.Scores:
    """Read the scores of the evaluation that has this manifest; raise CorruptArtifact if they are damaged."""
    with tempfile.TemporaryDirectory() as scratch:
        return scores(load(store, Name.of(manifest["artifact"]), manifest, Path(scratch)))


def config_key(run: str, iteration: int) -> str:
    return f"{run}/iter-{iteration}/config.json"


def iterations(store: Store, run: str) -> list[int]:
    """Return the numbers of a run's iterations; empty if there is no such run."""
    return sorted(int(found[1]) for f in store.folders(f"{run}/") if (found := ITERATION.fullmatch(f)))


def manifest_keys(store: Store, name: Name) -> list[str]:
    return [e.key for e in store.entries(name.key("manifest")) if e.key.endswith(".json")]


def manifests(store: Store, name: Name) -> list[dict[str, Any]]:
    """Return every committed manifest of a stage (one per extent), oldest first.

    Raise CorruptArtifact if one of them is damaged.
    """
    found, damaged = examined(store, name)
    for error in damaged:
        raise error
    return found


def examined(store: Store, name: Name) -> tuple[list[dict[str, Any]], list[CorruptArtifact]]:
    """Return a stage's sound manifests, oldest first, and the errors of the damaged ones."""
    found: list[dict[str, Any]] = []
    damaged: list[CorruptArtifact] = []
    try:
        for key in manifest_keys(store, name):
            try:
                if manifest := read_manifest(store, key):
                    found.append({**manifest, "key": key})
            except CorruptArtifact as error:
                damaged.append(error)
    except CorruptArtifact as error:  # the key is no folder of files
        damaged.append(error)
    return sorted(found, key=lambda m: str(m["made"]["finished"])), damaged
