"""The stage `rollouts`: drive episodes, and store their frames, actions and rewards."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import npz
from ..context import Context
from ..envs import spec, tracks
from ..errors import MissingInput, ShardFailed
from ..networks import Encoder, Step
from . import episodes
from .driver import Driver
from .player import EpisodeFailed, EpisodeSpec, Policy, play
from .policies import RandomPolicy, WorldPolicy


def shards(ctx: Context, todo: Sequence[int]) -> Iterator[tuple[int, dict[str, bytes]]]:
    """Drive the shards' episodes; yield (shard index, its files) as soon as its last episode has ended.

    Meanwhile, free lanes drive the next shard. Memory: one uncompressed episode per lane. Raise ShardFailed if an
    episode cannot begin.
    """
    settings, seed, iteration = ctx.config.rollouts, ctx.config.seed, ctx.iteration
    size = settings.shard_episodes
    policy, parameters = _driver(ctx)
    specs = (
        EpisodeSpec(episode, tracks.rollout_track(seed, iteration, episode), parameters)
        for shard in todo
        for episode in range(shard * size, (shard + 1) * size)
    )
    progress = _Progress(ctx, len(todo) * size * settings.steps)
    finished: dict[int, dict[int, episodes.Packed]] = {shard: {} for shard in todo}
    lanes = spec(ctx.config.env).lanes(settings.renderer, ctx.lanes)
    try:
        for outcome in play(
            lanes, policy, lambda: next(specs, None), steps=settings.steps, record=True, on_step=progress.add
        ):
            assert outcome.episode is not None
            shard, place = divmod(outcome.spec.key, size)
            finished[shard][place] = episodes.pack(outcome.episode)
            progress.end(settings.steps - outcome.steps, outcome.score)
            if len(finished[shard]) == size:
                done = finished.pop(shard)
                yield shard, episodes.join([done[i] for i in range(size)])
    except EpisodeFailed as failure:
        raise ShardFailed(failure.spec.key // size, failure.message) from failure
    finally:
        lanes.close()


def _driver(ctx: Context) -> tuple[Policy, NDArray[np.float32] | None]:
    """Return the policy and C's parameters [P]: random actions and None, or the previous iteration's networks."""
    settings = ctx.config.rollouts
    if settings.controller == "random":
        return RandomPolicy(spec(ctx.config.env), ctx.config.seed, ctx.iteration, settings.steps, settings.hold), None
    encoder = Encoder(ctx.one("vae").path("encoder.tflite"))
    step = Step(ctx.one("memory").path("step.tflite"))
    controller = ctx.one("controller")
    policy = WorldPolicy(Driver.of(controller.env, controller.architecture, encoder, step), ctx.lanes)
    return policy, load_parameters(controller, settings.controller)


def load_parameters(
    controller: Any, which: str | int, again: str = "wm run rollouts -o rollouts.controller={}"
) -> NDArray[np.float32]:
    """Return a controller artifact's parameters [P]: "mean", "best", or the mean after generation `which`, from 1.

    Raise MissingInput for a generation that it does not have; the error's `next` names the last one.
    """
    if isinstance(which, str):
        return np.asarray(npz.read(controller.path(f"{which}.npy")), np.float32)
    means = npz.read(controller.path("generations.npz"), "mean", dimensions=2)  # [G, P]
    if not 1 <= which <= len(means):
        raise MissingInput(
            f"generation {which}: the controller has generations 1 to {len(means)}", next=again.format(len(means))
        )
    return np.asarray(means[which - 1], np.float32)


class _Progress:
    """Progress in steps; an episode that ends early reduces the expected number."""

    def __init__(self, ctx: Context, total: int) -> None:
        self._ctx = ctx
        self._total = total
        self._done = 0
        self._began = time.monotonic()
        self._figures: dict[str, float] = {}

    def add(self, steps: int) -> None:
        self._done += steps
        rate = self._done / max(time.monotonic() - self._began, 1e-9)
        self._ctx.progress(self._done, self._total, "steps", rate, **self._figures)

    def end(self, saved: int, score: float) -> None:
        self._total -= saved
        self._figures = {"score": score}
