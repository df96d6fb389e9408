"""Maintenance of a store: `wm doctor`, `wm gc`, `wm cp`, `wm verify`."""

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from wm import machine, options
from wm.formatting import objects, size
from wm.out import echo
from worldmodels.terminal import plain

if TYPE_CHECKING:
    from worldmodels.store import Store
    from worldmodels.upkeep.checks import Finding
    from worldmodels.upkeep.copying import CopyPlan
    from worldmodels.upkeep.garbage import Garbage, Kept, Survey

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skipped": "bright_black"}


UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(context: click.Context, parameter: click.Parameter, age: str) -> float:
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", age)
    if not match:
        raise click.BadParameter(f"{age!r:.50} is no age: write 90s, 30m, 12h or 7d", context, parameter)
    return float(match[1]) * UNITS[match[2]]


@click.command()
@options.gathered(options.store, options.overrides)
@click.option(
    "--cluster", "with_cluster", is_flag=True, help="The cluster too: rights, quota, nodes, and a pod's view."
)
@options.as_json
def doctor(given: options.RunOptions, with_cluster: bool, as_json: bool) -> None:
    """Check whether a store, and a cluster, are fit for use.

    The command checks rights, guarantees that results rest on, and speed. It prints a line per check, with a command
    for each failure. It writes below one prefix of the store and removes that again. With --cluster, a Job of one pod
    checks the bucket from the cluster, and is deleted again. Exit code 13 if a check of the store fails, 15 if one of
    the cluster does.

    \b
    wm doctor
    wm doctor --store s3://bucket/prefix --json
    wm doctor --cluster --config images.toml
    """
    from worldmodels.errors import ClusterError
    from worldmodels.store import open_store
    from worldmodels.upkeep import checks, doctor

    store = open_store(given.store_uri, deadline=doctor.DEADLINE_SECONDS)
    found = _printed(doctor.check(store), as_json)
    there = _printed(_cluster(given), as_json) if with_cluster else []
    if as_json:
        machine.document(checks=[asdict(finding) for finding in found + there])
    checks.require(found, f"store {given.store_uri}")
    checks.require(there, "cluster", ClusterError)


def _cluster(given: options.RunOptions) -> "Iterator[Finding]":
    from worldmodels.config import resolve

    settings = resolve(None, given.files, given.overrides)[0].kubernetes
    cluster = options.cluster(settings)
    from worldmodels.executors.kubernetes import cluster_checks

    endpoint = getattr(given.store, "endpoint", "")
    return cluster_checks.check(cluster, settings, given.store_uri, lambda words: echo(words, err=True), endpoint)


def _printed(findings: "Iterable[Finding]", as_json: bool) -> "list[Finding]":
    """Return the findings; print each as it comes, unless the output is JSON."""
    found = []
    for finding in findings:
        found.append(finding)
        if not as_json:
            _print_finding(finding)
    return found


def _print_finding(finding: "Finding") -> None:
    mark = click.style(f"{finding.state:8}", fg=COLOURS[finding.state], bold=finding.state == "fail")
    echo(f"{finding.name:21}{finding.words}", mark=mark)
    if finding.next:
        echo(f"{'':29}next: {options.complete(finding.next)}")


@click.command()
@options.of_runs()
@click.option(
    "--older-than",
    "horizon",
    callback=_seconds,
    default="7d",
    show_default=True,
    metavar="AGE",
    help="Spare what is younger, by the store's clock: 90s, 30m, 12h, 7d.",
)
@click.option("--delete", is_flag=True, help="Remove it; without this nothing is touched.")
@options.as_json
def gc(given: options.RunOptions, horizon: float, delete: bool, as_json: bool) -> None:
    """List the garbage of one run or of all; remove it with --delete.

    Garbage is: data of attempts that were never committed or have been replaced, manifests that --redo took out of use,
    uploads that were never completed, half-written files, ended locks, heartbeats of dead attempts (these at any age).
    Attempts under way stay. The command skips a run that another command works on (exit code 12), and a run with
    damaged or unknown files, since it cannot know what these need (exit code 14).

    It never touches manifests in use and their data, shard records, checkpoints, generations, live/ and logs/. It
    counts superseded work and keeps it; `rm -r` (or `aws s3 rm --recursive`) its folder if you do not return to it.

    \b
    wm gc
    wm gc demo --older-than 12h --delete
    """
    from worldmodels.upkeep import garbage
    from worldmodels.upkeep.entries import runs

    store, total = given.store, garbage.Survey()
    chosen = runs(store, given.run_name)
    left = [error for run in chosen if (error := _collect(store, run, horizon, delete, total, as_json))]
    if given.run_name is None:
        _sweep(store, garbage.outside(store, horizon), delete, total, as_json)
    if as_json:
        document = {"garbage": [_row(g) for g in total.garbage], "kept": [asdict(kept) for kept in total.kept]}
        machine.document(store=store.uri, older_than_s=horizon, deleted=delete, **document)
    elif total.garbage or not left:
        _conclude(total, delete, given.store_uri)
    if left:
        raise left[0]


def _collect(store: "Store", run: str, horizon: float, delete: bool, total: "Survey", quiet: bool) -> Any:
    """Clear up one run; return the error if another command works on it, or if it has damaged or unknown files."""
    from wm.progress import status
    from worldmodels.errors import Busy, CorruptArtifact
    from worldmodels.upkeep import garbage

    try:
        with store.lock(run) if delete else contextlib.nullcontext():
            with status() as show:
                found = garbage.survey(store, run, horizon, show=show)
            _sweep(store, found, delete, total, quiet)
    except (Busy, CorruptArtifact) as error:
        return error
    return None


def _sweep(store: "Store", found: "Survey", delete: bool, total: "Survey", quiet: bool) -> None:
    from wm.progress import bar
    from worldmodels.upkeep import garbage

    if not quiet:
        _print_survey(found)
    if delete and found.garbage:
        with bar("removing", sum(g.count for g in found.garbage), "{:.0f}".format) as advance:
            garbage.remove(store, found, advance=advance)
    total.garbage += found.garbage
    total.kept += found.kept


def _row(garbage: "Garbage") -> dict[str, Any]:
    return {"where": garbage.where, "why": garbage.why, "count": garbage.count, "bytes": garbage.bytes}


def _print_survey(found: "Survey") -> None:
    rows: list[tuple[str, Garbage | Kept]] = [("goes", each) for each in found.garbage]
    rows += [("stays", each) for each in found.kept]
    for what, each in rows:
        echo(f"{what:7}{size(each.bytes):>9} {objects(each.count):>14}  {plain(each.where)}: {each.why}")


def _conclude(found: "Survey", delete: bool, store_uri: str) -> None:
    count, bytes = sum(g.count for g in found.garbage), sum(g.bytes for g in found.garbage)
    if not count:
        echo(f"nothing to remove from {store_uri}")
    elif delete:
        echo(f"removed {objects(count)}, {size(bytes)}, from {store_uri}")
    else:
        echo(f"{objects(count)}, {size(bytes)}, can go from {store_uri}; the same command with --delete does it")


@click.command()
@click.argument("source_uri", metavar="SRC")
@click.argument("target_uri", metavar="DST")
@click.option("--run", "run_names", envvar="WM_RUN", multiple=True, metavar="NAME",
              help="A run; may be repeated. By default all of them.")  # fmt: skip
@click.option("--verify", is_flag=True, help="Read what DST has already, and copy again what is damaged there.")
def cp(source_uri: str, target_uri: str, run_names: tuple[str, ...], verify: bool) -> None:
    """Copy runs from one store to another.

    Stores are folders or s3://bucket/prefix; neither argument is a run. The command copies committed files, checked
    against their manifest's SHA-256, and all that a run needs to continue: shard records, checkpoints, generations,
    settings, live tables and logs. Garbage and retired manifests stay behind. Manifests come last. After Ctrl-C, or a
    fault, the same command resumes; an artifact that DST has with another digest is a conflict (exit code 10).

    \b
    wm cp ./runs s3://bucket/prefix
    wm cp s3://bucket/prefix ./runs --run demo
    """
    from wm.progress import status
    from worldmodels.store import open_store
    from worldmodels.upkeep import copying
    from worldmodels.upkeep.entries import runs

    source, target = open_store(source_uri), open_store(target_uri)
    copying.check_places(source, target)
    chosen = [run for name in run_names for run in runs(source, name)] if run_names else runs(source)
    if not chosen:
        echo(f"there are no runs in {source_uri}; next: wm ls --store {source_uri}")
    for run in chosen:
        with target.lock(run):
            with status() as show:
                plan = copying.plan(source, target, run, verify=verify, show=show)
            _carry(plan, source, target)


def _carry(plan: "CopyPlan", source: "Store", target: "Store") -> None:
    from wm.progress import bar
    from worldmodels.upkeep import copying

    with bar(plan.run, plan.bytes + plan.bytes_to_check, size) as advance:
        damaged = copying.copy(plan, source, target, advance)
    if plan.count:
        rest = f"; {objects(len(plan.skipped))} there already" if plan.skipped else ""
        echo(f"{plan.run}: {objects(plan.count)}, {size(plan.bytes)}, copied to {target.uri}{rest}")
    else:
        echo(f"{plan.run}: {target.uri} has all of it")
    if plan.suspects:
        words = f"{len(damaged)} damaged and copied again" if damaged else "all whole"
        echo(f"{plan.run}: {objects(len(plan.suspects))} there already, read back: {words}")


@click.command()
@options.of_runs()
@options.as_json
def verify(given: options.RunOptions, as_json: bool) -> None:
    """Read all committed files of one run or of all; list damaged ones.

    The command changes nothing. It reads manifests and the files that they name, shard records and their files, the
    generations of an evolution, checkpoints, and the settings of a run's last start. Logs, live tables and heartbeats
    have no checksums. Exit code 14 if a file is damaged.

    \b
    wm verify demo
    wm verify --store s3://bucket/prefix --json
    """
    from wm.progress import status
    from worldmodels.errors import CorruptArtifact
    from worldmodels.upkeep import verifying
    from worldmodels.upkeep.entries import runs

    store = given.store
    verdicts, damaged = [], []
    for run in runs(store, given.run_name):
        with status() as show:
            found = verifying.verify(store, run, show=show)
        verdicts.append({"run": run, **asdict(found)})
        damaged += found.damage
        if not as_json:
            for each in found.damage:
                echo(f"damaged {plain(each.key)}: {plain(each.why)}")
            words = f"{len(found.damage)} damaged" if found.damage else "all whole"
            echo(f"{run}: {objects(found.objects)}, {size(found.bytes)}, read: {words}")
    if as_json:
        machine.document(runs=verdicts)
    elif not verdicts:
        echo(f"there are no runs in {given.store_uri}; next: wm ls --store {given.store_uri}")
    if damaged:
        raise CorruptArtifact(
            f"{len(damaged)} of {sum(each['objects'] for each in verdicts)} objects in {store.uri} are damaged",
            next=f"wm run --run {damaged[0].key.partition('/')[0]} --store {store.uri} --redo",
        )
