"""Episodes, and the files of a shard of them.

    frames.zst     one Zstandard frame per episode, concatenated: the bytes of uint8 [T, 64, 64, 3]. `zstd -d` gives the
                   raw frames of the whole shard.
    episodes.npz   per step: actions float32 [N, A], rewards float32 [N]; per episode: lengths int32 [E],
                   tracks int32 [E], terminated bool [E], compressed int32 [E] (bytes in frames.zst)

Storage is lossless, and the same episodes give the same bytes. For the same size, zlib needs several times as long as
Zstandard: more than a tenth of the simulation's time.
"""

import contextlib
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import zstandard
from numpy.typing import NDArray

from .. import mmap_array, npz
from ..config import SHARD_FRAMES
from ..envs import FRAME_SHAPE
from ..errors import CorruptArtifact

FRAMES, STEPS = "frames.zst", "episodes.npz"
FRAME_BYTES = math.prod(FRAME_SHAPE)
COLUMNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "actions": ("float32", ("N", "A")),
    "rewards": ("float32", ("N",)),
    "lengths": ("int32", ("E",)),
    "tracks": ("int32", ("E",)),
    "terminated": ("bool", ("E",)),
    "compressed": ("int32", ("E",)),
}
_LEVEL = 3


@dataclass(frozen=True)
class Episode:
    """A recorded episode: the policy saw `frames[t]`, took `actions[t]` and received `rewards[t]`."""

    frames: NDArray[np.uint8]  # [T, 64, 64, 3]
    actions: NDArray[np.float32]  # [T, A]
    rewards: NDArray[np.float32]  # [T]
    track: int
    terminated: bool  # by the environment, before the step limit

    def __len__(self) -> int:
        return len(self.actions)


@dataclass(frozen=True)
class Packed:
    """An episode with compressed frames, about fifteen times smaller; unfinished shards are kept in this form."""

    frames: bytes
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    track: int
    terminated: bool


class Files(Protocol):
    """The part of a shard that reading needs."""

    @property
    def index(self) -> int: ...

    @property
    def repair(self) -> str: ...

    def read(self, name: str) -> bytes: ...


def pack(episode: Episode) -> Packed:
    frames = zstandard.ZstdCompressor(level=_LEVEL).compress(np.ascontiguousarray(episode.frames).data)
    return Packed(frames, episode.actions, episode.rewards, episode.track, episode.terminated)


def join(packed: Sequence[Packed]) -> dict[str, bytes]:
    """Return a shard's files by logical name."""
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
    """Return a shard's files by logical name; `read` restores the episodes."""
    return join([pack(episode) for episode in episodes])


def lengths(shard: Files) -> NDArray[np.int32]:
    """Return the steps of every episode [E] without decoding a frame."""
    with _belonging(shard):
        return np.asarray(_table(shard)["lengths"])


def frames(shard: Files) -> NDArray[np.uint8]:
    """Return all frames of the shard [N, 64, 64, 3], episode after episode. Raise CorruptArtifact as `read` does."""
    with _belonging(shard):
        return _frames(shard, _table(shard))


def read(shard: Files, actions: int) -> list[Episode]:
    """Return the shard's episodes in order, as views of shared arrays; their actions have the length `actions`.

    Raise CorruptArtifact if the shard's files are damaged or do not belong together, or have other actions.
    """
    with _belonging(shard):
        steps = _table(shard)
        if steps["actions"].shape[1] != actions:
            raise ValueError(f"{STEPS} has {steps['actions'].shape[1]} numbers per action, not {actions}")
        ends = np.cumsum(steps["lengths"])[:-1]
        split = [np.split(array, ends) for array in (_frames(shard, steps), steps["actions"], steps["rewards"])]
        each = zip(*split, steps["tracks"].tolist(), steps["terminated"].tolist(), strict=True)
        return [Episode(*columns) for columns in each]


@contextlib.contextmanager
def _belonging(shard: Files) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, EOFError, zstandard.ZstdError) as error:
        raise CorruptArtifact(f"rollouts shard {shard.index}: {error}", next=shard.repair) from error


def _table(shard: Files) -> dict[str, NDArray[Any]]:
    """Return the shard's table; raise ValueError unless its arrays agree and stay below a shard's bounds.

    The check comes before memory is allocated by their sizes.
    """
    table = npz.load(shard.read(STEPS), *COLUMNS)
    steps, count = table["lengths"], len(table["lengths"]) if table["lengths"].ndim else 0
    total = int(steps.astype(np.int64).sum()) if steps.dtype == np.int32 else -1
    if not count or total < 0 or steps.min() < 1 or total > SHARD_FRAMES:
        raise ValueError(f"{STEPS} has {count} episodes of {total} steps; a shard has at most {SHARD_FRAMES}")
    sizes = {"N": total, "E": count, "A": table["actions"].shape[-1] if table["actions"].ndim else 0}
    for name, (dtype, shape) in COLUMNS.items():
        wanted = tuple(sizes[size] for size in shape)
        if (table[name].dtype, table[name].shape) != (np.dtype(dtype), wanted):
            raise ValueError(f"{STEPS}: {name} is {table[name].dtype} {table[name].shape}, not {dtype} {wanted}")
    if table["compressed"].min() < 1:
        raise ValueError(f"{STEPS} has an episode without frames")
    return table


def _frames(shard: Files, steps: dict[str, NDArray[Any]]) -> NDArray[np.uint8]:
    """Decompress in place: memory holds the shard's frames only once, beside the compressed bytes."""
    blob, sizes = memoryview(shard.read(FRAMES)), steps["compressed"].tolist()
    if sum(sizes) != len(blob):
        raise ValueError(f"{FRAMES} has {len(blob)} bytes, {STEPS} says {sum(sizes)}")
    found = mmap_array.empty((int(steps["lengths"].sum()), *FRAME_SHAPE), np.uint8)
    room, cut, end = found.reshape(-1).data, 0, 0
    for length, size in zip(steps["lengths"].tolist(), sizes, strict=True):
        part, raw = blob[cut : cut + size], length * FRAME_BYTES
        if zstandard.frame_content_size(part) != raw:
            raise ValueError(f"an episode of {length} steps has {zstandard.frame_content_size(part)} bytes of frames")
        with zstandard.ZstdDecompressor().stream_reader(part) as reader:
            if reader.readinto(room[end : end + raw]) != raw:
                raise ValueError(f"{FRAMES} ends within an episode")
        cut, end = cut + size, end + raw
    return found
