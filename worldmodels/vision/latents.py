"""The `latents` stage: mean and log-variance of every stored frame, one shard per shard of rollouts."""

import contextlib
import io
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import mmap_array, npz
from ..context import Context, Shard
from ..envs import spec
from ..errors import CorruptArtifact, ShardFailed
from ..networks import Encoder
from ..rollouts import episodes
from ..training.stream import ahead

Floats = NDArray[np.float32]
FILE = "latents.npz"
CHUNK = 64
"""Frames per call of the encoder; more are not faster."""


@dataclass(frozen=True)
class Latents:
    """The latents of one episode: the moments of frame t, and the action taken there."""

    mean: Floats  # [T, Z]
    logvar: Floats  # [T, Z]
    actions: Floats  # [T, A]


def shards(ctx: Context, todo: Sequence[int]) -> Iterator[tuple[int, dict[str, bytes]]]:
    """Encode the shards `todo` of ctx.sources(); yield (index, files). Raise ShardFailed for a corrupt shard."""
    sources, actions = ctx.sources(), spec(ctx.config.env).actions
    encoder = Encoder(ctx.one("vae").path("encoder.tflite"))
    began, frames = time.monotonic(), 0
    for done, (index, found) in enumerate(ahead(todo, lambda index: _episodes(sources[index], index, actions))):
        encoded = []
        for episode in found:
            encoded.append(Latents(*encode(encoder, episode.frames), episode.actions))
            frames += len(episode.frames)
            seconds, part = time.monotonic() - began, done + len(encoded) / len(found)
            ctx.progress(part, len(todo), "shards", part / seconds, frames_per_s=frames / seconds)
        yield index, {FILE: pack(encoded)}


def _episodes(source: Shard, index: int, actions: int) -> list[episodes.Episode]:
    try:
        return episodes.read(source, actions)
    except CorruptArtifact as error:
        raise ShardFailed(index, error.message, error.next) from error


def encode(encoder: Encoder, frames: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Return mean and log-variance [T, Z] of frames [T, 64, 64, 3]."""
    parts = [encoder(frames[i : i + CHUNK]) for i in range(0, len(frames), CHUNK)]
    mean, logvar = (np.concatenate(moments) for moments in zip(*parts, strict=True))
    return mean, logvar


def pack(encoded: Sequence[Latents]) -> bytes:
    """Return the bytes of `latents.npz`; the same latents give the same bytes."""
    buffer = io.BytesIO()
    npz.save(
        buffer,
        mean=np.concatenate([e.mean for e in encoded]),
        logvar=np.concatenate([e.logvar for e in encoded]),
        actions=np.concatenate([e.actions for e in encoded]),
        lengths=np.array([len(e.actions) for e in encoded], np.int32),
    )
    return buffer.getvalue()


def lengths(shard: Shard) -> NDArray[np.int32]:
    """Return the number of frames of each episode [E] without decoding them."""
    with _belonging(shard):
        return _lengths(npz.load(shard.read(FILE), "lengths"))


def read(shard: Shard, actions: int) -> list[Latents]:
    """Return the shard's episodes in recording order; their actions have the length `actions`.

    Raise CorruptArtifact if its arrays do not fit each other, or have other actions.
    """
    with _belonging(shard):
        arrays = npz.load(shard.read(FILE), "lengths", "mean", "logvar", "actions")
        found = _lengths(arrays)
        mean, logvar, taken = (arrays[name] for name in ("mean", "logvar", "actions"))
        total = int(found.sum())
        if {a.dtype for a in (mean, logvar, taken)} != {np.dtype(np.float32)} or (
            (mean.shape, taken.shape) != (logvar.shape, (total, actions))
            or mean.shape[:1] != (total,)
            or mean.ndim != 2
        ):
            raise ValueError(f"{total} frames have arrays {mean.shape}, {logvar.shape} and {taken.shape}")
        ends = np.cumsum(found)[:-1]
        split = [np.split(mmap_array.copy(array), ends) for array in (mean, logvar, taken)]
    return [Latents(*parts) for parts in zip(*split, strict=True)]


def _lengths(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.int32]:
    found = np.asarray(arrays["lengths"])
    if found.dtype != np.int32 or found.ndim != 1 or not len(found) or found.min() < 1:
        raise ValueError("its episodes have no lengths")
    return found


@contextlib.contextmanager
def _belonging(shard: Shard) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise CorruptArtifact(f"latents shard {shard.index}: {error}", next="wm run latents --redo") from error
