"""Limits of a run's hours and cost: `--max-hours` and `--max-cost` of `wm run` and `wm submit pipeline`.

A limit is no setting: it is part of no identity and no config. The command that executes the stages counts the time in
which they work, and stops them once a limit is reached, as Ctrl-C does. It stores the count of each stage and start as
`<stage>/spent/<start>.json`, telemetry that later commands add up.
"""

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from .. import artifacts, durations, stored
from ..artifacts import Name
from ..config.cluster import Prices
from ..errors import ConfigError, CorruptArtifact, LimitReached, StoreError
from ..planning import Task
from ..stages import STAGES, stage
from ..store import Store

STORE_SECONDS = 60.0
"""Seconds between two writes of a count; a killed command loses at most so much of it."""


@dataclass(frozen=True)
class Usage:
    """The seconds in which a stage worked, and those of its cores and its GPU pods."""

    seconds: float = 0.0
    core_seconds: float = 0.0
    gpu_seconds: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.seconds + other.seconds,
            self.core_seconds + other.core_seconds,
            self.gpu_seconds + other.gpu_seconds,
        )

    def cost(self, prices: Prices) -> float:
        return (self.core_seconds * prices.cpu_hour + self.gpu_seconds * prices.gpu_hour) / 3600


@dataclass(frozen=True)
class Limits:
    """The most that a run may use in all its starts: hours, and cost at the caller's prices; None: no limit."""

    hours: float | None = None
    cost: float | None = None
    prices: Prices = field(default_factory=Prices)

    def __post_init__(self) -> None:
        if self.cost is not None and not self.prices.cpu_hour:
            raise ConfigError(
                f"--max-cost {self.cost:g}: kubernetes.prices.cpu_hour is 0", next="-o kubernetes.prices.cpu_hour=0.04"
            )

    def to_json(self) -> str:
        return json.dumps({"hours": self.hours, "cost": self.cost, "prices": self.prices.model_dump()})

    @classmethod
    def from_json(cls, text: str) -> "Limits":
        value = json.loads(text)
        return cls(value["hours"], value["cost"], Prices.model_validate(value["prices"]))

    def __bool__(self) -> bool:
        return self.hours is not None or self.cost is not None

    def left(self, used: Usage) -> bool:
        """Return whether both limits leave something to use."""
        hours, cost = used.seconds / 3600, used.cost(self.prices)
        return (self.hours is None or hours < self.hours) and (self.cost is None or cost < self.cost)

    def reached(self, run: str, used: Usage, command: str) -> LimitReached:
        """Return the error for a run that used this much. Its next command doubles the limits that are reached."""
        hours, cost, words = used.seconds / 3600, used.cost(self.prices), []
        options = {"--max-hours": self.hours, "--max-cost": self.cost}
        if self.hours is not None and hours >= self.hours:
            words.append(f"worked for {durations.words(used.seconds)}, and --max-hours is {self.hours:g}")
            options["--max-hours"] = 2 * self.hours
        if self.cost is not None and cost >= self.cost:
            words.append(f"cost {cost:.3g}, and --max-cost is {self.cost:g}")
            options["--max-cost"] = 2 * self.cost
        more = [f"{option} {limit:g}" for option, limit in options.items() if limit is not None]
        return LimitReached(
            f"{run} has {'; it has '.join(words)}; a higher limit goes on from here",
            next=" ".join([*command.split(), *more]),
        )


def spent(store: Store, run: str) -> Usage:
    """Return the time that a run has used in all its starts, by its counts.

    A stage without a count (Jobs submitted one by one, earlier versions) has used the seconds of the attempt that
    committed it, with one core for each worker. Damaged counts and manifests count as absent.
    """
    total = Usage()
    for iteration in artifacts.iterations(store, run):
        for each in STAGES:
            name = Name(run, iteration, each)
            counts = starts(store, name)
            total += sum(counts, Usage()) if counts else _committed(store, name)
    return total


def starts(store: Store, name: Name) -> list[Usage]:
    """Return the time that each counted start used for a stage, work that was redone included."""
    return [_read(store, entry.key) for entry in store.entries(name.key("spent/"))]


def of_pods(task: Task, pods: int) -> tuple[float, float]:
    """Return the cores and the GPU pods that so many running pods of a task have; a GPU pod's price has its cores."""
    settings = task.config.kubernetes
    if stage(task.stage).gpu and settings.gpus:
        return 0.0, pods
    return pods * settings.resources_of(task.stage).cores, 0.0


def _read(store: Store, key: str) -> Usage:
    with contextlib.suppress(CorruptArtifact):  # larger than any count
        return Usage(**(stored.advice(store.get(key), stored.SPENT) or {}))
    return Usage()


def _committed(store: Store, name: Name) -> Usage:
    with contextlib.suppress(CorruptArtifact):
        made: list[Any] = [manifest["made"] for manifest in artifacts.manifests(store, name)]
        attempts = [(m.get("seconds", 0.0), m.get("workers", 1)) for m in made]
        return sum((Usage(seconds, seconds * workers) for seconds, workers in attempts), Usage())
    return Usage()


class Meter:
    """Counts the time of a run's stages, and raises LimitReached once a limit is reached.

    The command calls `stage` around each stage and `tick`, often, while it works. `again` is the command that would go
    on, without its limits.
    """

    def __init__(
        self,
        store: Store,
        run: str,
        limits: Limits,
        again: str,
        say: Callable[[str], None] = lambda words: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._run, self._limits, self._again, self._say = store, run, limits, again, say
        self._clock = clock
        self._before = spent(store, run) if limits else Usage()
        self._now, self._rate = Usage(), (0.0, 0.0)
        self._key, self._last, self._stored = "", clock(), clock()

    @contextlib.contextmanager
    def stage(self, name: Name) -> Iterator[None]:
        """Count for this stage within the `with` block; raise LimitReached at once if nothing is left to use."""
        self._check()
        self._key = name.key("spent", f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}.json")
        self._last = self._stored = self._clock()
        try:
            yield
        finally:  # the workers have stopped, which took some time
            self._count()
            self._put()
            self._before, self._now = self._before + self._now, Usage()

    def tick(self, cores: float, gpus: float = 0.0) -> None:
        """Count the time since the last call for so many cores and GPU pods; raise LimitReached at a limit."""
        self._rate = cores, gpus
        self._count()
        if self._last - self._stored >= STORE_SECONDS:
            self._put()
        self._check()

    def _count(self) -> None:
        now, (cores, gpus) = self._clock(), self._rate
        seconds, self._last = now - self._last, now
        if cores or gpus:
            self._now += Usage(seconds, seconds * cores, seconds * gpus)

    def _check(self) -> None:
        if not self._limits.left(used := self._before + self._now):
            raise self._limits.reached(self._run, used, self._again)

    def _put(self) -> None:
        """Store the count. A store that fails does not end the run: the count is advice."""
        self._stored = self._clock()
        try:
            self._store.put(self._key, json.dumps(asdict(self._now)).encode())
        except StoreError as error:
            self._say(f"the hours used are not stored: {error.message}")
