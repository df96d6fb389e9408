"""Manifests and shard records of artifacts, and their reading; `publishing.py` commits them.

    <run>/iter-<n>/<stage>/manifest[-<extent>].json  the manifest: one atomic write commits the artifact
    <run>/iter-<n>/<stage>/data/<attempt>/<name>     its files, under a key that no other attempt uses
    <run>/iter-<n>/<stage>/<work>/…                  shard records, checkpoints, generations: the workspace;
                                                     <work> is a digest of config and inputs
    <run>/iter-<n>/<stage>/live/…, logs/…            telemetry for users; stages do not read it

An *artifact digest* covers the config, the inputs' digests and the content of every result file; not attempts, times,
hosts or versions. So the same config gives the same digest on every machine, with or without interruptions.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .. import parts, stored
from ..config import Architecture
from ..errors import CorruptArtifact
from ..store import Store, read
from ..stored import File, Manifest, Record
from .files import Files, FileSet, Reading
from .names import ITERATION, Identity, Name, digest, environment


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


def last_evolved(store: Store, run: str) -> int:
    """Return the run's last iteration whose controller is committed; 1 if there is none."""
    return next((i for i in reversed(iterations(store, run)) if manifest_keys(store, Name(run, i, "controller"))), 1)


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
