"""Estimates of a stage's pod-hours and costs, from its settings and measured rates: an order of magnitude.

Cores differ by a factor of two, and the length of training episodes depends on what C has learned. No rate was measured
on a GPU, so stages on GPUs have no hours.
"""

from dataclasses import dataclass

from ..stages import stage
from .tasks import Task


@dataclass(frozen=True)
class Estimate:
    """A task's estimate: `hours` of each pod, None if unknown; `price` of a pod-hour, 0 if no price is set."""

    pods: int
    hours: float | None
    price: float

    def __str__(self) -> str:
        count = f"{self.pods} pod{'s' * (self.pods != 1)}"
        if self.hours is None:
            return f"{count}" + (f", {self.pods * self.price:.3g} an hour" if self.price else "")
        spent = self.pods * self.hours
        costs = f" × {self.price:.3g} = {spent * self.price:.2g}" if self.price else ""
        return f"{count}, about {spent:.2g} pod-hours{costs}"


def estimate(task: Task) -> Estimate:
    """Return the estimate of the whole task, as if nothing of it were done."""
    settings, what = task.config.kubernetes, stage(task.stage)
    pods, on_gpu = settings.pods_of(task.stage), what.gpu and settings.gpus
    each = settings.resources_of(task.stage).cores
    price = settings.prices.gpu_hour if on_gpu else each * settings.prices.cpu_hour
    hours = None if on_gpu else what.core_seconds(task.config) / 3600 / pods / max(each, 1e-3)
    return Estimate(pods, hours, price)
