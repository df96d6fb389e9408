"""One iteration in full: what its manifests say, its curves, its films and its cost."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import artifacts
from ..config import Config
from ..errors import CorruptArtifact
from ..planning import Task
from ..planning.estimate import estimate
from ..store import Store, read
from .reading import Iteration, Stage

CSV_BYTES, FILM_BYTES = 2**25, 2**25
POINTS = 600  # of a curve, as many as a panel has pixels
TABLES = {"vae": "training.csv", "memory": "training.csv", "controller": "rewards.csv"}
FILMS = {
    ("evaluate", "drive.webp"): "The track with the median score, in real time.",
    ("report", "dream.webp"): "M's dream of a drive, decoded by V.",
    ("report", "reconstructions.png"): "Stored frames, and V's reconstructions of them below.",
}


@dataclass(frozen=True)
class Line:
    """A column that a panel draws; `mark` is how, `short` its label beside values."""

    column: str
    label: str
    short: str
    mark: str = "solid"


@dataclass(frozen=True)
class Panel:
    """A set of axes: the stage whose table it draws, the column of its x axis, and its lines."""

    stage: str
    title: str
    x: str
    lines: tuple[Line, ...]


PANELS = (
    Panel("controller", "C: score", "generation", (
        Line("mean", "population", "population"),
        Line("validation", "mean on validation tracks", "validation", "points"),
        Line("best", "best candidate", "best", "dotted"),
    )),
    Panel("controller", "C: step size σ of CMA-ES", "generation", (Line("sigma", "σ", "σ"),)),
    Panel("memory", "M: negative log-likelihood (nats per frame)", "step", (
        Line("loss", "training", "training"), Line("held_out", "held out", "held out", "points"),
    )),
    Panel("vae", "V: squared error per frame", "step", (Line("squared_error", "training", "training"),)),
    Panel("vae", "V: KL divergence per frame (nats)", "step", (Line("kl", "training", "training"),)),
)  # fmt: skip

Columns = dict[str, list[float | None]]


@dataclass(frozen=True)
class Film:
    """A committed picture: the files of its artifact, its name among them, whose suffix gives the type, and words."""

    files: artifacts.FileSet
    name: str
    words: str

    @property
    def address(self) -> str:
        """Return its name on the page; the SHA-256 makes it permanent."""
        return f"films/{self.files.files[self.name]['sha256'][:32]}{Path(self.name).suffix}"

    def read(self) -> bytes:
        """Return the picture. Raise CorruptArtifact if it is damaged or has more than FILM_BYTES."""
        if self.files.files[self.name]["size"] > FILM_BYTES:
            raise CorruptArtifact(
                f"{self.files.label}: {self.name} is larger than {FILM_BYTES} bytes", next="wm verify"
            )
        return self.files.read(self.name)


class Details:
    """The details of one iteration; a manifest is read once, a live table when it has changed.

    Tables are thinned to about `points` rows.
    """

    def __init__(self, store: Store, iteration: Iteration, prices: Config, points: float = POINTS) -> None:
        self.iteration, self._points = iteration, points
        self.films: dict[str, Film] = {}
        self._store, self._prices = store, prices
        self._manifests: dict[str, tuple[float, dict[str, Any]]] = {}
        self._tables: dict[str, tuple[Any, Columns]] = {}

    def refresh(self) -> None:
        """Read new manifests, and the tables that have grown."""
        for stage in self.iteration.stages.values():
            try:
                self._manifest(stage)
                if stage.name.stage in TABLES:
                    self._table(stage)
            except CorruptArtifact as error:
                stage.damaged = error.message

    def _manifest(self, stage: Stage) -> None:
        name = stage.name.stage
        if stage.committed is None:
            self._manifests.pop(name, None)
        elif self._manifests.get(name, (0.0, {}))[0] != stage.committed:
            found = artifacts.read_manifest(self._store, stage.key)
            if found:
                size = sum(file["size"] for file in artifacts.stored_files(found))
                # Thousands of shards' records would stay in memory.
                kept = {**found, "bytes": size, "shards": len(found["shards"])}
                self._manifests[name] = stage.committed, kept
                self._find_films(stage, kept)

    def _find_films(self, stage: Stage, manifest: Mapping[str, Any]) -> None:
        files = artifacts.load(self._store, stage.name, {**manifest, "shards": []}, Path()).files
        for (of, name), words in FILMS.items():
            if of == stage.name.stage and name in files.files:
                film = Film(files, name, words)
                self.films[film.address] = film

    def _table(self, stage: Stage) -> None:
        name, file = stage.name.stage, TABLES[stage.name.stage]
        manifest = self._manifests.get(name, (0.0, {}))[1]
        entry = {**manifest.get("telemetry", {}), **manifest.get("files", {})}.get(file)
        version: str | float | None = entry and entry["sha256"]
        if not entry and stage.state in ("at work", "stopped"):
            version = self._store.modified(stage.name.key("live", file))
        if version is None:
            self._tables.pop(name, None)
        elif self._tables.get(name, (None,))[0] != version:
            data = self._committed(stage, manifest, file) if entry else self._live(stage, file)
            self._tables[name] = (
                version,
                columns(data, [panel for panel in PANELS if panel.stage == name], self._points),
            )

    def _committed(self, stage: Stage, manifest: Mapping[str, Any], file: str) -> bytes:
        return artifacts.load(self._store, stage.name, {**manifest, "shards": []}, Path()).files.read(file)

    def _live(self, stage: Stage, file: str) -> bytes:
        return read(self._store, stage.name.key("live", file), CSV_BYTES) or b""

    def document(self, now: float) -> dict[str, Any]:
        """Return the details as JSON; `now` is the store's clock, for stages at work."""
        rows = [self._row(stage, now) for stage in self.iteration.stages.values()]
        costs = [row["cost"] for row in rows if row["cost"] is not None]
        return {
            "stages": rows,
            "cost": sum(costs) if costs else None,
            "curves": {name: table for name, (_, table) in self._tables.items()},
            "films": [{"address": address, "words": film.words}
                      for address, film in self.films.items()],
        }  # fmt: skip

    def _row(self, stage: Stage, now: float) -> dict[str, Any]:
        manifest = self._manifests.get(stage.name.stage, (0.0, {}))[1]
        made = manifest.get("made", {})
        seconds = made.get("seconds")
        if stage.state == "at work" and stage.since:
            seconds = max(0.0, now - stage.since)
        return {
            "digest": manifest.get("digest", "")[:12],
            "seconds": seconds,
            "host": made.get("host", ""),
            "count": made.get("workers"),
            "cpu": made.get("cpu", {}).get("model", ""),
            "bytes": manifest.get("bytes"),
            "failed": len(made.get("failed_shards", ())),
            "ended": str(made.get("notes", {}).get("ended", "")),
            "cost": self._cost(stage, len(stage.workers) or made.get("workers", 1), seconds),
            "workers": [{"host": w.host, "worker": w.worker, "since": w.since, "beat": w.beat} for w in stage.workers],
        }

    def _cost(self, stage: Stage, workers: int, seconds: float | None) -> float | None:
        """Return the price of the time that the stage took, at the caller's prices; None if there are none."""
        settled, kubernetes = self.iteration.settled, self._prices.kubernetes
        if seconds is None or settled is None:
            return None
        config = settled.model_copy(update={"kubernetes": kubernetes})
        each = estimate(Task(stage.name.run, stage.name.iteration, stage.name.stage, config))
        processes = max(1, int(getattr(kubernetes.resources, stage.name.stage).cores))  # of one pod
        return -(-workers // processes) * each.price * seconds / 3600 if each.price else None


def columns(data: bytes, panels: Sequence[Panel], points: float = POINTS) -> Columns:
    """Return the columns of a CSV table that the panels draw, thinned to about so many rows.

    A cell that is no finite number is None. The table may have any content: unknown columns are left out, and a last
    line without its end, which a worker is still writing.
    """
    text = data.decode(errors="replace")
    wanted = {line.column for panel in panels for line in panel.lines} | {panel.x for panel in panels}
    try:
        rows = list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])))
    except csv.Error:
        return {}
    known = [name for name in (rows[0] if rows else ()) if name in wanted]
    table = {name: [_number(row.get(name)) for row in rows] for name in known}
    kept = _kept(table, {panel.x for panel in panels}, points)
    return {name: [values[i] for i in kept] for name, values in table.items()}


def _kept(table: Columns, axes: set[str], points: float) -> list[int]:
    """Return the rows that a drawing needs: of each group of rows, the extremes of every column."""
    count = max((len(values) for values in table.values()), default=0)
    if count <= points:
        return list(range(count))
    drawn = [values for name, values in table.items() if name not in axes]
    width = math.ceil(count * 2 * max(1, len(drawn)) / points)
    kept = {0, count - 1}
    for begin in range(0, count, width):
        for values in drawn:
            there = [i for i in range(begin, min(begin + width, count)) if values[i] is not None]
            kept |= {pick(there, key=lambda i: values[i] or 0.0) for pick in (min, max) if there}
    return sorted(kept)


def _number(cell: Any) -> float | None:
    try:
        value = float(cell)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
