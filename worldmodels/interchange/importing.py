"""Imported episodes as the rollouts of a run, for `wm import`.

The artifact is one of `rollouts`, so V and M train on it. Its settings say that it was imported, and the SHA-256 of the
episodes' content is part of its identity: other episodes never pass for these, and the same ones give the same digest.
"""

import logging
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from .. import artifacts, runner
from ..artifacts import Identity, provenance, publishing
from ..config import SHARD_FRAMES, Config
from ..errors import ConfigError, Conflict, CorruptArtifact
from ..planning import Task, TaskState
from ..rollouts import episodes
from ..store import Store
from ..stored import Manifest, Record
from .sources import Source, Survey

LOG = logging.getLogger("wm")
Report = Callable[[int], None]


def overrides(found: Survey, shard_episodes: int) -> tuple[str, ...]:
    """Return the settings of rollouts that hold these episodes, for `-o`.

    A shard has the most episodes up to `shard_episodes` that divide their number and stay within a shard's frames.
    """
    fits = [n for n in range(1, shard_episodes + 1) if found.count % n == 0 and n * found.longest <= SHARD_FRAMES]
    values = {"controller": '"imported"', "source": f'"{found.digest}"', "episodes": found.count,
              "shard_episodes": max(fits), "steps": found.longest}  # fmt: skip
    return tuple(f"rollouts.{name}={value}" for name, value in values.items())


def bring(
    store: Store, run: str, config: Config, source: Source, again: str, report: Report = lambda done: None
) -> Manifest:
    """Commit the source's episodes as the rollouts of iteration 1; return the manifest.

    Shards that are stored stay; damaged ones of the same episodes are written again. `report` receives the number of
    episodes after each shard. Raise Conflict, with the command `again`, if the run has other rollouts.
    """
    task = Task(run, 1, "rollouts", config)
    work = TaskState(store, task).settings
    others = [m for m in artifacts.manifests(store, work.name) if work.differences(m)]
    if others:
        raise Conflict(f"{work.name} {others[-1]['digest'][:12]} is committed already, with other episodes", next=again)
    started, attempt = time.time(), f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
    with runner.Heartbeat(store, runner.alive_key(work.name, attempt), 0, LOG):
        shards = []
        for index, content in enumerate(_shards(source, config.rollouts.shard_episodes)):
            shards.append(_shard(store, work, index, attempt, content))
            report((index + 1) * config.rollouts.shard_episodes)
        if len(shards) * config.rollouts.shard_episodes != config.rollouts.episodes:
            raise ConfigError(f"{source.words} changed while it was read", next=again)
        made = provenance.record(started) | {"attempt": attempt, "workers": 1, "failed_shards": []}
        made["notes"] = {"imported": f"from {source.words[:10_000]}"}
        return publishing.commit(
            store, work, files={}, telemetry={}, shards=shards, resolved=config.storable(), made=made
        )


def _shards(source: Source, size: int) -> Iterator[dict[str, bytes]]:
    each = iter(source)
    while part := [episodes.pack(episode) for episode in islice(each, size)]:
        yield episodes.join(part)


def _shard(store: Store, work: Identity, index: int, attempt: str, content: dict[str, bytes]) -> Record:
    """Return the shard's record, with its files in the store: those that are there and sound, or new ones."""
    record = _sound(store, work, index, content)
    if record is None:
        store.delete(work.shard_key(index))
        publishing.commit_shard(store, work, index, attempt, content)
        record = artifacts.read_record(store, work.shard_key(index))
        assert record is not None
    return record


def _sound(store: Store, work: Identity, index: int, content: dict[str, bytes]) -> Record | None:
    """Return the stored record if its files are these bytes; write those again that are damaged."""
    try:
        record = artifacts.read_record(store, work.shard_key(index))
    except CorruptArtifact:
        return None
    sums = {name: artifacts.digest(data) for name, data in content.items()}
    if not record or {name: file["sha256"] for name, file in record.get("files", {}).items()} != sums:
        return None
    view = {"shards": [record], "files": {}, "telemetry": {}}
    (shard,) = artifacts.load(store, work.name, view, Path(tempfile.gettempdir())).shards
    for name, data in content.items():
        try:
            shard.read(name)
        except CorruptArtifact:
            store.put(record["files"][name]["key"], data)
    return record
