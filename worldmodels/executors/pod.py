"""A pod's program, `python -m worldmodels.executors.pod`: one worker, or one for each core that the pod may use.

Environment variables (and those of `worker.py`):
    WM_TASK                the task as JSON (`planning.Task`)
    WM_STORE               the store's URI
    WM_PODS                how many pods the task had when it was submitted
    JOB_COMPLETION_INDEX   this pod's index, from 0
    WM_FAILURES            how often that index failed before, by Kubernetes' count, without disruptions
Exit codes are those of `errors.py`; the Job's failure policy depends on them.
"""

import logging
import os
import signal
import sys
from collections.abc import Mapping
from types import FrameType

if __name__ == "__main__":  # process 1 ignores a signal without a handler, and the imports below take a while
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))

from ..errors import Stopped, WmError
from ..planning import Task
from ..store import open_store
from . import local, patience, worker


def main(environment: Mapping[str, str]) -> int:
    task = None
    try:
        task = Task.from_json(environment["WM_TASK"])
        pod = int(environment.get("JOB_COMPLETION_INDEX", "0"))
        pods = max(int(environment.get("WM_PODS", "1")), pod + 1)  # `wm scale` may have added this pod
        if failures := int(environment.get("WM_FAILURES") or 0):
            patience.check(open_store(environment["WM_STORE"]), task, pod, failures)
        if local.processes(task) == 1:  # saves a second interpreter
            return worker.main({**environment, "JOB_COMPLETION_INDEX": str(pod), "WM_WORKERS": str(pods)})
        signal.signal(signal.SIGTERM, _stop)
        executor = local.LocalExecutor(environment["WM_STORE"], _log().warning, pod, pods, stdout=1)
        executor.wait(executor.start(task), lambda snapshot: None)
    except WmError as error:
        following = worker.command(error.next, environment, task) if task else error.next
        _log().error("%s%s", error.message, f"; next: {following}" if following else "")
        return error.exit_code
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stopped("asked to stop; another pod goes on from here")


def _log() -> logging.Logger:
    logging.basicConfig(format=worker.LOG_FORMAT, datefmt=worker.LOG_DATE, stream=sys.stdout)
    return logging.getLogger("wm.pod")


if __name__ == "__main__":
    sys.exit(main(os.environ))
