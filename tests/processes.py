"""The processes of a run, to be killed."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress


def workers(process: "subprocess.Popen[str]") -> list[int]:
    """Process ids of a run's workers."""
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    return [int(pid) for pid in listing.stdout.split()]


def alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def kill_one_of(process: "subprocess.Popen[str]", chance: random.Random, run_share: float = 0.25) -> None:
    """SIGKILL for one of the run's workers, or for the run itself."""
    victims = workers(process) if chance.random() >= run_share else []
    with suppress(ProcessLookupError):
        os.kill(chance.choice(victims or [process.pid]), signal.SIGKILL)


class Pods:
    """An Indexed Job on this machine: each place has a process, and a new one as soon as that was killed."""

    def __init__(self, task: str, store: str, count: int, environment: Mapping[str, str]) -> None:
        self._environment = {**environment, "WM_TASK": task, "WM_STORE": store, "WM_PODS": str(count)}
        self.begun = 0
        self.running = [self._start(index) for index in range(count)]

    def kill(self, index: int) -> None:
        self.running[index].kill()
        self.running[index].wait()
        self.running[index] = self._start(index)

    def wait(self) -> list[int]:
        """Their exit codes, once all have ended."""
        return [process.wait() for process in self.running]

    @property
    def done(self) -> bool:
        """Has one succeeded? Then all are about to."""
        return any(process.poll() == 0 for process in self.running)

    def _start(self, index: int) -> "subprocess.Popen[bytes]":
        self.begun += 1
        return subprocess.Popen(
            [sys.executable, "-m", "worldmodels.executors.pod"],
            env={**self._environment, "JOB_COMPLETION_INDEX": str(index), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
        )
