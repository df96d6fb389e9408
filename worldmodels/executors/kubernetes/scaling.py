"""Changes to an active Job: its number of pods, and its suspension.

An Indexed Job is elastic while its completions equal its parallelism:
https://kubernetes.io/docs/concepts/workloads/controllers/job/#elastic-indexed-jobs
"""

from typing import Any

from ...errors import ClusterError
from . import job_status
from .client import KubernetesClient
from .submission import Work

Dict = dict[str, Any]


def scale(cluster: KubernetesClient, work: Work, pods: int) -> int:
    """Set the Job's number of pods; return the number before. Raise ClusterError if the Job has ended or is queued."""
    _changeable(work)
    before = int(work.job["spec"]["completions"])
    if pods != before:
        cluster.patch(work.job, {"completions": pods, "parallelism": pods})
    return before


def pause(cluster: KubernetesClient, work: Work, *, paused: bool) -> bool:
    """Suspend the Job, which deletes its pods, or resume it. Return False if it was in that state already."""
    _changeable(work)
    if bool(work.job["spec"].get("suspend")) == paused:
        return False
    cluster.patch(work.job, {"suspend": paused})
    return True


def _changeable(work: Work) -> None:
    job = work.job
    if job_status.ended(job) or job["metadata"].get("deletionTimestamp"):
        raise ClusterError(f"{work}: Job {work.name} has ended", next=work.command("submit"))
    if queue := job["metadata"]["labels"].get(job_status.QUEUE):
        raise ClusterError(
            f"{work}: Job {work.name} is in the queue {queue}: Kueue admitted it with the pods that it has",
            next=f"{work.command('submit')} -o kubernetes.pods.{work.stage}=N --replace",
        )
