"""Estimates of a stage's pod-hours and costs, from its settings and measured rates: an order of magnitude.

Cores differ by a factor of two, and the length of training episodes depends on what C has learned. No rate was measured
on a GPU, so stages on GPUs have no hours.
"""

from dataclasses import dataclass

from ..config import Config
from ..runner import Task
from ..stages import stage
from .job_spec import cores

# Steps, frames and images per second on one core of a 2-core AMD EPYC, both cores busy.
RANDOM_STEPS, CLOSED_LOOP_STEPS, GYMNASIUM_STEPS = 2400.0, 2500.0, 110.0
ENCODED_FRAMES, PREDICTED_FRAMES = 4000.0, 6000.0
IMAGES = 200.0  # of a VAE of width 1, forward and backward; 2.6 times as many at width 0.5
WIDTH_EXPONENT = -1.4
SURVIVAL = 0.67  # of the longest episode, for training episodes that patience may end early (mean of 4,800)


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
    settings = task.config.kubernetes
    pods, on_gpu = getattr(settings.pods, task.stage, 1), stage(task.stage).gpu and settings.gpus
    each = cores(getattr(settings.resources, task.stage).cpu)
    price = settings.prices.gpu_hour if on_gpu else each * settings.prices.cpu_hour
    hours = None if on_gpu else core_hours(task.stage, task.config) / pods / max(each, 1e-3)
    return Estimate(pods, hours, price)


def core_hours(stage_name: str, config: Config) -> float:
    """Return the hours that one core needs for the stage."""
    rollouts, c, e = config.rollouts, config.controller, config.evaluate
    frames = rollouts.episodes * rollouts.steps
    survival = SURVIVAL if c.patience else 1.0
    last = [(level.tracks or c.tracks) * (level.steps or c.steps) for level in c.growth[-1:]]
    each = (c.tracks * c.steps + sum(last)) / (1 + len(last))  # half of them at the first level, half at the last
    trained = c.generations * c.population * each * survival
    validated = c.generations // c.evaluate_every * c.evaluate_tracks * 1000 if c.evaluate_every else 0
    rate = {"fast": CLOSED_LOOP_STEPS, "gymnasium": GYMNASIUM_STEPS}
    seconds: dict[str, float] = {
        "rollouts": frames / RANDOM_STEPS,
        "vae": config.vae.epochs * frames / (IMAGES * config.vae.width**WIDTH_EXPONENT),
        "latents": frames / ENCODED_FRAMES,
        "memory": config.memory.epochs * frames / PREDICTED_FRAMES * (config.memory.hidden / 256) ** 2,
        "controller": (trained + validated) / rate[c.renderer],
        "evaluate": e.steps * (e.tracks / CLOSED_LOOP_STEPS + min(e.reference_tracks, e.tracks) / GYMNASIUM_STEPS),
        "report": 60.0,
    }
    return seconds[stage_name] / 3600
