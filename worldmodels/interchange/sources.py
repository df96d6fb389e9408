"""Episodes from elsewhere: .npz files and Minari data sets, read one episode at a time and checked."""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import npz, stored
from ..envs import FRAME_SHAPE
from ..envs.preprocess import RAW, shrink
from ..errors import ConfigError, lacking
from ..rollouts.episodes import Episode

MOST_STEPS = 1000
"""Longest episode: CarRacing's time limit, and the bound of `rollouts.steps`."""
NPZ = ("frames", "actions", "rewards", "lengths")
"""Arrays that an .npz must have; `tracks` and `terminated` are optional."""
LOW, HIGH = (-1, 0, 0), (1, 1, 1)
HINT = "wm import --help"


class Source(Protocol):
    """Episodes that can be read several times, always in the same order."""

    @property
    def words(self) -> str:
        """Return where they come from, for the artifact's manifest."""

    def __iter__(self) -> Iterator[Episode]:
        """Yield them; raise ConfigError, which names the file and the episode, for data of another kind."""


@dataclass(frozen=True)
class Survey:
    """Number, longest length and total steps of a source's episodes, and the SHA-256 of all that they hold."""

    count: int
    longest: int
    steps: int
    digest: str


def open_source(text: str) -> Source:
    """Open an .npz file, a folder of them, or a Minari data set: its folder, or its id in Minari's own folder.

    Raise ConfigError if it is none of these.
    """
    path = Path(text)
    if path.suffix == ".npz" and path.is_file():
        return NpzFiles(text, [path])
    if path.is_dir() and (files := sorted(path.glob("*.npz"))):
        return NpzFiles(text, files)
    return MinariEpisodes(text)


def survey(source: Source) -> Survey:
    """Read all episodes once. Raise ConfigError if there is none."""
    count = longest = steps = 0
    content = hashlib.sha256()
    for episode in source:
        count, longest, steps = count + 1, max(longest, len(episode)), steps + len(episode)
        content.update(struct.pack("<qq?", len(episode), episode.track, episode.terminated))
        for array in (episode.frames, episode.actions, episode.rewards):
            content.update(np.ascontiguousarray(array).data)
    if not count:
        raise ConfigError(f"{source.words} has no episode", next=HINT)
    return Survey(count, longest, steps, content.hexdigest())


@dataclass(frozen=True)
class NpzFiles:
    """Files as `numpy.savez` writes them (uncompressed), with the arrays of NPZ; docs/formats.md describes them."""

    name: str
    files: list[Path]

    @property
    def words(self) -> str:
        return f"{len(self.files)} file(s) of {self.name}"

    def __iter__(self) -> Iterator[Episode]:
        for path in self.files:
            try:
                yield from _split(path)
            except (ValueError, OSError) as error:
                raise ConfigError(f"{path}: {error}", next=HINT) from error


def _split(path: Path) -> Iterator[Episode]:
    if path.stat().st_size > stored.FILE_BYTES:
        raise ValueError(f"a file of more than {stored.FILE_BYTES} bytes; write several, into one folder")
    arrays = npz.load(path.read_bytes())
    if missing := [name for name in NPZ if name not in arrays]:
        raise ValueError(f"it has no array {missing[0]}")
    lengths = np.asarray(arrays["lengths"])
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (len(lengths) and int(lengths.min()) < 1):
        raise ValueError("lengths are not the steps of each episode [E]")
    steps = sum(lengths.tolist())
    tracks = arrays.get("tracks", np.full(len(lengths), -1))
    terminated = arrays.get("terminated", np.zeros(len(lengths), np.bool_))
    wanted = {"frames": steps, "actions": steps, "rewards": steps, "tracks": len(lengths), "terminated": len(lengths)}
    for name, array in {**arrays, "tracks": tracks, "terminated": terminated}.items():
        if name in wanted and array.shape[:1] != (wanted[name],):
            raise ValueError(f"{name} has shape {array.shape}; lengths ask for {wanted[name]} rows")
    start = 0
    for number, length in enumerate(lengths.tolist()):
        part = slice(start, start + length)
        start += length
        parts = (arrays["frames"][part], arrays["actions"][part], arrays["rewards"][part])
        yield episode(f"episode {number}", *parts, track=tracks[number], terminated=bool(terminated[number]))


class MinariEpisodes:
    """A Minari data set of CarRacing: the observation after the last action is left out, as rollouts store none."""

    def __init__(self, name: str) -> None:
        """Open the data set. Raise ConfigError if it does not exist, or Minari is not installed."""
        try:
            import minari
        except ModuleNotFoundError as error:
            raise lacking(f"{name} is no .npz; a Minari data set", error.name) from error
        try:
            place = Path(name, "data")
            self._data = minari.MinariDataset(place) if place.is_dir() else minari.load_dataset(name)
        except Exception as error:  # Minari raises errors of many kinds for names and files that it cannot read
            reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
            raise ConfigError(
                f"{name} is no .npz file, no folder of them and no Minari data set: {reason[0]:.300}", next=HINT
            ) from error

    @property
    def words(self) -> str:
        spec, about = self._data.spec, self._data.storage.metadata
        made = [f"{key} {about[key]}" for key in ("algorithm_name", "author", "code_permalink") if about.get(key)]
        return "; ".join([f"Minari data set {spec.dataset_id}", *made])

    def __iter__(self) -> Iterator[Episode]:
        for index in self._data.episode_indices.tolist():
            label = f"{self._data.spec.dataset_id}, episode {index}"
            try:
                (found,) = self._data.iterate_episodes([index])
                (about,) = self._data.storage.get_episode_metadata([index])
                frames, ends = np.asarray(found.observations), np.asarray(found.terminations)
                seed = about.get("seed")
                yield episode(
                    label, frames[:-1], np.asarray(found.actions), np.asarray(found.rewards),
                    track=-1 if seed is None else seed, terminated=bool(ends[-1]) if len(ends) else False,
                )  # fmt: skip
            except (ValueError, KeyError, OSError, TypeError) as error:
                raise ConfigError(f"{label}: {error}", next=HINT) from error


def episode(
    label: str, frames: NDArray[Any], actions: NDArray[Any], rewards: NDArray[Any], *, track: Any, terminated: bool
) -> Episode:
    """Return a checked episode with frames [T, 64, 64, 3]; raise ValueError for arrays of another kind."""
    steps = len(actions)
    if frames.dtype != np.uint8 or frames.shape not in ((steps, *RAW), (steps, *FRAME_SHAPE)):
        raise ValueError(
            f"{label}: frames are {frames.dtype} {frames.shape}, not uint8 of {steps} steps, 96x96x3 or 64x64x3"
        )
    if actions.dtype.kind != "f" or actions.shape != (steps, 3):
        raise ValueError(f"{label}: actions are {actions.dtype} {actions.shape}, not float [{steps}, 3]")
    if not ((actions >= LOW) & (actions <= HIGH)).all():
        raise ValueError(f"{label}: actions leave [-1, 1] (steering) or [0, 1] (gas, brake)")
    if rewards.dtype.kind not in "fiu" or rewards.shape != (steps,) or not np.isfinite(rewards).all():
        raise ValueError(f"{label}: rewards are {rewards.dtype} {rewards.shape}, not {steps} finite numbers")
    if not 1 <= steps <= MOST_STEPS:
        raise ValueError(f"{label}: {steps} steps; an episode has 1 to {MOST_STEPS}")
    if not (isinstance(track, (int, np.integer)) and -1 <= track < 2**31):
        raise ValueError(f"{label}: track {track!r:.50} is no seed from 0 to 2147483647, nor -1")
    small = frames if frames.shape[1:] == FRAME_SHAPE else shrink(frames)
    return Episode(small, actions.astype(np.float32), rewards.astype(np.float32), int(track), terminated)
