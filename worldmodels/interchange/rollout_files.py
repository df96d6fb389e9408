"""A run's rollouts as .npz files and as a Minari data set, for other learners."""

import io
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import npz
from ..envs import FRAME_SHAPE, spec
from ..errors import MissingInput, StoreError, lacking
from ..rollouts import episodes
from ..rollouts.episodes import Episode
from ..store.causes import explain
from . import files
from .checks import Reference, Written


def write_npz(reference: Reference, folder: Path) -> Iterator[Written]:
    """Write one file per shard, rollouts/shard-<index>.npz; the same episodes give the same bytes."""
    rollouts = reference.run.artifact("rollouts")
    for shard in rollouts.shards:
        found, data = episodes.read(shard, spec(rollouts.env).actions), io.BytesIO()
        npz.save(
            data,
            frames=np.concatenate([e.frames for e in found]),
            actions=np.concatenate([e.actions for e in found]),
            rewards=np.concatenate([e.rewards for e in found]),
            lengths=np.array([len(e) for e in found], np.int32),
            tracks=np.array([e.track for e in found], np.int32),
            terminated=np.array([e.terminated for e in found], np.bool_),
        )
        path = folder / "rollouts" / f"shard-{shard.index:05d}.npz"
        files.replace(path, partial(_write, data.getvalue()))
        yield Written(path, f"{len(found)} episodes")


def _write(data: bytes, path: Path) -> None:
    path.write_bytes(data)


def write_minari(reference: Reference, folder: Path) -> Iterator[Written]:
    """Write the data set CarRacing/<run>-v0 below the folder `minari`, with lossless frames.

    Minari needs the observation after each action. Rollouts do not store the last one, so each episode is exported
    without its last step, as truncated. Raise ConfigError if Minari is not installed, MissingInput if every episode has
    one step only.
    """
    try:
        import minari
    except ModuleNotFoundError as error:
        raise lacking("the export to Minari", error.name) from error
    root, run = folder / "minari", reference.run
    name, unfinished = f"CarRacing/{run.name}-v0", folder / f".{os.getpid()}-minari"
    count = 0
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _minari_root(unfinished):
            made: Any = None
            for shard in (rollouts := run.artifact("rollouts")).shards:
                found = episodes.read(shard, spec(rollouts.env).actions)
                buffers = [_buffer(minari, e) for e in found if len(e) > 1]
                count += len(buffers)
                if made is None and buffers:
                    made = _create(minari, name, buffers, _about(reference))
                elif buffers:
                    made.update_dataset_from_buffer(buffers)
        if made is None:
            raise MissingInput(f"the rollouts of {run.name} have no episode of two steps", next="wm show rollouts")
        target = root / name
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(exist_ok=True)
        os.replace(unfinished / name, target)
    except OSError as error:
        reason, command = explain(error, str(folder))
        raise StoreError(f"{root} cannot be written: {reason}", next=command) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    yield Written(target, f"{count} episodes; MINARI_DATASETS_PATH={root}")


@contextmanager
def _minari_root(folder: Path) -> Iterator[None]:
    """Let Minari write below `folder`: it takes the place from the environment only."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(folder.absolute())
    try:
        yield
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before


def _buffer(minari: Any, episode: Episode) -> Any:
    steps = len(episode) - 1
    truncations = np.zeros(steps, np.bool_)
    truncations[-1] = True
    return minari.data_collector.EpisodeBuffer(
        seed=episode.track if episode.track >= 0 else None,
        observations=episode.frames,
        actions=episode.actions[:-1],
        rewards=episode.rewards[:-1],
        terminations=np.zeros(steps, np.bool_),
        truncations=truncations,
    )


def _create(minari: Any, name: str, buffers: Sequence[Any], about: dict[str, str]) -> Any:
    import gymnasium

    space = gymnasium.spaces.Box(0, 255, FRAME_SHAPE, np.uint8)
    return minari.create_dataset_from_buffers(
        name,
        list(buffers),
        env="CarRacing-v3",
        observation_space=space,
        jpeg_encoding=False,
        data_format="hdf5",
        **about,
    )


def _about(reference: Reference) -> dict[str, str]:
    rollouts = reference.run.artifact("rollouts")
    driver = rollouts.manifest["config"].get("rollouts.controller")
    words = (
        f"Rollouts {rollouts.digest} of {rollouts.name}: frames of 64x64 pixels without gauges. Each episode lacks its"
        " last step, because the observation after it is not stored."
    )
    return {"algorithm_name": str(driver)[:100], "description": words}
