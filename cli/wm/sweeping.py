"""A sweep's runs, and its work: one run after the other, as processes of this machine or as Jobs on a cluster."""

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from wm import machine, options
from wm.out import echo

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from wm.machine import Events
    from wm.progress import Screen
    from wm.selection import Selection
    from worldmodels.artifacts import Name
    from worldmodels.errors import WmError
    from worldmodels.executors.kubernetes.client import KubernetesClient
    from worldmodels.executors.kubernetes.job_status import View
    from worldmodels.executors.kubernetes.submission import Pods
    from worldmodels.executors.notices import Notifier
    from worldmodels.planning import PlannedStage, Task, TaskState
    from worldmodels.store import Store
    from worldmodels.sweeps import Row, SweepRun

    Failed = tuple[SweepRun, Sequence[Selection], WmError]


@dataclass(frozen=True)
class How:
    """Options of a sweep beside the selection."""

    cluster: bool = False
    redo: bool = False
    dry_run: bool = False
    table: bool = False
    as_json: bool = False
    url: str = ""  # of notifications


@dataclass(frozen=True)
class Sweep:
    """The chosen stages of every run, as one `Selection` per iteration."""

    given: options.RunOptions
    runs: "Sequence[SweepRun]"
    selections: "Sequence[Sequence[Selection]]"

    @classmethod
    def of(cls, names: Sequence[str], given: options.RunOptions, runs: "Sequence[SweepRun]") -> "Sweep":
        from wm.selection import select_iterations

        own = (replace(given, run_name=run.name, overrides=run.overrides) for run in runs)
        return cls(given, runs, [select_iterations(names, each, None) for each in own])

    @property
    def store(self) -> "Store":
        return self.given.store

    @property
    def sources(self) -> list[str]:
        """Return the runs from which artifacts may be copied."""
        return [self.given.run, *(run.name for run in self.runs)]

    @property
    def tasks(self) -> "dict[str, list[Task]]":
        """Return the tasks of each run, inputs included."""
        pairs = zip(self.runs, self.selections, strict=True)
        return {run.name: [task for each in found for task in each.tasks] for run, found in pairs}

    @property
    def asked_for(self) -> "set[Name]":
        """Return the names of the chosen stages' tasks, of all runs."""
        return {task.name for found in self.selections for each in found for task in each.asked_for}

    def rows(self) -> "list[Row]":
        from worldmodels import sweeps

        tasks = self.tasks
        return sweeps.rows(self.store, [(run, tasks[run.name]) for run in self.runs])


def work(wanted: "Sweep", how: "How") -> "list[Failed]":
    """Do one run after the other; return the errors of those that failed.

    A store or a cluster that is out of reach ends the sweep.
    """
    from wm import following
    from wm.progress import Screen
    from worldmodels.errors import ClusterError, Stopped, StoreError, WmError

    failed: list[Failed] = []
    cluster = _cluster(wanted) if how.cluster else None
    with (
        following.notifying(how.url, wanted.given) as notifier,
        _lock(wanted),
        machine.Events() if how.as_json else Screen() as screen,
    ):
        for number, (run, selections) in enumerate(zip(wanted.runs, wanted.selections, strict=True), 1):
            if how.as_json:
                machine.event("run", run=run.name, values=run.values, number=number, of=len(wanted.runs))
            else:
                screen.say(f"\n{run.name}, run {number} of {len(wanted.runs)}")
            try:
                notifier.begin(run.name)
                with wanted.store.lock(run.name):
                    steps = _run(selections, screen, wanted.sources, cluster, notifier, redo=how.redo)
                if any(step.state != "committed" for step in steps):
                    notifier.finished([step.task.name for step in steps])
            except (Stopped, StoreError, ClusterError):
                raise
            except WmError as error:
                failed.append((run, selections, error))
                _print_failure(failed[-1], screen, how)
                notifier.failed(error, _next(*failed[-1]))
        done = len(wanted.runs) - len(failed)
        notifier.begin(wanted.given.run)
        notifier.post("failed" if failed else "finished", f"{done} of {len(wanted.runs)} runs are committed")
    return failed


@contextlib.contextmanager
def _lock(wanted: "Sweep") -> Iterator[None]:
    """Hold the lock of the sweep's name, so that two commands do not make one artifact twice."""
    from worldmodels.errors import Busy

    with contextlib.ExitStack() as held:
        try:
            held.enter_context(wanted.store.lock(wanted.given.run))
        except Busy:
            raise Busy(
                f"another command works on the sweep, or the run, {wanted.given.run} in {wanted.store.uri}",
                next=shlex.join(["wm", *sys.argv[1:], "--table"]),
            ) from None
        yield


def _cluster(wanted: "Sweep") -> "KubernetesClient":
    """Return a client of the cluster; raise ConfigError for a store that pods cannot reach."""
    from worldmodels.executors.kubernetes import job_spec

    settings = wanted.runs[0].config.kubernetes
    job_spec.job(wanted.selections[0][0].tasks[0], wanted.store.uri)
    if words := job_spec.elsewhere(getattr(wanted.store, "endpoint", ""), settings):
        again = "repeat the command with -o kubernetes.s3_endpoint=URL, as pods reach it"
        echo(f"warning: {words}\nnext: {again}", err=True)
    return options.cluster(settings)


def _run(
    wanted: "Sequence[Selection]",
    screen: "Events | Screen",
    sources: Sequence[str],
    cluster: "KubernetesClient | None",
    notifier: "Notifier",
    *,
    redo: bool,
) -> "Sequence[PlannedStage]":
    """Do one run's chosen stages and return them; copy what another run has, inputs that were not chosen included."""
    from wm import following
    from wm.run import execute
    from wm.selection import begin
    from worldmodels import planning, sweeps
    from worldmodels.errors import MissingInput

    given = wanted[0].given

    def adopt(found: "TaskState") -> bool:
        stage = found.task.stage
        if source := sweeps.adopt(found, sources):
            next(each for each in wanted if each.given.iteration == found.task.iteration).remember()
            screen.say(f"{stage}: copied from {source}, where it is equal")
            return True
        if source := sweeps.prepare(found, sources):
            screen.say(f"{stage}: goes on from the work of {source}")
        return False

    with contextlib.suppress(MissingInput):  # `begin` raises that error, with the next command
        for each in wanted:
            for task in each.tasks:
                if task.stage not in each.chosen and not planning.find(given.store, task.name, task.config):
                    sweeps.adopt(planning.TaskState(given.store, task), sources)
    steps = begin(wanted, redo=redo)
    if cluster:
        _submit(wanted, steps, screen, cluster, notifier, redo=redo, adopt=adopt)
    else:
        limits = following.limited(None, None, wanted[0].config.kubernetes.prices)
        execute(wanted, steps, screen, limits, notifier, redo=redo, adopt=adopt)
    return steps


def _submit(
    wanted: "Sequence[Selection]",
    steps: "Sequence[PlannedStage]",
    screen: "Events | Screen",
    cluster: "KubernetesClient",
    notifier: "Notifier",
    *,
    redo: bool,
    adopt: "Callable[[TaskState], bool]",
) -> None:
    """Execute the steps as Jobs, and show their progress. The Jobs go on if this command ends."""
    from wm.attach import reporting
    from worldmodels import planning
    from worldmodels.executors.kubernetes.submission import KubernetesExecutor

    def watch(task: "Task") -> "AbstractContextManager[Callable[[View, Pods], None]]":
        return reporting(screen, cluster, task.name, notifier, task.name)

    for each in wanted:
        each.remember()
    pending_seconds = wanted[0].config.kubernetes.pending_seconds
    executor = KubernetesExecutor(cluster, screen.say, pending_seconds=pending_seconds)
    planning.execute(wanted[0].given.store, steps, executor, watch, redo=redo, adopt=adopt)


def _next(run: "SweepRun", selections: "Sequence[Selection]", error: "WmError") -> str:
    """Return the command that the run's error recommends, with the run's own settings."""
    hint = error.next
    if click.get_current_context().params["cluster"]:
        hint = hint.replace("wm run", "wm submit")
    return options.complete(hint, run_name=run.name, preset=selections[0].given.preset, overrides=run.overrides)


def _print_failure(failed: "Failed", screen: "Events | Screen", how: "How") -> None:
    (run, _, error), next = failed, _next(*failed)
    if how.as_json:
        details = {"kind": type(error).__name__, "message": error.message, "next": next, "exit_code": error.exit_code}
        machine.event("failed", run=run.name, error=details)
    else:
        screen.say(f"{run.name} failed: {error.message}" + (f"\nnext: {next}" if next else ""))


def failure(failed: "Sequence[Failed]", count: int) -> "WmError":
    """Return the error of the whole sweep, of the first one's kind."""
    from worldmodels.errors import WmError, of_code

    names, (_, _, first) = ", ".join(run.name for run, _, _ in failed), failed[0]
    again, own = shlex.join(["wm", *sys.argv[1:]]), _next(*failed[0])
    kind = of_code(first.exit_code) or WmError
    return kind(
        f"{len(failed)} of {count} runs failed: {names}; the first: {first.message}",
        next=own if own.startswith("wm sweep") else f"{own}, then {again}" if own else again,
    )
