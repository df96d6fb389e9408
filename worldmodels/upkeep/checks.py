"""Checks and their findings. A caller makes a list of `Check`s and gives it to `examine`.

def look() -> Finding:
    count = count_nodes()                           # a WmError becomes a failure, with its message and next command
    return ok(f"{count} nodes") if count else warn("no node", next="kubectl get nodes")

for finding in examine([Check("nodes", look), Check("GPU", look_too, needs=("nodes",))]):
    ...
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from ..errors import StoreError, WmError

State = Literal["ok", "warn", "fail", "skipped"]


@dataclass(frozen=True)
class Finding:
    """The result of a check, in `words`; `next` is the command to type then, `name` the check's name."""

    state: State
    words: str
    next: str = ""
    name: str = ""


@dataclass(frozen=True)
class Check:
    """A check: `look` returns the finding. It is skipped if a check that it `needs`, by name, failed or was skipped."""

    name: str
    look: Callable[[], Finding]
    needs: tuple[str, ...] = ()


def ok(words: str) -> Finding:
    return Finding("ok", words)


def warn(words: str, next: str) -> Finding:
    return Finding("warn", words, next)


def fail(words: str, next: str) -> Finding:
    return Finding("fail", words, next)


def examine(checks: Iterable[Check]) -> Iterator[Finding]:
    """Run the checks in order; yield each finding as soon as it exists."""
    states: dict[str, State] = {}
    for check in checks:
        missing = [name for name in check.needs if states[name] in ("fail", "skipped")]
        finding = Finding("skipped", f"makes no sense without: {', '.join(missing)}") if missing else _look(check)
        states[check.name] = finding.state
        yield replace(finding, name=check.name)


def _look(check: Check) -> Finding:
    try:
        return check.look()
    except WmError as error:
        return fail(error.message, error.next)


def require(findings: Iterable[Finding], what: str, kind: type[WmError] = StoreError) -> None:
    """Raise an error of type `kind` if a check failed, with the first failure's next command."""
    found = list(findings)
    if failed := [finding for finding in found if finding.state == "fail"]:
        names = ", ".join(finding.name for finding in failed)
        raise kind(f"{what}: {len(failed)} of {len(found)} checks failed: {names}", next=failed[0].next)
