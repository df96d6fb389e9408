"""Runs a task as processes of this machine, one per core, that die with their parent and stop when asked."""

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from .. import errors, runner, stages
from ..errors import WmError
from ..runner import Task

STOP_SECONDS = 10.0


@dataclass
class Worker:
    """One process and what it last said of itself."""

    process: subprocess.Popen[bytes]
    events: IO[bytes]
    stderr: IO[bytes]
    last: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    pending: bytes = b""


@dataclass(frozen=True)
class Snapshot:
    """Progress of a whole task at one moment."""

    done: float
    total: float
    unit: str
    rate: float
    figures: dict[str, float]


def processes(task: Task) -> int:
    """How many of them share the task on one machine, or in one pod."""
    single = stages.stage(task.stage).kind == "single"
    return 1 if single else task.config.execution.workers or runner.cores()


def run(
    store_uri: str,
    task: Task,
    report: Callable[[Snapshot], None],
    *,
    pod: int = 0,
    pods: int = 1,
    stdout: int = subprocess.DEVNULL,
) -> None:
    """Run the task, or the share of it that is pod `pod`'s of `pods`, to its end; the workers' logs go to `stdout`.

    Raises the first worker's error; stops the others when it does, and upon Ctrl-C.
    """
    kind, count = stages.stage(task.stage).kind, processes(task)
    places = range(pod * count, (pod + 1) * count)
    with _workers(store_uri, task, places, pods * count, stdout) as workers, selectors.DefaultSelector() as selector:
        for worker in workers:
            selector.register(worker.events, selectors.EVENT_READ, worker)
        while selector.get_map():
            for key, _ in selector.select(timeout=0.5):
                if not _read(key.data):
                    selector.unregister(key.fileobj)
                    _raise_failure(key.data, task)
            if snapshot := _combine(workers, kind):
                report(snapshot)


@contextmanager
def _workers(store_uri: str, task: Task, places: range, count: int, stdout: int) -> Iterator[list[Worker]]:
    workers: list[Worker] = []
    try:
        for index in places:
            workers.append(_start(store_uri, task, index, count, stdout))
        yield workers
    finally:
        _stop([w.process for w in workers])
        for worker in workers:
            worker.events.close()
            worker.stderr.close()


def _start(store_uri: str, task: Task, index: int, count: int, stdout: int) -> Worker:
    reading, writing = os.pipe()
    stderr = tempfile.TemporaryFile()  # noqa: SIM115 - the worker's, until it is gone
    environment = os.environ | {
        "WM_TASK": task.to_json(),
        "WM_STORE": store_uri,
        "WM_WORKERS": str(count),
        "JOB_COMPLETION_INDEX": str(index),
        "WM_EVENTS_FD": str(writing),
        "WM_PARENT_PIPE": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
    }
    if stages.stage(task.stage).kind != "single":
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [
            sys.executable,
            "-P",
            "-m",
            "worldmodels.executors.worker",
        ],  # -P: nothing is imported from where the user stands
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        pass_fds=[writing],
        start_new_session=True,
    )
    os.close(writing)
    return Worker(process, os.fdopen(reading, "rb", buffering=0), stderr)


def _read(worker: Worker) -> bool:
    """Take in what the worker said; False once it is gone."""
    data = worker.events.read(65536)
    *lines, worker.pending = (worker.pending + (data or b"")).split(b"\n")
    for line in lines:
        event = json.loads(line)
        if "error" in event:
            worker.error = event["error"]
        else:
            worker.last = event
    return bool(data)


def _raise_failure(worker: Worker, task: Task) -> None:
    code = worker.process.wait()
    if code == 0:
        return
    if worker.error:
        raise (errors.of_code(worker.error["code"]) or WmError)(worker.error["message"], next=worker.error["next"])
    cause = (
        f"was killed by signal {-code}" + (" (out of memory?)" if code == -9 else "")
        if code < 0
        else f"exited with {code}"
    )
    worker.stderr.seek(0)
    said = worker.stderr.read()[-2000:].decode(errors="replace").strip()
    raise WmError(
        f"a worker of {task.name} {cause}" + (f":\n{said}" if said else ""),
        next=f"wm logs {task.stage} --run {task.run}",
    )


def _combine(workers: list[Worker], kind: str) -> Snapshot | None:
    """Sharded work adds up; an evolution is as far as its foremost worker."""
    said = [w.last for w in workers if w.last]
    if not said:
        return None
    rate = sum(e["rate"] for e in said)
    figures = {name: value for e in said for name, value in e["figures"].items()}
    if kind == "exchange":
        first = max(said, key=lambda e: e["done"])
        return Snapshot(first["done"], first["total"], first["unit"], rate, first["figures"] or figures)
    return Snapshot(sum(e["done"] for e in said), sum(e["total"] for e in said), said[0]["unit"], rate, figures)


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
