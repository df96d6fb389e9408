"""Estimates of a stage's time and cost, from its settings and measured rates: an order of magnitude.

`needs` is for the processes of one machine, `estimate` for pods. Cores differ by a factor of two, and the length of
training episodes depends on what C has learned. No rate was measured on a GPU, so stages on GPUs have no hours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..stages import stage
from .tasks import Task

PROCESS = 230e6  # bytes of memory of a process that drives, with 8 to 16 environment slots
TRAINING = 800e6  # of one that trains V at width 0.5, without its cache (1.75 GB with one of 1 GB)


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


@dataclass(frozen=True)
class Needs:
    """Needs of several tasks, one after the other, on this machine; memory is the largest of any of them."""

    hours: float
    cores: int
    disk: float  # bytes
    memory: float  # bytes

    def __str__(self) -> str:
        minutes = max(1, round(self.hours * 60))
        time = f"{self.hours:.1f} hours" if self.hours >= 2 else f"{minutes} minute{'s' * (minutes > 1)}"
        return (
            f"about {time} on {self.cores} core{'s' * (self.cores != 1)}, {self.disk / 1e9:.1f} GB of disk and"
            f" {self.memory / 1e9:.1f} GB of memory; other processors differ by a factor of two"
        )


def needs(tasks: Sequence[Task], cores: int) -> Needs:
    """Return what the tasks need on a machine with so many cores, as if nothing of them were done."""
    seconds = disk = memory = 0.0
    for task in tasks:
        what, execution = stage(task.stage), task.config.execution
        workers = execution.workers or cores
        seconds += what.core_seconds(task.config) / (cores if what.kind == "single" else workers)
        disk += what.stored_bytes(task.config)
        trains = "tensorflow" in what.packages
        memory = max(memory, TRAINING + execution.cache_mb * 2.0**20 if trains else workers * PROCESS)
    return Needs(seconds / 3600, cores, disk, memory)


def estimate(task: Task) -> Estimate:
    """Return the estimate of the whole task, as if nothing of it were done."""
    settings, what = task.config.kubernetes, stage(task.stage)
    pods, on_gpu = settings.pods_of(task.stage), what.gpu and settings.gpus
    each = settings.resources_of(task.stage).cores
    price = settings.prices.gpu_hour if on_gpu else each * settings.prices.cpu_hour
    hours = None if on_gpu else what.core_seconds(task.config) / 3600 / pods / max(each, 1e-3)
    return Estimate(pods, hours, price)
