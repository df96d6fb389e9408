"""More, fewer, or for a while no pods for a Job that is at work.

An Indexed Job is elastic while its completions equal its parallelism:
https://kubernetes.io/docs/concepts/workloads/controllers/job/#elastic-indexed-jobs
"""

from typing import Any

from ..errors import ClusterError
from . import job_status
from .kubernetes import KubernetesClient
from .submission import Work

Dict = dict[str, Any]


def scale(cluster: KubernetesClient, work: Work, pods: int) -> int:
    """Let the work's Job have so many pods; returns how many it had. ClusterError if it may not be changed."""
    _changeable(work)
    before = int(work.job["spec"]["completions"])
    if pods != before:
        cluster.patch(work.job, {"completions": pods, "parallelism": pods})
    return before


def pause(cluster: KubernetesClient, work: Work, *, paused: bool) -> bool:
    """Take all pods away and make none, or make them again; False if it was so already."""
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
