"""`wm status`: committed artifacts, Jobs, and the progress of an evolution."""

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from wm import machine, options
from wm.out import echo
from worldmodels.terminal import plain

if TYPE_CHECKING:
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
        from worldmodels.executors import submission

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
    from worldmodels import artifacts, stages
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
    for iteration in sorted(known):
        for stage in stages.STAGES:
            found, damaged = artifacts.examined(store, artifacts.Name(run, iteration, stage))
            own = [j for j in jobs if (j["run"], j["iteration"], j["stage"]) == (run, iteration, stage)]
            rows.append(
                {
                    "run": run,
                    "iteration": iteration,
                    "stage": stage,
                    "digest": found[-1]["digest"] if found else None,
                    "job": own[0] if own else None,
                    "evolution": None if found or damaged else _evolution(store, run, iteration, stage),
                    "damaged": damaged[0].message if damaged else None,
                }
            )
    return rows


def _evolution(store: "Store", run: str, iteration: int, stage: str) -> dict[str, Any] | None:
    """Return an uncommitted evolution's progress; None before its first generation, and for other stages."""
    from worldmodels import stages
    from worldmodels.artifacts import Name
    from worldmodels.executors import underway

    if stages.stage(stage).kind != "exchange":
        return None
    begun = underway.find(store, Name(run, iteration, stage))
    found = begun and begun.evolution()
    if found is None:
        return None
    return {name: None if math.isnan(value) else value for name, value in asdict(found).items()}


def _job(job: dict[str, Any], seen: Any) -> dict[str, Any]:
    from worldmodels.executors.job_spec import ITERATION

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
        "falls": list(seen.falls),
        "why": seen.why if seen.ended == "Failed" else "",
    }


def _words(row: dict[str, Any]) -> str:
    job, digest, evolution = row["job"], row["digest"], row["evolution"]
    if row["damaged"]:
        return f"damaged    {plain(row['damaged'])}"
    if digest:
        return f"committed  {digest[:12]}"
    if evolution is None:
        return _state(job) if job else "not yet"
    from worldmodels.executors import underway

    beginning = _state(job) + "\n    " if job else "at work    " if underway.alive(evolution) else "stopped    "
    return beginning + underway.words(evolution)


def _state(job: dict[str, Any]) -> str:
    """Return a Job's state in a line, and below it the reasons for a delay."""
    if job["state"] != "active":
        words = [f"{job['state'].lower():11}{job['why']}".strip()]
    else:
        pods = job["pods"]
        counts = [f"{pods[word]} {word}" for word in ("running", "pending") if pods[word]]
        counts += [f"{job['failed']} failed"] if job["failed"] else []
        words = [f"at work    {pods['done']} of {pods['wanted']} pods done" + "".join(f", {each}" for each in counts)]
    return "\n    ".join([*words, *(f"pending: {each}" for each in job["pending"]), *job["falls"]])
