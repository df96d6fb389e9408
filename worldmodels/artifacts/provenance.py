"""How, when and on which machine an artifact is made."""

import contextlib
import os
import platform
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from .. import __version__
from ..stored import Cpu, Made

PACKAGES = (
    "numpy", "tensorflow", "tensorflow-cpu", "keras", "ai-edge-litert",
    "gymnasium", "box2d", "numba", "cma", "pillow",
)  # fmt: skip


def record(started: float) -> Made:
    """Return how, when and on which machine an artifact was made. The digest does not depend on it."""
    finished = time.time()
    return {
        "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        "finished": datetime.fromtimestamp(finished, UTC).isoformat(timespec="seconds"),
        "seconds": round(finished - started, 1),
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "versions": dict(versions()),
        "git": git_revision(),
        "cpu": cpu(),
    }


def versions() -> Iterator[tuple[str, str]]:
    yield "wm", __version__
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            yield package, metadata.version(package)


def git_revision(package: Path = Path(__file__).parents[1]) -> str:
    """Return the git revision of this code, from its image or its checkout; empty if there is neither."""
    with contextlib.suppress(OSError):
        return (package / "_revision").read_text()
    if not (package.parent / ".git").exists():  # installed: a repository around it is not this project's
        return ""
    command = ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=12"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    return ""


def cpu() -> Cpu:
    """Return the processor's model and the features by which TensorFlow and LiteRT choose kernels."""
    info: dict[str, str] = {}
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        info = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set(info.get("flags", "").split())
    kernels = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile")
    return {
        "model": info.get("model name", platform.processor()),
        "features": [name for name in kernels if name in flags],
    }


def cores() -> int:
    """Return the cores of the cgroup's CPU quota, at least 1, at most those on which this process may run."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for path, parse in (("/sys/fs/cgroup/cpu.max", str.split), ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", _cgroup_v1)):
        with contextlib.suppress(OSError, ValueError):
            quota, period = parse(Path(path).read_text())
            if quota not in ("max", "-1"):
                return max(1, min(allowed, int(quota) // int(period)))
    return allowed


def _cgroup_v1(quota: str) -> list[str]:
    return [quota.strip(), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text().strip()]
