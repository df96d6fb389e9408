"""What a stage is given, and how it says how far it is.

Three kinds of stage (`stages.py` says which is which):

    single    run(ctx) -> None                      writes ctx.results and ctx.telemetry
    sharded   shards(ctx, todo) -> Iterator[(shard index, {logical name: content})], in any order, and perhaps
              collect(ctx, shards) -> None          writes ctx.results and ctx.telemetry once all shards are there
    exchange  work(ctx) -> None                     runs in every worker at once; they meet in ctx.area
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
    """Where the workers of one piece of work meet: a prefix of the store, apart from every other work's."""

    def get(self, key: str) -> bytes | None: ...

    def create(self, key: str, data: bytes) -> bool:
        """Write only if nothing is there; False if something was."""

    def put(self, key: str, data: bytes) -> None:
        """Write or overwrite; for heartbeats."""

    def keys(self, prefix: str) -> list[str]: ...

    def age(self, key: str) -> float | None:
        """Seconds since it was written, by the store's clock; None if it is not there."""

    def written(self, prefix: str) -> dict[str, float]:
        """When everything below `prefix` was written, by the store's clock; one listing."""

    def now(self) -> float:
        """The store's clock."""

    def parent(self, generation: int) -> "Workspace":
        """The area of an earlier evolution from the same inputs that has that generation, or MissingInput."""


class StoreWorkspace:
    """An Workspace below `prefix`; `stage_prefix` is where the stage's other areas are."""

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

    def put(self, key: str, data: bytes) -> None:
        self._store.put(self._prefix + key, data)

    def keys(self, prefix: str) -> list[str]:
        return [entry.key.removeprefix(self._prefix) for entry in self._store.entries(self._prefix + prefix)]

    def age(self, key: str) -> float | None:
        written = self._store.modified(self._prefix + key)  # a listing would be billed like a write
        return None if written is None else max(0.0, self._store.now() - written)

    def written(self, prefix: str) -> dict[str, float]:
        found = self._store.entries(self._prefix + prefix)
        return {entry.key.removeprefix(self._prefix): entry.modified for entry in found}

    def now(self) -> float:
        return self._store.now()

    def open(self) -> None:
        """Leave a note of what this area's work is made from, so that a later evolution may start from it."""
        self.create("inputs", self._inputs.encode())

    def parent(self, generation: int) -> "StoreWorkspace":
        found: list[tuple[float, StoreWorkspace]] = []
        for work in self._store.folders(f"{self._stage_prefix}/"):
            other = StoreWorkspace(self._store, self._stage_prefix, work, self._inputs)
            told = f"{other._prefix}generations/{generation + 1:05d}/params"
            if work == self._work or other.get("inputs") != self._inputs.encode():
                continue
            found += [(entry.modified, other) for entry in self._store.entries(told)]
        if not found:
            raise MissingInput(
                f"controller.start_from={generation}: no earlier evolution in {self._stage_prefix} has that generation",
                next="wm logs controller",
            )
        return max(found, key=lambda pair: pair[0])[1]


class Checkpoints:
    """The last two states of one piece of work: arrays by name, written as one object each."""

    def __init__(self, store: Store, prefix: str, log: logging.Logger) -> None:
        self._store = store
        self._prefix = prefix
        self._log = log

    def save(self, step: int, arrays: Mapping[str, Any]) -> None:
        """Write the state after `step`; the two newest are kept."""
        from . import npz

        buffer = io.BytesIO()
        npz.save(buffer, **arrays)
        self._store.put(self._key(step), buffer.getvalue())
        for key in self._keys()[:-2]:
            self._store.delete(key)

    def load(self) -> "tuple[int, dict[str, Any]] | None":
        """The newest readable state as (step, arrays), or None."""
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
    """Return the episodes that `latents.episodes` means; ConfigError if they are no whole shards of `size` episodes."""
    first, last = (0, 10**9) if chosen == "all" else (int(part) for part in chosen.split(":"))
    if first % size or (last % size and chosen != "all") or first >= last:
        raise ConfigError(
            f"latents.episodes = {chosen}: needed are A < B, multiples of rollouts.shard_episodes ({size})",
            next=f"wm run latents -o latents.episodes=0:{size}",
        )
    return range(first, last)


@dataclass
class ProgressReporter:
    """Progress of one worker: events for a screen, a log line now and then, and the place where a stop is noticed."""

    log: logging.Logger
    emit: Callable[[dict[str, Any]], None] = lambda event: None
    stop: threading.Event = field(default_factory=threading.Event)
    event_seconds: float = 0.2
    log_seconds: float = 15.0
    clock: Callable[[], float] = time.monotonic
    beat: float = field(default_factory=time.monotonic)
    _emitted: float = 0.0
    _logged: float = 0.0
    _began: tuple[float, float] | None = None  # when, and with how much done already

    def touch(self) -> None:
        """Something moves: bytes of a slow store arrive, say. No progress yet, but nobody is stuck."""
        self.beat = self.clock()

    def check(self) -> None:
        """Raise Stopped if the process was asked to stop."""
        if self.stop.is_set():
            raise Stopped("stopped on request; the same command goes on from here")

    def __call__(self, done: float, total: float, unit: str, rate: float, figures: Mapping[str, float]) -> None:
        self.beat = now = self.clock()
        self.check()
        self._began = self._began or (now, done)
        if now - self._emitted >= self.event_seconds or done >= total:
            self._emitted = now
            numbers = {"done": float(done), "total": float(total), "rate": float(rate)}  # NumPy's own are no JSON
            self.emit({**numbers, "unit": unit, "figures": {name: float(value) for name, value in figures.items()}})
        if now - self._logged >= self.log_seconds:
            self._logged = now
            words = "".join(f"  {name} {value:.4g}" for name, value in figures.items())
            left = self._left(now - self._began[0], done - self._began[1], total - done)
            self.log.info("%s of %s %s  %.4g/s%s%s", f"{done:g}", f"{total:g}", unit, rate, words, left)

    def _left(self, spent: float, done: float, missing: float) -> str:
        return f"  {clock(spent / done * missing)} left" if done > 0 < missing and spent > 5 else ""


@dataclass(frozen=True)
class Outlook:
    """The facts about a task that are known before it begins (see `preflight.py`).

    `inputs` are committed artifacts by stage, oldest first, without those that the same command makes first. Only if
    there are none of these is there an `area`: where the task's workers will meet.
    """

    config: Config
    run: str
    iteration: int
    stage: str
    inputs: Mapping[str, tuple[Artifact, ...]]
    area: Workspace | None


@dataclass
class Context:
    """Everything that a stage may know and touch."""

    config: Config
    run: str
    iteration: int
    stage: str
    inputs: Mapping[str, tuple[Artifact, ...]]
    results: Path
    telemetry: Path
    checkpoints: Checkpoints
    area: Workspace
    worker: int
    workers: int
    lanes: int
    log: logging.Logger
    pulse: ProgressReporter
    follow: Callable[[str, bytes], None] = lambda name, data: None
    notes: dict[str, str] = field(default_factory=dict)  # for people: the manifest says them, the digest does not
    publish_seconds: float = 2.0
    checkpoint_seconds: float = 30.0
    _published: dict[str, float] = field(default_factory=dict)
    _withheld: set[str] = field(default_factory=set)

    def one(self, stage: str) -> Artifact:
        """The latest input of that stage."""
        found = self.inputs.get(stage, ())
        if not found:
            raise MissingInput(
                f"{self.stage} of {self.run} needs {stage}, which is not committed",
                next=f"wm run {stage} --run {self.run}",
            )
        return found[-1]

    def sources(self) -> list[Shard]:
        """The rollouts shards that latents are made of, in latents' shard order: oldest iteration first."""
        found: list[Shard] = []
        for artifact in self.inputs["rollouts"]:
            size = artifact.shard_episodes
            episodes = chosen_episodes(self.config.latents.episodes, size)
            found += [shard for shard in artifact.shards if shard.index * size in episodes]
        return found

    def progress(self, done: float, total: float, unit: str, rate: float, **figures: float) -> None:
        """Say how far this worker is; cheap enough for every step. Raises Stopped if the process was asked to stop."""
        self.pulse(done, total, unit, rate, figures)

    def publish(self, name: str, *, now: bool = False) -> None:
        """Show telemetry/`name` as it is to whoever follows it; at most every `publish_seconds` unless `now`."""
        moment = time.monotonic()
        if now or moment - self._published.get(name, -1e9) >= self.publish_seconds:
            self._published[name] = moment
            self._withheld.discard(name)
            self.follow(name, (self.telemetry / name).read_bytes())
        else:
            self._withheld.add(name)

    def publish_rest(self) -> None:
        """Show the ends of what `publish` withheld."""
        for name in sorted(self._withheld):
            self.publish(name, now=True)
