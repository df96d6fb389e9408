"""Commands that only read: `wm config`, `wm ls`, `wm show`."""

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from wm import machine, options
from wm.formatting import size
from wm.out import echo
from worldmodels import durations
from worldmodels.terminal import plain

if TYPE_CHECKING:
    from worldmodels.artifacts import Name
    from worldmodels.store import Store

THREADS = 8  # fewer than a client's connections


@dataclass(frozen=True)
class Row:
    """One line of `wm ls`: a committed manifest, or why an entry is damaged."""

    artifact: str
    extent: str = ""
    digest: str | None = None
    bytes: int = 0
    seconds: float = 0.0
    finished: str | None = None
    damaged: str | None = None

    @classmethod
    def of(cls, manifest: dict[str, Any]) -> "Row":
        from worldmodels import artifacts

        extent = ",".join(f"{k.partition('.')[2]}={v}" for k, v in manifest["extent"].items())
        made, size = manifest["made"], sum(f["size"] for f in artifacts.stored_files(manifest))
        name = manifest["artifact"]
        return cls(name, extent and f" {extent}", manifest["digest"], size, made.get("seconds", 0.0), made["finished"])


@click.command()
@options.of_run(options.settings)
@options.as_json
def config(given: options.RunOptions, as_json: bool) -> None:
    """List every setting, its value, and where it came from. The output is TOML that --config takes.

    \b
    wm config --preset laptop -o seed=2 > my.toml
    """
    from worldmodels.config import Config, flatten, leaves

    resolved, origins = given.resolve()
    if as_json:
        machine.document(config=resolved.model_dump(), origins=origins)
        return
    section, descriptions = "", dict(leaves(Config))
    for key, value in flatten(resolved.model_dump(), origins):
        group, _, name = key.rpartition(".")
        if group != section:
            section = group
            echo(f"\n[{section}]")
        assignment = f"{name} = {_toml(value)}" if value is not None else f"# {name} is not set"
        echo(f"{assignment:36}  # {plain(origins[key])}; {descriptions[key]}")


def _toml(value: Any) -> str:
    """Return a value as TOML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


@click.command()
@options.of_runs()
@options.as_json
def ls(given: options.RunOptions, as_json: bool) -> None:
    """List committed artifacts, of every run or of one.

    \b
    wm ls
    wm ls demo --json
    """
    store, run_name = given.store, given.run_name
    rows = table(store, [run_name] if run_name else store.folders(""), named=bool(run_name))
    if as_json:
        machine.document(artifacts=[asdict(row) for row in rows])
        return
    if not rows:
        what = f"of run {run_name} " if run_name else ""
        folder = getattr(store, "root", None)
        message = (
            f"nothing {what}is committed in {given.store_uri}"
            if not folder or folder.exists()
            else f"there is no folder {given.store_uri}"
        )
        echo(f"{message}; next: {options.complete('wm run --preset demo')}")
        return
    names = [plain(row.artifact + row.extent) for row in rows]
    width = max(map(len, names)) + 2
    echo(f"{'artifact':{width}}{'digest':14}{'size':>10}{'took':>13}  committed")
    for name, row in zip(names, rows, strict=True):
        if row.damaged:
            echo(f"{name:{width}}damaged: {plain(row.damaged)}")
            continue
        figures = f"{size(row.bytes):>10}{durations.words(row.seconds):>13}"
        echo(f"{name:{width}}{(row.digest or '')[:12]:14}{figures}  {row.finished}")


def table(store: "Store", runs: list[str], *, named: bool = False) -> list[Row]:
    """Return a row per committed manifest, by run, iteration, stage and time, and a row per damaged entry.

    Stages are read in parallel: a bucket serves many requests in the time of one. `named`: the user typed the runs.
    """
    from concurrent.futures import ThreadPoolExecutor

    from worldmodels import artifacts, stages
    from worldmodels.errors import ConfigError, CorruptArtifact

    def look(run: str) -> "list[Name | Row]":
        try:
            iterations = artifacts.iterations(store, run)
            return [artifacts.Name(run, iteration, stage) for iteration in iterations for stage in stages.STAGES]
        except (ConfigError, CorruptArtifact) as error:
            if named and isinstance(error, ConfigError):
                raise
            return [Row(run, damaged=error.message)]

    def rows(name: "Name | Row") -> list[Row]:
        if isinstance(name, Row):
            return [name]
        found, damaged = artifacts.examined(store, name)
        return [*map(Row.of, found), *(Row(str(name), damaged=error.message) for error in damaged)]

    with ThreadPoolExecutor(THREADS) as pool:
        names = [name for found in pool.map(look, runs) for name in found]
        return [row for found in pool.map(rows, names) for row in found]


@click.command()
@click.argument("artifact")
@options.of_run()
@options.as_json
def show(artifact: str, given: options.RunOptions, as_json: bool) -> None:
    """Show an artifact: its files, its inputs, and how it was made.

    \b
    wm show vae
    wm show demo/iter-1/controller --json
    """
    from worldmodels import artifacts
    from worldmodels.errors import MissingInput

    store, name = given.store, name_of(artifact, given)
    found = artifacts.manifests(store, name)
    if not found:
        raise MissingInput(f"{name} is not committed in {given.store_uri}", next=f"wm ls {name.run}")
    if as_json:
        machine.document(manifests=found)
        return
    for manifest in found:
        echo(_card(manifest, _lineage(store, name.run, manifest)))
    if words := _all_starts(store, name):
        echo(words)


def name_of(text: str, given: options.RunOptions) -> "Name":
    """Return the artifact that `text` names; a stage alone is one of the run and iteration that the user chose."""
    from worldmodels import stages
    from worldmodels.artifacts import ITERATION, Name
    from worldmodels.errors import ConfigError

    parts = text.strip("/").split("/")
    if len(parts) == 1:
        parts = [given.run, f"iter-{given.iteration}", parts[0]]
    if len(parts) != 3 or not ITERATION.fullmatch(parts[1]):
        raise ConfigError(f"artifact {text!r}: write a stage, or RUN/iter-N/STAGE", next="wm ls")
    return Name.of("/".join((*parts[:2], stages.stage(parts[2]).name)))


def _lineage(
    store: "Store", run: str, manifest: dict[str, Any], depth: int = 0, listed: set[str] | None = None
) -> list[str]:
    """List the inputs of an artifact, and their inputs in turn, one line each; expand every artifact only once."""
    from worldmodels import artifacts

    lines, listed = [], set() if listed is None else listed
    for source, digest in manifest["inputs"].items():
        found, _ = artifacts.examined(store, artifacts.Name.of(f"{run}/{source}"))
        match = next((m for m in found if m["digest"] == digest), None)
        again = digest in listed
        listed.add(digest)
        note = "  (not there any more)" if not match else "  (see above)" if again and match["inputs"] else ""
        lines.append(f"{'  ' * depth}{source} {digest[:12]}{note}")
        lines += _lineage(store, run, match, depth + 1, listed) if match and not again else []
    return lines


def _all_starts(store: "Store", name: "Name") -> str:
    """Return the time that all starts of a stage took together; empty if there were fewer than two."""
    from worldmodels.executors import budget

    found = budget.starts(store, name)
    total = sum(found, budget.Usage())
    if len(found) < 2:
        return ""
    hours = f"{total.core_seconds / 3600:.3g} core-hours"
    return f"{name} worked for {durations.words(total.seconds)} in {len(found)} starts, redone work included: {hours}"


def _card(manifest: dict[str, Any], lineage: list[str]) -> str:
    made = manifest["made"]
    lines = [manifest["artifact"], f"  digest    {manifest['digest']}"]
    processor = made.get("cpu", {}).get("model", "an unknown processor")
    lines += [f"  made      {made['finished']} in {durations.words(made.get('seconds', 0.0))} on {processor}"]
    lines += [
        f"  code      {made.get('git') or 'unknown revision'}; "
        + ", ".join(f"{k} {v}" for k, v in made.get("versions", {}).items())
    ]
    lines += [f"  {name:9} {words}" for name, words in made.get("notes", {}).items()]
    lines += [f"  from      {line}" for line in lineage or ["nothing"]]
    lines += [f"  setting   {key} = {value}" for key, value in {**manifest["config"], **manifest["extent"]}.items()]
    lines += [f"  file      {name}  {size(f['size'])}  {f['sha256'][:12]}" for name, f in manifest["files"].items()]
    lines += [f"  telemetry {name}  {size(f['size'])}" for name, f in manifest["telemetry"].items()]
    if manifest["shards"]:
        total = sum(f["size"] for shard in manifest["shards"] for f in shard["files"].values())
        lines += [f"  shards    {len(manifest['shards'])}, {size(total)}"]
    return "\n".join(map(plain, lines))
