"""Execution of one task: fetch inputs, call the stage, publish, commit. The same on a laptop and in a pod."""

import contextlib
import json
import logging
import os
import platform
import shlex
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from . import __version__ as VERSION
from . import artifacts, publishing, stages
from .artifacts import Artifact, Identity, Name, Reading
from .config import Config
from .context import Checkpoints, Context, Outlook, ProgressReporter, StoreWorkspace
from .errors import ConfigError, Conflict, MissingInput, ShardFailed, StoreError, WorkFailed
from .store import Store, process_identity
from .store.disk_cache import Disk, scratch
from .stored import Cpu, Made, Manifest, Record

PACKAGES = (
    "wm", "numpy", "tensorflow", "tensorflow-cpu", "keras", "ai-edge-litert",
    "gymnasium", "box2d", "numba", "cma", "pillow",
)  # fmt: skip

BEAT_SECONDS = 60.0
PATIENCE_SECONDS = 5.0


@dataclass(frozen=True)
class Task:
    """One stage of one run and iteration, under one config."""

    run: str
    iteration: int
    stage: str
    config: Config

    @property
    def name(self) -> Name:
        return Name(self.run, self.iteration, self.stage)

    @property
    def inputs(self) -> list[Name]:
        """Return the names of the input artifacts, oldest first."""
        inputs = stages.stage(self.stage).inputs(self.config, self.iteration)
        return [Name(self.run, iteration, stage) for stage, iteration in inputs]

    def to_json(self) -> str:
        return json.dumps({**self.__dict__, "config": self.config.model_dump()})

    @classmethod
    def from_json(cls, text: str) -> "Task":
        """Return the task of such JSON. Raise ConfigError if this version of `wm` cannot read it."""
        try:
            value = json.loads(text)
            return cls(**{**value, "config": Config.model_validate(value["config"])})
        except (ValueError, TypeError, KeyError) as error:
            raise misunderstood("task", error) from error


def misunderstood(what: str, error: Exception) -> ConfigError:
    """Return the error for JSON that another version of `wm` wrote; `what` names its kind."""
    details = error.errors() if isinstance(error, ValidationError) else []
    reason = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in details) or repr(error)
    return ConfigError(
        f"this {what} is not one that wm {VERSION} understands: {reason}; is the image of another version?",
        next="make build-images push-images, then submit again",
    )


def find(store: Store, name: Name, config: Config) -> Manifest | None:
    """Return the committed manifest for this config, whose extent is part of the key, or None."""
    probe = artifacts.identity(name, config, stages.stage(name.stage).sections, {})
    return artifacts.read_manifest(store, probe.manifest_key)


@dataclass(frozen=True)
class TaskState:
    """A task with its inputs in the store, which are read at the first use, and once.

    `pending` are the inputs that the same command makes first, so they are not read.
    """

    store: Store
    task: Task
    pending: frozenset[Name] = frozenset()

    def given(self, made: Iterable[Name]) -> "TaskState":
        """Return the state for a command that first makes these artifacts."""
        pending = frozenset(made) & frozenset(self.task.inputs)
        return self if pending == self.pending else replace(self, pending=pending)

    @cached_property
    def inputs(self) -> Mapping[Name, Mapping[str, Any]]:
        """Return the manifest of every input, oldest first. Raise MissingInput for the first that is not committed."""
        return {name: self._input(name) for name in self.task.inputs if name not in self.pending}

    @cached_property
    def identity(self) -> Identity:
        """Return the identity that the task's artifact will have."""
        return self._identity({name.input: str(manifest["digest"]) for name, manifest in self.inputs.items()})

    @property
    def settings(self) -> Identity:
        """Return the identity without the inputs, which need not exist."""
        return self._identity({})

    @property
    def area(self) -> StoreWorkspace:
        """Return the task's workspace."""
        inputs = json.dumps(dict(self.identity.inputs), sort_keys=True)
        return StoreWorkspace(self.store, str(self.task.name), self.identity.work, inputs)

    def differences(self, manifest: Mapping[str, Any]) -> list[str]:
        """List as messages why the manifest does not fit: the settings, or else the inputs if none is pending."""
        own = self.settings.differences({**manifest, "inputs": {}})
        return own if own or self.pending else self.identity.differences(manifest)

    def committed(self) -> Manifest | None:
        """Read the task's manifest; None if there is none. Raise Conflict if it has another identity."""
        manifest = artifacts.read_manifest(self.store, self.identity.manifest_key)
        if manifest and (differences := self.identity.differences(manifest)):
            raise Conflict(
                f"{self.task.name} is committed, but {'; '.join(differences)}",
                next=artifacts.repair_command(self.task.name),
            )
        return manifest

    def outlook(self, reading: Path | Reading) -> Outlook:
        """Return what is known of the task before it begins; files of its inputs are read as `reading` says."""
        found = [artifacts.load(self.store, name, manifest, reading) for name, manifest in self.inputs.items()]
        return Outlook(
            config=self.task.config,
            run=self.task.run,
            iteration=self.task.iteration,
            stage=self.task.stage,
            inputs=_by_stage(found),
            area=None if self.pending else self.area,
        )

    def _identity(self, inputs: Mapping[str, str]) -> Identity:
        return artifacts.identity(self.task.name, self.task.config, stages.stage(self.task.stage).sections, inputs)

    def _input(self, name: Name) -> Mapping[str, Any]:
        """Return an input's manifest: an earlier iteration may have another extent, so its newest one.

        Raise MissingInput if it is not committed, Conflict if it is from another environment.
        """
        if name.iteration == self.task.iteration:
            manifest = find(self.store, name, self.task.config)
        else:
            manifest = next(reversed(artifacts.manifests(self.store, name)), None)
        if manifest is None:
            raise MissingInput(
                f"{self.task.name} is made from {name}, which is not committed in {self.store.uri}",
                next=f"wm run {name.stage} --run {name.run} --iteration {name.iteration}",
            )
        if (there := artifacts.environment(manifest["config"])) != self.task.config.env:
            raise Conflict(
                f"{name} was made with env = {there!r:.100}, and {self.task.name} would be made with"
                f" {self.task.config.env!r}",
                next=f"wm run {self.task.stage} -o {shlex.quote(f'env={there}'[:100])}",
            )
        return manifest


def by_digest(store: Store, name: Name, digest: str) -> Mapping[str, Any] | None:
    """Return the manifest of that digest, committed or retired; None if it does not exist."""
    found = next((m for m in artifacts.manifests(store, name) if m["digest"] == digest), None)
    retired = found or artifacts.read_manifest(store, name.key("retired", f"{digest[:16]}.json"))
    return retired if retired and retired["digest"] == digest else None


def belong_together(store: Store, manifests: Mapping[Name, Mapping[str, Any]]) -> None:
    """Raise Conflict unless C drives with the V and M that it was evolved with, and M predicts what that V encodes.

    The manifests contain the digests of inputs: C's those of V and M, M's that of its latents, the latents' that of V.
    """
    for name, manifest in reversed(list(manifests.items())):  # the last first: its repair command includes the others
        made_from: dict[str, str] = {}
        if name.stage == "controller":
            made_from = dict(manifest["inputs"])
        if name.stage == "memory" and any(other.stage == "vae" for other in manifests):
            for key, digest in manifest["inputs"].items():
                latents = _named(name.run, key)
                if latents.stage == "latents" and (found := by_digest(store, latents, digest)):
                    made_from |= found["inputs"]
        for key, digest in made_from.items():
            other = _named(name.run, key)
            if other.stage in ("vae", "memory") and other in manifests and manifests[other]["digest"] != digest:
                raise Conflict(
                    f"{name} {manifest['digest'][:12]} was made with {other} {digest[:12]}, which is"
                    f" {manifests[other]['digest'][:12]} now: they do not belong together",
                    next=renew_command(name),
                )


def renew_command(name: Name) -> str:
    """Return the command that makes a stage again from the current V, with all stages between."""
    order = list(stages.STAGES)
    between = order[order.index("latents") : order.index(name.stage) + 1]
    return f"wm run {' '.join(between)} --run {name.run} --iteration {name.iteration} --redo"


def _named(run: str, key: str) -> Name:
    """Return the name for an input's key in a manifest, `iter-<n>/<stage>`."""
    return Name.of(f"{run}/{key}")


def run(store: Store, task: Task, worker: int, workers: int, pulse: ProgressReporter) -> Manifest | None:
    """Do this worker's part of the task. Return the manifest, or None while other workers' shards are missing."""
    state = TaskState(store, task)
    if manifest := state.committed():
        pulse.log.info("%s is committed already (%s)", task.name, manifest["digest"][:12])
        return manifest
    belong_together(store, state.inputs)
    stage = stages.stage(task.stage)
    with scratch(task.stage) as folder, Disk(folder / "kept", _disk_bytes(store, task)) as disk:
        attempt = Attempt(state, folder, disk, worker, workers, pulse)
        pulse.log.info("%s begins: worker %d of %d, attempt %s", task.name, worker + 1, workers, attempt.id)
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
        told = False
        while True:
            try:
                self._store.put(self._key, self._text)
            except StoreError as error:
                if not told:
                    self._log.warning("no heartbeat: %s", error.message)
                told = True
            self._begun.set()
            if self._done.wait(self._seconds):
                break
        with contextlib.suppress(StoreError):
            self._store.delete(self._key)


class Attempt:
    """One worker's try at one task, from its scratch folder and context to the commit."""

    def __init__(
        self, state: TaskState, scratch: Path, disk: Disk, worker: int, workers: int, pulse: ProgressReporter
    ) -> None:
        store, task, work = state.store, state.task, state.identity
        self.state, self.store, self.task, self.work, self.pulse = state, store, task, work, pulse
        self.id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
        self.started = time.time()
        if stages.stage(task.stage).kind == "exchange":
            state.area.open()
        self.context = Context(
            **vars(state.outlook(Reading(scratch / "inputs", disk, pulse.touch))),
            results=_folder(scratch / "results"),
            telemetry=_folder(scratch / "telemetry"),
            checkpoints=Checkpoints(store, work.work_key("checkpoints"), pulse.log),
            worker=worker,
            workers=workers,
            lanes=task.config.execution.lanes,
            log=pulse.log,
            pulse=pulse,
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
            self.pulse.log.info("%d of %d shards are committed; others make the rest", len(records), count)
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
                    self.pulse.log.info("shard %d is committed", index)
                return
            except ShardFailed as failure:
                self.pulse.log.error("shard %d failed: %s", failure.index, failure.message)
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
                **provenance(self.started),
                "attempt": self.id,
                "workers": self.context.workers,
                "failed_shards": [*failed],
                "notes": self.context.notes,
            },
        )
        self.context.checkpoints.clear()
        self.pulse.log.info("%s is committed: %s", self.task.name, manifest["digest"][:12])
        return manifest

    def heartbeat(self) -> Heartbeat:
        return Heartbeat(self.store, alive_key(self.task.name, self.id), self.context.worker, self.pulse.log)


def alive_key(name: Name, attempt: str) -> str:
    return name.key("alive", attempt)


def _by_stage(found: list[Artifact]) -> dict[str, tuple[Artifact, ...]]:
    return {a.stage: tuple(b for b in found if b.stage == a.stage) for a in found}


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def provenance(started: float) -> Made:
    """Return how, when and on which machine an artifact was made. The digest does not depend on it."""
    finished = time.time()
    return {
        "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        "finished": datetime.fromtimestamp(finished, UTC).isoformat(timespec="seconds"),
        "seconds": round(finished - started, 1),
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "versions": dict(versions()),
        "git": git_revision(),
        "cpu": cpu(),
    }


def versions() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            yield package, metadata.version(package)


def git_revision(package: Path = Path(__file__).parent) -> str:
    """Return the git revision of this code, from its image or its checkout; empty if there is neither."""
    with contextlib.suppress(OSError):
        return (package / "_revision").read_text()
    command = ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=12"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    return ""


def cpu() -> Cpu:
    """Return the processor's model and the features by which TensorFlow and LiteRT choose kernels."""
    info: dict[str, str] = {}
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        info = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set(info.get("flags", "").split())
    kernels = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile")
    return {
        "model": info.get("model name", platform.processor()),
        "features": [name for name in kernels if name in flags],
    }


def cores() -> int:
    """Return the cores of the cgroup's CPU quota, at least 1, at most those on which this process may run."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for path, parse in (("/sys/fs/cgroup/cpu.max", str.split), ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", _cgroup_v1)):
        with contextlib.suppress(OSError, ValueError):
            quota, period = parse(Path(path).read_text())
            if quota not in ("max", "-1"):
                return max(1, min(allowed, int(quota) // int(period)))
    return allowed


def _cgroup_v1(quota: str) -> list[str]:
    return [quota.strip(), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text().strip()]
