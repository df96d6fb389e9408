"""Copies of artifacts from one run to another of the same store, so that equal work is done once.

Two runs' artifacts are equal if their settings and the digests of their inputs are. A copy has keys of its own and the
same digest; the store copies the files (`Store.copy`), so they do not pass through this machine. After it, `wm gc` or
`--redo` in one run leaves the other as it is.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .. import artifacts, stages, stored
from ..artifacts import Identity, publishing
from ..errors import CorruptArtifact
from ..planning import TaskState
from ..store import Store
from ..stored import Manifest
from ..upkeep.parallel import each

COPIED = "copied"
"""The note in a copy's manifest; its text names the run that made the artifact."""


def shareable(stage: str) -> bool:
    """Return whether another run's artifact of that stage can be copied: a report names its run."""
    return stage != "report"


def source(manifest: Mapping[str, Any]) -> str:
    """Return the name of the run that an artifact was copied from; empty if its own run made it."""
    return str(manifest["made"].get("notes", {}).get(COPIED, ""))


def adopt(state: TaskState, runs: Iterable[str]) -> str:
    """Commit the task's artifact as a copy of another run's; return that run's name, or "" if none has an equal one.

    The task's inputs must be committed, and its own artifact must not be.
    """
    if not shareable(state.task.stage):
        return ""
    for pair in _pairs(state, runs):
        if manifest := pair.committed():
            pair.copy_workspace()
            pair.commit(manifest, state.task.config.storable())
            return pair.theirs.name.run
    return ""


def prepare(state: TaskState, runs: Iterable[str]) -> str:
    """Let a task continue another run's work of a different extent; return that run's name, or "" if there is none.

    It copies the shards, or the generations, of the run that has most of them, unless the task has begun already.
    """
    if any(True for _ in Pair(state.store, state.identity, state.identity).resumable()):
        return ""
    found = [(sum(1 for _ in pair.resumable()), pair) for pair in _pairs(state, runs)]
    count, best = max(found, key=lambda item: item[0], default=(0, None))
    if not count or best is None:
        return ""
    best.copy_workspace()
    return best.theirs.name.run


def _pairs(state: TaskState, runs: Iterable[str]) -> "Iterator[Pair]":
    own = state.identity
    for run in runs:
        if run != own.name.run:
            yield Pair(state.store, replace(own, name=replace(own.name, run=run)), own)


@dataclass(frozen=True)
class Pair:
    """The same work in two runs: `theirs` may have it, `own` shall have it."""

    store: Store
    theirs: Identity
    own: Identity

    def committed(self) -> Manifest | None:
        """Return the other run's manifest if it fits; None if it does not, is missing or is damaged."""
        try:
            manifest = artifacts.read_manifest(self.store, self.theirs.manifest_key)
        except CorruptArtifact:
            return None
        return manifest if manifest and not self.theirs.differences(manifest) else None

    def resumable(self) -> Iterator[str]:
        """Yield the keys of the workspace from which work continues, in the order in which they must appear."""
        prefix = self.theirs.work_key("")
        keys = [entry.key for entry in self.store.entries(prefix)]
        for pattern in (r"shards/\d{5}\.json", *stages.stage(self.theirs.name.stage).resumes):
            yield from (key for key in keys if re.fullmatch(pattern, key.removeprefix(prefix)))

    def copy_workspace(self) -> None:
        """Copy the shards' records with their files, and the objects from which work continues."""
        for key in self.resumable():
            if "/shards/" in key:
                self._copy_record(key)
            elif data := self.store.get(key):
                self.store.create(self._moved(key), data)

    def commit(self, manifest: Manifest, resolved: Mapping[str, Any]) -> None:
        """Copy the artifact's files, its live tables and logs, and commit a manifest that names the copies."""
        name = self.theirs.name
        live = [entry.key for folder in ("live/", "logs/") for entry in self.store.entries(name.key(folder))]
        self._copy(file["key"] for file in artifacts.stored_files(manifest))
        self._copy(live)
        made: stored.Made = {**manifest["made"]}
        made["notes"] = {**made.get("notes", {}), COPIED: source(manifest) or name.run}
        publishing.commit(
            self.store,
            self.own,
            files=self._files(manifest["files"]),
            telemetry=self._files(manifest["telemetry"]),
            shards=[self._record(record) for record in manifest["shards"]],
            resolved=resolved,
            made=made,
        )

    def _copy_record(self, key: str) -> None:
        try:
            record = artifacts.read_record(self.store, key)
        except CorruptArtifact:
            return  # this run makes the shard itself
        if record and "files" in record:
            self._copy(file["key"] for file in record["files"].values())
            self.store.create(self._moved(key), stored.encode(self._record(record)))

    def _record(self, record: stored.Record) -> stored.Record:
        return {**record, "files": self._files(record["files"])}

    def _files(self, files: Mapping[str, stored.File]) -> dict[str, stored.File]:
        return {name: {**file, "key": self._moved(file["key"])} for name, file in files.items()}

    def _copy(self, keys: Iterable[str]) -> None:
        for _ in each(lambda key: self.store.copy(key, self._moved(key)), keys):
            pass

    def _moved(self, key: str) -> str:
        """Return the key's counterpart in the own run; `parse_manifest` has checked that it is below the stage."""
        return self.own.name.key(key.removeprefix(self.theirs.name.key("")))
