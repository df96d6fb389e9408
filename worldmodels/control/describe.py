"""Progress of an evolution for users: read-only, four requests and one listing per 1,000 workers."""

import math
from dataclasses import dataclass

from ..context import Workspace
from . import status
from .pace import Pace, Timing

FIGURES = {"generations", "workers", "blocks"}
MORE = ("expected", "best", "mean", "sigma", "validation", "rate", "seconds")


@dataclass(frozen=True)
class Description:
    """The progress of an evolution: `done` is the finished share of the blocks of `generation`, of `generations`.

    `best` and `mean` are the last generation's training scores, `validation` the mean's best validation score so far;
    nan if there is none yet. `workers` counts fresh heartbeats by the store's clock; `rate` is their total in steps/s.
    `left`: seconds, at the pace so far; nan if unknown. `silent`: seconds since the leader's last status.
    """

    generation: int
    generations: int
    done: float
    best: float
    mean: float
    sigma: float
    validation: float
    workers: int
    rate: float
    left: float
    silent: float


def describe(area: Workspace, timing: Timing = Timing()) -> Description | None:  # noqa: B008 - frozen
    """Return the progress; None before the first generation, or if the leader's status is unreadable."""
    said = status.Status.decode(area.get(status.KEY))
    if said is None or not {name for name, value in said.figures.items() if value is not None} >= FIGURES:
        return None
    figures = dict.fromkeys(MORE, math.nan)
    figures |= {name: math.nan if value is None else value for name, value in said.figures.items()}
    workers = int(figures["workers"])
    pace = Pace(timing, max(1, workers), figures["expected"] if figures["expected"] > 0 else math.inf)
    oldest = area.now() - timing.fresh * pace.stretch
    alive = sum(written > oldest for written in area.written("workers/").values())
    done = said.done.bit_count() / max(1.0, figures["blocks"])
    generations = int(figures["generations"])
    return Description(
        generation=said.generation,
        generations=generations,
        done=done,
        best=figures["best"],
        mean=figures["mean"],
        sigma=figures["sigma"],
        validation=figures["validation"],
        workers=alive,
        rate=figures["rate"] * alive / max(1, workers),
        left=figures["seconds"] * (generations + 1 - said.generation - done),
        silent=area.age(status.KEY) or 0.0,
    )
