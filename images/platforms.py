"""Stops `make install` with a sentence where the locked packages have no wheels: `python platforms.py`.

Runs on any Python 3, hence the old ways of writing.
"""

import platform
import sys

PYTHONS = ((3, 11), (3, 12), (3, 13))
MACHINES = (("Linux", "x86_64"), ("Darwin", "arm64"))


def obstacle(version, machine):
    """Say why wm cannot be installed, or return None; `version`: (major, minor), `machine`: (system, architecture)."""
    if version not in PYTHONS:
        return "wm needs Python 3.11, 3.12 or 3.13, and this is {}.{}. Try: make PYTHON=python3.13".format(*version)
    if machine not in MACHINES:
        return (
            "wm runs on Linux x86-64 (and macOS arm64, where it was resolved but not run), and this is {} {}: "
            "box2d or ai-edge-litert have no wheel for it. Try a container: docker build -f Dockerfile.cpu .".format(
                *machine
            )
        )
    return None


if __name__ == "__main__":
    sys.exit(obstacle(sys.version_info[:2], (platform.system(), platform.machine())))
