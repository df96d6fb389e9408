"""One worker of one task: `python -m worldmodels.executors.worker`, the same on a laptop and in a pod.

Environment variables:
    WM_TASK                the task as JSON (`planning.Task`)
    WM_STORE               the store's URI
    WM_WORKERS             how many workers the task has
    JOB_COMPLETION_INDEX   this worker's index, from 0
    WM_EVENTS_FD           file descriptor for progress events, one JSON object a line (optional)
    WM_PODS                set only in a pod (`pod.py`)
    WM_PARENT_PIPE         1: standard input is the parent's pipe, which closes when the parent ends (optional)
Exit codes are those of `errors.py`. Standard output carries plain log lines.
"""

import contextlib
import faulthandler
import json
import logging
import os
import select
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from .. import hints, planning, runner
from ..context import ProgressReporter
from ..errors import ConfigError, Hung, Stopped, WmError, lacking
from ..stages import STAGES
from ..store import Store, open_store
from ..store.causes import explain
from ..terminal import Formatter

PUBLISH_LOG_SECONDS = 5.0
STOP_SECONDS = 10.0
LOG_FORMAT, LOG_DATE = "%(asctime)s %(levelname).1s %(message)s", "%Y-%m-%d %H:%M:%S"


def main(environment: Mapping[str, str]) -> int:
    task = planning.Task.from_json(environment["WM_TASK"])
    worker, workers = int(environment.get("JOB_COMPLETION_INDEX", "0")), int(environment.get("WM_WORKERS", "1"))
    store = open_store(environment["WM_STORE"])
    log, lines = _logger()
    reporter = ProgressReporter(log, emit=_emitter(environment.get("WM_EVENTS_FD")))
    faulthandler.enable()
    signal.signal(signal.SIGTERM, lambda *_: reporter.stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if environment.get("WM_PARENT_PIPE"):
        threading.Thread(target=_end_with_parent, args=(reporter,), daemon=True).start()
    again = f"wm run {task.stage} --run {task.run} --iteration {task.iteration}"
    threading.Thread(target=_watch, args=(reporter, task.config.execution.stall_seconds, again), daemon=True).start()
    key = task.name.key("logs", f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-worker-{worker:05d}.log")
    ship = LogShipper(store, key, lines)
    try:
        _run(store, task, worker, workers, reporter)
    except WmError as error:
        following = command(error.next, environment, task)
        log.error("%s%s", error.message, f"; next: {following}" if following else "")
        reporter.emit({"error": {"message": error.message, "next": error.next, "code": error.exit_code}})
        return error.exit_code
    except OSError as error:
        place = str(error.filename or tempfile.gettempdir())
        reason, look = explain(error, place)
        log.exception("%s: %s; next: %s", place, reason, look)
        reporter.emit({"error": {"message": f"{task.name}: {place}: {reason}", "next": look, "code": 13}})
        return 13
    except Exception as error:
        log.exception("unexpected")
        message = f"{task.name}: {type(error).__name__}: {error}"
        reporter.emit({"error": {"message": message, "next": f"wm logs {task.stage} --run {task.run}", "code": 1}})
        return 1
    finally:
        ship.close()
    return 0


def command(text: str, environment: Mapping[str, str], task: planning.Task) -> str:
    """Return a command for the log with run, store and iteration; in a pod, `wm submit` in place of `wm run`."""
    if "WM_PODS" in environment:
        text = text.replace("wm run", "wm submit")
    iteration = [str(task.iteration)] if task.iteration > 1 else []
    given = {hints.RUN: [task.run], hints.STORE: [environment["WM_STORE"]], hints.ITERATION: iteration}
    return hints.complete(text, given)


def _run(store: Store, task: planning.Task, worker: int, workers: int, reporter: ProgressReporter) -> None:
    try:
        runner.run(store, task, worker, workers, reporter)
    except ModuleNotFoundError as error:
        trains = " and ".join(name for name, stage in STAGES.items() if stage.gpu)
        images = f"(images: wm-gpu is for {trains}, wm-cpu for everything else)"
        reason = lacking(str(task.name), error.name)
        raise ConfigError(f"{reason.message} {images}", next=reason.next) from error


def _logger() -> tuple[logging.Logger, list[str]]:
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    log = logging.getLogger("wm")
    log.setLevel(logging.INFO)
    log.propagate = False
    formatter = Formatter(LOG_FORMAT, LOG_DATE)
    for handler in (logging.StreamHandler(sys.stdout), Keep()):
        handler.setFormatter(formatter)
        log.addHandler(handler)
    return log, lines


class LogShipper:
    """Writes this process's log to the store every few seconds and at the end."""

    def __init__(self, store: Store, key: str, lines: list[str]) -> None:
        self._store, self._key, self._lines = store, key, lines
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._done.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        sent = 0
        while True:
            done = self._done.wait(max(PUBLISH_LOG_SECONDS, self._store.publish_seconds))
            if len(self._lines) > sent:
                sent = len(self._lines)
                try:
                    self._store.follow(self._key, ("\n".join(self._lines[:sent]) + "\n").encode())
                except WmError as error:
                    print(f"the log cannot be stored: {error.message}", flush=True)
            if done:
                return


def _emitter(descriptor: str | None) -> Callable[[dict[str, Any]], None]:
    if descriptor is None:
        return lambda event: None
    pipe = int(descriptor)

    def emit(event: dict[str, Any]) -> None:
        data = (json.dumps(event) + "\n").encode()
        # A suspended parent does not read. Work goes on, because later events repeat the progress.
        must_arrive = "error" in event or len(data) > select.PIPE_BUF
        os.set_blocking(pipe, must_arrive)
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            while data:
                data = data[os.write(pipe, data) :]

    return emit


def _end_with_parent(reporter: ProgressReporter) -> None:
    """Request a stop once the parent has closed standard input; exit the process after another `STOP_SECONDS`."""
    while os.read(0, 1024):  # not sys.stdin: its lock would be held while the interpreter ends
        pass
    reporter.stop.set()
    time.sleep(STOP_SECONDS)
    os._exit(Stopped.exit_code)


def _watch(reporter: ProgressReporter, stall_seconds: float, again: str) -> None:
    """Log all stacks and exit as Hung after `stall_seconds` without progress, so that another worker can try.

    Only time in which this process ran counts: the process or its machine may be suspended.
    """
    pause = min(5.0, stall_seconds / 2)
    beat, silent = reporter.beat, 0.0
    while True:
        before = time.monotonic()
        time.sleep(pause)
        silent = silent + min(time.monotonic() - before, 2 * pause) if reporter.beat == beat else 0.0
        beat = reporter.beat
        if silent > stall_seconds:
            reporter.log.error("no progress for %.0f s; stacks follow", silent)
            faulthandler.dump_traceback(all_threads=True)
            message = f"a worker made no progress for {silent:.0f} s and was given up"
            reporter.emit({"error": {"message": message, "next": again, "code": Hung.exit_code}})
            os._exit(Hung.exit_code)


if __name__ == "__main__":
    sys.exit(main(os.environ))
