"""The pipeline's pod, `python -m worldmodels.executors.pipeline`: submits every stage of every iteration as a Job.

It is stateless: a pod that replaces a killed one compares the cluster with the store, and does the remaining stages.
Environment variables:
    WM_PIPELINE   the run and its config for every iteration, as JSON (`job_spec.Pipeline`)
    WM_STORE      the store's URI
    WM_LIMITS     the most that the run may use, as JSON (`budget.Limits`; optional)
    WM_NOTIFY     the URL to post events to, from a Secret (optional)
Exit codes are those of `errors.py`; the Job's failure policy depends on them.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

if __name__ == "__main__":  # process 1 ignores a signal without a handler, and the imports below take a while
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))

from .. import hints, planning
from ..errors import LimitReached, Stopped, WmError
from ..planning import Task
from ..store import Store, open_store
from ..terminal import Formatter
from .budget import Limits, Meter, of_pods
from .kubernetes import job_status, submission
from .kubernetes.client import KubernetesClient, connect
from .kubernetes.job_spec import ENDED, PIPELINE, POINTLESS, Pipeline
from .kubernetes.job_status import Teller, View
from .kubernetes.log_tail import Listener
from .kubernetes.submission import KubernetesExecutor, Pods
from .notices import Notifier
from .worker import LOG_DATE, LOG_FORMAT

# A killed process's lease on the run expires within a minute (store/s3/lease.py).
LOCK_SECONDS = 120.0
LINE_SECONDS = 60.0


def main(environment: Mapping[str, str]) -> int:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(Formatter(LOG_FORMAT, LOG_DATE))
    logging.basicConfig(handlers=[handler])
    log = logging.getLogger("wm.driver")
    log.setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, _stop)
    wanted = notifier = None
    try:
        wanted, store = Pipeline.from_json(environment["WM_PIPELINE"]), open_store(environment["WM_STORE"])
        notifier = Notifier(environment.get("WM_NOTIFY", "").strip(), store, wanted.run, log.warning)
        cluster = KubernetesClient(connect, wanted.configs[0].kubernetes.namespace, say=log.warning)
        limits = Limits.from_json(environment["WM_LIMITS"]) if "WM_LIMITS" in environment else Limits()
        drive(cluster, store, wanted, log.info, limits, notifier)
    except WmError as error:
        following = _next(error, wanted, environment["WM_STORE"])
        log.error("%s%s", error.message, f"; next: {following}" if following else "")
        if notifier and error.exit_code in (*POINTLESS, *ENDED):  # after others, another pod goes on
            notifier.failed(error, following)
        return error.exit_code
    finally:
        if notifier:
            notifier.close()
    return 0


def _next(error: WmError, wanted: Pipeline | None, store_uri: str) -> str:
    """Return the command that the error recommends, with the run and the store."""
    following = error.next.replace("wm run", "wm submit")
    if not wanted:
        return following
    iterations = [str(len(wanted.configs))] if len(wanted.configs) > 1 else []
    given = {hints.RUN: [wanted.run], hints.STORE: [store_uri], hints.ITERATIONS: iterations}
    return hints.complete(following, given)


def drive(
    cluster: KubernetesClient,
    store: Store,
    wanted: Pipeline,
    say: Callable[[str], None],
    limits: Limits,
    notifier: Notifier,
) -> None:
    """Do the remaining stages under the run's lock, until one of the limits is reached.

    Raise Busy if another process holds the lock for `LOCK_SECONDS`.
    """
    executor = KubernetesExecutor(cluster, say, pending_seconds=wanted.configs[0].kubernetes.pending_seconds)
    with planning.lock(store, wanted.run, LOCK_SECONDS):
        steps = planning.plan(store, submission.pipeline_tasks(wanted))
        done = sum(step.state == "committed" for step in steps)
        say(f"{wanted.run}: {len(steps)} stages (iterations: {len(wanted.configs)}), {done} of them committed")
        meter = Meter(store, wanted.run, limits, "wm submit pipeline", say)
        try:
            planning.execute(store, steps, executor, _watch(cluster, say, meter, notifier), redo=False)
        except LimitReached:
            _end_jobs(cluster, store, wanted.run, say)
            raise
    say(f"{wanted.run}: everything is committed")
    notifier.finished([step.task.name for step in steps])


def _watch(
    cluster: KubernetesClient, say: Callable[[str], None], meter: Meter, notifier: Notifier
) -> Callable[[Task], AbstractContextManager[Callable[[View, Pods], None]]]:
    @contextmanager
    def watch(task: Task) -> Iterator[Callable[[View, Pods], None]]:
        tell, listener = Teller(say), Listener(cluster, LINE_SECONDS)

        def report(seen: View, pods: Pods) -> None:
            meter.tick(*of_pods(task, seen.running))
            notifier.saw_job(seen)
            tell(str(task.name), seen)
            if line := listener.news(pods.now()):
                say(f"{task.name}: {line}")

        with meter.stage(task.name), notifier.stage(task.name):
            yield report
        say(f"{task.name}: committed")

    return watch


def _end_jobs(cluster: KubernetesClient, store: Store, run: str, say: Callable[[str], None]) -> None:
    """Delete the run's active Jobs, except for the pipeline's own: their pods store a checkpoint and end."""
    found = submission.find(cluster, store, run)
    mine = [each["metadata"]["name"] for each in submission.find(cluster, store, run, PIPELINE)]
    active = [job for job in found if not job_status.ended(job) and job["metadata"]["name"] not in mine]
    submission.remove(cluster, *active)
    for job in active:
        say(f"Job {job['metadata']['name']} is deleted")


def _stop(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stopped("asked to stop; another pod goes on from here")


if __name__ == "__main__":
    sys.exit(main(os.environ))
