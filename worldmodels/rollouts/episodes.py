"""Episodes, and how a shard of them is stored.

    frames.zst     one Zstandard frame per episode, back to back: the bytes of uint8 [T, 64, 64, 3]. `zstd -d` gives the
                   raw frames of the whole shard.
    episodes.npz   per step: actions float32 [N, 3], rewards float32 [N]; per episode: lengths int32 [E],
                   tracks int32 [E], terminated bool [E], compressed int32 [E] (bytes in frames.zst)

Lossless. The same episodes give the same bytes. Zstandard, because zlib needs several times as long for the same size:
more than a tenth of what the simulation costs.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import zstandard
from numpy.typing import NDArray

from .. import npz
from ..errors import CorruptArtifact

FRAMES, STEPS = "frames.zst", "episodes.npz"
FRAME_SHAPE = (64, 64, 3)
_LEVEL = 3


@dataclass(frozen=True)
class Episode:
    """`frames[t]` is what was seen when `actions[t]` was taken, and `rewards[t]` what that earned."""

    frames: NDArray[np.uint8]  # [T, 64, 64, 3]
    actions: NDArray[np.float32]  # [T, 3]: steering in [-1, 1], gas and brake in [0, 1]
    rewards: NDArray[np.float32]  # [T]
    track: int
    terminated: bool  # by the environment, not for lack of steps

    def __len__(self) -> int:
        return len(self.actions)


@dataclass(frozen=True)
class Packed:
    """An episode with its frames compressed, some fifteen times smaller; all that a shard under way keeps in memory."""

    frames: bytes
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    track: int
    terminated: bool


class Files(Protocol):
    """A shard, as far as reading one goes."""

    @property
    def index(self) -> int: ...

    def path(self, name: str) -> Path: ...


def pack(episode: Episode) -> Packed:
    frames = zstandard.ZstdCompressor(level=_LEVEL).compress(np.ascontiguousarray(episode.frames).data)
    return Packed(frames, episode.actions, episode.rewards, episode.track, episode.terminated)


def join(packed: Sequence[Packed]) -> dict[str, bytes]:
    """A shard's files by logical name."""
    table = io.BytesIO()
    npz.save(
        table,
        actions=np.concatenate([p.actions for p in packed]).astype(np.float32, copy=False),
        rewards=np.concatenate([p.rewards for p in packed]).astype(np.float32, copy=False),
        lengths=np.array([len(p.actions) for p in packed], np.int32),
        tracks=np.array([p.track for p in packed], np.int32),
        terminated=np.array([p.terminated for p in packed], np.bool_),
        compressed=np.array([len(p.frames) for p in packed], np.int32),
    )
    return {FRAMES: b"".join(p.frames for p in packed), STEPS: table.getvalue()}


def encode(episodes: Sequence[Episode]) -> dict[str, bytes]:
    """A shard's files by logical name; `read` gives the episodes back."""
    return join([pack(episode) for episode in episodes])


def lengths(shard: Files) -> NDArray[np.int32]:
    """Steps of every episode [E], without decoding a frame."""
    with np.load(shard.path(STEPS), allow_pickle=False) as table:
        return np.asarray(table["lengths"])


def read(shard: Files) -> list[Episode]:
    """The shard's episodes, in order. Raises CorruptArtifact if its files do not belong together."""
    try:
        with np.load(shard.path(STEPS), allow_pickle=False) as table:
            steps = {name: table[name] for name in table.files}
        blob = memoryview(shard.path(FRAMES).read_bytes())
        if steps["compressed"].sum() != len(blob):
            raise ValueError(f"{FRAMES} has {len(blob)} bytes, {STEPS} says {steps['compressed'].sum()}")
        ends, cuts = np.cumsum(steps["lengths"]), np.cumsum(steps["compressed"])
        return [
            Episode(
                frames=_unpack(blob[cut - size : cut], int(length)),
                actions=steps["actions"][end - length : end],
                rewards=steps["rewards"][end - length : end],
                track=int(track),
                terminated=bool(terminated),
            )
            for end, length, cut, size, track, terminated in zip(
                ends, steps["lengths"], cuts, steps["compressed"], steps["tracks"], steps["terminated"], strict=True
            )
        ]
    except (ValueError, KeyError, EOFError, zstandard.ZstdError) as error:
        raise CorruptArtifact(f"rollouts shard {shard.index}: {error}", next="wm run rollouts --redo") from error


def _unpack(data: memoryview, length: int) -> NDArray[np.uint8]:
    size = length * int(np.prod(FRAME_SHAPE))
    raw = zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
    return np.frombuffer(raw, np.uint8).reshape(length, *FRAME_SHAPE)
