"""Progress of an evolution for users: read-only, a dozen requests for single objects and one listing."""

import math
from dataclasses import dataclass

from ..config import Controller
from ..context import Workspace
from . import history
from .records import Generation, last, params_key


@dataclass(frozen=True)
class Description:
    """The progress of an evolution: `done` is the finished share of the blocks of `generation`.

    `best` and `mean` are the last generation's training scores, `validation` the mean's best validation score so far;
    nan if there is none yet. `workers` had part in the last generation, at `rate` steps per second in all; 0 if that
    generation was the first. `left`: seconds of work for the rest of `generations`, at the pace so far; nan if unknown.
    `silent`: seconds since a worker claimed or finished a block, by the store's clock.
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


def describe(workspace: Workspace, settings: Controller) -> Description | None:
    """Return the progress of the evolution with these settings; None before it begins."""
    first, generations = (settings.start_from or 0) + 1, settings.generations
    number = last(lambda n: workspace.age(params_key(n)) is not None, first, generations)
    if number < first:
        return None
    now = Generation.decode(workspace.get(params_key(number)) or b"", params_key(number))
    written = workspace.written(f"generations/{number:05d}/")
    done = sum("/results/" in key for key in written) / len(now.blocks)
    row = history.row(now) if now.before else None
    spent = now.stats.seconds / (number - first) if row else math.nan
    return Description(
        generation=number,
        generations=generations,
        done=done,
        best=max(row.scores) if row else math.nan,
        mean=row.mean if row else math.nan,
        sigma=now.sigma,
        validation=now.stats.best if math.isfinite(now.stats.best) else math.nan,
        workers=len(now.alive) if now.before else 0,
        rate=sum(now.speeds.values()),
        left=spent * (generations + 1 - number - done),
        silent=workspace.now() - max(written.values(), default=workspace.now()),
    )
