"""How fast are random rollouts, and how large?  taskset -c 0 python bench/rollouts.py [lanes] [steps]

One process, pinned to one core. Rates are per second of CPU time, which on a core of one's own is the wall clock's,
and are measured alternately with the engine alone, because machines change their mind.
"""

import sys
import time
from collections.abc import Callable

import numpy as np
from worldmodels.envs.envpool import ENV_ID, NO_LIMIT, load

from worldmodels.envs import Lanes, make, tracks
from worldmodels.rollouts import episodes
from worldmodels.rollouts.player import Job, play
from worldmodels.rollouts.policies import RandomPolicy, random_actions

HOLD = 8.0


def plans(lanes: int, steps: int) -> np.ndarray:
    """Random actions [lanes, steps, 3]: what `RandomPolicy` does in the same episodes."""
    return np.stack([random_actions(np.random.default_rng((1, 1, i)), steps, HOLD) for i in range(lanes)])


def one_pool(lanes: int, steps: int) -> float:
    """Steps per second of EnvPool alone: one pool, one thread, nothing looked at, nothing stored."""
    pool = load().make_gymnasium(ENV_ID, num_envs=lanes, num_threads=1, seed=1, max_episode_steps=NO_LIMIT)
    actions = plans(lanes, steps)
    pool.reset()
    began = time.process_time()
    for t in range(steps):
        pool.step(actions[:, t])
    return lanes * steps / (time.process_time() - began)


def pools_of_one(lanes: int, steps: int) -> float:
    """The same with a pool per lane, as lanes have it, so that any lane can take any track."""
    make_pool = load().make_gymnasium
    pools = [make_pool(ENV_ID, num_envs=1, num_threads=1, seed=i, max_episode_steps=NO_LIMIT) for i in range(lanes)]
    actions = plans(lanes, steps)
    for pool in pools:
        pool.reset()
    began = time.process_time()
    for t in range(steps):
        for i, pool in enumerate(pools):
            pool.send(actions[i : i + 1, t])
        for pool in pools:
            pool.recv()
    return lanes * steps / (time.process_time() - began)


def stored(engine: Lanes, steps: int) -> tuple[float, float, dict[str, bytes]]:
    """Random rollouts as the stage makes them, starts included -> steps per second, bytes per frame, files."""
    jobs = iter([Job(i, tracks.rollout_track(1, 1, i)) for i in range(engine.count)])
    began = time.process_time()
    packed = [
        episodes.pack(outcome.episode)
        for outcome in play(engine, RandomPolicy(1, 1, steps, HOLD), lambda: next(jobs, None), steps=steps, record=True)
        if outcome.episode is not None
    ]
    files = episodes.join(packed)
    n = sum(len(p.actions) for p in packed)
    return n / (time.process_time() - began), sum(map(len, files.values())) / n, files


def main(lanes: int = 8, steps: int = 400, rounds: int = 3) -> None:
    engine = make("envpool", lanes)  # also settles the allocator, for all that follow
    rates: dict[Callable[..., object], list[float]] = {one_pool: [], pools_of_one: [], stored: []}
    size = 0.0
    for _ in range(rounds):
        rates[one_pool].append(one_pool(lanes, steps))
        rates[pools_of_one].append(pools_of_one(lanes, steps))
        rate, size, _ = stored(engine, steps)
        rates[stored].append(rate)
    alone, apart, rolled = (float(np.median(values)) for values in rates.values())
    for name, rate in (
        (f"EnvPool alone, one pool of {lanes}", alone),
        (f"EnvPool alone, {lanes} pools of one", apart),
        ("random rollouts, stored", rolled),
    ):
        print(f"{name:32} {rate:6.0f} steps/s  {rate / alone:4.0%} of one pool  {rate / apart:4.0%} of pools of one")
    print(f"{'stored':32} {size:6.0f} bytes per frame")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
