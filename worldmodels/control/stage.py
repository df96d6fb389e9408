"""The stage `controller`: evolves C together with the other workers."""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np

from ..config import Config
from ..context import Context
from ..envs import spec, tracks
from ..networks import Encoder, Step
from ..rollouts.driver import Driver
from ..rollouts.player import EpisodeResult, EpisodeSpec, play
from ..rollouts.policies import WorldPolicy
from . import components, history, warm_start
from .episode_queue import Limits
from .evolution import Evolution, Level, Settings
from .exchange import EvolutionPlan, Exchange
from .history import Row
from .stopping import StoppingCriteria

VALIDATION_STEPS = 1000


def work(ctx: Context) -> None:
    """Drive and exchange until the last generation is told; write mean.npy, best.npy, generations.npz, rewards.csv."""
    encoder = Encoder(ctx.one("vae").path("encoder.tflite"))
    step = Step(ctx.one("memory").path("step.tflite"))
    driver = Driver.of(ctx.config.env, ctx.config.controller, encoder, step)
    lanes = driver.env.lanes(ctx.config.controller.renderer, ctx.lanes)
    policy, evolution = WorldPolicy(driver, ctx.lanes), plan(ctx, driver.controller.parameters)
    evolution = replace(evolution, evolution=partial(Evolution, **_search_space(ctx, encoder, step)))
    exchange = Exchange(
        ctx.workspace, evolution, ctx.worker, ctx.lanes, ctx.log, on_generation=lambda rows: _show(ctx, rows)
    )

    def drive(
        next_episode: Callable[[], EpisodeSpec | None], limits: Limits, on_step: Callable[[int], None]
    ) -> Iterator[EpisodeResult]:
        return play(lanes, policy, next_episode, steps=limits.steps, patience=limits.patience, on_step=on_step)

    def tick(rate: float) -> None:
        if not exchange.begun:  # progress of a resumed evolution does not begin at 0
            ctx.alive()
            return
        ctx.progress(exchange.done, evolution.generations, "generations", rate, **_figures(exchange.latest))

    try:
        files = exchange.run(drive, tick)
    finally:
        lanes.close()
    for name, data in files.items():
        (ctx.results / name).write_bytes(data)
    if exchange.ended:
        ctx.notes["ended"] = exchange.ended
        if (live := ctx.telemetry / "rewards.csv").exists():  # only a worker that led has it
            live.write_bytes(files["rewards.csv"])
            ctx.publish("rewards.csv", now=True)
    ctx.progress(exchange.done, exchange.done, "generations", 0.0, **_figures(exchange.latest))


def _search_space(ctx: Context, encoder: Encoder, step: Step) -> dict[str, Any]:
    """Return where the search begins and its coordinates, as Evolution's `origin` and `matrix`."""
    space: dict[str, np.ndarray] = {}
    count, warm = ctx.config.controller.components, bool(ctx.inputs.get("controller"))
    if warm:
        space["origin"] = warm_start.obtain(ctx)
    if count:
        found = components.obtain(ctx, step, count, warm_start.latents(ctx, encoder) if warm else None)
        space["matrix"] = found.matrix(spec(ctx.config.env).actions)
    return space


def settings(config: Config, length: int) -> Settings:
    """Return the settings that determine an evolution of candidates of `length` parameters."""
    c = config.controller
    others = ("seed", "parameters", "growth", "architecture")
    same = {field.name: getattr(c, field.name) for field in fields(Settings) if field.name not in others}
    growth = tuple(Level(**level.model_dump()) for level in c.growth)
    return Settings(**same, seed=config.seed, parameters=length, growth=growth, architecture=c.changed())


def plan(ctx: Context, length: int) -> EvolutionPlan:
    """Return the configured evolution of candidates of `length` parameters."""
    c, seed, iteration = ctx.config.controller, ctx.config.seed, ctx.iteration

    def validation_tracks(generation: int) -> tuple[int, ...]:
        due = c.evaluate_every and generation % c.evaluate_every == 0
        return tuple(tracks.validation_tracks(seed, c.evaluate_tracks)) if due else ()

    return EvolutionPlan(
        settings=settings(ctx.config, length),
        generations=c.generations,
        training=Limits(c.steps, c.patience),
        validating=Limits(VALIDATION_STEPS, 0),
        training_tracks=lambda g, n: tuple(tracks.training_tracks(seed, iteration, g, n)),
        validation_tracks=validation_tracks,
        criteria=StoppingCriteria(c.target, c.stagnation, c.core_hours, c.wall_hours),
        select=c.select,
    )


def _show(ctx: Context, rows: list[Row]) -> None:
    (ctx.telemetry / "rewards.csv").write_text(history.table(rows))
    ctx.publish("rewards.csv")


def _figures(row: Row | None) -> dict[str, float]:
    return {} if row is None else {"mean": row.mean, "best": max(row.scores), "sigma": row.sigma}
