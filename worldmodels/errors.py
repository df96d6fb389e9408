"""The errors of `wm`, as one tree.

    WmError                 1   unexpected: a bug in wm
    ├── ConfigError        43   a stage, preset, key, type or bound is wrong; trying again is pointless
    ├── Conflict           10   a committed artifact was made with another config or other inputs
    ├── MissingInput       11   an input stage has no committed artifact
    ├── Busy               12   another command works on this run
    ├── StoreError         13   the store cannot be read or written (permissions, disk full, not there)
    ├── CorruptArtifact    14   stored bytes differ from the manifest
    ├── ClusterError       15   the cluster cannot be reached or refuses, or another user deleted a Job
    │   └── Pending        16   no pod ran within the time limit; the Job goes on waiting
    ├── WorkFailed         42   no work is left that can succeed
    │   └── ShardFailed         one shard cannot succeed; the others go on
    ├── Hung               44   no progress for minutes; worth another attempt
    ├── Killed             45   a worker was killed three times, without progress in between
    ├── LimitReached       46   --max-hours or --max-cost is reached; a higher limit goes on from there
    └── Stopped           143   stopped by SIGTERM; the same command resumes

Other exit codes: 0 success, 2 usage (click), 130 Ctrl-C. Every error names its cause and the next command.
"""

import difflib
from collections.abc import Iterable

DISTRIBUTION = "world-models-carracing"


class WmError(Exception):
    """Base of all errors. `message` names an object and its value; `next` is the command to type now, or empty."""

    exit_code = 1

    def __init__(self, message: str, next: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next = next


class ConfigError(WmError):
    exit_code = 43


class Conflict(WmError):
    exit_code = 10


class MissingInput(WmError):
    exit_code = 11


class Busy(WmError):
    exit_code = 12


class StoreError(WmError):
    exit_code = 13


class CorruptArtifact(WmError):
    exit_code = 14


class ClusterError(WmError):
    exit_code = 15


class Pending(ClusterError):
    exit_code = 16


class WorkFailed(WmError):
    exit_code = 42


class ShardFailed(WorkFailed):
    """The failure of the shard with that `index`."""

    def __init__(self, index: int, message: str, next: str = "") -> None:
        super().__init__(message, next)
        self.index = index


class Hung(WmError):
    exit_code = 44


class Killed(WmError):
    exit_code = 45


class LimitReached(WmError):
    exit_code = 46


class Stopped(WmError):
    exit_code = 143


def of_code(code: int) -> type[WmError] | None:
    """Return the class of errors with that exit code, or None."""
    found = (kind for kind in globals().values() if isinstance(kind, type) and issubclass(kind, WmError))
    return next((kind for kind in found if kind.exit_code == code), None)


def among(name: str, known: Iterable[str]) -> str:
    """Return the known names in words, after the one that is closest to a wrong `name`."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    return (f"did you mean {close[0]!r}? " if close else "") + f"known: {', '.join(names)}"


def lacking(what: str, package: str | None) -> ConfigError:
    """Return the error for work that needs a package which an extra of this distribution brings."""
    return ConfigError(
        f"{what} needs the package {package}, which is not installed here",
        next=f"pip install '{DISTRIBUTION}[{extra_of(package or '')}]'",
    )


def extra_of(package: str) -> str:
    """Return the extra that requires the package, by its name or that of a smaller build; otherwise `all`."""
    import re
    from importlib import metadata

    name = re.escape(package.partition(".")[0].replace("_", "-"))
    wanted = re.compile(rf"{name}(-cpu|-skinny)?\b(?!-).*extra == ['\"](?!all|dev|gpu)(\w+)['\"]", re.IGNORECASE)
    try:
        required = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # a copy of the source that was never installed
        required = []
    return next((found[2] for line in required if (found := wanted.match(line))), "all")
