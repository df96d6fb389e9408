"""Waiting for a Job, with its progress on the terminal."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from wm import machine, options
from wm.out import echo
from wm.progress import Bar, Screen

if TYPE_CHECKING:
    from worldmodels.artifacts import Name
    from worldmodels.config.cluster import ClusterSettings
    from worldmodels.executors.kubernetes.client import KubernetesClient
    from worldmodels.executors.kubernetes.job_status import View
    from worldmodels.executors.kubernetes.submission import Pods, Work
    from worldmodels.executors.notices import Notifier

LINE_SECONDS, PLAIN_SECONDS = 10.0, 30.0


def follow(
    cluster: "KubernetesClient",
    work: "Work",
    settings: "ClusterSettings",
    *,
    notifier: "Notifier",
    pending_timeout: int | None,
    cancel_pending: bool,
    as_json: bool = False,
) -> None:
    """Show the work's progress until it is committed, or raise the error that ended it. Ctrl-C only detaches.

    A user's `pending_timeout` limits the wait in queues as well; the settings' limit is for pods without a node.
    """
    from worldmodels.errors import Pending
    from worldmodels.executors.kubernetes import submission

    try:
        with machine.Events() if as_json else Screen() as screen:
            executor = submission.KubernetesExecutor(
                cluster, screen.say,
                pending_seconds=pending_timeout or settings.pending_seconds, queue_seconds=pending_timeout or math.inf,
            )  # fmt: skip
            with reporting(screen, cluster, work, notifier, work.artifact) as report:
                executor.wait(work, report)
    except KeyboardInterrupt:
        command = options.complete(work.command("attach"))
        echo(f"\ndetached; Job {work.name} goes on\nnext: {command}", err=True)
        if as_json:
            machine.event("detached", work=str(work), next=command)
        raise click.exceptions.Exit(130) from None
    except Pending as error:
        if not cancel_pending:
            raise
        if job := cluster.job(work.name):
            submission.remove(cluster, job)
        raise Pending(
            error.message.replace(" stays", " was deleted"), next=f"{work.command('submit')} -o kubernetes.…=…"
        ) from error


@contextmanager
def reporting(
    screen: "machine.Events | Screen", cluster: "KubernetesClient", work: object, notifier: "Notifier", name: "Name"
) -> "Iterator[Callable[[View, Pods], None]]":
    """Yield what shows and posts a Job's progress; at the end of the block, show and post that `name` is committed."""
    began = time.monotonic()
    report = JsonReport(cluster, work) if isinstance(screen, machine.Events) else Report(screen, cluster, work)

    def both(seen: "View", pods: "Pods") -> None:
        notifier.saw_job(seen)
        report(seen, pods)

    with notifier.stage(name):
        yield both
    report.end(time.monotonic() - began)


class Report:
    """Prints progress: on a terminal, one updated line with news above it; elsewhere, plain lines.

    `work` is a `Work`, or the name of its task.
    """

    def __init__(self, screen: Screen, cluster: "KubernetesClient", work: object) -> None:
        from worldmodels.executors.kubernetes.job_status import Teller
        from worldmodels.executors.kubernetes.log_tail import Listener

        self._screen, self._work = screen, work
        self._bar: Bar | None = screen.bar(str(work))
        self._tell = Teller(screen.say, counts=self._bar is None)
        self._listener = Listener(cluster, LINE_SECONDS if self._bar else PLAIN_SECONDS)

    def __call__(self, seen: "View", pods: "Pods") -> None:
        self._tell(str(self._work), seen)
        line = self._listener.news(pods.now())
        if self._bar:
            self._bar(seen.done, seen.wanted, f"{seen}  {self._listener.line}".strip())
        elif line:
            self._screen.say(f"{self._work}: {line}")

    def end(self, seconds: float) -> None:
        if self._bar:
            self._bar.end("committed")
        else:
            self._screen.say(f"{self._work}: committed after {seconds:.0f} s")


class JsonReport:
    """Prints progress for programs: an event at each change."""

    def __init__(self, cluster: "KubernetesClient", work: object) -> None:
        from worldmodels.executors.kubernetes.log_tail import Listener

        self._work, self._last = str(work), dict[str, Any]()
        self._listener = Listener(cluster, PLAIN_SECONDS)

    def __call__(self, seen: "View", pods: "Pods") -> None:
        now = {
            "running": seen.running, "pending": seen.waiting, "failed": seen.failed, "done": seen.done,
            "wanted": seen.wanted, "reasons": list(seen.pending), "failures": list(seen.failures),
        }  # fmt: skip
        if now != self._last:
            self._last = now
            machine.event("progress", work=self._work, **now)
        if line := self._listener.news(pods.now()):
            machine.event("log", work=self._work, line=line)

    def end(self, seconds: float) -> None:
        machine.event("committed", work=self._work, seconds=round(seconds, 1))
