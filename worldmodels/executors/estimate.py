"""What a stage will take and cost, from its settings and from rates that were measured: an order of magnitude.

Cores differ by a factor of two, and how long episodes last shows only while C learns. Nothing was measured on a GPU.
"""

from dataclasses import dataclass

from ..config import Config
from ..runner import Task
from ..stages import stage
from .job_spec import cores

# A second on one core of a 2-core AMD EPYC, all of them at work.
RANDOM_STEPS, CLOSED_LOOP_STEPS, GYMNASIUM_STEPS = 2400.0, 2500.0, 110.0
ENCODED_FRAMES, PREDICTED_FRAMES = 4000.0, 6000.0
IMAGES = 200.0  # of width 1, forward and back; 2.6 times as many of width 0.5
WIDTH_EXPONENT = -1.4
SURVIVAL = 0.67  # of the longest episode, where patience ends training episodes early (mean of 4,800)


@dataclass(frozen=True)
class Estimate:
    """`hours` of one pod each, None if nobody knows; `price`: of a pod for an hour, 0 if none is set."""

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
    """Of the whole task, as if nothing of it were done."""
    settings = task.config.kubernetes
    pods, on_gpu = getattr(settings.pods, task.stage, 1), stage(task.stage).gpu and settings.gpus
    each = cores(getattr(settings.resources, task.stage).cpu)
    price = settings.prices.gpu_hour if on_gpu else each * settings.prices.cpu_hour
    hours = None if on_gpu else core_hours(task.stage, task.config) / pods / max(each, 1e-3)
    return Estimate(pods, hours, price)


def core_hours(stage_name: str, config: Config) -> float:
    """Hours of one core."""
    rollouts, c, e = config.rollouts, config.controller, config.evaluate
    frames = rollouts.episodes * rollouts.steps
    survival = SURVIVAL if c.patience else 1.0
    last = [(level.tracks or c.tracks) * (level.steps or c.steps) for level in c.growth[-1:]]
    each = (c.tracks * c.steps + sum(last)) / (1 + len(last))  # half of the generations as it begins, half as it ends
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
