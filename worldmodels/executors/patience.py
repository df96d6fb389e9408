"""Limit of retries: a pod gives up once its index has failed three times without progress in between.

Kubernetes counts how often an index failed, without disruptions, but does not know the work's progress: its limit would
end an evolution of weeks after a few unrelated failures, or retry for a week a task that needs more memory. So each pod
that starts after a failure records the work's progress in the store, and compares it with the previous pod's record.
"""

import json
from typing import Any

from .. import stored
from ..artifacts import Identity
from ..errors import WorkFailed
from ..planning import Task, TaskState
from ..stages import stage
from ..store import Store

TRIES = 3


def check(store: Store, task: Task, index: int, failures: int) -> None:
    """Raise WorkFailed if the last `TRIES` pods of the index failed without progress; `failures` counts all failures.

    A pod that cannot reach the store leaves no record, so a long outage of the store counts once.
    """
    if not failures:
        return
    work = TaskState(store, task).identity
    key, progress = work.work_key("failures", str(index)), _progress(store, work)
    before = _read(store, key)
    starts = before.get("starts", 0) if before.get("progress") == progress else 0
    if not starts or failures > before.get("failures", 0):  # equal after a mere disruption
        starts += 1
    store.put(key, json.dumps({"progress": progress, "failures": failures, "starts": starts}).encode())
    if starts >= TRIES:
        store.put(key, b"{}")  # the next submission has all tries again
        raise WorkFailed(
            f"{task.name}: index {index} failed {TRIES} times and nothing was gained in between; another try would end"
            " as these did",
            next=f"wm logs {task.stage} --run {task.run} --iteration {task.iteration}",
        )


def _progress(store: Store, work: Identity) -> list[Any]:
    """Return the work's numbers of shards and rounds and its newest checkpoint: progress changes them."""
    shards = sum(1 for _ in store.entries(work.work_key("shards/")))
    newest = max((entry.key for entry in store.entries(work.work_key("checkpoints/"))), default="")
    rounds = stage(work.name.stage).rounds
    return [shards, len(store.folders(work.work_key(rounds))) if rounds else 0, newest]


def _read(store: Store, key: str) -> dict[str, Any]:
    return stored.advice(store.get(key), stored.STARTS) or {}
