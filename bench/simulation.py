"""Many workers in one process, on a clock of their own: the exchange's own code, greenlets for threads, a fake bucket.

Nothing here knows the protocol. `Simulation` stands in for time and threads (`worldmodels.control.runtime.Runtime`),
`Bucket` for the store. A write takes effect halfway through its time, so a worker that is killed may or may not have
written.
"""

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from worldmodels.control.runtime import READERS
from worldmodels.store.base import Entry

PAGE = 1000  # keys of one LIST


class Simulation:
    """Runs greenlets in the order of their times."""

    def __init__(self) -> None:
        self.time = 0.0
        self._hub = greenlet(self._run)
        self._queue: list[tuple[float, int, greenlet, int]] = []
        self._count = itertools.count()
        self._waits: dict[greenlet, int] = {}
        self._until = 0.0

    def run(self, until: float) -> None:
        """Until that time, or until nothing is left to happen."""
        self._until = until
        self._hub = greenlet(self._run)
        self._hub.switch()

    def spawn(self, run: Callable[[], Any], world: "World") -> "Thread":
        thread = Thread(self, world, run)
        world.threads.append(thread)
        self.wake(thread.greenlet, 0.0, 0)
        return thread

    def at(self, time: float, run: Callable[[], None]) -> None:
        self.wake(greenlet(run, self._hub), time - self.time, 0)

    def wake(self, who: greenlet, seconds: float, wait: int) -> None:
        heapq.heappush(self._queue, (self.time + seconds, next(self._count), who, wait))

    def sleep(self, seconds: float) -> None:
        me = getcurrent()
        self.wake(me, seconds, self._begin(me))
        self._hub.switch()

    def park(self, seconds: float) -> int:
        """Begin a wait that may be ended early, by `wake` with the number returned."""
        me = getcurrent()
        wait = self._begin(me)
        self.wake(me, seconds, wait)
        return wait

    def rest(self) -> None:
        self._hub.switch()

    def _begin(self, who: greenlet) -> int:
        wait = self._waits[who] = self._waits.get(who, 0) + 1
        return wait

    def _run(self) -> None:
        while self._queue and self._queue[0][0] <= self._until:
            time, _, who, wait = heapq.heappop(self._queue)
            if who.dead or wait != self._waits.get(who, 0):
                continue
            self._waits[who] = wait + 1
            self.time = max(self.time, time)
            who.parent = getcurrent()
            who.switch()
            if who.dead:
                self._waits.pop(who, None)

    def forget(self, who: greenlet) -> None:
        self._waits.pop(who, None)


class Thread:
    """A simulated thread of the exchange, or a process's main one."""

    def __init__(self, simulation: Simulation, world: "World", run: Callable[[], Any]) -> None:
        self.error: BaseException | None = None
        self.result: Any = None
        self._simulation, self._world, self._target = simulation, world, run
        self.greenlet = greenlet(self._run)

    def _run(self) -> None:
        try:
            if not self._world.dead:
                self.result = self._target()
        except GreenletExit:
            pass
        except BaseException as error:
            self.error = error

    def is_alive(self) -> bool:
        return not self.greenlet.dead

    def join(self, timeout: float | None = None) -> None:
        end = self._simulation.time + (timeout or 0.0)
        while self.is_alive() and self._simulation.time < end:
            self._world.sleep(0.05)


class World:
    """One process: its clock, threads and connections, all of which end at once when it is killed."""

    def __init__(self, simulation: Simulation) -> None:
        self.dead = False
        self.threads: list[Thread] = []
        self.frozen = 0.0  # requests hang until then: a partition
        self._simulation = simulation

    def now(self) -> float:
        return self._simulation.time

    def sleep(self, seconds: float) -> None:
        self.check()
        self._simulation.sleep(seconds)
        self.check()

    def check(self) -> None:
        if self.dead:
            raise GreenletExit

    def condition(self) -> "Condition":
        return Condition(self._simulation, self)

    def start(self, run: Callable[[], None], name: str) -> Thread:
        return self._simulation.spawn(run, self)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        todo = deque(enumerate(items))
        found: dict[int, Any] = {}
        changed = self.condition()

        def read() -> None:
            while todo:
                place, item = todo.popleft()
                found[place] = function(item)
            changed.notify_all()

        count = len(todo)
        readers = [self.start(read, "reader") for _ in range(min(READERS, count))]
        while len(found) < count:
            changed.wait(60.0)
            for error in (reader.error for reader in readers if reader.error):
                raise error
        self.threads = [thread for thread in self.threads if thread not in readers]
        return (found[i] for i in range(count))

    def close(self) -> None: ...

    def kill(self) -> None:
        """Nothing of this process runs on."""
        self.dead = True
        for thread in self.threads:
            if thread.greenlet and not thread.greenlet.dead:
                thread.greenlet.parent = getcurrent()
                thread.greenlet.throw(GreenletExit)
            self._simulation.forget(thread.greenlet)
        self.threads.clear()


class Condition:
    """`threading.Condition` where only one thread runs at a time."""

    def __init__(self, simulation: Simulation, world: World) -> None:
        self._simulation, self._world = simulation, world
        self._waiting: list[tuple[greenlet, int]] = []

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def wait(self, seconds: float) -> None:
        self._world.check()
        me = (getcurrent(), self._simulation.park(seconds))
        self._waiting.append(me)
        self._simulation.rest()
        if me in self._waiting:
            self._waiting.remove(me)
        self._world.check()

    def notify_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for who, wait in waiting:
            self._simulation.wake(who, 0.0, wait)


@dataclass(frozen=True)
class Latency:
    """Of a request, lognormal: its median in seconds, and sigma of its logarithm."""

    median: float
    sigma: float

    def draw(self, chance: random.Random) -> float:
        return self.median * chance.lognormvariate(0.0, self.sigma)


class Bucket:
    """Objects, shared by all; requests are counted by kind."""

    def __init__(self, simulation: Simulation) -> None:
        self.requests: Counter[str] = Counter()
        self.failed_claims = 0
        self._simulation = simulation
        self._folders: dict[str, dict[str, tuple[bytes, float]]] = {}

    def folder(self, key: str) -> dict[str, tuple[bytes, float]]:
        return self._folders.setdefault(_folder(key), {})

    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self.folder(prefix) if key.startswith(prefix))

    def drop(self, folder: str, keep: str) -> None:
        """Drop the objects that no worker reads any more, except for one."""
        kept = self._folders.get(folder, {})
        self._folders[folder] = {key: value for key, value in kept.items() if key.endswith(keep)}


class Connection:
    """A `Store` on the bucket, as one process sees it. `latency` is by kind of request."""

    uri = "sim://bucket"
    publish_seconds = 15.0

    def __init__(self, bucket: Bucket, world: World, latency: dict[str, Latency], seed: int) -> None:
        self._bucket, self._world, self._latency = bucket, world, latency
        self._chance = random.Random(seed)

    def get(self, key: str) -> bytes | None:
        return self._request("GET", lambda: self._bucket.folder(key).get(key, (None, 0.0))[0])

    def put(self, key: str, data: bytes) -> None:
        def write() -> None:
            self._bucket.folder(key)[key] = (data, self._world.now())

        self._request("PUT", write)

    def create(self, key: str, data: bytes) -> bool:
        def write() -> bool:
            folder = self._bucket.folder(key)
            if key in folder:
                self._bucket.failed_claims += "/claims/" in key
                return False
            folder[key] = (data, self._world.now())
            return True

        return bool(self._request("PUT", write))

    def modified(self, key: str) -> float | None:
        found = self._request("HEAD", lambda: self._bucket.folder(key).get(key))
        return float(int(found[1])) if found else None

    def entries(self, prefix: str) -> Iterator[Entry]:
        def read() -> list[Entry]:
            folder = self._bucket.folder(prefix)
            return [Entry(key, len(folder[key][0]), float(int(folder[key][1]))) for key in self._bucket.keys(prefix)]

        found: list[Entry] = self._request("LIST", read)
        for _ in range((len(found) - 1) // PAGE):
            self._request("LIST", lambda: None)
        return iter(found)

    def now(self) -> float:
        return float(int(self._world.now()))

    def folders(self, prefix: str) -> list[str]:
        raise NotImplementedError("an evolution without parents asks for none")

    def _request(self, kind: str, act: Callable[[], Any]) -> Any:
        if self._world.frozen > self._world.now():
            self._world.sleep(self._world.frozen - self._world.now())
        seconds = self._latency[kind].draw(self._chance)
        if kind == "PUT":
            self._world.sleep(seconds / 2)
        self._bucket.requests[kind] += 1
        result = act()
        self._world.sleep(seconds / 2 if kind == "PUT" else seconds)
        return result


def _folder(key: str) -> str:
    """Return the prefix that listings use: a generation, or everything else's first name."""
    head, _, rest = key.partition("/generations/")
    if rest:
        return f"{head}/generations/{rest.partition('/')[0]}"
    return key.rpartition("/")[0]
