"""The comparison of a sweep's runs: one row per run, and one per combination of the other values over the seeds."""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import numpy as np

from .. import artifacts, durations, planning
from ..artifacts import Name
from ..config import Config
from ..errors import CorruptArtifact, MissingInput
from ..evaluation.statistics import deviation
from ..planning import Task
from ..reports import sources
from ..stages import STAGES
from ..store import Store
from ..stored import Manifest, Scores
from ..upkeep.parallel import each
from . import sharing
from .axes import SEED, SweepRun


@dataclass(frozen=True)
class Row:
    """One run. `scores` are its evaluation's, None before; `validated` its last (or selected) validation score.

    `scores` and `validated` are those of the last iteration. `seconds` are those that each committed stage took, its
    iterations together, without copies; `copied` has the runs that copies are from, by stages of which all are copies
    (their seconds are the other run's). `damaged` is why the run's data cannot be read, or empty.
    """

    run: str
    values: Mapping[str, str]
    digest: str | None = None
    scores: Scores | None = None
    validated: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    copied: Mapping[str, str] = field(default_factory=dict)
    damaged: str = ""


@dataclass(frozen=True)
class Group:
    """The runs that differ in their seeds only: the mean score of each, by seed."""

    values: Mapping[str, str]
    means: Mapping[str, float]

    @property
    def words(self) -> str:
        return ", ".join(f"{key} {value}" for key, value in self.values.items()) or "all"

    @property
    def mean(self) -> float:
        return fmean(self.means.values())

    @property
    def deviation(self) -> float:
        """Return the sample standard deviation of the seeds' means; 0 for one seed."""
        return deviation(list(self.means.values()))


@dataclass(frozen=True)
class Cells:
    """A table as text: its title, the titles of its columns, and its rows."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def rows(store: Store, runs: Iterable[tuple[SweepRun, Sequence[Task]]]) -> list[Row]:
    """Return one row per run, from what is committed of its tasks."""

    def row(pair: tuple[SweepRun, Sequence[Task]]) -> tuple[str, Row]:
        try:
            return pair[0].name, _row(store, *pair)
        except CorruptArtifact as error:  # the other runs' rows are still of use
            return pair[0].name, Row(pair[0].name, pair[0].values, damaged=error.message)

    pairs = list(runs)
    found = dict(each(row, pairs))
    return [found[run.name] for run, _ in pairs]


def _row(store: Store, run: SweepRun, tasks: Sequence[Task]) -> Row:
    found = [(task, planning.find(store, task.name, task.config)) for task in tasks]
    committed = [(task, manifest) for task, manifest in found if manifest]
    there = {task.stage: (task.name, manifest) for task, manifest in committed}
    digest, scores, validated = None, None, None
    if "evaluate" in there:
        _, manifest = there["evaluate"]
        digest, scores = manifest["digest"], artifacts.stored_scores(store, manifest)
    if "controller" in there:
        validated = _validated(store, *there["controller"], run.config)
    made_here = {task.stage for task, manifest in committed if not sharing.source(manifest)}
    copied = {stage: sharing.source(manifest) for stage, (_, manifest) in there.items() if stage not in made_here}
    seconds = dict.fromkeys(there, 0.0)
    for task, manifest in committed:
        if task.stage not in made_here or not sharing.source(manifest):
            seconds[task.stage] += float(manifest["made"].get("seconds", 0.0))
    return Row(run.name, run.values, digest, scores, validated, seconds, copied)


def _validated(store: Store, name: Name, manifest: Manifest, settled: Config) -> float | None:
    """Return the validation score of the mean that the evolution handed on; None if it scored none."""
    with tempfile.TemporaryDirectory(prefix="wm-sweep-") as scratch:
        path = artifacts.load(store, name, manifest, Path(scratch)).path("rewards.csv")
        try:
            scores = sources.table(path).get("validation", np.array([]))
        except MissingInput:
            return None
    scores = scores[np.isfinite(scores)]
    if not len(scores):
        return None
    return float(scores.max() if settled.controller.select == "best" else scores[-1])


def groups(found: Sequence[Row]) -> list[Group]:
    """Return the scored rows by their values without the seed."""
    means: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
    for row in found:
        if row.scores:
            others = tuple((key, value) for key, value in row.values.items() if key != SEED)
            means.setdefault(others, {})[row.values.get(SEED, "")] = row.scores["mean"]
    return [Group(dict(others), by_seed) for others, by_seed in means.items()]


def tables(found: Sequence[Row], published: Mapping[str, tuple[float, float]] | None = None) -> list[Cells]:
    """Return the tables of a sweep: scores by run, scores over seeds if there are several, and times.

    `published` scores, by the words of a value, get a column.
    """
    scores = Cells(
        "Scores",
        ("run", "score", "interquartile mean", "laps", "validated", "digest"),
        [[row.run, *_scores(row)] for row in found],
    )
    times = Cells("Time", ("run", *STAGES, "in all"), [[row.run, *_times(row)] for row in found])
    if len({row.values.get(SEED) for row in found}) < 2:
        return [scores, times]
    head = ["", "mean ± deviation", "seed: mean"]
    over = Cells(
        "Over seeds",
        [*head, "published"] if published else head,
        [
            [group.words, f"{group.mean:.0f}" + (f" ± {group.deviation:.0f}" if len(group.means) > 1 else ""),
             ", ".join(f"{seed}: {mean:.0f}" for seed, mean in group.means.items()),
             *([_published(group, published)] if published else [])]
            for group in groups(found)
        ],
    )  # fmt: skip
    return [scores, over, times]


def _published(group: Group, published: Mapping[str, tuple[float, float]]) -> str:
    there = next((published[value] for value in group.values.values() if value in published), None)
    return f"{there[0]:.0f} ± {there[1]:.0f}" if there else "–"


def _scores(row: Row) -> list[str]:
    validated = "–" if row.validated is None else f"{row.validated:.0f}"
    scores = row.scores
    if scores is None:
        return ["damaged" if row.damaged else "not scored", "–", "–", validated, "–"]
    typical = "–"
    if "interquartile_mean" in scores:
        low, high = scores["interquartile_interval"]
        typical = f"{scores['interquartile_mean']:.0f} ({low:.0f} to {high:.0f})"
    score, laps = f"{scores['mean']:.0f} ± {scores['std']:.0f}", f"{scores['laps']} of {scores['tracks']}"
    return [score, typical, laps, validated, (row.digest or "")[:12]]


def _times(row: Row) -> list[str]:
    def time(stage: str) -> str:
        if stage in row.copied:
            return "copied"
        return durations.clock(row.seconds[stage]) if stage in row.seconds else "–"

    own = sum(seconds for stage, seconds in row.seconds.items() if stage not in row.copied)
    return [*map(time, STAGES), durations.clock(own)]
