"""Start of the search from the previous iteration's C, fitted to the new V and M.

The V and M of two iterations encode the same frames as different numbers, so C's parameters mean nothing to the new
ones. But another linear layer can give nearly the same outputs from the new numbers. Ridge regression finds it along
stored episodes (Hastie et al., "The Elements of Statistical Learning", section 3.4.1). A second layer stays as it is.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from ..context import Artifact, Context
from ..envs import spec
from ..errors import CorruptArtifact
from ..networks import Encoder, Step, build
from ..rollouts import episodes
from ..rollouts.stage import load_parameters
from ..vision.latents import Latents, encode
from . import shared_arrays
from .components import EPISODES, seen

KEY = "start"
RIDGE = 1.0
"""Penalty on squared weights: 0.1 to 10 fit 58,000 held-out outputs equally well (R² 0.94 to 0.97)."""


class Networks(NamedTuple):
    """V's encoder and M's step of one iteration."""

    encoder: Encoder
    step: Step


def networks(ctx: Context) -> list[Networks]:
    """Return the V and M of the previous iteration and of this one."""
    pairs = zip(ctx.inputs["vae"], ctx.inputs["memory"], strict=True)
    return [Networks(Encoder(v.path("encoder.tflite")), Step(m.path("step.tflite"))) for v, m in pairs]


def latents(ctx: Context, encoder: Encoder) -> Iterator[Latents]:
    """Encode the first episodes of this iteration's rollouts, which the previous C drove."""
    actions = spec(ctx.config.env).actions
    found = (episode for shard in ctx.one("rollouts").shards for episode in episodes.read(shard, actions))
    for episode in islice(found, EPISODES):
        yield Latents(*encode(encoder, episode.frames), episode.actions)


def obtain(ctx: Context) -> np.ndarray:
    """Return the parameters [P] with which the evolution begins, the same for all of its workers.

    Raise CorruptArtifact if the stored ones are damaged.
    """
    config = ctx.config
    length = build(spec(config.env), config.controller, config.vae.z, config.memory.hidden).parameters
    return shared_arrays.obtain(ctx, KEY, {"parameters": (length,)}, lambda: {"parameters": _fitted(ctx)})[0]


def fit(inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Return the parameters [O (I + 1)] of the linear layer that maps inputs [N, I] to outputs [N, O] best."""
    with threadpool_limits(1, user_api="blas"):  # another number of threads may sum in another order
        x = np.asarray(inputs, np.float64)
        mean, bias = x.mean(axis=0), outputs.mean(axis=0)
        x = x - mean
        weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ (outputs - bias))  # [I, O]
        return np.concatenate([weights.T.ravel(), bias - mean @ weights])


def _fitted(ctx: Context) -> np.ndarray:
    pairs, c, actions = networks(ctx), ctx.config.controller, spec(ctx.config.env).actions
    parameters = _before(ctx, pairs[0])
    if _same(ctx.inputs["vae"], "encoder.tflite") and _same(ctx.inputs["memory"], "step.tflite"):
        return parameters
    before, now = (
        np.concatenate([seen(episode, pair.step) for episode in latents(ctx, pair.encoder)])  # [N, Z + H]
        for pair in pairs
    )
    if c.inputs == "z":
        before, now = (x[:, : pair.encoder.z] for x, pair in zip((before, now), pairs, strict=True))
    outputs = c.hidden or actions
    layer = np.split(parameters, [outputs * before.shape[1], outputs * (before.shape[1] + 1)])
    weights, biases, rest = layer[0].reshape(outputs, -1), layer[1], layer[2]
    return np.concatenate([fit(now, np.einsum("ni,oi->no", before.astype(np.float64), weights) + biases), rest])


def _before(ctx: Context, networks: Networks) -> np.ndarray:
    """Return the previous C's parameters; raise CorruptArtifact if they are none for the V and M it drove with."""
    controller = ctx.one("controller")
    found = load_parameters(controller, "mean").astype(np.float64)
    z, hidden = networks.encoder.z, networks.step.hidden
    length = build(spec(ctx.config.env), ctx.config.controller, z, hidden).parameters
    most = shared_arrays.MOST
    if found.shape != (length,) or not (np.abs(found) <= most).all():
        raise CorruptArtifact(
            f"{controller.name}: mean.npy {found.shape} has other than {length} numbers of at most {most:g}",
            next="wm verify",
        )
    return found


def _same(artifacts: Sequence[Artifact], file: str) -> bool:
    """Return whether the artifacts have the same bytes in that file."""
    return len({artifact.files.files[file]["sha256"] for artifact in artifacts}) == 1
