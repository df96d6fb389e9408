"""`wm submit`, `wm attach`, `wm cancel`: stages as Jobs on a cluster."""

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from wm import following, machine, options
from wm.out import echo

if TYPE_CHECKING:
    from wm.selection import Selection
    from worldmodels.config.cluster import ClusterSettings
    from worldmodels.executors.kubernetes.client import KubernetesClient
    from worldmodels.executors.kubernetes.submission import Work
    from worldmodels.executors.notices import Notifier
    from worldmodels.planning import PlannedStage, Task
    from worldmodels.store import Store

F = TypeVar("F", bound=Callable[..., Any])
# Another `wm submit` holds the run's lock for a second or two.
LOCK_SECONDS = 10.0


@dataclass(frozen=True)
class How:
    """Options of `wm submit` beside the selection."""

    wait: bool
    dry_run: str | None
    replace: bool
    redo: bool
    pending_timeout: int | None
    cancel_pending: bool
    as_json: bool
    max_hours: float | None
    max_cost: float | None
    notifier: "Notifier"


def patience(command: F) -> F:
    """Add the options that limit the wait for pods without a node."""
    command = click.option("--cancel-pending", is_flag=True, help="After --pending-timeout, delete the Job.")(command)
    return click.option(
        "--pending-timeout",
        type=click.IntRange(1, 31_536_000),
        metavar="S",
        help="Give up after so many seconds in which no pod ran, in a queue too; by default kubernetes.pending_seconds"
        " outside of queues.",
    )(command)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="STAGE...", shell_complete=options.complete_stage)
@options.of_run(options.settings)
@options.iterations
@click.option("--wait", is_flag=True, help="Watch until the work is committed; Ctrl-C detaches.")
@click.option("--dry-run", type=click.Choice(["client", "server"]), help="Print the Job, or let the cluster judge it.")
@click.option("--replace", is_flag=True, help="Delete an active Job that has other settings, and submit this one.")
@click.option("--redo", is_flag=True, help="Make again what no longer fits or is damaged.")
@following.limits
@following.notify
@patience
@options.as_json
def submit(names: tuple[str, ...], given: options.RunOptions, iterations: int | None, url: str, **how: Any) -> None:
    """Run stages as Jobs on Kubernetes.

    The same command again finds the same Jobs. With --wait, several stages run one after the other; `pipeline` does
    that for all of them in a Job of its own, which also stops at --max-hours and --max-cost. --notify needs --wait;
    the pipeline posts to the URL in kubernetes.notify_secret.

    \b
    wm submit rollouts --wait
    wm submit pipeline --iterations 2 --preset demo --config cluster.toml
    wm submit vae --dry-run server
    """
    pipeline = "pipeline" in names
    if iterations and not pipeline:
        raise click.UsageError("--iterations goes with `wm submit pipeline`; a stage takes --iteration")
    if (how["max_hours"] or how["max_cost"]) and not pipeline:
        raise click.UsageError("--max-hours and --max-cost go with `wm submit pipeline`, whose pod counts and stops")
    if pipeline and (names != ("pipeline",) or given.iteration != 1 or how["redo"]):
        raise click.UsageError("`wm submit pipeline` takes no stage beside it, no --iteration and no --redo")
    with following.notifying(_posted(url, how["wait"]), given) as notifier:
        _submit_all(names, given, iterations, How(**how, notifier=notifier))


def _posted(url: str, wait: bool) -> str:
    """Return the URL if the command waits, since another one ends before its Jobs; refuse it if it was typed then."""
    if wait or not url:
        return url
    if click.get_current_context().get_parameter_source("url") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--notify needs --wait; the pipeline's pod posts with -o kubernetes.notify_secret=NAME")
    return ""


def _submit_all(names: tuple[str, ...], given: options.RunOptions, iterations: int | None, how: How) -> None:
    from wm.selection import select

    if names == ("pipeline",):
        numbers = range(1, (iterations or given.resolve()[0].iterations) + 1)
        _pipeline([select((), replace(given, iteration=number)) for number in numbers], how)
    else:
        _stages(select(names, given), how)


def _stages(wanted: "Selection", how: How) -> None:
    from wm.selection import begin
    from worldmodels import planning
    from worldmodels.executors.kubernetes import job_spec

    store, run, settings = wanted.given.store, wanted.given.run, wanted.config.kubernetes
    _warn(store, settings)
    jobs = {task.stage: job_spec.job(task, store.uri) for task in wanted.tasks if task.stage in wanted.chosen}
    if how.dry_run:
        _dry_run(settings, list(jobs.values()), how)
        return
    reporter = _Reporter(options.cluster(settings), settings, how)
    with planning.lock(store, run, LOCK_SECONDS):
        steps = begin([wanted], redo=how.redo)
    for step in steps:
        with planning.lock(store, run, LOCK_SECONDS):
            if done := _submit(reporter, store, step, later=step is not steps[0]):
                wanted.remember()  # only now: the store keeps no settings that the cluster refuses
        if done:
            reporter.submitted(*done)
        else:
            reporter.committed(str(step.task.name), job_spec.name(step.task, store.uri))
    reporter.conclude(store, [step.task for step in steps])
    how.notifier.finished([step.task.name for step in steps])


def _submit(reporter: "_Reporter", store: "Store", step: "PlannedStage", *, later: bool) -> "tuple[Work, str] | None":
    """Submit a stage's Job; return its work and the outcome, or None if the stage is committed.

    `later`: the command submits another stage before this one.
    """
    from worldmodels import planning
    from worldmodels.errors import MissingInput
    from worldmodels.executors.kubernetes import submission

    try:
        if not (found := planning.due(store, step, redo=reporter.how.redo)):
            return None
        work = submission.stage_work(found)
    except MissingInput as error:
        again = shlex.join([*options.same_command(), "--wait"])  # so that each stage finds its inputs
        command = again if later and not reporter.how.wait else error.next.replace("wm run", "wm submit")
        raise MissingInput(error.message, next=command) from error
    _estimate([step.task], reporter.how)
    return work, submission.KubernetesExecutor(reporter.cluster, _say, reporter.how.replace).ensure(work)


def _pipeline(selections: "Sequence[Selection]", how: How) -> None:
    from worldmodels import planning
    from worldmodels.executors.kubernetes import job_spec
    from worldmodels.executors.kubernetes.job_spec import Pipeline

    first = selections[0]
    store, settings = first.given.store, first.config.kubernetes
    _warn(store, settings)
    wanted = Pipeline(first.given.run, tuple(each.config for each in selections))
    limited = following.limited(how.max_hours, how.max_cost, settings.prices)
    limits = limited.to_json() if limited else ""
    if how.dry_run:
        _dry_run(settings, [job_spec.pipeline_job(wanted, store.uri, limits)], how)
        return
    reporter = _Reporter(options.cluster(settings), settings, how)
    from worldmodels.executors.kubernetes import submission

    work, tasks = submission.pipeline_work(store, wanted, limits), submission.pipeline_tasks(wanted)
    if submission.active(reporter.cluster, work.job):  # it holds the run's lock
        reporter.submitted(work, "attached")
        reporter.conclude(store, [])
        how.notifier.finished([task.name for task in tasks])
        return
    with planning.lock(store, first.given.run, LOCK_SECONDS):
        planning.refuse(steps := planning.plan(store, tasks))
        planning.check(store, steps)
    _estimate((step.task for step in steps if step.state != "committed"), how)
    outcome = submission.KubernetesExecutor(reporter.cluster, _say, how.replace).ensure(work)
    for each in selections:
        each.remember()
    reporter.submitted(work, outcome)
    reporter.conclude(store, tasks)
    how.notifier.finished([task.name for task in tasks])


def _warn(store: "Store", settings: "ClusterSettings") -> None:
    from worldmodels.executors.kubernetes import job_spec

    if store.uri.startswith("s3://") and (words := job_spec.elsewhere(getattr(store, "endpoint", ""), settings)):
        _say(f"warning: {words}\nnext: submit with -o kubernetes.s3_endpoint=URL, as pods reach it")


def _dry_run(settings: "ClusterSettings", jobs: Sequence[dict[str, Any]], how: How) -> None:
    from worldmodels.executors.kubernetes import job_spec

    if how.dry_run == "client":
        if how.as_json:
            machine.document(jobs=list(jobs))
        else:
            echo("---\n".join(map(job_spec.to_yaml, jobs)), nl=False)
        return
    cluster, rows = options.cluster(settings), []
    for job in jobs:
        taken, warnings = cluster.create(job, dry_run=True)
        name = job["metadata"]["name"]
        rows.append({"job": name, "accepted": taken is not None, "warnings": list(warnings)})
        if not how.as_json:
            words = "the cluster would take it" if taken else "a Job of that name is there already"
            echo("\n".join([f"Job {name}: {words}", *(f"  warning: {each}" for each in warnings)]))
    if how.as_json:
        machine.document(jobs=rows)


class _Reporter:
    """Prints the outcome of each submission, as text or JSON; with --wait, follows the work."""

    def __init__(self, cluster: "KubernetesClient", settings: "ClusterSettings", how: How) -> None:
        self.cluster, self.how = cluster, how
        self._settings = settings
        self._jobs: list[dict[str, Any]] = []

    def committed(self, work: str, job: str) -> None:
        self._print(work, job, "committed", 0, "committed already; no Job is needed")

    def submitted(self, work: "Work", outcome: str) -> None:
        """Print the outcome and the next commands; with --wait, follow the work."""
        from wm.attach import follow

        how, pods = self.how, work.job["spec"]["completions"]
        words = {
            "created": f"Job {work.name} is submitted",
            "attached": f"Job {work.name} is active already",
            "committed": "committed already; no Job is needed",
        }
        self._print(str(work), work.name, outcome, pods, words[outcome])
        if outcome == "committed":
            return
        if not how.as_json:
            echo(_hints(self._settings, work, pods))
        if how.wait:
            follow(
                self.cluster, work, self._settings,
                notifier=how.notifier, pending_timeout=how.pending_timeout, cancel_pending=how.cancel_pending,
                as_json=how.as_json,
            )  # fmt: skip

    def conclude(self, store: "Store", tasks: "Sequence[Task]") -> None:
        """Print the score and the report's place; with --json and without --wait, the Jobs as one document."""
        from wm.selection import conclude

        if self.how.as_json and not self.how.wait:
            machine.document(jobs=self._jobs)
            return
        conclude(store, tasks, as_json=self.how.as_json)

    def _print(self, work: str, job: str, outcome: str, pods: int, words: str) -> None:
        """Print an outcome: with --json as an event if the command waits, otherwise in its document."""
        if not self.how.as_json:
            echo(f"{work}: {words}")
            return
        row = {"work": work, "job": job, "namespace": self.cluster.namespace, "outcome": outcome, "pods": pods}
        self._jobs.append(row)
        if self.how.wait:
            machine.event("submitted", **row)


def _hints(settings: "ClusterSettings", work: "Work", pods: int) -> str:

    context = f" --context {settings.context}" if settings.context else ""
    which = f"-l batch.kubernetes.io/job-name={work.name} --prefix --max-log-requests {pods}"
    which = which if pods > 1 else f"job/{work.name}"
    logs = f"  logs    kubectl{context} -n {settings.namespace} logs -f {which}"
    watch, state = map(options.complete, (work.command("attach"), f"wm status {work.run}"))
    return f"{logs}\n  watch   {watch}\n  state   {state}"


def _estimate(tasks: "Iterable[Task]", how: How) -> None:
    """Print the estimated time of each stage, and its cost if prices are set, before the submission."""
    from worldmodels.planning.estimate import estimate

    for task in tasks:
        if not how.as_json:
            echo(f"{task.name}: {estimate(task)}")


def _say(words: str) -> None:
    echo(words, err=True)


@click.command()
@options.stage
@options.of_run(options.overrides)
@patience
@following.notify
@options.as_json
def attach(
    stage_name: str,
    given: options.RunOptions,
    pending_timeout: int | None,
    cancel_pending: bool,
    url: str,
    as_json: bool,
) -> None:
    """Watch a submitted Job until its work is committed.

    Ctrl-C only detaches: the Job goes on.

    \b
    wm attach controller --run demo
    wm attach pipeline
    """
    from wm.attach import follow
    from wm.selection import conclude
    from worldmodels import planning

    store, run, iteration = given.store, given.run, given.iteration
    name = options.stage_or_pipeline(stage_name)
    config, _ = given.resolve()
    cluster = options.cluster(config.kubernetes)
    from worldmodels.executors.kubernetes import submission

    found = submission.find(cluster, store, run, name, 0 if name == "pipeline" else iteration)
    if not found:
        task = planning.Task(run, iteration, name, config)
        if name == "pipeline" or not planning.find(store, task.name, config):
            raise submission.no_job(cluster, store, run, name)
        _committed(str(task.name), as_json)
        conclude(store, [task], as_json=as_json)
        return
    work = submission.carried_work(store, found[0])
    if work.committed():
        _committed(str(work), as_json)
    else:
        with following.notifying(url, given) as notifier:
            follow(
                cluster, work, config.kubernetes,
                notifier=notifier, pending_timeout=pending_timeout, cancel_pending=cancel_pending, as_json=as_json,
            )  # fmt: skip
            notifier.finished([work.artifact])
    conclude(store, submission.carried_tasks(found[0]), as_json=as_json)


def _committed(work: str, as_json: bool) -> None:
    if as_json:
        machine.event("committed", work=work, seconds=0.0)
    else:
        echo(f"{work}: committed already")


@click.command()
@click.argument("stage_name", required=False, metavar="[STAGE]", shell_complete=options.complete_stage)
@options.of_run(options.overrides)
@click.option("--all", "everything", is_flag=True, help="Every Job of the run, the pipeline's first.")
def cancel(stage_name: str | None, given: options.RunOptions, everything: bool) -> None:
    """Delete a stage's Job, and wait until its pods are gone.

    Committed artifacts and checkpoints stay.

    \b
    wm cancel controller --run demo
    wm cancel --all --run demo
    """
    if bool(stage_name) == everything:
        raise click.UsageError("name a stage, or say --all")
    store, run = given.store, given.run
    name = options.stage_or_pipeline(stage_name) if stage_name else ""
    config, _ = given.resolve()
    cluster = options.cluster(config.kubernetes)
    from worldmodels.executors.kubernetes import job_status, submission

    found = submission.find(cluster, store, run, name, given.iteration if name not in ("", "pipeline") else 0)
    if not found:
        what = f"{run}, {name}," if name else run
        echo(f"no Job of {what} with the store {store.uri} is in namespace {cluster.namespace}")
    drivers = submission.find(cluster, store, run, "pipeline")
    for jobs in ([job for job in found if job in drivers], [job for job in found if job not in drivers]):
        submission.remove(cluster, *jobs)  # the pipeline first: it would submit the others again
        for job in jobs:
            echo(f"Job {job['metadata']['name']} is deleted")
    if name not in ("", "pipeline") and any(not job_status.ended(job) for job in drivers):
        command = options.complete(f"wm cancel --all --run {run}")
        echo(f"the pipeline is at work and will submit {name} again; next: {command}", err=True)
