"""The processes of a run, to be killed."""

import os
import random
import signal
import subprocess
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
