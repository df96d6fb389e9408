"""One iteration of a run as the store shows it, read in as few requests as possible.

The settings of the last start name every manifest of the iteration, so one HEAD per stage tells what is committed,
whatever else the store holds. A listing costs as much as twelve HEADs. Only a stage whose inputs are committed is
listed: its heartbeats, its shards, its logs.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from math import isnan
from typing import Any, Literal

from .. import artifacts, config, planning, runner, stages, stored
from ..artifacts import Name
from ..config import Config
from ..errors import ConfigError, CorruptArtifact
from ..planning import underway
from ..planning.underway import Underway
from ..store import Store, read

State = Literal["committed", "at work", "stopped", "waits", "not begun", "damaged"]
GONE_SECONDS = 3 * runner.BEAT_SECONDS  # without a heartbeat, a worker counts as gone
IDLE_LOOKS = 3  # a worker stores the end of its log after its heartbeat ended
WORKERS = 256  # heartbeats that are read of one stage
LOG_BYTES = 2**22
BEGAN = re.compile(r"[0-9]{8}T[0-9]{6}")
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ([DIWEC]) (.*)")


@dataclass(frozen=True)
class Worker:
    """An attempt that shows a heartbeat: its host, its index, and when it began and beat last (Unix seconds)."""

    attempt: str
    host: str
    worker: int | None
    since: float
    beat: float


@dataclass(frozen=True)
class LastLine:
    """The last line of a stage's newest log, whether it is an error, and when it was stored (Unix seconds)."""

    text: str
    error: bool
    written: float


@dataclass
class Stage:
    """One stage: `committed` is when its manifest was stored (Unix seconds), None if it is not committed."""

    name: Name
    key: str = ""
    committed: float | None = None
    workers: tuple[Worker, ...] = ()
    gone: tuple[Worker, ...] = ()
    shards: tuple[int, int] | None = None
    evolution: dict[str, Any] | None = None
    line: LastLine | None = None
    missing: tuple[str, ...] = ()
    damaged: str = ""
    _idle: int = 0
    _task: Underway | None = None
    _inputs: tuple[float | None, ...] | None = None
    _hosts: dict[str, tuple[str, int | None]] = field(default_factory=dict)
    _log: tuple[str, float] = ("", 0.0)

    @property
    def state(self) -> State:
        if self.damaged:
            return "damaged"
        if self.committed is not None:
            return "committed"
        if self.workers or (self.evolution and underway.alive(self.evolution)):
            return "at work"
        if self.gone or self.line or self.evolution or (self.shards and self.shards[0]):
            return "stopped"
        return "waits" if self.missing else "not begun"

    @property
    def since(self) -> float | None:
        """Return when the state began, in Unix seconds; None if the store does not show it."""
        if self.state == "at work" and self.workers:
            return min(worker.since for worker in self.workers)
        latest = [worker.beat for worker in self.gone] + ([self.line.written] if self.line else [])
        return self.committed or (max(latest) if latest and self.state == "stopped" else None)

    def look(self, store: Store, settled: Config, inputs: tuple[float | None, ...]) -> None:
        """Read the signs of work on a stage whose inputs were committed at these times: at most three listings.

        Without a worker for some looks, only the heartbeats are listed.
        """
        self._heartbeats(store)
        self._idle = 0 if self.state == "at work" else self._idle + 1
        if self._idle > IDLE_LOOKS:
            return
        kind = stages.stage(self.name.stage).kind
        if kind != "single" and self._inputs != inputs:
            task = planning.Task(self.name.run, self.name.iteration, self.name.stage, settled)
            self._inputs, self._task = inputs, underway.of(store, task)
        if self._task and kind == "sharded":
            self.shards = self._task.shards()
        if self._task and kind == "exchange" and (found := self._task.evolution()):
            self.evolution = {k: None if isnan(v) else v for k, v in asdict(found).items()}
        self._last_line(store)

    def _heartbeats(self, store: Store) -> None:
        now, found = store.now(), []
        for entry in list(store.entries(runner.alive_key(self.name, "")))[:WORKERS]:
            attempt = entry.key.rpartition("/")[2]
            if attempt not in self._hosts:  # an attempt's heartbeats are equal
                signature = stored.advice(_optional(store, entry.key, stored.SIGNATURE.limit), stored.SIGNATURE) or {}
                index = signature.get("worker")
                self._hosts[attempt] = str(signature.get("host", "")), index if isinstance(index, int) else None
            found.append(Worker(attempt, *self._hosts[attempt], _began(attempt) or entry.modified, entry.modified))
        self.workers = tuple(worker for worker in found if now - worker.beat < GONE_SECONDS)
        self.gone = tuple(worker for worker in found if now - worker.beat >= GONE_SECONDS)

    def _last_line(self, store: Store) -> None:
        newest = max(store.entries(self.name.key("logs/")), key=lambda entry: entry.modified, default=None)
        if newest is None or (newest.key, newest.modified) == self._log:
            return
        self._log = newest.key, newest.modified
        data = _optional(store, newest.key, LOG_BYTES)
        lines = [found for line in (data or b"").decode(errors="replace").splitlines()
                 if (found := LOG_LINE.fullmatch(line))]  # fmt: skip
        if lines:
            self.line = LastLine(lines[-1][2][:1000], lines[-1][1] in "EC", newest.modified)


class Iteration:
    """The state of one iteration of a run; `refresh` reads it again."""

    def __init__(self, store: Store, run: str, number: int) -> None:
        self.run, self.number = run, number
        self.stages = {name: Stage(Name(run, number, name)) for name in stages.STAGES}
        self.settled: Config | None = None
        self.trouble = ""
        self.score: dict[str, Any] | None = None
        self.looked = False
        self._store = store
        self._started: float | None = None
        self._scored: float | None = None

    @property
    def id(self) -> str:
        return f"{self.run}/{self.number}"

    @property
    def active(self) -> bool:
        return any(stage.state == "at work" for stage in self.stages.values())

    @property
    def latest(self) -> float:
        """Return when something of the iteration was stored last, in Unix seconds."""
        signs = [self._started or 0.0]
        for stage in self.stages.values():
            signs += [stage.committed or 0.0, *(worker.beat for worker in (*stage.workers, *stage.gone))]
            signs += [stage.line.written] if stage.line else []
        return max(signs)

    def refresh(self, *, listings: bool = True, every: bool = True) -> None:
        """Read what may have changed.

        `listings`: also the signs of work, whose listings cost most. `every`: also stages that were committed already.
        """
        self._settings()
        for stage in self.stages.values():
            if every or stage.committed is None or not self.looked:
                self._committed(stage)
        for stage in self._ready() if listings else ():
            with _noting(stage):
                assert self.settled
                stage.look(self._store, self.settled, tuple(stage.committed for stage in self.stages.values()))
        self._read_score()
        self.looked = True

    def _settings(self) -> None:
        key = artifacts.config_key(self.run, self.number)
        if (written := self._store.modified(key)) == self._started and self.looked:
            return
        self._started, self.settled, self.trouble = written, None, ""
        try:
            found = planning.stored_config(self._store, self.run, self.number)
            if found:
                settings = (found["config"], found["origins"])
                self.settled, _ = config.resolve(iteration=self.number, stored=settings)
            else:
                self.trouble = "it has no settings of a last start"
        except (ConfigError, CorruptArtifact) as error:
            self.trouble = error.message
        for name in self.stages:
            self.stages[name] = Stage(Name(self.run, self.number, name))

    def _committed(self, stage: Stage) -> None:
        """Find the manifest: by its key if the settings are known, else the newest of a listing."""
        with _noting(stage):
            if self.settled:
                sections = stages.stage(stage.name.stage).sections
                stage.key = artifacts.identity(stage.name, self.settled, sections, {}).manifest_key
                stage.committed = self._store.modified(stage.key)
            else:
                there = [e for e in self._store.entries(stage.name.key("manifest")) if e.key.endswith(".json")]
                newest = max(there, key=lambda entry: entry.modified, default=None)
                stage.key, stage.committed = (newest.key, newest.modified) if newest else ("", None)
        if stage.committed is not None:
            stage.workers, stage.gone = (), ()

    def _ready(self) -> list[Stage]:
        """Return the stages that are not committed and whose inputs are; note the missing inputs of the others."""
        for stage in self.stages.values():
            inputs = stages.stage(stage.name.stage).inputs(self.settled, self.number) if self.settled else []
            stage.missing = tuple(
                name for name, number in inputs if number == self.number and self.stages[name].committed is None
            )
        waiting = [stage for stage in self.stages.values() if stage.committed is None]
        return [stage for stage in waiting if self.settled and not stage.missing]

    def _read_score(self) -> None:
        stage = self.stages["evaluate"]
        if stage.committed == self._scored and self.looked:
            return
        self._scored, self.score = stage.committed, None
        with _noting(stage):
            manifest = artifacts.read_manifest(self._store, stage.key) if stage.committed else None
            if manifest and (file := manifest["files"].get("scores.json")):
                data = read(self._store, file["key"], file["size"]) or b""
                scores = stored.parse(data, stored.SCORES, str(stage.name), artifacts.repair_command(stage.name))
                self.score = {key: scores[key] for key in ("mean", "std", "tracks", "laps", "interval")}


@contextlib.contextmanager
def _noting(stage: Stage) -> Iterator[None]:
    """Note a damaged object as the stage's state instead of raising CorruptArtifact."""
    try:
        yield
    except CorruptArtifact as error:
        stage.damaged = error.message


def _optional(store: Store, key: str, limit: int) -> bytes | None:
    """Return the object's bytes, or None if it is absent or larger than `limit`."""
    with contextlib.suppress(CorruptArtifact):
        return read(store, key, limit)
    return None


def _began(attempt: str) -> float | None:
    """Return when an attempt began, in Unix seconds, from its name; None if that has no time."""
    with contextlib.suppress(ValueError):
        if BEGAN.match(attempt):
            return datetime.strptime(attempt[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC).timestamp()
    return None
