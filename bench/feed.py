"""Does feeding keep up with training, in bounded memory?  python bench/feed.py [width] [rounds]

Real random rollouts, and the latents that an untrained V makes of them, stored many times under keys of their own in a
folder and on a local S3 server (which runs on the same cores). Three things are measured:

    reading   frames per second of CPU time: fetched, checked by SHA-256, decoded; and stored bytes per frame
    rate      training steps fed from memory (the same few batches again and again), from the folder and from the
              bucket, in turns. Caches are at their least and a pool is one or a few shards, so that every batch was
              fetched and decoded for its round: per frame the same work as with large pools
    peak      a stage's peak memory (VmHWM of a process of its own, TensorFlow included) for N and 10 N frames, at the
              real sizes of pools and caches. N fills them. Everything is fed, and a few steps are trained

Peaks of the memory stage from the bucket are taken with pools an eighth as large: ten times what fills the real
ones would be 6 GB on the server.
"""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
sys.path.append(str(Path(__file__).parents[1] / "tests"))

import buckets
import keras
import numpy as np
import tensorflow as tf

from worldmodels import artifacts, stages
from worldmodels.artifacts import Artifact, Identity, Name, Reading, publishing
from worldmodels.config import Config, resolve
from worldmodels.context import ProgressReporter
from worldmodels.executors import local
from worldmodels.memory import data as memory_data
from worldmodels.memory import train as memory_train
from worldmodels.memory.data import Episodes
from worldmodels.memory.model import Memory
from worldmodels.networks import Encoder
from worldmodels.planning import Task
from worldmodels.rollouts import episodes
from worldmodels.runner import run
from worldmodels.store import LocalStore, Store, open_store
from worldmodels.store.disk_cache import Disk
from worldmodels.training import devices, export
from worldmodels.training import stream as data
from worldmodels.vision import latents
from worldmodels.vision import train as vae_train
from worldmodels.vision.model import Vae, play_functions

EPISODES, STEPS = 8, 500  # of a shard, as the laptop preset has them
MADE = 8  # shards that are driven; the others repeat them
TRAINED = 20  # steps of a process whose peak is measured
# Shards of N frames: what fills the cache, in full pools. 10 N frames come from ten times as many.
VAE_SHARDS, MEMORY_SHARDS, SMALL = 32, 500, 8
PEAKS = (  # kind, store, shards, the part that a pool has of its real size, MB of cache
    ("vae", "folder", VAE_SHARDS, 1, 1024),
    ("vae", "bucket", VAE_SHARDS, 1, 1024),
    ("memory", "folder", MEMORY_SHARDS, 1, 512),
    ("memory", "bucket", MEMORY_SHARDS // SMALL, SMALL, 64),
)
DISK_MB = 64  # less than N has, so that it overflows


def config_of(shards: int, *more: str) -> Config:
    settings = (f"rollouts.episodes={shards * EPISODES}", f"rollouts.steps={STEPS}", *more)
    return resolve("laptop", overrides=(*settings, f"rollouts.shard_episodes={EPISODES}"))[0]


def work_of(kind: str, config: Config) -> Identity:
    stage = "rollouts" if kind == "vae" else "latents"
    number = str(config.rollouts.episodes)  # stands for the inputs: data sets of different sizes have manifests each
    return artifacts.identity(Name(f"n{number}", 1, stage), config, stages.stage(stage).sections, {"frames": number})


# Data.


def drive(folder: Path) -> list[dict[str, bytes]]:
    """Files of MADE shards of random rollouts, as the stage commits them."""
    task = Task("made", 1, "rollouts", config_of(MADE))
    executor = local.LocalExecutor(str(folder))
    executor.wait(executor.start(task), lambda snapshot: None)
    store = LocalStore(folder)
    manifest = run(store, task, 0, 1, ProgressReporter(SimpleNamespace(info=lambda *_: None)))
    found = artifacts.load(store, task.name, manifest, folder)
    return [{name: shard.read(name) for name in shard.files.files} for shard in found.shards]


def encode(shards: list[dict[str, bytes]], folder: Path, width: float) -> list[dict[str, bytes]]:
    """Files of the latents' shards."""
    (folder / "encoder.tflite").write_bytes(export.convert(play_functions(Vae(32, width))["encoder.tflite"]))
    encoder, encoded = Encoder(folder / "encoder.tflite"), []
    for content in shards:
        found = episodes.read(SimpleNamespace(index=0, read=content.__getitem__), 3)
        moments = [[np.concatenate(m) for m in zip(*map(encoder, np.array_split(e.frames, 8)), strict=True)]
                   for e in found]  # fmt: skip
        encoded.append([latents.Latents(*m, e.actions) for m, e in zip(moments, found, strict=True)])
    return [{latents.FILE: latents.pack(each)} for each in encoded]


def publish(store: Store, kind: str, shards: int, made: list[dict[str, bytes]]) -> None:
    """Commit a data set of so many shards, under keys of their own; on a folder they share their bytes by links."""
    work = work_of(kind, config_of(shards))
    if isinstance(store, LocalStore):
        first = _commit(store, work, range(min(len(made), shards)), made)
        records = [*first, *(_linked(store, first[i % len(first)], i) for i in range(len(first), shards))]
    else:
        records = _commit(store, work, range(shards), made)
    made_by = {"finished": "now"}
    publishing.commit(store, work, files={}, telemetry={}, shards=records, resolved={}, made=made_by)


def _commit(store: Store, work: Identity, indices: range, made: list[dict[str, bytes]]) -> list[dict[str, Any]]:
    def one(index: int) -> dict[str, Any]:
        publishing.commit_shard(store, work, index, "bench", made[index % len(made)])
        return artifacts.read_record(store, work.shard_key(index)) or {}

    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(one, indices))


def _linked(store: LocalStore, record: dict[str, Any], index: int) -> dict[str, Any]:
    files = {}
    for name, entry in record["files"].items():
        key = entry["key"].replace(f"shard-{record['index']:05d}", f"shard-{index:05d}")
        (store.root / key).parent.mkdir(parents=True, exist_ok=True)
        (store.root / key).hardlink_to(store.root / entry["key"])
        files[name] = {**entry, "key": key}
    return {**record, "index": index, "files": files}


def opened(store: Store, kind: str, shards: int, reading: Reading | Path) -> Artifact:
    work = work_of(kind, config_of(shards))
    manifest = artifacts.read_manifest(store, work.manifest_key)
    assert manifest
    return artifacts.load(store, work.name, manifest, reading)


# Reading.


def reading_rate(artifact: Artifact) -> tuple[float, float]:
    """Frames per second of CPU time, and stored bytes per frame."""
    began, frames = time.process_time(), 0
    for shard in artifact.shards[:MADE]:
        frames += len(episodes.frames(shard))
    size = sum(f["size"] for shard in artifact.shards[:MADE] for f in shard.files.files.values())
    return frames / (time.process_time() - began), size / frames


# Rates.


class VaeFeed:
    """Steps of V's training on what comes."""

    def __init__(self, width: float) -> None:
        self.vae = Vae(32, width, 1)
        optimizer = keras.optimizers.Adam(1e-3)
        optimizer.build(self.vae.trainable_variables)
        self.step = vae_train.make_step(self.vae, optimizer, 1, 0.5)

    def stream(self, artifact: Artifact) -> Iterator[Any]:
        cache = data.Cache(lambda i: episodes.frames(artifact.shards[i]), lambda found: found.nbytes, 0)
        return data.batches(cache, len(artifact.shards), per_pool=1, batch=100, epochs=100, seed=1)

    def __call__(self, item: Any, number: int) -> int:
        frames, _ = item
        [float(x) for x in self.step(frames, tf.constant(number, tf.int32))]
        return len(frames)


class MemoryFeed:
    """Steps of M's training on what comes."""

    def __init__(self, config: Config, artifact: Artifact, shards: int, per_pool: int = 0) -> None:
        self.config, self.shards, self.per_pool = config, shards, per_pool
        self.trainer = self._trainer(artifact)
        self.h = self.c = None

    def _trainer(self, artifact: Artifact) -> memory_train.Trainer:
        cache = self.config.execution.cache_mb << 20
        found = Episodes(
            artifact.shards[: self.shards], 3, 1, self.config.memory.held_out, 0 if self.per_pool else cache
        )
        found.per_pool = self.per_pool or found.per_pool
        return memory_train.Trainer(SimpleNamespace(config=self.config), Memory(32, 3, 256, 5, 1), found)

    def stream(self, artifact: Artifact) -> Iterator[Any]:
        return self._trainer(artifact).stream(data.START)

    def __call__(self, item: Any, number: int) -> int:
        window, _ = item
        if window.first or self.h is None or len(self.h) != len(window.mask):
            self.h, self.c = self.trainer.memory.zero_state(len(window.mask))
        loss, self.h, self.c = self.trainer.step(window, self.h, self.c, number)
        float(loss)
        return int(window.mask.sum())


def rates(feed: Any, places: dict[str, Artifact], steps: int, rounds: int) -> None:
    """Print frames a second from memory and from each source, and what part of the former the latter are.

    All see the same batches in the same order.
    """
    kept = list(itertools.islice(feed.stream(places["folder"]), steps // 2 + rounds * steps))
    streams = {place: data.Prefetch(feed.stream(artifact)) for place, artifact in places.items()}
    every: dict[str, Iterator[Any]] = {"memory": iter(kept), **streams}
    for items in every.values():  # compiles; and a round is then to begin within a pool and to end within the next one
        _round(feed, items, steps // 2)
    waited = {name: stream.waited for name, stream in streams.items()}
    rows = []
    for turn in range(rounds):
        order = [*every][turn % len(every) :] + [*every][: turn % len(every)]
        rows.append({name: _round(feed, every[name], steps) for name in order})
        print("  ", "  ".join(f"{name} {rows[-1][name][0]:.0f}" for name in every), "frames/s", flush=True)
    for name, stream in streams.items():
        rate, cpu = (np.median([row[name][i] / row["memory"][i] for row in rows]) for i in (0, 1))
        print(
            f"  {name:7} {rate:6.1%} of the bare rate, {cpu:6.1%} of the bare frames per second of CPU time,"
            f" waited {stream.waited - waited[name]:.2f} s"
        )
        stream.close()


def _round(feed: Callable[[Any, int], int], items: Iterator[Any], steps: int) -> tuple[float, float]:
    """Frames per second of time, and of CPU time of all threads."""
    began, cpu = time.monotonic(), time.process_time()
    frames = sum(feed(item, number) for number, item in enumerate(itertools.islice(items, steps)))
    return frames / (time.monotonic() - began), frames / (time.process_time() - cpu)


# Peaks.


def peak(uri: str, kind: str, shards: int, part: int, cache_mb: int, width: float) -> None:
    """Feed one epoch, train TRAINED steps of it, write what the stage writes; print this process's peak, in MB."""
    config = config_of(shards, f"execution.cache_mb={cache_mb}", f"{kind}.epochs=1", f"vae.width={width}")
    devices.prepare(config.vae.threads)
    store = open_store(uri)
    with tempfile.TemporaryDirectory(prefix="wm-bench-") as folder, Disk(Path(folder, "kept"), DISK_MB << 20) as disk:
        artifact = opened(store, kind, shards, Reading(Path(folder), None if store.local else disk))
        place = {"results": Path(folder), "telemetry": Path(folder)}
        ctx: Any = SimpleNamespace(
            config=config, **place, publish=lambda name: None, log=SimpleNamespace(info=lambda *_: None)
        )
        memory_data.POOL_FRAMES //= part
        (peak_of_vae if kind == "vae" else peak_of_memory)(ctx, artifact)
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(line.split()[1]) / 1024)


def peak_of_vae(ctx: Any, artifact: Artifact) -> None:
    feed = VaeFeed(ctx.config.vae.width)
    sample = vae_train._sample(artifact.shards)
    _thinly(feed, vae_train.stream(ctx, artifact.shards, data.START))
    vae_train._write(ctx, feed.vae, sample, TRAINED)


def peak_of_memory(ctx: Any, artifact: Artifact) -> None:
    feed = MemoryFeed(ctx.config, artifact, len(artifact.shards))
    _thinly(feed, feed.trainer.stream(data.START))
    memory_train._write(ctx, feed.trainer.memory, feed.trainer.episodes, 0.0, TRAINED)


def _thinly(feed: Callable[[Any, int], int], source: Iterator[Any]) -> None:
    trained = 0
    for item in data.Prefetch(source):
        if item[1].done * TRAINED > trained:
            feed(item, trained)
            trained += 1


def peaks(uris: dict[str, str], width: float) -> None:
    """Two processes at a time: memory is measured, not time."""

    def one(job: tuple[str, str, int, int, int]) -> float:
        kind, store, *numbers = job
        command = [sys.executable, __file__, "peak", uris[store], kind, *map(str, numbers), str(width)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        return float(done.stdout.split()[-1])

    jobs = [(kind, store, shards * n, part, cache) for kind, store, shards, part, cache in PEAKS for n in (1, 10)]
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(one, jobs))
    for (kind, store, shards, part, cache), few, many in zip(PEAKS, found[::2], found[1::2], strict=True):
        frames = shards * EPISODES * STEPS
        size = f"pools of a {part}th" if part > 1 else "real pools"
        print(
            f"  {kind:7} {store:7} {few:5.0f} MB for up to {frames:,} frames, {many:5.0f} MB for ten times as many"
            f" ({many / few - 1:+.1%}; {size}, cache {cache} MB)"
        )


@contextlib.contextmanager
def served(folder: Path) -> Iterator[dict[str, str]]:
    (folder / "weed").mkdir()
    with buckets.serve(folder / "weed", volumes=100) as url:
        os.environ.update(buckets.environment(url))
        yield {"folder": str(folder / "store"), "bucket": f"s3://{buckets.BUCKET}/bench"}


def main(width: float = 0.5, rounds: int = 3) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the server goes with this process
    devices.prepare(2)
    began = time.monotonic()

    def say(words: str) -> None:
        print(f"{words}  [{time.monotonic() - began:.0f} s]", flush=True)

    with tempfile.TemporaryDirectory(prefix="wm-bench-") as name, served(Path(name)) as uris:
        folder = Path(name)
        frames = drive(folder / "made")
        made = {"vae": frames, "memory": encode(frames, folder, width)}
        stores = {place: open_store(uri) for place, uri in uris.items()}
        for kind, place, shards, _, _ in PEAKS:
            for n in (1, 10):
                publish(stores[place], kind, shards * n, made[kind])
        say("data sets are made")
        sets = {
            kind: {place: opened(stores[place], kind, shards, folder) for k, place, shards, *_ in PEAKS if k == kind}
            for kind in made
        }
        for place, artifact in sets["vae"].items():
            rate, size = reading_rate(artifact)
            print(f"  {place:7} {rate:,.0f} frames/s a core read, checked, decoded; {size:.0f} bytes a frame")
        say(f"V's training, width {width:g}, batch 100")
        rates(VaeFeed(width), sets["vae"], 38, rounds)
        say("M's training, 16 x 100")
        config = config_of(MADE, "memory.epochs=100")
        rates(MemoryFeed(config, sets["memory"]["folder"], 8 * MADE, MADE), sets["memory"], 40, rounds)
        say("peak memory of a stage")
        peaks(uris, width)
        say("done")


if __name__ == "__main__":
    if sys.argv[1:2] == ["peak"]:
        uri, kind, shards, part, cache_mb, width = sys.argv[2:]
        peak(uri, kind, int(shards), int(part), int(cache_mb), float(width))
    else:
        main(*(float(arg) if i == 0 else int(arg) for i, arg in enumerate(sys.argv[1:])))
