"""Cost of the exchange on a real S3 server.

    PYTHONPATH=tests python bench/exchange.py [generations] [workers] [seconds of work]

Starts the tests' server (SeaweedFS on loopback, or WM_STORE if that is set) and lets that many workers evolve there,
in four processes, with a simulator that sleeps: everything is real but the driving. A generation's work is `seconds`
for each worker. Reports, without the first generation, the time from a generation's last result to the next one's first
step, the requests and their price, the share of the time that workers spend in steps, and what the rest is.
"""

import logging
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import buckets
from scale import DOLLARS, Played

from worldmodels.context import StoreWorkspace
from worldmodels.control.episode_queue import Limits
from worldmodels.control.evolution import Settings
from worldmodels.control.exchange import EvolutionPlan, Exchange
from worldmodels.rollouts.player import EpisodeSpec
from worldmodels.store import Store, open_store

PROCESSES, PARAMETERS, POPULATION, TRACKS, STEPS = 4, 867, 64, 16, 1000
SLICE = 50  # steps that are slept at once


KINDS = {"get": "GET", "put": "PUT", "create": "PUT", "modified": "HEAD", "entries": "LIST"}


@dataclass
class Steps:
    """Of one worker in one generation: when the first began, when the last ended, and seconds in them."""

    first: float
    last: float = 0.0
    busy: float = 0.0


@dataclass
class Seen:
    """By one process: requests by kind; when a generation's last result was there; its workers' steps."""

    requests: Counter[str] = field(default_factory=Counter)
    results: dict[int, float] = field(default_factory=dict)
    steps: dict[int, list[Steps]] = field(default_factory=dict)
    took: list[float] = field(default_factory=list)  # seconds of every request


class Counted:
    """A store that takes notes."""

    def __init__(self, store: Store) -> None:
        self.seen = Seen()
        self._store, self._lock = store, threading.Lock()

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._store, name)
        if name not in KINDS:
            return attribute

        def call(*arguments: Any) -> Any:
            began = time.monotonic()
            found = attribute(*arguments)
            found = list(found) if name == "entries" else found
            with self._lock:
                self.seen.took.append(time.monotonic() - began)
                self.seen.requests[KINDS[name]] += 1 + (len(found) - 1) // 1000 if name == "entries" else 1
                if name == "create" and found and "/results/" in arguments[0]:
                    self.seen.results[int(arguments[0].split("/")[-3])] = time.time()
            return found

        return call

    def begin(self, generation: int) -> Steps:
        steps = Steps(time.time())
        with self._lock:
            self.seen.steps.setdefault(generation, []).append(steps)
        return steps


def player(store: Counted, rate: float, lanes: int) -> Callable[..., Iterator[Played]]:
    generation, steps = 0, Steps(0.0)

    def play(
        next_episode: Callable[[], EpisodeSpec | None], limits: Limits, on_step: Callable[[int], None]
    ) -> Iterator[Played]:
        active: list[list[Any]] = []
        nonlocal generation, steps
        while True:
            while len(active) < lanes and (spec := next_episode()) is not None:
                active.append([spec, limits.steps])
            if not active:
                return
            if active[0][0].key[0] != generation:
                generation = active[0][0].key[0]
                steps = store.begin(generation)
            seconds = SLICE * len(active) / rate
            time.sleep(seconds)
            steps.busy, steps.last = steps.busy + seconds, time.time()
            on_step(SLICE * len(active))
            for lane in list(active):
                lane[1] -= SLICE
                if lane[1] <= 0:
                    active.remove(lane)
                    yield Played(lane[0], -float(((lane[0].parameters - 0.1) ** 2).sum()), limits.steps)

    return play


def work(uri: str, generations: int, workers: range, rate: float) -> Seen:
    """So many workers of one process."""
    store = Counted(open_store(uri))
    plan = EvolutionPlan(
        Settings(1, PARAMETERS, POPULATION, TRACKS, 0.1), generations, Limits(STEPS, 0), Limits(STEPS, 0),
        lambda g, n: tuple(range(g * n, g * n + n)), lambda g: (),
    )  # fmt: skip
    log = logging.getLogger("exchange")

    def one(worker: int) -> None:
        workspace = StoreWorkspace(store, "run/iter-1/controller", "own", "{}")  # type: ignore[arg-type]
        Exchange(workspace, plan, worker, 8, log).run(player(store, rate, 8), lambda rate: None)

    with ThreadPoolExecutor(len(workers)) as pool:
        list(pool.map(one, workers))
    return store.seen


def report(found: list[Seen], generations: int, workers: int, seconds: float) -> None:
    requests = sum((each.requests for each in found), Counter())
    steps = {g: [s for each in found for s in each.steps.get(g, ())] for g in range(1, generations + 1)}
    first = {g: min(each.first for each in steps[g]) for g in steps}
    last = {g: max(each.results[g] for each in found if g in each.results) for g in range(1, generations + 1)}
    gaps = sorted(first[g + 1] - last[g] for g in range(1, generations))
    whole = [(g, each) for g in range(2, generations) for each in steps[g]]

    def mean(part: Callable[[int, Steps], float]) -> float:
        return sum(part(g, each) for g, each in whole) / (generations - 2) / workers

    lasted, busy = mean(lambda g, s: first[g + 1] - first[g]), mean(lambda g, s: s.busy)
    print(
        f"{workers} workers, {generations} generations of {POPULATION} x {TRACKS} episodes, {seconds:g} s of work each"
    )
    print(f"  last result to next first step: median {gaps[len(gaps) // 2]:.2f} s, longest {gaps[-1]:.2f} s")
    took = sorted(seconds for each in found for seconds in each.took)
    usual, slow = 1000 * took[len(took) // 2], 1000 * took[len(took) * 19 // 20]
    print(f"  a request: median {usual:.0f} ms, 95 % below {slow:.0f} ms")
    print(f"  a generation: {lasted:.1f} s, of which {busy / lasted:.1%} in steps")
    print(
        f"  the rest: begins {mean(lambda g, s: s.first - first[g]):.2f} s after the first worker,"
        f" {mean(lambda g, s: s.last - s.first - s.busy):.2f} s between steps,"
        f" ends {mean(lambda g, s: last[g] - s.last):.2f} s before the last result,"
        f" {mean(lambda g, s: first[g + 1] - last[g]):.2f} s until the next step"
    )
    each = ", ".join(f"{requests[kind] / generations:.0f} {kind}" for kind in DOLLARS)
    price = sum(DOLLARS[kind] * requests[kind] for kind in DOLLARS) / generations
    print(f"  requests a generation: {each}; at S3's list price {price:.5f} $, {1800 * price:.2f} $ for 1,800")


def main(generations: int = 6, workers: int = 64, seconds: float = 20.0) -> None:
    rate = POPULATION * TRACKS * STEPS / workers / seconds
    with tempfile.TemporaryDirectory() as folder:
        if uri := os.environ.get("WM_STORE"):
            go(uri, generations, workers, rate, seconds)
            return
        with buckets.serve(Path(folder)) as url:
            os.environ |= buckets.environment(url)
            go(f"s3://{buckets.BUCKET}/{buckets.fresh_prefix()}", generations, workers, rate, seconds)


def go(uri: str, generations: int, workers: int, rate: float, seconds: float) -> None:
    shares = [range(i, workers, PROCESSES) for i in range(min(PROCESSES, workers))]
    with multiprocessing.get_context("fork").Pool(len(shares)) as pool:
        found = pool.starmap(work, [(uri, generations, share, rate) for share in shares])
    report(found, generations, workers, seconds)


if __name__ == "__main__":
    main(*(float(arg) if i == 2 else int(arg) for i, arg in enumerate(sys.argv[1:])))
