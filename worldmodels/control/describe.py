"""How an evolution stands, for people: read-only, four questions and one listing for every 1,000 workers."""

import math
from dataclasses import dataclass

from ..context import Workspace
from . import status
from .pace import Pace, Timing

FIGURES = {"generations", "workers", "blocks"}
MORE = ("expected", "best", "mean", "sigma", "validation", "rate", "seconds")


@dataclass(frozen=True)
class Description:
    """`generation` is the one in hand, of `generations`; `done` the share of its blocks that are.

    `best` and `mean` are the last generation's training scores, `validation` the mean's best validation score so far;
    nan where there is none yet. `workers` have a fresh heartbeat by the store's clock; `rate` is their steps/s in all.
    `left`: seconds, at the pace so far; nan if unknown. `silent`: seconds since the leader said something.
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
    """None while no generation has begun, or if what its leader says is not understood."""
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
