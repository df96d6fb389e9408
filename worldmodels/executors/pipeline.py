"""The pipeline's pod, `python -m worldmodels.executors.pipeline`: submits every stage of every iteration as a Job.

It is stateless: a pod that replaces a killed one compares the cluster with the store, and does the remaining stages.
Environment variables:
    WM_PIPELINE   the run and its config for every iteration, as JSON (`job_spec.Pipeline`)
    WM_STORE      the store's URI
Exit codes are those of `errors.py`; the Job's failure policy depends on them.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

if __name__ == "__main__":  # process 1 ignores a signal without a handler, and the imports below take a while
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))

from .. import hints, planning
from ..errors import Stopped, WmError
from ..planning import Task
from ..store import Store, open_store
from ..terminal import Formatter
from .kubernetes import submission
from .kubernetes.client import KubernetesClient, connect
from .kubernetes.job_spec import Pipeline
from .kubernetes.job_status import Teller, View
from .kubernetes.log_tail import Listener
from .kubernetes.submission import KubernetesExecutor, Pods
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
    wanted = None
    try:
        wanted = Pipeline.from_json(environment["WM_PIPELINE"])
        cluster = KubernetesClient(connect, wanted.configs[0].kubernetes.namespace, say=log.warning)
        drive(cluster, open_store(environment["WM_STORE"]), wanted, log.info)
    except WmError as error:
        said = error.next.replace("wm run", "wm submit")
        if wanted:
            said = hints.complete(said, {hints.RUN: [wanted.run], hints.STORE: [environment["WM_STORE"]]})
        log.error("%s%s", error.message, f"; next: {said}" if said else "")
        return error.exit_code
    return 0


def drive(cluster: KubernetesClient, store: Store, wanted: Pipeline, say: Callable[[str], None]) -> None:
    """Do the remaining stages under the run's lock. Raise Busy if another process holds it for `LOCK_SECONDS`."""

    @contextmanager
    def watch(task: Task) -> Iterator[Callable[[View, Pods], None]]:
        tell, listener = Teller(say), Listener(cluster, LINE_SECONDS)

        def report(seen: View, pods: Pods) -> None:
            tell(str(task.name), seen)
            if said := listener.news(pods.now()):
                say(f"{task.name}: {said}")

        yield report
        say(f"{task.name}: committed")

    executor = KubernetesExecutor(cluster, say, pending_seconds=wanted.configs[0].kubernetes.pending_seconds)
    with planning.lock(store, wanted.run, LOCK_SECONDS):
        steps = planning.plan(store, submission.pipeline_tasks(wanted))
        done = sum(step.state == "committed" for step in steps)
        say(f"{wanted.run}: {len(steps)} stages (iterations: {len(wanted.configs)}), {done} of them committed")
        planning.execute(store, steps, executor, watch, redo=False)
    say(f"{wanted.run}: everything is committed")


def _stop(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stopped("asked to stop; another pod goes on from here")


if __name__ == "__main__":
    sys.exit(main(os.environ))
