"""The states of an iteration as JSON for the page: words, and why a stage waits."""

from typing import Any

from ..planning import underway
from ..terminal import plain
from .reading import Iteration, Stage


def row(iteration: Iteration) -> dict[str, Any]:
    """Return the iteration's line in the list of runs."""
    rows = [stage_row(stage) for stage in iteration.stages.values()]
    return {
        "id": iteration.id,
        "run": iteration.run,
        "iteration": iteration.number,
        "read": iteration.looked,
        "stages": rows,
        "words": words(iteration),
        "active": iteration.active,
        "score": iteration.score,
        "latest": iteration.latest or None,
        "trouble": iteration.trouble,
    }


def stage_row(stage: Stage) -> dict[str, Any]:
    return {"stage": stage.name.stage, "state": stage.state, "since": stage.since, "why": why(stage)}


def words(iteration: Iteration) -> str:
    """Return the iteration's state in a few words."""
    if not iteration.looked:
        return "being read"
    by_state = {state: [n for n, s in iteration.stages.items() if s.state == state] for state in
                ("damaged", "at work", "stopped", "committed")}  # fmt: skip
    for state in ("damaged", "at work", "stopped"):
        if by_state[state]:
            return f"{', '.join(by_state[state])} {state}"
    if len(by_state["committed"]) == len(iteration.stages):
        return "everything is committed"
    if iteration.trouble:
        return "its settings cannot be read"
    names = list(iteration.stages)
    begun = next((n for n, s in iteration.stages.items() if s.state == "not begun"), "")
    if begun and any(names.index(later) > names.index(begun) for later in by_state["committed"]):
        return f"{len(by_state['committed'])} of {len(names)} stages are committed"  # a copy of a part of a run
    return f"{begun} not begun" if begun else "waits"


def why(stage: Stage, verb: str = "run") -> str:
    """Return what an uncommitted stage does, or the reason why it does nothing; empty for a committed one.

    `verb` is the command that begins it: "run", or "submit" for a run on a cluster.
    """
    last_line = stage.line.text.replace("  ", ", ") if stage.line else ""
    if stage.state == "damaged":
        return stage.damaged
    if stage.state == "at work":
        return ": ".join(part for part in (_progress(stage), "" if stage.evolution else last_line) if part)
    if stage.state == "stopped":
        log = f"the log ends with: {last_line}" if last_line else ""
        parts = [part for part in (_progress(stage), "no worker shows a heartbeat", log) if part]
        return f"{'; '.join(parts)}. Next: {_again(stage, verb)}"
    if stage.state == "waits":
        return f"for {', '.join(stage.missing)}"
    if stage.state == "not begun" and stage.key:
        return f"its inputs are committed, and no worker has begun it. Next: {_again(stage, verb)}"
    return ""


def _progress(stage: Stage) -> str:
    if stage.evolution:
        return underway.words(stage.evolution).replace("  ", ", ")
    return f"{stage.shards[0]} of {stage.shards[1]} shards" if stage.shards else ""


def _again(stage: Stage, verb: str) -> str:
    name = stage.name
    return f"wm {verb} {name.stage} --run {name.run}" + (f" --iteration {name.iteration}" if name.iteration > 1 else "")


def legible(value: Any) -> Any:
    """Return JSON whose texts show invisible characters as escapes, as on a terminal; every name is one of ours."""
    if isinstance(value, dict):
        return {key: legible(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [legible(inner) for inner in value]
    return plain(value) if isinstance(value, str) else value
