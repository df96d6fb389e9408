"""Entries of a store, for `wm gc` and `wm cp`."""

import re
from collections.abc import Callable, Iterable

from .. import artifacts
from ..artifacts import RUN_NAME, Name
from ..errors import CorruptArtifact, MissingInput
from ..store import Entry, Store

WORK = re.compile(r"[0-9a-f]{16}")  # a workspace, beside data/, live/, ...


def runs(store: Store, run: str | None = None) -> list[str]:
    """List every run of the store, or only `run`; raise MissingInput if that is absent."""
    if run is not None and artifacts.iterations(store, Name(run, 1, "").run):
        return [run]
    found = [name for name in store.folders("") if RUN_NAME.fullmatch(name) and _is_run(store, name)]
    if run is None:
        return found
    raise MissingInput(
        f"there is no run {run!r} in {store.uri}" + (f"; it has {', '.join(found)}" if found else ""),
        next=f"wm ls --store {store.uri}",
    )


def _is_run(store: Store, name: str) -> bool:
    try:
        return bool(artifacts.iterations(store, name))
    except CorruptArtifact:  # a link, say: the command that reads the run raises the error
        return True


def works(store: Store, name: Name) -> list[str]:
    """Return the names of a stage's workspaces."""
    return [folder for folder in store.folders(name.key("")) if WORK.fullmatch(folder)]


def split(entries: Iterable[Entry], of: Callable[[Entry], bool]) -> tuple[list[Entry], list[Entry]]:
    """Split the entries into those for which `of` is true, and the others."""
    found: tuple[list[Entry], list[Entry]] = ([], [])
    for entry in entries:
        found[0 if of(entry) else 1].append(entry)
    return found
