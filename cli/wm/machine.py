"""The output of commands with --json: one JSON document, or a line of JSON for each event of a command that waits.

docs/json.md describes both. `SCHEMA` grows when a field is removed or changes its meaning, not when one is added.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from wm.out import echo

if TYPE_CHECKING:
    from worldmodels.executors.local import Snapshot

SCHEMA = 1
EVENT_SECONDS = 10.0
_printed: set[str] = set()


def wanted() -> bool:
    """Return whether the command line contains --json, even if it is invalid otherwise."""
    return "--json" in sys.argv[1:]


def document(**fields: Any) -> None:
    """Print the command's only document."""
    _printed.add("document")
    echo(json.dumps({"schema": SCHEMA, **fields}, indent=1))


def event(kind: str, **fields: Any) -> None:
    """Print an event as one line of JSON."""
    _printed.add("events")
    echo(json.dumps({"schema": SCHEMA, "event": kind, **fields}))


def failed(message: str, next: str, exit_code: int, kind: str) -> None:
    """Print an error as the last event, or as the document. A document printed before already has the findings."""
    error = {"kind": kind, "message": message, "next": next, "exit_code": exit_code}
    if "events" in _printed:
        event("error", error=error)
    elif "document" not in _printed:
        document(error=error)


class Events:
    """Prints progress for programs, one event a line, as `progress.Screen` does for users."""

    def __enter__(self) -> "Events":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, text: str) -> None:
        event("note", text=text)

    @contextmanager
    def stage(self, name: str) -> "Iterator[Callable[[Snapshot], None]]":
        began = printed = time.monotonic()
        event("started", stage=name)

        def report(snapshot: "Snapshot") -> None:
            nonlocal printed
            if time.monotonic() - printed < EVENT_SECONDS:
                return
            printed = time.monotonic()
            event(
                "progress", stage=name, done=snapshot.done, total=snapshot.total, unit=snapshot.unit,
                rate=snapshot.rate, figures=dict(snapshot.figures),
            )  # fmt: skip

        yield report
        event("committed", stage=name, seconds=round(time.monotonic() - began, 1))
