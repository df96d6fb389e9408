"""Differences between two runs, iterations or artifacts: settings first, then results, then software."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from .. import artifacts, stages
from ..artifacts import ITERATION, Name
from ..errors import ConfigError, MissingInput
from ..evaluation.statistics import interval_95
from ..store import Store

Manifests = dict[str, dict[str, Any]]
"""The newest manifest of each artifact, by "iter-1/vae", or by "vae" alone within one iteration."""


@dataclass(frozen=True)
class Difference:
    """A setting, figure or version that two sides do not share; None where a side has none."""

    name: str
    left: Any
    right: Any


@dataclass(frozen=True)
class Pair:
    """One artifact of both sides. `scores` compares evaluations: the figures, and the mean difference by track."""

    name: str
    left: str | None  # digests
    right: str | None
    scores: tuple[Difference, ...] = ()
    paired: tuple[int, float, float, float] | None = None  # tracks, right minus left, its 95 % interval

    @property
    def same(self) -> bool:
        return self.left == self.right


@dataclass(frozen=True)
class Comparison:
    settings: tuple[Difference, ...]
    results: tuple[Pair, ...]
    made: tuple[Difference, ...]  # versions, kinds of processor


def check(left: str, right: str) -> None:
    """Raise ConfigError unless both sides are runs, or both iterations, or both artifacts of the same stage."""
    sides = [side.strip("/").split("/") for side in (left, right)]
    if len(sides[0]) != len(sides[1]):
        raise ConfigError(
            f"{left} and {right} cannot be compared: name two runs, two iterations, or two artifacts", next="wm ls"
        )
    if len(sides[0]) == 3 and sides[0][2] != sides[1][2]:
        raise ConfigError(f"{left} and {right} are artifacts of different stages", next="wm ls")


def find(store: Store, text: str) -> Manifests:
    """Return the manifests of RUN, RUN/iter-N or RUN/iter-N/STAGE.

    Raise ConfigError if the text is none of them, MissingInput if nothing of it is committed, CorruptArtifact if a
    manifest is damaged.
    """
    run, *rest = text.strip("/").split("/")
    if len(rest) > 2 or (rest and not ITERATION.fullmatch(rest[0])) or not artifacts.RUN_NAME.fullmatch(run):
        raise ConfigError(f"{text!r} is no run or artifact: write RUN, RUN/iter-N or RUN/iter-N/STAGE", next="wm ls")
    numbers = [int(rest[0].partition("-")[2])] if rest else artifacts.iterations(store, run)
    wanted = [stages.stage(rest[1]).name] if len(rest) == 2 else list(stages.STAGES)
    found: Manifests = {}
    for number in numbers:
        for stage in wanted:
            if manifests := artifacts.manifests(store, name := Name(run, number, stage)):
                found[stage if rest else name.input] = manifests[-1]
    if not found:
        raise MissingInput(f"nothing of {text} is committed in {store.uri}", next="wm ls")
    return found


def compare(store: Store, left: Manifests, right: Manifests) -> Comparison:
    """Compare what both sides have; an artifact that one side lacks differs."""
    names = list(dict.fromkeys([*left, *right]))
    both = [name for name in names if name in left and name in right]
    settings = _merged(_differences(_settings(left[name]), _settings(right[name])) for name in both)
    results = tuple(_pair(store, name, left.get(name), right.get(name)) for name in names)
    made = _merged(_differences(_made(left[name]), _made(right[name])) for name in both)
    return Comparison(settings, results, made)


def _settings(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {**manifest["config"], **manifest["extent"]}


def _made(manifest: Mapping[str, Any]) -> dict[str, Any]:
    made = manifest["made"]
    return {"python": made.get("python"), "processor": (made.get("cpu") or {}).get("model"), **made.get("versions", {})}


def _differences(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[Difference]:
    names = dict.fromkeys([*left, *right])
    return [Difference(n, left.get(n), right.get(n)) for n in names if left.get(n) != right.get(n)]


def _merged(found: Iterable[list[Difference]]) -> tuple[Difference, ...]:
    """Return the differences of all artifacts, each pair of values once."""
    merged: list[Difference] = []
    for difference in (each for part in found for each in part):
        if difference not in merged:
            merged.append(difference)
    return tuple(merged)


def _pair(store: Store, name: str, left: Mapping[str, Any] | None, right: Mapping[str, Any] | None) -> Pair:
    digests: tuple[str | None, str | None] = (left["digest"] if left else None, right["digest"] if right else None)
    if not left or not right or digests[0] == digests[1] or not name.endswith("evaluate"):
        return Pair(name, *digests)
    here, there = artifacts.stored_scores(store, left), artifacts.stored_scores(store, right)
    figures = ("mean", "std", "interquartile_mean", "median", "min", "laps", "tracks")
    chosen = [{figure: scores.get(figure) for figure in figures} for scores in (here, there)]
    by_track = {row["track"]: row["score"] for row in here["scores"]}
    steps = [row["score"] - by_track[row["track"]] for row in there["scores"] if row["track"] in by_track]
    paired = (len(steps), fmean(steps), *interval_95(steps)) if steps else None
    return Pair(name, *digests, tuple(_differences(*chosen)), paired)
