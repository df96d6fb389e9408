"""`wm status`: committed artifacts, Jobs, and the progress of an evolution."""

import time
from typing import TYPE_CHECKING, Any

import click

from wm import machine, options
from wm.out import echo
from worldmodels import durations
from worldmodels.terminal import plain

if TYPE_CHECKING:
    from worldmodels.board.reading import Stage
    from worldmodels.store import Store

FIRST_ANSWER_SECONDS = 3.0


@click.command()
@options.of_runs(options.overrides)
@options.as_json
def status(given: options.RunOptions, as_json: bool) -> None:
    """Show the state of every stage, and why it waits.

    Without a cluster, the command shows the contents of the store.

    \b
    wm status demo
    wm status demo --json
    """
    from worldmodels.config import resolve
    from worldmodels.errors import ClusterError, ConfigError, CorruptArtifact

    store, run_name = given.store, given.run_name
    try:
        config, _ = given.resolve()
    except (ConfigError, CorruptArtifact):  # stored settings may be wrong; typed ones must be right
        config, _ = resolve(None, given.files, given.overrides)
    jobs, unreachable = [], ""
    try:
        cluster = options.cluster(config.kubernetes, first_seconds=FIRST_ANSWER_SECONDS)
        from worldmodels.executors.kubernetes import submission

        jobs = [_job(job, seen) for job, seen in submission.overview(cluster, store, run_name or "")]
    except (ClusterError, ConfigError) as error:
        unreachable = error.message
    runs = [run_name] if run_name else sorted({*store.folders(""), *(job["run"] for job in jobs)})
    stages = [row for run in runs for row in _stages(store, run, jobs)]
    drivers = [job for job in jobs if job["stage"] == "pipeline"]
    if as_json:
        machine.document(store=store.uri, cluster=unreachable or "reached", stages=stages, pipelines=drivers)
        return
    for row in stages:
        where = f"{row['run']}/iter-{row['iteration']}/{row['stage']:12}" if row["stage"] else f"{plain(row['run'])}  "
        echo(f"{where}{_words(row)}")
    for driver in drivers:
        echo(f"{driver['run']}/pipeline           {_state(driver)}")
    if not stages and not drivers:
        echo(f"nothing is in {store.uri}; next: {options.complete('wm run --preset demo')}")
    if unreachable:
        echo(f"no cluster was asked: {unreachable}", err=True)


def _stages(store: "Store", run: str, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row per stage of each iteration that the store or the cluster has."""
    from worldmodels import artifacts
    from worldmodels.board.reading import Iteration
    from worldmodels.errors import CorruptArtifact

    known = {job["iteration"] for job in jobs if job["run"] == run}
    rows: list[dict[str, Any]] = []
    nothing = {"digest": None, "job": None, "evolution": None}
    try:
        known |= set(artifacts.iterations(store, run))
    except CorruptArtifact as error:
        rows.append({"run": run, "iteration": 0, "stage": "", **nothing, "damaged": error.message})
    if known and not artifacts.RUN_NAME.fullmatch(run):
        return [
            {"run": run, "iteration": 0, "stage": "", **nothing, "damaged": "the folder's name is not one of a run"}
        ]
    for number in sorted(known):
        iteration = Iteration(store, run, number)
        iteration.refresh()
        rows += [_row(store, stage, jobs) for stage in iteration.stages.values()]
    return rows


def _row(store: "Store", seen: "Stage", jobs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a stage's row: its artifact, its Job, and the work on it that the store shows."""
    from worldmodels import artifacts
    from worldmodels.board import overview

    name = seen.name
    found, damaged = artifacts.examined(store, name)
    verb = "submit" if any(job["run"] == name.run for job in jobs) else "run"
    own = [j for j in jobs if (j["run"], j["iteration"], j["stage"]) == (name.run, name.iteration, name.stage)]
    done = bool(found or damaged)
    return {
        "run": name.run,
        "iteration": name.iteration,
        "stage": name.stage,
        "digest": found[-1]["digest"] if found else None,
        "job": own[0] if own else None,
        "evolution": None if done else seen.evolution,
        "damaged": damaged[0].message if damaged else None,
        "state": "damaged" if damaged else "committed" if found else seen.state,
        "why": "" if done else overview.why(seen, verb),
        "since": seen.since,
        "hosts": sorted({worker.host for worker in seen.workers}),
    }


def _job(job: dict[str, Any], seen: Any) -> dict[str, Any]:
    from worldmodels.executors.kubernetes.job_spec import ITERATION

    labels = job["metadata"]["labels"]
    return {
        "run": labels["app.kubernetes.io/instance"],
        "iteration": int(labels[ITERATION]),
        "stage": labels["app.kubernetes.io/component"],
        "name": job["metadata"]["name"],
        "state": seen.ended or "active",
        "pods": {"wanted": seen.wanted, "done": seen.done, "running": seen.running, "pending": seen.waiting},
        "failed": seen.failed,
        "pending": list(seen.pending),
        "failures": list(seen.failures),
        "why": seen.why if seen.ended == "Failed" else "",
    }


def _words(row: dict[str, Any]) -> str:
    job, digest, evolution = row["job"], row["digest"], row["evolution"]
    if row["damaged"]:
        return f"damaged    {plain(row['damaged'])}"
    if digest:
        return f"committed  {digest[:12]}"
    if job and evolution is None:
        return _state(job)
    from worldmodels.planning import underway

    if job:
        return f"{_state(job)}\n    {underway.words(evolution)}"
    where = f"on {plain(', '.join(row['hosts']))}" if row["hosts"] else ""
    since = f" for {durations.words(time.time() - row['since'])}" if row["since"] and row["state"] == "at work" else ""
    first = f"{row['state']:11}{where}{since}".rstrip() if where or since else f"{row['state']:11}"
    text = underway.words(evolution) if evolution and row["state"] == "at work" else plain(row["why"])
    return f"{first}{': ' if where or since else ''}{text}".rstrip()


def _state(job: dict[str, Any]) -> str:
    """Return a Job's state in a line, and below it the reasons for a delay."""
    if job["state"] != "active":
        words = [f"{job['state'].lower():11}{job['why']}".strip()]
    else:
        pods = job["pods"]
        counts = [f"{pods[word]} {word}" for word in ("running", "pending") if pods[word]]
        counts += [f"{job['failed']} failed"] if job["failed"] else []
        words = [f"at work    {pods['done']} of {pods['wanted']} pods done" + "".join(f", {each}" for each in counts)]
    return "\n    ".join([*words, *(f"pending: {each}" for each in job["pending"]), *job["failures"]])
