"""Local executor: runs a task as processes of this machine, one per core, which stop upon SIGTERM or parent exit.

A killed worker is started again, as a pod is. Once the same signal has killed it three times without progress in
between, the task raises `Killed`.
"""

import json
import math
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from .. import errors, stages
from ..artifacts import provenance
from ..errors import Killed, Stopped, WmError
from ..planning import Task, TaskState

STOP_SECONDS = 10.0
TRIES = 3
NOTICES = re.compile(r"^\S+ \S+: [IW] |^[IW]\d{4} |^INFO|^WARNING|^$")
"""Lines that TensorFlow and LiteRT write to standard error even if they succeed."""


@dataclass
class Worker:
    """One process with its first and last progress event; `place` is its index among the task's workers."""

    place: int
    process: subprocess.Popen[bytes]
    events: IO[bytes]
    stderr: IO[bytes]
    first: dict[str, Any] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    pending: bytes = b""

    def close(self) -> None:
        self.events.close()
        self.stderr.close()


class Deaths:
    """Counts how often each signal killed the worker at one place since its last progress.

    Only stored results count as progress: the next process at that place starts with less left to do.
    """

    def __init__(self) -> None:
        self._left = math.inf
        self._counts: Counter[int] = Counter()

    def count(self, worker: Worker, number: int) -> int:
        """Record that signal `number` killed the worker; return how often it has since the last progress."""
        left = worker.first["total"] - worker.first["done"] if worker.first else math.inf
        if left < self._left:
            self._left = left
            self._counts.clear()
        self._counts[number] += 1
        return self._counts[number]


@dataclass(frozen=True)
class Snapshot:
    """Progress of a whole task at one moment: `done` of `total` units, `rate` units per second."""

    done: float
    total: float
    unit: str
    rate: float
    figures: dict[str, float]


def processes(task: Task) -> int:
    """Return the number of worker processes for the task on one machine, or in one pod."""
    single = stages.stage(task.stage).kind == "single"
    return 1 if single else task.config.execution.workers or provenance.cores()


@dataclass(frozen=True)
class Team:
    """The workers of one task on this machine, `size` of them, or one pod's share of all."""

    task: Task
    size: int
    workers: list[Worker] = field(default_factory=list)

    def close(self) -> None:
        """Stop the workers that still run."""
        _stop([worker.process for worker in self.workers])
        for worker in self.workers:
            worker.close()


@dataclass(frozen=True)
class LocalExecutor:
    """Runs a task, or the share of pod number `pod` of `pods`, as processes that log to file descriptor `stdout`.

    `wait` calls `check` at least twice a second; an error that it raises stops the workers.
    """

    store_uri: str
    say: Callable[[str], None] = lambda words: None
    pod: int = 0
    pods: int = 1
    stdout: int = subprocess.DEVNULL
    check: Callable[[], None] = lambda: None

    def submit(self, state: TaskState) -> Team:
        return self.start(state.task)

    def start(self, task: Task) -> Team:
        """Start the task's workers. They end with this process, even if `wait` is not called."""
        team = Team(task, processes(task))
        try:
            for place in range(self.pod * team.size, (self.pod + 1) * team.size):
                team.workers.append(self._worker(team, place))
            return team
        except BaseException:
            team.close()
            raise

    def wait(self, work: Team, report: Callable[[Snapshot], None]) -> None:
        """Follow the workers to their end. Start killed workers again, and report that through `say`.

        Raise the first worker's error. Stop all workers upon an error and upon Ctrl-C.
        """
        deaths: defaultdict[int, Deaths] = defaultdict(Deaths)
        try:
            with selectors.DefaultSelector() as selector:
                for worker in work.workers:
                    selector.register(worker.events, selectors.EVENT_READ, worker)
                while selector.get_map():
                    self.check()
                    for key, _ in selector.select(timeout=0.5):
                        if not _read(key.data):
                            selector.unregister(key.fileobj)
                            if again := self._ended(work, key.data, deaths):
                                selector.register(again.events, selectors.EVENT_READ, again)
                    if snapshot := _combine(work.workers, stages.stage(work.task.stage).kind):
                        report(snapshot)
        finally:
            work.close()

    def _ended(self, team: Team, worker: Worker, deaths: Mapping[int, Deaths]) -> Worker | None:
        """Return the worker that replaces a killed one; None after a success. Raise the error of a failed worker."""
        number = _killed_by(worker)
        if not number:
            _raise_failure(worker, team.task)
            return None
        if deaths[worker.place].count(worker, number) == TRIES:
            raise _killed(worker, team.task, number, team.size)
        self.say(f"{team.task.stage}: {_who(team.size, worker)} was killed by {_name(number)}; it is started again")
        again = self._worker(team, worker.place)
        team.workers[team.workers.index(worker)] = again
        worker.close()
        return again

    def _worker(self, team: Team, place: int) -> Worker:
        return _start(self.store_uri, team.task, place, self.pods * team.size, self.stdout)


def _start(store_uri: str, task: Task, index: int, count: int, stdout: int) -> Worker:
    reading, writing = os.pipe()
    stderr = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the Worker
    environment = os.environ | {
        "WM_TASK": task.to_json(),
        "WM_STORE": store_uri,
        "WM_WORKERS": str(count),
        "JOB_COMPLETION_INDEX": str(index),
        "WM_EVENTS_FD": str(writing),
        "WM_PARENT_PIPE": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    if stages.stage(task.stage).kind != "single":
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [
            sys.executable,
            "-P",
            "-m",
            "worldmodels.executors.worker",
        ],  # -P: no imports from the user's current folder
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        pass_fds=[writing],
        start_new_session=True,
    )
    os.close(writing)
    return Worker(index, process, os.fdopen(reading, "rb", buffering=0), stderr)


def _read(worker: Worker) -> bool:
    """Read the worker's new events; return False at the end of its pipe."""
    data = worker.events.read(65536)
    *lines, worker.pending = (worker.pending + (data or b"")).split(b"\n")
    for line in lines:
        event = json.loads(line)
        if "error" in event:
            worker.error = event["error"]
        else:
            worker.last = event
            worker.first = worker.first or event
    return bool(data)


def _killed_by(worker: Worker) -> int:
    """Return the signal that ended a worker, else 0. A worker that stopped upon SIGTERM counts: `run` sent none."""
    code = worker.process.wait()
    stopped = worker.error is not None and worker.error["code"] == Stopped.exit_code
    return signal.SIGTERM if stopped else max(0, -code)


def _name(number: int) -> str:
    return next((each.name for each in signal.Signals if each == number), f"signal {number}")


def _who(count: int, worker: Worker) -> str:
    return "its worker" if count == 1 else f"worker {worker.place}"


def _killed(worker: Worker, task: Task, number: int, count: int) -> Killed:
    """Return the error for a worker that was killed `TRIES` times."""
    again = f"wm run {task.stage} --run {task.run} --iteration {task.iteration}"
    look = f"wm logs {task.stage} --run {task.run} --iteration {task.iteration}"
    why = detail = ""
    if number in (signal.SIGKILL, signal.SIGTERM):
        why = "; that is what a machine does that is out of memory"
        less = max(16, task.config.execution.cache_mb // 2)
        look = f"free -h, or {again} " + (f"--workers {count // 2}" if count > 1 else f"-o execution.cache_mb={less}")
    elif words := _last_words(worker):
        detail = f":\n{words}"
    return Killed(
        f"{task.name}: {_who(count, worker)} was killed by {_name(number)} {TRIES} times and got no further in between"
        f"{why}{detail}",
        next=look,
    )


def _raise_failure(worker: Worker, task: Task) -> None:
    code = worker.process.wait()
    if code == 0:
        return
    if worker.error:
        raise (errors.of_code(worker.error["code"]) or WmError)(worker.error["message"], next=worker.error["next"])
    words = _last_words(worker)
    raise WmError(
        f"a worker of {task.name} exited with {code}" + (f":\n{words}" if words else ""),
        next=f"wm logs {task.stage} --run {task.run} --iteration {task.iteration}",
    )


def _last_words(worker: Worker) -> str:
    """Return the last 2000 characters of a worker's standard error, without libraries' notices."""
    worker.stderr.seek(0)
    lines = worker.stderr.read().decode(errors="replace").splitlines()
    return "\n".join(line for line in lines if not NOTICES.match(line))[-2000:].strip()


def _combine(workers: list[Worker], kind: str) -> Snapshot | None:
    """Sum the workers' progress; for an evolution, sum only the rates and take the most advanced worker's progress."""
    latest = [w.last for w in workers if w.last]
    if not latest:
        return None
    rate = sum(e["rate"] for e in latest)
    figures = {name: value for e in latest for name, value in e["figures"].items()}
    if kind == "exchange":
        first = max(latest, key=lambda e: e["done"])
        return Snapshot(first["done"], first["total"], first["unit"], rate, first["figures"] or figures)
    return Snapshot(sum(e["done"] for e in latest), sum(e["total"] for e in latest), latest[0]["unit"], rate, figures)


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin:
            process.stdin.close()
