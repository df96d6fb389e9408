"""Interface of a stage: its inputs and outputs, its workspace, and its progress.

Three kinds of stage (`stages.py` has the kind of each):

    single    run(ctx) -> None                      writes ctx.results and ctx.telemetry
    sharded   shards(ctx, todo) -> Iterator[(shard index, {logical name: content})], in any order; optional:
              collect(ctx, shards) -> None          writes ctx.results and ctx.telemetry after all shards
    exchange  work(ctx) -> None                     runs in all workers at once; they share the workspace ctx.workspace
"""

import io
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from . import stored
from .artifacts import Artifact, Shard
from .config import Config
from .durations import clock
from .errors import ConfigError, CorruptArtifact, MissingInput, Stopped
from .store import Store, read

__all__ = ["Artifact", "Checkpoints", "Context", "Outlook", "ProgressReporter", "Shard", "StoreWorkspace", "Workspace"]


class Workspace(Protocol):
    """The folder in the store that the workers of one stage share, by identity."""

    def get(self, key: str) -> bytes | None: ...

    def create(self, key: str, data: bytes) -> bool:
        """Write the object unless it exists; return whether it was written."""

    def age(self, key: str) -> float | None:
        """Return the seconds since the object was written, by the store's clock; None if it does not exist."""

    def written(self, prefix: str) -> dict[str, float]:
        """Return when each object below `prefix` was written, in Unix seconds of the store's clock; one listing."""

    def now(self) -> float:
        """Return the store's clock in Unix seconds."""

    def parent(self, generation: int) -> "Workspace":
        """Return an earlier evolution's workspace with equal inputs and that generation, or raise MissingInput."""


class StoreWorkspace:
    """A Workspace in the folder `work` below `stage_prefix`, beside the stage's other workspaces."""

    def __init__(self, store: Store, stage_prefix: str, work: str, inputs: str) -> None:
        self._store = store
        self._stage_prefix = stage_prefix
        self._work = work
        self._inputs = inputs
        self._prefix = f"{stage_prefix}/{work}/"

    def get(self, key: str) -> bytes | None:
        return self._store.get(self._prefix + key)

    def create(self, key: str, data: bytes) -> bool:
        return self._store.create(self._prefix + key, data)

    def age(self, key: str) -> float | None:
        written = self._store.modified(self._prefix + key)  # a listing would be billed like a write
        return None if written is None else max(0.0, self._store.now() - written)

    def written(self, prefix: str) -> dict[str, float]:
        found = self._store.entries(self._prefix + prefix)
        return {entry.key.removeprefix(self._prefix): entry.modified for entry in found}

    def now(self) -> float:
        return self._store.now()

    def open(self) -> None:
        """Write the inputs' digests to the workspace, so that a later evolution can start from it."""
        self.create("inputs", self._inputs.encode())

    def parent(self, generation: int) -> "StoreWorkspace":
        found: list[tuple[float, StoreWorkspace]] = []
        for work in self._store.folders(f"{self._stage_prefix}/"):
            other = StoreWorkspace(self._store, self._stage_prefix, work, self._inputs)
            key = f"{other._prefix}generations/{generation + 1:05d}/params"
            if work == self._work or other.get("inputs") != self._inputs.encode():
                continue
            found += [(entry.modified, other) for entry in self._store.entries(key)]
        if not found:
            raise MissingInput(
                f"controller.start_from={generation}: no earlier evolution in {self._stage_prefix} has that generation",
                next="wm logs controller",
            )
        return max(found, key=lambda pair: pair[0])[1]


class Checkpoints:
    """The last two checkpoints of a stage's work, each one object with arrays by name."""

    def __init__(self, store: Store, prefix: str, log: logging.Logger) -> None:
        self._store = store
        self._prefix = prefix
        self._log = log

    def save(self, step: int, arrays: Mapping[str, Any]) -> None:
        """Write the state after `step`; keep the two newest."""
        from . import npz

        buffer = io.BytesIO()
        npz.save(buffer, **arrays)
        self._store.put(self._key(step), buffer.getvalue())
        for key in self._keys()[:-2]:
            self._store.delete(key)

    def load(self) -> "tuple[int, dict[str, Any]] | None":
        """Return the newest readable state as (step, arrays), or None."""
        from . import npz

        for key in reversed(self._keys()):
            try:
                return int(key[-12:-4]), npz.load(read(self._store, key, stored.FILE_BYTES) or b"")
            except (ValueError, CorruptArtifact):
                self._log.warning("checkpoint %s cannot be read; going on from an earlier one", key)
        return None

    def clear(self) -> None:
        for key in self._keys():
            self._store.delete(key)

    def _key(self, step: int) -> str:
        return f"{self._prefix}/{step:08d}.npz"

    def _keys(self) -> list[str]:
        return [entry.key for entry in self._store.entries(f"{self._prefix}/")]


def chosen_episodes(chosen: str, size: int) -> range:
    """Return the episodes of `latents.episodes`. Raise ConfigError unless they are whole shards of `size` episodes."""
    first, last = (0, 10**9) if chosen == "all" else (int(part) for part in chosen.split(":"))
    if first % size or (last % size and chosen != "all") or first >= last:
        raise ConfigError(
            f"latents.episodes = {chosen}: needed are A < B, multiples of rollouts.shard_episodes ({size})",
            next=f"wm run latents -o latents.episodes=0:{size}",
        )
    return range(first, last)


@dataclass
class ProgressReporter:
    """Reports one worker's progress as events and log lines, and raises Stopped upon a requested stop."""

    log: logging.Logger
    emit: Callable[[dict[str, Any]], None] = lambda event: None
    stop: threading.Event = field(default_factory=threading.Event)
    event_seconds: float = 0.2
    log_seconds: float = 15.0
    clock: Callable[[], float] = time.monotonic
    beat: float = field(default_factory=time.monotonic)
    _emitted: float = 0.0
    _logged: float = 0.0
    _began: tuple[float, float] | None = None  # time of the first call, and its `done`

    def touch(self) -> None:
        """Record activity without progress (bytes from a slow store, say), so that the worker is not taken for hung."""
        self.beat = self.clock()

    def check(self) -> None:
        """Raise Stopped if a stop was requested."""
        if self.stop.is_set():
            raise Stopped("stopped on request; the same command goes on from here")

    def __call__(self, done: float, total: float, unit: str, rate: float, figures: Mapping[str, float]) -> None:
        self.beat = now = self.clock()
        self.check()
        self._began = self._began or (now, done)
        if now - self._emitted >= self.event_seconds or done >= total:
            self._emitted = now
            numbers = {"done": float(done), "total": float(total), "rate": float(rate)}  # json does not accept NumPy's
            self.emit({**numbers, "unit": unit, "figures": {name: float(value) for name, value in figures.items()}})
        if now - self._logged >= self.log_seconds:
            self._logged = now
            words = "".join(f"  {name} {value:.4g}" for name, value in figures.items())
            left = self._left(now - self._began[0], done - self._began[1], total - done)
            self.log.info("%s of %s %s  %.4g/s%s%s", f"{done:g}", f"{total:g}", unit, rate, words, left)

    def _left(self, spent: float, done: float, missing: float) -> str:
        return f"  {clock(spent / done * missing)} left" if done > 0 < missing and spent > 5 else ""


@dataclass
class Outlook:
    """The facts about a task that are known before it begins (see `planning/preflight.py`).

    `inputs` are committed artifacts by stage, oldest first, without those that the same command makes first.
    `workspace` is the task's, or None if the same command makes an input first.
    """

    config: Config
    run: str
    iteration: int
    stage: str
    inputs: Mapping[str, tuple[Artifact, ...]]
    workspace: Workspace | None


@dataclass
class Context(Outlook):
    """Everything that a stage may read, write and call.

    `worker` is this worker's index among `workers`, `lanes` its number of environment slots.
    """

    workspace: Workspace
    results: Path
    telemetry: Path
    checkpoints: Checkpoints
    worker: int
    workers: int
    lanes: int
    log: logging.Logger
    reporter: ProgressReporter
    follow: Callable[[str, bytes], None] = lambda name, data: None
    notes: dict[str, str] = field(default_factory=dict)  # for users: in the manifest, without effect on the digest
    publish_seconds: float = 2.0
    checkpoint_seconds: float = 30.0
    _published: dict[str, float] = field(default_factory=dict)
    _withheld: set[str] = field(default_factory=set)

    def one(self, stage: str) -> Artifact:
        """Return the latest input of that stage. Raise MissingInput if there is none."""
        found = self.inputs.get(stage, ())
        if not found:
            raise MissingInput(
                f"{self.stage} of {self.run} needs {stage}, which is not committed",
                next=f"wm run {stage} --run {self.run}",
            )
        return found[-1]

    def sources(self) -> list[Shard]:
        """Return the rollouts shards that latents encode, in the order of latents' shards: oldest iteration first."""
        found: list[Shard] = []
        for artifact in self.inputs["rollouts"]:
            size = artifact.shard_episodes
            episodes = chosen_episodes(self.config.latents.episodes, size)
            found += [shard for shard in artifact.shards if shard.index * size in episodes]
        return found

    def progress(self, done: float, total: float, unit: str, rate: float, **figures: float) -> None:
        """Report this worker's progress; cheap enough for every step. Raise Stopped if a stop was requested."""
        self.reporter(done, total, unit, rate, figures)

    def alive(self) -> None:
        """Record activity without progress, so that the worker is not taken for hung. Raise Stopped as `progress`."""
        self.reporter.touch()
        self.reporter.check()

    def publish(self, name: str, *, now: bool = False) -> None:
        """Write telemetry/`name` to the store for its readers, at most every `publish_seconds` unless `now`."""
        moment = time.monotonic()
        if now or moment - self._published.get(name, -1e9) >= self.publish_seconds:
            self._published[name] = moment
            self._withheld.discard(name)
            self.follow(name, (self.telemetry / name).read_bytes())
        else:
            self._withheld.add(name)

    def publish_rest(self) -> None:
        """Write the final state of files that `publish` withheld."""
        for name in sorted(self._withheld):
            self.publish(name, now=True)
