"""When a pod gives up for good: its index has failed three times, and nothing was gained in between.

Kubernetes counts how often an index failed, without disruptions, but it knows nothing of progress: its limit would end
an evolution of weeks after a few unrelated failures, or try for a week what needs more memory. So each pod that comes
after a failure leaves a note of how far the work is, and looks at the note of the one before.
"""

import json
from typing import Any

from .. import stored
from ..artifacts import Identity
from ..errors import WorkFailed
from ..runner import Task, identify, input_manifests
from ..store import Store

TRIES = 3


def check(store: Store, task: Task, index: int, failures: int) -> None:
    """Raise WorkFailed if the last `TRIES` pods of the index failed and its work is where it was; `failures`: in all.

    Whoever could not reach the store left no note, so a store that is away for long counts once.
    """
    if not failures:
        return
    work = identify(task, input_manifests(store, task))
    key, progress = work.work_key("failures", str(index)), _progress(store, work)
    before = _read(store, key)
    starts = before.get("starts", 0) if before.get("progress") == progress else 0
    if not starts or failures > before.get("failures", 0):  # a pod that was only disrupted meanwhile did not fail
        starts += 1
    store.put(key, json.dumps({"progress": progress, "failures": failures, "starts": starts}).encode())
    if starts >= TRIES:
        store.put(key, b"{}")  # whoever submits again has changed something, and tries anew
        raise WorkFailed(
            f"{task.name}: index {index} failed {TRIES} times and nothing was gained in between; another try would end"
            " as these did",
            next=f"wm logs {task.stage} --run {task.run} --iteration {task.iteration}",
        )


def _progress(store: Store, work: Identity) -> list[Any]:
    """Count the work's shards and generations, and name its newest checkpoint: they change as the work goes on."""
    shards = sum(1 for _ in store.entries(work.work_key("shards/")))
    newest = max((entry.key for entry in store.entries(work.work_key("checkpoints/"))), default="")
    return [shards, len(store.folders(work.work_key("generations/"))), newest]


def _read(store: Store, key: str) -> dict[str, Any]:
    return stored.advice(store.get(key), stored.STARTS) or {}
