"""Execution of one task: fetch inputs, call the stage, publish, commit. The same on a laptop and in a pod."""

import contextlib
import json
import logging
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from . import artifacts, stages
from .artifacts import Name, Reading, provenance, publishing
from .context import Checkpoints, Context, ProgressReporter
from .errors import ShardFailed, StoreError, WorkFailed
from .planning import Task, TaskState, belong_together
from .store import Store, process_identity
from .store.disk_cache import Disk, scratch
from .stored import Manifest, Record

BEAT_SECONDS = 60.0
PATIENCE_SECONDS = 5.0


def run(store: Store, task: Task, worker: int, workers: int, reporter: ProgressReporter) -> Manifest | None:
    """Do this worker's part of the task. Return the manifest, or None while other workers' shards are missing."""
    state = TaskState(store, task)
    if manifest := state.committed():
        reporter.log.info("%s is committed already (%s)", task.name, manifest["digest"][:12])
        return manifest
    belong_together(store, state.inputs)
    stage = stages.stage(task.stage)
    with scratch(task.stage) as folder, Disk(folder / "kept", _disk_bytes(store, task)) as disk:
        attempt = Attempt(state, folder, disk, worker, workers, reporter)
        reporter.log.info("%s begins: worker %d of %d, attempt %s", task.name, worker + 1, workers, attempt.id)
        with attempt.heartbeat():
            if stage.kind == "sharded":
                return attempt.sharded(stage)
            stages.function(stage.entrypoint)(attempt.context)
            return attempt.commit([])


def _disk_bytes(store: Store, task: Task) -> int:
    """Return the bytes of disk for copies of input files: only `single` stages (training) read them repeatedly."""
    once = stages.stage(task.stage).kind != "single"
    return 0 if store.local or once else task.config.execution.disk_mb << 20


class Heartbeat:
    """Marks an attempt in the store as under way, so that `wm gc` keeps the files of the attempt.

    A thread writes `<stage>/alive/<attempt>` every `seconds` and deletes it at the end. Its failures do not end the
    attempt.
    """

    def __init__(self, store: Store, key: str, worker: int, log: logging.Logger, seconds: float = BEAT_SECONDS) -> None:
        self._store, self._key, self._log, self._seconds = store, key, log, seconds
        who = process_identity.signature() | {"worker": worker}
        self._text = json.dumps(who).encode()
        self._begun, self._done = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> None:
        """Wait up to `PATIENCE_SECONDS` for the first heartbeat, so that it precedes the attempt's first data."""
        self._thread.start()
        self._begun.wait(PATIENCE_SECONDS)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(PATIENCE_SECONDS)

    def _run(self) -> None:
        warned = False
        while True:
            try:
                self._store.put(self._key, self._text)
            except StoreError as error:
                if not warned:
                    self._log.warning("no heartbeat: %s", error.message)
                warned = True
            self._begun.set()
            if self._done.wait(self._seconds):
                break
        with contextlib.suppress(StoreError):
            self._store.delete(self._key)


class Attempt:
    """One worker's try at one task, from its scratch folder and context to the commit."""

    def __init__(
        self, state: TaskState, scratch: Path, disk: Disk, worker: int, workers: int, reporter: ProgressReporter
    ) -> None:
        store, task, work = state.store, state.task, state.identity
        self.state, self.store, self.task, self.work, self.reporter = state, store, task, work, reporter
        self.id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
        self.started = time.time()
        if stages.stage(task.stage).kind == "exchange":
            state.workspace.open()
        self.context = Context(
            **vars(state.outlook(Reading(scratch / "inputs", disk, reporter.touch))),
            results=_folder(scratch / "results"),
            telemetry=_folder(scratch / "telemetry"),
            checkpoints=Checkpoints(store, work.work_key("checkpoints"), reporter.log),
            worker=worker,
            workers=workers,
            lanes=task.config.execution.lanes,
            log=reporter.log,
            reporter=reporter,
            follow=lambda name, data: store.follow(task.name.key("live", name), data),
            publish_seconds=store.publish_seconds,
        )

    def sharded(self, stage: stages.Stage) -> Manifest | None:
        """Make this worker's missing shards; a worker that then finds all shards committed commits the stage.

        Return the manifest, or None while other workers' shards are missing.
        """
        count = stage.count(self.context)
        records = self.records(count)
        mine = [i for i in range(count) if i not in records and i % self.context.workers == self.context.worker]
        self.make(stage, mine)
        records = self.records(count)
        if len(records) < count:
            self.reporter.log.info("%d of %d shards are committed; others make the rest", len(records), count)
            return None
        shards, failed = self.good(records), [i for i, record in sorted(records.items()) if "failed" in record]
        if manifest := self.state.committed():
            return manifest
        if stage.collect:
            files = {"digest": "", "shards": shards, "files": {}, "telemetry": {}}
            view = artifacts.load(self.store, self.task.name, files, Path(self.context.results.parent / "shards"))
            stages.function(stage.collect)(self.context, view.shards)
        return self.commit(shards, failed)

    def make(self, stage: stages.Stage, todo: list[int]) -> None:
        """Make and commit those shards; record a shard that cannot be made as failed, and go on with the others."""
        while todo:
            try:
                for index, content in stages.function(stage.entrypoint)(self.context, todo):
                    publishing.commit_shard(self.store, self.work, index, self.id, content)
                    self.reporter.log.info("shard %d is committed", index)
                return
            except ShardFailed as failure:
                self.reporter.log.error("shard %d failed: %s", failure.index, failure.message)
                publishing.commit_failed_shard(self.store, self.work, failure.index, failure.message)
            there = self.records(max(todo) + 1)
            todo = [index for index in todo if index not in there]

    def good(self, records: Mapping[int, Record]) -> list[Record]:
        """Return the shards that succeeded, in order; WorkFailed if their share is below `execution.min_shards`."""
        failed = {index: str(record["failed"]) for index, record in sorted(records.items()) if "failed" in record}
        if failed and len(records) - len(failed) < self.task.config.execution.min_shards * len(records):
            index, reason = next(iter(failed.items()))
            again = artifacts.repair_command(self.task.name)
            raise WorkFailed(
                f"{self.task.name}: {len(failed)} of {len(records)} shards cannot be made; shard {index}: {reason}",
                next=f"{again}, or {again.removesuffix(' --redo')} -o execution.min_shards=0.9",
            )
        return [record for _, record in sorted(records.items()) if "failed" not in record]

    def records(self, count: int) -> dict[int, Record]:
        """Return the committed shard records by index; a listing saves a request for each missing shard."""
        keys = {self.work.shard_key(i): i for i in range(count)}
        there = [entry.key for entry in self.store.entries(self.work.work_key("shards/"))]
        return {
            keys[key]: record for key in there if key in keys and (record := artifacts.read_record(self.store, key))
        }

    def commit(self, shards: list[Record], failed: Sequence[int] = ()) -> Manifest:
        self.context.publish_rest()
        if manifest := self.state.committed():
            return manifest
        upload = publishing.upload
        manifest = publishing.commit(
            self.store,
            self.work,
            files=upload(self.store, self.task.name, self.id, self.context.results),
            telemetry=upload(self.store, self.task.name, self.id, self.context.telemetry, "telemetry"),
            shards=shards,
            resolved=self.task.config.storable(),
            made={
                **provenance.record(self.started),
                "attempt": self.id,
                "workers": self.context.workers,
                "failed_shards": [*failed],
                "notes": self.context.notes,
            },
        )
        self.context.checkpoints.clear()
        self.reporter.log.info("%s is committed: %s", self.task.name, manifest["digest"][:12])
        return manifest

    def heartbeat(self) -> Heartbeat:
        return Heartbeat(self.store, alive_key(self.task.name, self.id), self.context.worker, self.reporter.log)


def alive_key(name: Name, attempt: str) -> str:
    return name.key("alive", attempt)


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path
