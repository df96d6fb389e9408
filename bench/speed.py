"""How fast is each path, on one core?  taskset -c 0 python bench/speed.py [--quick] [--json FILE]

Every row gives wm's rate, the plain way's (Gymnasium, one environment, Keras called once a step, NumPy's own files) and
a limit that was measured in the same run, all in turns, because machines change their mind; medians of ROUNDS.

    environment steps    limit: the physics alone, no frame drawn
    episode starts       on a track that was generated before; limit: the Box2D bodies alone
    new tracks           episode starts on tracks that were not; limit: Gymnasium's generation of the geometry alone
    closed loop          V, M and C drive LANES environments; limit: 1 / (1 / environment + 1 / networks)
    controller stage     the stage itself on a folder, by the clock: CMA-ES, files, idle time included; limit: as above
    stored rollouts      random driving, compressed; limit: the environment steps and starts alone
    latents              limit: the encoder alone
    V's, M's training    limit: the step's floating-point operations at the rate of a large matrix product

Rates of EnvPool 1.2.5 are added where it is installed. Networks are untrained: their speed does not depend on what they
know.
"""

import argparse
import csv
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
sys.path.append(str(Path(__file__).parents[1] / "tests"))

import fakes
import gymnasium
import keras
import numpy as np
import tensorflow as tf

from worldmodels.config import Architecture
from worldmodels.context import StoreWorkspace
from worldmodels.control import stage as control
from worldmodels.envs.car_racing import SPEC, make, random_actions
from worldmodels.envs.physics import UndrawnCarRacing, generate
from worldmodels.envs.preprocess import shrink
from worldmodels.envs.simulator import Box2D
from worldmodels.memory import train as memory_train
from worldmodels.memory.data import Episodes
from worldmodels.memory.model import Memory
from worldmodels.memory.model import play_functions as memory_functions
from worldmodels.networks import Encoder, Step, build
from worldmodels.rollouts import episodes, stage
from worldmodels.rollouts.driver import Driver
from worldmodels.rollouts.player import EpisodeSpec, play
from worldmodels.rollouts.policies import WorldPolicy
from worldmodels.store import LocalStore
from worldmodels.training import devices, export
from worldmodels.training.stream import START
from worldmodels.vision import latents
from worldmodels.vision import train as vae_train
from worldmodels.vision.model import Vae
from worldmodels.vision.model import play_functions as vae_functions

LANES, STEPS, ROUNDS, Z, HIDDEN, HOLD = 8, 300, 3, 32, 256, 8.0
WIDTHS = (0.5, 1.0)


@dataclass
class Row:
    """Rates per second of one core; `share` is of the limit, `times` is wm to plain."""

    what: str
    unit: str
    rate: float
    plain: float
    limit: float
    envpool: float = float("nan")

    @property
    def share(self) -> float:
        return self.rate / self.limit

    @property
    def times(self) -> float:
        return self.rate / self.plain


def seconds(work: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> float:
    began = clock()
    work()
    return clock() - began


def plans(count: int, steps: int = STEPS) -> np.ndarray:
    """Random actions [count, steps, 3], as random rollouts take them."""
    return np.stack([random_actions(np.random.default_rng((1, 1, i)), steps, HOLD) for i in range(count)])


# Environments.


def fast_steps() -> float:
    environments, actions = make("fast", LANES), plans(LANES)
    for lane in range(LANES):
        environments.start(lane, lane)
    every = range(LANES)
    rate = LANES * STEPS / seconds(lambda: [environments.step(every, actions[:, t]) for t in range(STEPS)])
    environments.close()
    return rate


def gymnasium_steps(steps: int = 60) -> float:
    env, actions = gymnasium.make("CarRacing-v3"), plans(1)[0]
    env.reset(seed=0)
    return steps / seconds(lambda: [shrink(env.step(actions[t])[0][None]) for t in range(steps)])


def physics_steps() -> float:
    env, actions = UndrawnCarRacing(), plans(1)[0]
    env.reset(seed=0)
    return STEPS / seconds(lambda: [env.step(actions[t]) for t in range(STEPS)])


def envpool_steps() -> float:
    try:
        import envpool
    except ImportError:
        return float("nan")
    actions = plans(LANES)
    pools = [envpool.make_gymnasium("CarRacing-v3", num_envs=1, num_threads=1, seed=i) for i in range(LANES)]
    for pool in pools:
        pool.reset()

    def step(t: int) -> None:
        for i, pool in enumerate(pools):
            pool.send(actions[i : i + 1, t])
        shrink(np.concatenate([pool.recv()[0] for pool in pools]))

    return LANES * STEPS / seconds(lambda: [step(t) for t in range(STEPS)])


def starts(count: int, first: int) -> float:
    environments = make("fast", 1)
    rate = count / seconds(lambda: [environments.start(0, first + i) for i in range(count)])
    environments.close()
    return rate


def gymnasium_starts(count: int = 3) -> float:
    return count / seconds(lambda: [gymnasium.make("CarRacing-v3").reset(seed=i) for i in range(count)])


def bodies(count: int = 20) -> float:
    world, track, body = Box2D.b2World((0, 0)), generate(0), Box2D.b2BodyDef()
    tiles = [Box2D.b2FixtureDef(shape=shape) for shape in track.shapes]
    return count / seconds(lambda: [world.CreateBody(body).CreateFixture(tile) for _ in range(count) for tile in tiles])


def geometry(first: int, count: int = 10) -> float:
    return count / seconds(lambda: [generate(first + i) for i in range(count)])


# Networks.


@dataclass
class Networks:
    vae: Vae
    memory: Memory
    encoder: Encoder
    step: Step
    folder: Path


def networks(width: float, folder: Path) -> Networks:
    vae, memory = Vae(Z, width), Memory(Z, 3, HIDDEN, 5)
    folder.mkdir()
    for name, function in {**vae_functions(vae), **memory_functions(memory)}.items():
        (folder / name).write_bytes(export.convert(function))
    return Networks(vae, memory, Encoder(folder / "encoder.tflite"), Step(folder / "step.tflite"), folder)


def controller() -> np.ndarray:
    """Parameters with which the car moves on, so that frames differ."""
    weights = (
        np.random.default_rng(1).normal(0, 0.02, build(SPEC, Architecture(), Z, HIDDEN).parameters).astype(np.float32)
    )
    weights[-3:] = 0.0, 0.3, -1.0
    return weights


def network_steps(nets: Networks) -> float:
    frames = np.random.default_rng(1).integers(0, 255, (LANES, 64, 64, 3), np.uint8)
    actions, h = np.zeros((LANES, 3), np.float32), np.zeros((LANES, HIDDEN), np.float32)
    return LANES * STEPS / seconds(lambda: [nets.step(nets.encoder(frames)[0], actions, h, h) for _ in range(STEPS)])


def loop_steps(nets: Networks) -> float:
    environments, weights = make("fast", LANES), controller()
    specs = iter([EpisodeSpec(i, i, weights) for i in range(LANES)])
    policy, taken = WorldPolicy(Driver.of("CarRacing-v3", Architecture(), nets.encoder, nets.step), LANES), 0

    def drive() -> None:
        nonlocal taken
        taken = sum(o.steps for o in play(environments, policy, lambda: next(specs, None), steps=STEPS))

    spent = seconds(drive)
    environments.close()
    return taken / spent


def plain_loop_steps(nets: Networks, steps: int = 60) -> float:
    env, weights = gymnasium.make("CarRacing-v3"), controller()
    frame, matrix = env.reset(seed=0)[0], weights[:-3].reshape(3, -1)
    h = c = np.zeros((1, HIDDEN), np.float32)

    def drive() -> None:
        nonlocal frame, h, c
        for _ in range(steps):
            z = nets.vae.encode(shrink(frame[None]))[0].numpy()
            out = np.tanh(matrix @ np.concatenate([z[0], np.asarray(h)[0]]) + weights[-3:])
            action = np.array([out[0], (out[1] + 1) / 2, max(out[2], 0)], np.float32)
            _, (h, c) = nets.memory.predict_sequence(z[:, None], action[None, None], (h, c))
            frame = env.step(action)[0]

    return steps / seconds(drive)


def stage_steps(nets: Networks, generations: int) -> float:
    """The stage `controller` as one worker of a store in a folder, by the clock."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {"population": 32, "tracks": 2, "steps": 200, "generations": generations}
        settings |= {"growth": "[]", "evaluate_every": 100}
        inputs = {stage: fakes.FolderArtifact(nets.folder) for stage in ("vae", "memory")}
        ctx = fakes.context(folder, "controller", {f"controller.{k}": v for k, v in settings.items()}, **inputs)
        ctx.workspace, ctx.lanes = (
            StoreWorkspace(LocalStore(folder / "area"), "bench/iter-1/controller", "work", "{}"),
            LANES,
        )
        ctx.workspace.open()
        spent = seconds(lambda: control.work(ctx), time.monotonic)
        rows = csv.DictReader(io.StringIO((ctx.results / "rewards.csv").read_text()))
        return sum(int(row["steps"]) for row in rows) / spent


# Stored data.


def driven(folder: Path, count: int, first: int = 0) -> tuple[float, dict[str, bytes]]:
    """The stage `rollouts`: frames per second, and one shard's files."""
    overrides = {"rollouts.episodes": count, "rollouts.shard_episodes": count, "rollouts.steps": STEPS, "seed": first}
    ctx = fakes.context(folder, "rollouts", overrides)
    ctx.lanes = LANES
    files: dict[str, bytes] = {}

    def work() -> None:
        ((_, made),) = stage.shards(ctx, [0])
        files.update(made)

    spent = seconds(work)
    found = episodes.read(SimpleNamespace(index=0, read=files.__getitem__), 3)
    return sum(map(len, found)) / spent, files


def plain_rollouts(steps: int = 60) -> float:
    def drive() -> None:
        env, actions, frames = gymnasium.make("CarRacing-v3"), plans(1)[0], []
        env.reset(seed=0)
        for t in range(steps):
            frames.append(shrink(env.step(actions[t])[0][None])[0])
        np.savez_compressed(io.BytesIO(), frames=np.array(frames), actions=actions[:steps])

    return steps / seconds(drive)


def encoded(nets: Networks, shards: list[dict[str, bytes]], folder: Path) -> tuple[float, list[dict[str, bytes]]]:
    """The stage `latents`: frames per second, and its shards."""
    made = fakes.folder_shards(folder / str(time.monotonic_ns()), shards).shards
    rollouts = SimpleNamespace(shards=made, shard_episodes=LANES)
    ctx = fakes.context(folder, "latents", {}, vae=fakes.FolderArtifact(nets.folder), rollouts=rollouts)
    out: list[dict[str, bytes]] = []
    spent = seconds(lambda: out.extend(files for _, files in latents.shards(ctx, range(len(shards)))))
    frames = sum(int(latents.lengths(SimpleNamespace(read=files.__getitem__)).sum()) for files in out)
    return frames / spent, out


def encoder_frames(nets: Networks, count: int = 20) -> float:
    frames = np.random.default_rng(1).integers(0, 255, (latents.CHUNK, 64, 64, 3), np.uint8)
    return count * len(frames) / seconds(lambda: [nets.encoder(frames) for _ in range(count)])


def plain_encoded(nets: Networks, count: int = 60) -> float:
    frames = np.random.default_rng(1).integers(0, 255, (count, 64, 64, 3), np.uint8)
    return count / seconds(lambda: [nets.vae.encode(frames[i : i + 1])[0].numpy() for i in range(count)])


# Trainings.


def operations_per_second(size: int = 1024) -> float:
    """Floating-point operations of a large matrix product."""
    a = tf.random.normal((size, size))
    tf.matmul(a, a).numpy()
    return 10 * 2 * size**3 / seconds(lambda: [tf.matmul(a, a).numpy() for _ in range(10)])


def operations(function: Any) -> float:
    """Floating-point operations of one call, as TensorFlow counts them in the function's graph."""
    options = tf.compat.v1.profiler.ProfileOptionBuilder(tf.compat.v1.profiler.ProfileOptionBuilder.float_operation())
    graph = function.get_concrete_function().graph
    return float(tf.compat.v1.profiler.profile(graph, options=options.with_empty_output().build()).total_float_ops)


class VaeStep:
    """V's training on batches of 100 random frames: as the stage does it, and eagerly."""

    def __init__(self, width: float, batch: int = 100) -> None:
        self.vae, self.batch = Vae(Z, width, 1), batch
        self.optimizer = keras.optimizers.Adam(1e-3)
        self.optimizer.build(self.vae.trainable_variables)
        self.step = vae_train.make_step(self.vae, self.optimizer, 1, 0.5)
        self.frames = np.random.default_rng(1).integers(0, 255, (batch, 64, 64, 3), np.uint8)
        self.step(self.frames, tf.constant(0))

    def rate(self, count: int = 4) -> float:
        return (
            count
            * self.batch
            / seconds(lambda: [self.step(self.frames, tf.constant(i))[0].numpy() for i in range(count)])
        )

    def plain(self, count: int = 2) -> float:
        def step() -> None:
            with tf.GradientTape() as tape:
                loss = self.vae.objective(self.frames, tf.random.normal((self.batch, Z)), 0.5)[0]
            variables = self.vae.trainable_variables
            self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

        return count * self.batch / seconds(lambda: [step() for _ in range(count)])

    def operations(self) -> float:
        """Of one image: three times its forward pass, for the gradients by activations and by weights."""
        shape = tf.TensorSpec((1, 64, 64, 3), tf.uint8)
        noise = tf.zeros((1, Z))
        return 3 * operations(tf.function(lambda x: self.vae.objective(x, noise, 0.5)[0], input_signature=[shape]))


class MemoryStep:
    """M's training on 16 windows of 100 steps: as the stage does it, and eagerly."""

    def __init__(self, shards: Any) -> None:
        config = fakes.resolve("demo", overrides=["memory.epochs=1000"])[0]
        found = Episodes(shards, 3, 1, config.memory.held_out, 1 << 30)
        self.trainer = memory_train.Trainer(SimpleNamespace(config=config), Memory(Z, 3, HIDDEN, 5, 1), found)
        self.window = next(self.trainer.stream(START))[0]
        self.state = self.trainer.memory.zero_state(len(self.window.mask))
        self.frames = int(self.window.mask.sum())
        self.rate(1)

    def rate(self, count: int = 4) -> float:
        return (
            count
            * self.frames
            / seconds(lambda: [float(self.trainer.step(self.window, *self.state, i)[0]) for i in range(count)])
        )

    def plain(self, count: int = 1) -> float:
        tf.config.run_functions_eagerly(True)
        try:
            return self.rate(count)
        finally:
            tf.config.run_functions_eagerly(False)

    def operations(self) -> float:
        """Of one frame, by the layers' sizes: LSTM 8 H (Z + 3 + H), mixtures 2 H · 3 Z K; three times for gradients."""
        return 3.0 * (8 * HIDDEN * (Z + 3 + HIDDEN) + 2 * HIDDEN * 3 * Z * 5)


# The table.


def median(measure: Callable[[], tuple[float, ...]], rounds: int) -> tuple[float, ...]:
    """Medians of what `measure` gives, over rounds."""
    return tuple(float(x) for x in np.median([measure() for _ in range(rounds)], axis=0))


def environments(rounds: int) -> Iterator[Row]:
    rates = median(lambda: (fast_steps(), gymnasium_steps(), physics_steps(), envpool_steps()), rounds)
    yield Row("environment steps", "steps", *rates)
    for first in range(8):
        generate(first)
    yield Row("episode starts", "starts", *median(lambda: (starts(8, 0), gymnasium_starts(), bodies()), rounds))
    fresh = iter(range(10**6, 10**7, 10**3))
    yield Row(
        "episode starts, new tracks", "starts",
        *median(lambda: (starts(10, next(fresh)), gymnasium_starts(), geometry(next(fresh))), rounds),
    )  # fmt: skip


def closed_loops(nets: Networks, width: float, rounds: int, generations: int) -> Iterator[Row]:
    def measure() -> tuple[float, ...]:
        limit = 1 / (1 / fast_steps() + 1 / network_steps(nets))
        return loop_steps(nets), plain_loop_steps(nets), limit, stage_steps(nets, generations)

    loop, plain, limit, whole = median(measure, rounds)
    yield Row(f"closed loop, width {width:g}", "steps", loop, plain, limit)
    yield Row(f"controller stage, width {width:g}", "steps", whole, plain, limit)


def stored(nets: Networks, folder: Path, rounds: int) -> Iterator[Row]:
    seeds = iter(range(1, 1000))

    def roll() -> tuple[float, ...]:
        rate, _ = driven(folder / str(next(seeds)), LANES, next(seeds))
        limit = 1 / (1 / fast_steps() + 1 / (STEPS * starts(4, 10**8 + 10 * next(seeds))))
        return rate, plain_rollouts(), limit

    yield Row("stored rollouts", "frames", *median(roll, rounds))
    shards = [driven(folder / f"kept-{i}", LANES, 1000 + i)[1] for i in range(2)]
    yield Row(
        "latents, width 0.5", "frames",
        *median(lambda: (encoded(nets, shards, folder)[0], plain_encoded(nets), encoder_frames(nets)), rounds),
    )  # fmt: skip


def trainings(nets: Networks, folder: Path, rounds: int) -> Iterator[Row]:
    for width in WIDTHS:
        step = VaeStep(width)
        each = step.operations()
        rates = median(lambda s=step, o=each: (s.rate(), s.plain(), operations_per_second() / o), rounds)  # type: ignore[misc]
        yield Row(f"V's training, width {width:g}", "images", *rates)
    shards = encoded(nets, [driven(folder / f"m-{i}", LANES, 2000 + i)[1] for i in range(4)], folder)[1]
    memory = MemoryStep(fakes.folder_shards(folder / "latents", shards).shards)
    each = memory.operations()
    rates = median(lambda: (memory.rate(), memory.plain(), operations_per_second() / each), rounds)
    yield Row("M's training", "frames", *rates)


def text(row: Row) -> str:
    pool = f"  {row.rate / row.envpool:.1f} x EnvPool" if row.envpool == row.envpool else ""
    return (
        f"{row.what:28} {row.rate:9,.0f} {row.unit + '/s':9} {row.plain:9,.1f} {row.times:6.1f} x "
        f"{row.limit:10,.0f} {row.share:6.0%}{pool}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there as well")
    options = parser.parse_args()
    rounds = 1 if options.quick else ROUNDS
    devices.prepare(1)
    rows: list[Row] = []
    print(f"{'per second of one core':28} {'wm':>9} {'':9} {'plain':>9} {'':8} {'limit':>10} {'share':>6}")
    with tempfile.TemporaryDirectory(prefix="wm-bench-") as name:
        folder = Path(name)
        nets = {width: networks(width, folder / f"width-{width:g}") for width in WIDTHS}
        for part in (
            environments(rounds),
            *(closed_loops(nets[width], width, rounds, 2 if options.quick else 4) for width in WIDTHS),
            stored(nets[0.5], folder, rounds),
            trainings(nets[0.5], folder, rounds),
        ):
            for row in part:
                rows.append(row)
                print(text(row), flush=True)
    if options.json:
        found = [asdict(row) | {"share": row.share, "times": row.times} for row in rows]
        options.json.write_text(json.dumps(found, indent=1).replace("NaN", "null") + "\n")


if __name__ == "__main__":
    main()
