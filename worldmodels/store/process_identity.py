"""The identity of a process that writes a lease or a heartbeat; its own machine can check whether it still runs."""

import contextlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def signature() -> dict[str, Any]:
    """Return the identity of this process."""
    return {"host": socket.gethostname(), "machine": machine(), "process": os.getpid(), "began": _began("self")}


def ended(who: Mapping[str, Any]) -> bool:
    """Return whether the signed process has certainly ended: it ran on this machine, and no longer does."""
    here = bool(who.get("machine")) and who["machine"] == machine()
    return here and _began(who.get("process")) != who.get("began")


def machine() -> str:
    """Return an id of this machine's boot and of the container; empty if Linux does not provide them."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return ""


def _began(process: int | str | None) -> str:
    """Return when the process began, in ticks since boot (proc_pid_stat(5)); empty if it does not run.

    `process` becomes part of a path: it is "self", or a number from a store, checked by `stored.Signature`.
    """
    with contextlib.suppress(OSError):
        state, *rest = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return "" if state in "ZX" else str(rest[18])
    return ""
