"""Coordinates of the search: principal components of z and h, instead of C's weights.

The components of z and h differ in size by a factor of thousands, so equal steps in all weights change actions mostly
through a few of them. In these coordinates, a component changes actions by the square root of its standard deviation,
and small components, which are mostly noise, are left out. The unit is such that candidates with a standard deviation
of sigma in every coordinate have outputs with a standard deviation of sigma around the mean's.
"""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from ..context import Artifact, Context
from ..envs import spec
from ..networks import Step
from ..vision import latents
from ..vision.latents import Latents
from . import shared_arrays

KEY = "components"
EPISODES = 64  # of the stored latents: enough for a covariance of 288 numbers
SMALLEST = 1e-4  # standard deviation, of the largest one


class Components(NamedTuple):
    """The mean of [z, h] [I], and K directions [K, I], each divided by the root of its standard deviation."""

    mean: np.ndarray
    directions: np.ndarray

    def matrix(self, actions: int) -> np.ndarray:
        """Return the parameters [A (K + 1), P] of a linear C that a unit of each coordinate adds.

        A coordinate is a weight of one action on one component, or an action's bias.
        """
        count, inputs = self.directions.shape
        matrix = np.zeros((actions, count + 1, actions * (inputs + 1)))
        weights, biases = matrix[..., : actions * inputs], matrix[..., actions * inputs :]
        for action in range(actions):
            weights[action, :count, action * inputs : (action + 1) * inputs] = self.directions
            biases[action, :count, action] = -self.directions @ self.mean
            biases[action, count, action] = 1 / np.sqrt(count + 1)
        return matrix.reshape(-1, matrix.shape[-1])


def obtain(ctx: Context, step: Step, count: int, episodes: Iterator[Latents] | None = None) -> Components:
    """Return the evolution's components: those of the evolution that it continues, or along `episodes`.

    Without `episodes`, they follow from the first stored latents.

    Raise CorruptArtifact if the stored ones are damaged, MissingInput if the evolution to continue is gone.
    """
    along = episodes or _episodes(ctx.one("latents"), spec(ctx.config.env).actions)
    inputs = ctx.config.vae.z + step.hidden
    shapes = {"mean": (inputs,), "directions": (count, inputs)}
    return Components(*shared_arrays.obtain(ctx, KEY, shapes, lambda: compute(along, step, count)._asdict()))


def compute(episodes: Iterator[Latents], step: Step, count: int) -> Components:
    """Return the first `count` principal components of [z, h] along the episodes, the largest first."""
    x = np.concatenate([seen(episode, step) for episode in episodes]).astype(np.float64)  # [N, I]
    with threadpool_limits(1, user_api="blas"):  # another number of threads may sum in another order
        values, vectors = np.linalg.eigh(np.cov(x, rowvar=False))
    sizes = np.sqrt(np.maximum(values[::-1], 0.0))[:count]
    sizes = np.maximum(sizes, SMALLEST * sizes[0])
    scale = 1 / np.sqrt((count + 1) * sizes.mean() * sizes)  # with the bias, K + 1 shares of a variance of 1
    return Components(x.mean(axis=0), np.ascontiguousarray(vectors[:, ::-1][:, :count].T * scale[:, None]))


def _episodes(stored: Artifact, actions: int) -> Iterator[Latents]:
    found = (episode for shard in stored.shards for episode in latents.read(shard, actions))
    return islice(found, EPISODES)


def seen(episode: Latents, step: Step) -> np.ndarray:
    """Return [z, h] float32 [T, I] along an episode, as C sees them."""
    h = c = np.zeros((1, step.hidden), np.float32)
    rows = []
    for z, action in zip(episode.mean[:, None], episode.actions[:, None], strict=True):
        rows.append(np.concatenate([z, h], axis=1))
        h, c = step(z, action, h, c)
    return np.concatenate(rows)
