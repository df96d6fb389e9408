"""How fast is the closed loop?  taskset -c 0 python bench/closed_loop.py [width] [lanes] [steps]

One process, pinned to one core. The networks are untrained: their speed does not depend on what they know. In turns,
because machines change their mind:

    env     EnvPool's lanes alone, stepped with fixed actions
    net     encoder and LSTM step alone, for all lanes at once
    limit   1 / (1 / env + 1 / net)
    loop    see, decide, act: `play` with V, M and C, as rollouts and the controller stage do it
    plain   Gymnasium, one environment, Keras called once a step
"""

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np

from worldmodels.envs import make, tracks
from worldmodels.memory.model import Memory
from worldmodels.memory.model import play_functions as memory_functions
from worldmodels.networks import Encoder, Step, parameters
from worldmodels.rollouts.player import Job, play
from worldmodels.rollouts.policies import WorldPolicy
from worldmodels.vision import training
from worldmodels.vision.model import Vae
from worldmodels.vision.model import play_functions as vae_functions

Z, HIDDEN = 32, 256
PLAIN_STEPS = 100
# Gas, a little brake never, steering as W says: the car moves on, so frames differ.
BIAS = np.array([0.0, 0.3, -1.0], np.float32)


def controller() -> np.ndarray:
    weights = np.random.default_rng(1).normal(0, 0.02, parameters(Z, HIDDEN)).astype(np.float32)
    weights[-3:] = BIAS
    return weights


def env_rate(lanes: int, steps: int) -> float:
    engine = make("envpool", lanes)
    for lane in range(lanes):
        engine.start(lane, tracks.rollout_track(1, 1, lane))
    actions = np.tile(np.array([[0.05, 0.3, 0.0]], np.float32), (lanes, 1))
    pools = engine._pools
    began = time.process_time()
    for _ in range(steps):
        for i, pool in enumerate(pools):
            pool.send(actions[i : i + 1])
        for pool in pools:
            pool.recv()
    return lanes * steps / (time.process_time() - began)


def net_rate(encoder: Encoder, step: Step, lanes: int, steps: int) -> float:
    frames = np.random.default_rng(1).integers(0, 255, (lanes, 64, 64, 3), np.uint8)
    actions = np.zeros((lanes, 3), np.float32)
    h = c = np.zeros((lanes, HIDDEN), np.float32)
    began = time.process_time()
    for _ in range(steps):
        h, c = step(encoder(frames)[0], actions, h, c)
    return lanes * steps / (time.process_time() - began)


def loop_rate(encoder: Encoder, step: Step, lanes: int, steps: int) -> float:
    engine, weights = make("envpool", lanes), controller()
    jobs = iter([Job(i, tracks.rollout_track(1, 1, i), weights) for i in range(lanes)])
    began = time.process_time()
    taken = sum(o.steps for o in play(engine, WorldPolicy(encoder, step, lanes), lambda: next(jobs, None), steps=steps))
    return taken / (time.process_time() - began)


def plain_rate(vae: Vae, memory: Memory) -> float:
    engine, weights = make("gymnasium", 1), controller()
    frame = engine.start(0, tracks.rollout_track(1, 1, 0))[None]
    matrix = weights[:-3].reshape(3, -1)
    h = c = np.zeros((1, HIDDEN), np.float32)
    began = time.process_time()
    for _ in range(PLAIN_STEPS):
        z = vae.encode(frame)[0].numpy()
        out = np.tanh(matrix @ np.concatenate([z[0], np.asarray(h)[0]]) + weights[-3:])
        action = np.array([[out[0], (out[1] + 1) / 2, max(out[2], 0)]], np.float32)
        _, (h, c) = memory.predict_sequence(z[:, None], action[:, None], (h, c))
        frame, _, _ = engine.step([0], action)
    return PLAIN_STEPS / (time.process_time() - began)


def main(width: float = 0.5, lanes: int = 8, steps: int = 200, rounds: int = 3) -> None:
    training.prepare(1)
    vae, memory = Vae(Z, width), Memory(Z, HIDDEN, 5)
    with tempfile.TemporaryDirectory() as folder:
        for name, function in {**vae_functions(vae), **memory_functions(memory)}.items():
            Path(folder, name).write_bytes(training.convert(function))
        encoder, step = Encoder(Path(folder, "encoder.tflite")), Step(Path(folder, "step.tflite"))
    rows: list[tuple[float, ...]] = []
    for _ in range(rounds):
        env, net = env_rate(lanes, steps), net_rate(encoder, step, lanes, steps)
        limit = 1 / (1 / env + 1 / net)
        loop, plain = loop_rate(encoder, step, lanes, steps), plain_rate(vae, memory)
        rows.append((env, net, limit, loop, plain, loop / limit, loop / plain))
    env, net, limit, loop, plain, share, times = np.median(rows, axis=0)
    print(f"closed loop, one core, width {width:g}, {lanes} lanes")
    for name, rate in (("env", env), ("net", net), ("limit", limit), ("loop", loop), ("plain", plain)):
        print(f"  {name:6} {rate:7.0f} steps/s")
    print(f"  loop: {share:.0%} of the limit, {times:.1f} x plain")


if __name__ == "__main__":
    main(*(float(arg) if i == 0 else int(arg) for i, arg in enumerate(sys.argv[1:])))
