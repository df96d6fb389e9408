"""An evolution's history, one row per generation, and the files that are made from it."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .records import Generation, arrays

COLUMNS = ("generation", "best", "mean", "worst", "std", "sigma", "validation", "steps")


@dataclass(frozen=True)
class Row:
    """The results of a generation: the candidates' `scores` [N], and the mean `centre` and `sigma` after the tell.

    `validation` is the score before the tell of the mean, or of the average of means; nan when not scored.
    """

    generation: int
    scores: tuple[float, ...]
    centre: np.ndarray  # float32 [P]
    sigma: float
    validation: float
    steps: int

    @property
    def mean(self) -> float:
        return average(self.scores)


@dataclass(frozen=True)
class Best:
    """The candidate with the highest training score so far. It is mostly luck with its tracks; the mean counts."""

    score: float
    candidate: np.ndarray  # float32 [P]


def average(values: Sequence[float]) -> float:
    """Return the mean, exact in every order of summation; nan for no values."""
    return math.fsum(values) / len(values) if len(values) else math.nan


def candidate_scores(scores: np.ndarray) -> tuple[float, ...]:
    """Return a score per candidate [N] from one per candidate and track [N, T]."""
    return tuple(average(row) for row in scores.tolist())


def row(after: Generation) -> Row:
    """Return the row of the generation before `after`."""
    assert after.before is not None
    return Row(
        after.number - 1,
        candidate_scores(after.before.scores),
        after.mean,
        after.sigma,
        average(after.before.validation.tolist()),
        after.before.steps,
    )


def table(rows: Sequence[Row]) -> str:
    """Return rewards.csv: scores in reward units, `validation` empty if not scored, environment `steps`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for r in rows:
        std = math.sqrt(average([(score - r.mean) ** 2 for score in r.scores]))
        figures = [f"{v:.4f}" for v in (max(r.scores), r.mean, min(r.scores), std)]
        validation = "" if math.isnan(r.validation) else f"{r.validation:.4f}"
        writer.writerow([r.generation, *figures, f"{r.sigma:.8f}", validation, r.steps])
    return text.getvalue()


def closed(table: bytes, ended: str) -> bytes:
    """Return rewards.csv with the reason of an early end in the column `ended`; unchanged if there is none."""
    if not ended:
        return table
    header, *rows = table.decode().splitlines()
    lines = [f"{header},ended", *(f"{row}," for row in rows[:-1]), f'{rows[-1]},"{ended}"']
    return "".join(f"{line}\n" for line in lines).encode()


def averaged(rows: Sequence[Row], count: int, first: np.ndarray) -> np.ndarray:
    """Average the means after the last `count` generations, float32 [P]; `first` is the mean before all of them.

    Sampling noise moves each mean in another direction, and the average cancels most of it (Polyak & Juditsky 1992).
    """
    means = [row.centre for row in rows[-count:]] or [first]
    return np.asarray(np.mean(means, axis=0, dtype=np.float64), np.float32)


def selected(rows: Sequence[Row], count: int, select: str, first: int) -> np.ndarray:
    """Return the stage's resulting parameters, float32 [P].

    They are the last average, or with `select` "best" the average with the highest validation score from generation
    `first` on (the earliest of equal ones; the last average if none was validated).
    """
    scored = [i for i, row in enumerate(rows) if i and row.generation >= first and not math.isnan(row.validation)]
    if select == "best" and scored:
        rows = rows[: max(scored, key=lambda i: rows[i].validation)]
    return averaged(rows, count, rows[-1].centre)


def files(rows: Sequence[Row], best: Best, mean: np.ndarray) -> dict[str, bytes]:
    """Return the stage's result files by logical name.

    generations.npz holds mean float32 [G, P] and sigma [G] after each tell.
    """
    means = np.stack([r.centre for r in rows])
    return {
        "mean.npy": _npy(mean),
        "best.npy": _npy(best.candidate),
        "generations.npz": arrays({"mean": means, "sigma": np.array([r.sigma for r in rows])}),
        "rewards.csv": table(rows).encode(),
    }


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
