"""How far does the evolution scale?  python bench/scale.py [generations] [workers ...]

`1800 1024` is the paper's whole evolution. The columns: seconds a generation, hours, core-hours, share of them in
environment steps that count, gap (last result to the next generation's first step, median and 95th percentile),
repeated steps, requests, dollars for them, deaths of workers, and seconds that the simulation took on a core.

Simulates whole evolutions: the exchange's own code, on a clock and a bucket of its own (`simulation.py`), with workers
that die, come back, hang, and lose their leader. It replaces four things, all as measured:

    steps      a process plays RATES steps/s (log lines of three demo runs on 2 cores, seeds 1 to 3), in all lanes
               together; an episode lasts a share of its longest as SHARES says (4,800 training episodes of those runs)
    CMA-ES     real, of 8 parameters; telling takes TELL_SECONDS (867 parameters, full covariance: 0.04 to 0.09 s)
    bucket     latencies lognormal, median 100 ms, 95 % below 200 ms: AWS promises "roughly 100-200 milliseconds" for
               small objects (Amazon S3 User Guide, performance guidelines); prices are us-east-1's list
    failures   sampled: each worker dies every DEATH_HOURS on average and is back after RETURN_SECONDS (another spot
               node); every LEADER_GENERATIONS the leader dies, every HANG_GENERATIONS a worker's requests hang for 60 s
"""

import json
import logging
import math
import random
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from statistics import mean
from typing import Any

import numpy as np
from simulation import Bucket, Connection, Latency, Simulation, World

from worldmodels.context import StoreWorkspace
from worldmodels.control.episode_queue import Limits
from worldmodels.control.evolution import Evolution, Settings
from worldmodels.control.exchange import EvolutionPlan, Exchange, Timing
from worldmodels.rollouts.player import EpisodeSpec

RATES = (354, 572, 633, 672, 699, 725, 747, 758, 772, 787, 863)  # steps/s, deciles
SHARES = (0.10, 0.19, 0.25, 0.30, 0.35, 0.40, 0.45, 0.51, 0.57, 0.63, 0.68, 0.73, 0.81, 0.90, 1, 1, 1, 1, 1, 1, 1)
TELL_SECONDS = 0.065
LATENCY = dict.fromkeys(("GET", "HEAD", "PUT", "LIST"), Latency(0.1, math.log(2) / 1.645))
DOLLARS = {"PUT": 5e-6, "LIST": 5e-6, "GET": 4e-7, "HEAD": 4e-7}
DEATH_HOURS, RETURN_SECONDS, LEADER_GENERATIONS, HANG_GENERATIONS = 12.0, (30.0, 120.0), 100, 50
RATE_SECONDS = 15.0  # between those log lines
KEPT = 50  # generations with their results: no worker is cut off for longer
SLICE_SECONDS = 0.5  # how soon a player notices that its work is void
LOG = logging.getLogger("scale")


@dataclass(frozen=True)
class Scenario:
    """The simulated cluster and its failures; `hours` is a worker's mean life, inf for a quiet run."""

    workers: int
    generations: int
    population: int = 64
    tracks: int = 16
    steps: int = 1000
    evaluate_every: int = 25
    evaluate_tracks: int = 16
    lanes: int = 8
    seed: int = 1
    hours: float = math.inf
    leader_every: int = 0
    hang_every: int = 0
    slow: dict[int, float] = field(default_factory=dict)  # workers' speed, as a factor
    late: dict[int, float] = field(default_factory=dict)  # workers that come only after so many seconds
    latency: dict[str, Latency] = field(default_factory=lambda: LATENCY)
    timing: Timing = field(default_factory=Timing)
    rates: tuple[float, ...] = RATES
    shares: tuple[float, ...] = SHARES


class TimedEvolution(Evolution):
    """CMA-ES that takes its time."""

    sleep: Callable[[float], None]

    def tell(self, candidates: np.ndarray, scores: Any) -> None:
        self.sleep(TELL_SECONDS)
        super().tell(candidates, scores)


@dataclass(frozen=True)
class Played:
    spec: EpisodeSpec
    score: float
    steps: int


class SimulatedCluster:
    """Workers of one scenario, and what is measured of them."""

    def __init__(self, scenario: Scenario, luck: int = 1) -> None:
        """`luck` decides what fails and how long things take; `scenario.seed` what is evolved."""
        self.scenario = scenario
        self.simulation = Simulation()
        self.bucket = Bucket(self.simulation)
        self.chance = random.Random(luck)
        self.first_step: dict[int, float] = {}
        self.last_result: dict[int, float] = {}
        self.began: dict[int, float] = {}
        self.steps = self.useful = 0
        self.seconds = 0.0  # that processes lived
        self.deaths = 0
        self.files: dict[str, bytes] | None = None
        self.ended = 0.0
        self._worlds: dict[int, tuple[World, float]] = {}

    def run(self, hours: float = 1e4) -> "SimulatedCluster":
        for worker in range(self.scenario.workers):
            self.simulation.at(self.scenario.late.get(worker, 0.0) + 1e-3 * worker, lambda w=worker: self.start(w))
        while self.files is None:
            assert self.simulation.time < hours * 3600, "it never ends"
            self.simulation.run(self.simulation.time + min(1.0, hours) * 3600)
        return self

    def start(self, worker: int) -> None:
        if self.files is not None:
            return
        world = World(self.simulation)
        self.simulation.spawn(lambda: self.work(worker, world), world)
        self._worlds[worker] = (world, self.simulation.time)
        if math.isfinite(self.scenario.hours):
            life = self.chance.expovariate(1 / (self.scenario.hours * 3600))
            self.simulation.at(self.simulation.time + life, lambda: self.kill(worker, world))

    def kill(self, worker: int, world: World) -> None:
        """It is back a little later, as another process."""
        if self.files is not None or world.dead or self._worlds[worker][0] is not world:
            return
        self.deaths += 1
        self.seconds += self.simulation.time - self._worlds[worker][1]
        world.kill()
        self.simulation.at(self.simulation.time + self.chance.uniform(*RETURN_SECONDS), lambda: self.start(worker))

    def kill_all(self, workers: Iterable[int], back: float) -> None:
        """At once; they are back after so many seconds (inf: never)."""
        for worker in workers:
            world = self._worlds[worker][0]
            self.seconds += self.simulation.time - self._worlds[worker][1]
            world.kill()
            if math.isfinite(back):
                self.simulation.at(self.simulation.time + back, lambda w=worker: self.start(w))

    def work(self, worker: int, world: World) -> None:
        s = self.scenario
        store = Recorder(self, worker, Connection(self.bucket, world, s.latency, self.chance.getrandbits(32)))
        workspace = StoreWorkspace(store, "run/iter-1/controller", "own", "{}")
        exchange = Exchange(workspace, self.plan(world), worker, s.lanes, LOG, s.timing, runtime=world)
        try:
            files = exchange.run(self.player(worker, world), lambda rate: None)
        except Exception:
            LOG.exception("worker %d", worker)
            raise
        if self.files is None:
            self.files, self.ended = files, world.now()
            self.seconds += sum(world.now() - since for each, since in self._worlds.values() if not each.dead)

    def plan(self, world: World) -> EvolutionPlan:
        s = self.scenario

        class Evolves(TimedEvolution):
            sleep = staticmethod(world.sleep)

        return EvolutionPlan(
            Settings(s.seed, 8, s.population, s.tracks, 0.1),
            s.generations,
            Limits(s.steps, 60),
            Limits(1000, 0),
            lambda g, n: tuple(range(1000 * g, 1000 * g + n)),
            lambda g: tuple(range(10**9, 10**9 + s.evaluate_tracks)) if g % s.evaluate_every == 0 else (),
            evolution=Evolves,
        )

    def player(self, worker: int, world: World) -> Callable[..., Iterator[Played]]:
        """All lanes together play at the worker's rate; episodes are noise on a quadratic."""
        chance = random.Random(self.chance.getrandbits(32))
        rate, drawn = 0.0, -math.inf
        factor = self.scenario.slow.get(worker, 1.0)

        def play(
            next_episode: Callable[[], EpisodeSpec | None], limits: Limits, on_step: Callable[[int], None]
        ) -> Iterator[Played]:
            lanes: list[list[Any]] = []  # [spec, steps left, steps]
            nonlocal rate, drawn
            while True:
                while len(lanes) < self.scenario.lanes and (spec := next_episode()) is not None:
                    length = self._length(spec, limits)
                    lanes.append([spec, length, length])
                if not lanes:
                    return
                self.stepped(lanes[0][0].key[0])
                if world.now() - drawn >= RATE_SECONDS:
                    rate, drawn = factor * chance.choice(self.scenario.rates), world.now()
                each = max(1, min(min(lane[1] for lane in lanes), int(SLICE_SECONDS * rate / len(lanes))))
                world.sleep(each * len(lanes) / rate)
                self.steps += each * len(lanes)
                on_step(each * len(lanes))
                for lane in list(lanes):
                    lane[1] -= each
                    if lane[1] <= 0:
                        lanes.remove(lane)
                        yield Played(lane[0], _score(lane[0]), lane[2])

        return play

    def _length(self, spec: EpisodeSpec, limits: Limits) -> int:
        if not limits.patience:
            return limits.steps
        shares = self.scenario.shares
        drawn = _chance(spec).random() * (len(shares) - 1)
        return max(1, int(np.interp(drawn, range(len(shares)), shares) * limits.steps))

    # Observations of the simulation.

    def stepped(self, generation: int) -> None:
        self.first_step.setdefault(generation, self.simulation.time)

    def committed(self, worker: int, generation: int) -> None:
        """That worker committed a generation: it leads now."""
        s = self.scenario
        self.began[generation] = self.simulation.time
        if generation > KEPT:
            self.bucket.drop(f"run/iter-1/controller/own/generations/{generation - KEPT:05d}", "params")
        if s.leader_every and generation % s.leader_every == 0:
            leader = self._worlds[worker][0]
            self.simulation.at(self.simulation.time + self.chance.uniform(0, 5), lambda: self.kill(worker, leader))
        if s.hang_every and generation % s.hang_every == 0:
            self._worlds[self.chance.randrange(s.workers)][0].frozen = self.simulation.time + 60.0

    def finished(self, generation: int, steps: int) -> None:
        self.last_result[generation] = self.simulation.time
        self.useful += steps


class Recorder:
    """A store that tells what matters to the cluster."""

    def __init__(self, cluster: SimulatedCluster, worker: int, inner: Connection) -> None:
        self._cluster, self._worker, self._inner = cluster, worker, inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def create(self, key: str, data: bytes) -> bool:
        made = self._inner.create(key, data)
        if made and key.endswith("/params"):
            self._cluster.committed(self._worker, int(key.split("/")[-2]))
        if made and "/results/" in key:
            self._cluster.finished(int(key.split("/")[-3]), sum(json.loads(data)["steps"]))
        return made


def _chance(spec: EpisodeSpec) -> random.Random:
    """Return a generator that depends on the episode alone, not on its worker."""
    return random.Random(spec.track * 2**32 + zlib.crc32(spec.parameters.tobytes()))


def _score(spec: EpisodeSpec) -> float:
    """Noise on a quadratic."""
    return _chance(spec).gauss(0, 1) - float(((spec.parameters - 0.3) ** 2).sum())


def overheads(cluster: SimulatedCluster) -> list[float]:
    """Seconds from each generation's last result to the first step of the next."""
    return [
        cluster.first_step[g + 1] - cluster.last_result[g]
        for g in range(1, cluster.scenario.generations)
        if g + 1 in cluster.first_step and g in cluster.last_result
    ]


HEADER = (
    "workers  s/gen  hours  core-h  steps   gap   p95  repeated     PUT  LIST     GET  HEAD   per generation;"
    "   dollars  deaths  took"
)


def line(cluster: SimulatedCluster, took: float) -> str:
    """One row of the table; `gap` is from a generation's last result to the next one's first step."""
    s, requests = cluster.scenario, cluster.bucket.requests
    gaps = sorted(overheads(cluster))
    dollars = sum(price * requests[kind] for kind, price in DOLLARS.items())
    in_steps = cluster.useful / mean(s.rates) / cluster.seconds
    put, listed, get, head = (requests[kind] / s.generations for kind in ("PUT", "LIST", "GET", "HEAD"))
    return (
        f"{s.workers:7d}{cluster.ended / s.generations:7.1f}{cluster.ended / 3600:7.2f}{cluster.seconds / 3600:8.1f}"
        f"{in_steps:7.0%}{gaps[len(gaps) // 2]:6.2f}{gaps[int(0.95 * len(gaps))]:6.2f}"
        f"{cluster.steps / cluster.useful - 1:10.2%}{put:8.0f}{listed:6.0f}{get:8.0f}{head:6.0f}"
        f"{dollars:26.2f}{cluster.deaths:8d}{took:6.0f}"
    )


def show(title: str, scenarios: Iterable[Scenario]) -> None:
    print(f"\n{title}\n{HEADER}")
    for scenario in scenarios:
        began = time.process_time()
        cluster = SimulatedCluster(scenario).run()
        print(line(cluster, time.process_time() - began), flush=True)


def main(generations: int = 30, *workers: int) -> None:
    sizes = workers or (16, 64, 256, 1024)
    warnings.filterwarnings("ignore", message="TPA")
    quiet = [Scenario(n, generations) for n in sizes]
    show("64 candidates x 16 tracks, nothing fails", quiet)
    failing = {"hours": DEATH_HOURS, "leader_every": LEADER_GENERATIONS, "hang_every": HANG_GENERATIONS}
    show("the same, with failures", [replace(each, **failing) for each in quiet])
    alike = [replace(each, population=each.workers, rates=(800,), shares=(1,)) for each in quiet]
    show("16 episodes of 1.25 s for each worker, nothing fails", alike)
    large = [replace(each, population=1024, generations=max(4, generations // 6)) for each in quiet]
    show("1,024 candidates x 16 tracks, with failures", [replace(each, **failing) for each in large])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
