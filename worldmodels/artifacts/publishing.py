"""Upload, commit and retirement of artifacts; `manifest.py` reads them."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import stored
from ..errors import Conflict, CorruptArtifact
from ..store import Store
from ..stored import File, Made, Manifest, Record
from .files import Files, sha256
from .manifest import contents, parse_manifest, read_manifest, read_record, repair_command, shard_digest
from .names import Identity, Name, digest


def upload(store: Store, name: Name, attempt: str, folder: Path, prefix: str = "") -> Files:
    """Upload every file below `folder` to this attempt's folder; return the files by relative path."""
    return {
        path.relative_to(folder).as_posix(): _stored(
            store, path, name.key("data", attempt, *([prefix] if prefix else []), path.relative_to(folder).as_posix())
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _stored(store: Store, path: Path, key: str) -> File:
    store.upload(key, path)
    return {"key": key, "size": path.stat().st_size, "sha256": sha256(path)}


def commit_shard(store: Store, work: Identity, index: int, attempt: str, content: Mapping[str, bytes]) -> None:
    """Store one shard and its record; an existing record of that shard stays."""
    files: Files = {}
    for name, data in content.items():
        key = work.name.key("data", attempt, f"shard-{index:05d}", name)
        store.put(key, data)
        files[name] = {"key": key, "size": len(data), "sha256": digest(data)}
    record: Record = {"index": index, "digest": shard_digest(files), "files": files}
    store.create(work.shard_key(index), stored.encode(record))


def commit_failed_shard(store: Store, work: Identity, index: int, reason: str) -> None:
    """Record that a shard cannot be made, so that no worker retries it until `drop_failed_shards`."""
    store.create(work.shard_key(index), stored.encode({"index": index, "failed": reason[: stored.TEXT]}))


def drop_failed_shards(store: Store, work: Identity) -> None:
    """Delete the records of failed shards, and damaged records, so that workers make these shards again."""
    for entry in store.entries(work.work_key("shards/")):
        try:
            record = read_record(store, entry.key)
            failed = record is not None and "failed" in record
        except CorruptArtifact:
            failed = True
        if failed:
            store.delete(entry.key)


def commit(
    store: Store,
    work: Identity,
    *,
    files: Files,
    telemetry: Files,
    shards: list[Record],
    resolved: Mapping[str, Any],
    made: Made,
) -> Manifest:
    """Create the manifest, or accept an equal one. Return the committed one; raise Conflict if that differs."""
    manifest: Manifest = {
        "artifact": str(work.name),
        "digest": work.digest_of(contents(files, shards)),
        "config": dict(work.config),
        "extent": dict(work.extent),
        "inputs": dict(work.inputs),
        "files": files,
        "telemetry": telemetry,
        "shards": shards,
        "resolved": dict(resolved),
        "made": made,
    }
    data = stored.encode(manifest, indent=1)
    parse_manifest(data, work.manifest_key, store.uri)  # readers would reject an invalid manifest
    if store.create(work.manifest_key, data):
        return manifest
    there = read_manifest(store, work.manifest_key)
    if there is None:
        return commit(
            store, work, files=files, telemetry=telemetry, shards=shards, resolved=resolved, made=made
        )  # fmt: skip
    if differences := work.differences(there):
        raise Conflict(
            f"{work.name} was committed by another process meanwhile, and differs: {'; '.join(differences)}",
            next=repair_command(work.name),
        )
    return there


def discard_unreadable(store: Store, work: Identity) -> None:
    """Delete a manifest that cannot be read, so that the artifact can be made again; its bytes stay under retired/."""
    with contextlib.suppress(CorruptArtifact):  # raised for a link, say
        store.put(work.name.key("retired", "unreadable.json"), store.get(work.manifest_key) or b"")
    store.delete(work.manifest_key)


def retire(store: Store, work: Identity, manifest: Mapping[str, Any]) -> None:
    """Move a committed manifest to retired/, where it stays readable; `wm gc` deletes it and its data later."""
    store.put(work.name.key("retired", f"{manifest['digest'][:16]}.json"), stored.encode(manifest, indent=1))
    store.delete(work.manifest_key)
