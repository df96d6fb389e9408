"""The origin of every number: digests, inputs, configs, versions, machines, times."""

import json
from collections.abc import Iterator, Mapping

import numpy as np

from .. import artifacts, durations
from ..context import Artifact, Context
from ..rollouts import episodes
from .page import Code, Details, Paragraph, Part, Table
from .sources import optional, short, table


def lineage(ctx: Context) -> list[Part]:
    """Show one table of all artifacts, then the details of each."""
    found = [artifact for stage in ctx.inputs.values() for artifact in stage]
    if not found:
        return [Paragraph("Nothing is committed yet.", "missing")]
    head = ("artifact", "digest", "wall time", "environment steps", "throughput", "renderer", "code")
    parts: list[Part] = [Table(head, [tuple(_row(artifact)) for artifact in found])]
    parts.append(Paragraph("Wall time and throughput are those of the attempt that committed.", "look"))
    kinds = {_processor(artifact) for artifact in found}
    if len(kinds) > 1:
        parts.append(Paragraph(f"Made on {len(kinds)} kinds of processor: bit-equal repeats need one kind.", "missing"))
    return parts + [Details(f"{each.name}: config, inputs, files, versions", _details(each)) for each in found]


def environment_steps(artifact: Artifact) -> int:
    """Return the simulator steps in this artifact's results; 0 for a stage that trains or encodes."""
    if artifact.stage == "rollouts":
        return sum(int(episodes.lengths(shard).sum()) for shard in artifact.shards)
    if artifact.stage == "controller":
        return int(table(artifact.path("rewards.csv"))["steps"].sum())
    if artifact.stage == "evaluate":
        return sum(row["steps"] for row in artifacts.scores(artifact)["scores"])
    return 0


def throughput(artifact: Artifact, steps: int, seconds: float | None) -> str:
    """Return the environment steps per second of wall time, or the median rate of a training."""
    if steps and seconds:
        return f"{steps / seconds:,.0f} steps/s"
    if path := optional(artifact, "training.csv"):
        rates = {name: values for name, values in table(path).items() if name.endswith("_per_s")}
        return ", ".join(f"{np.nanmedian(v):,.0f} {name.removesuffix('_per_s')}/s" for name, v in rates.items()) or "–"
    return "–"


def _row(artifact: Artifact) -> Iterator[str]:
    made, config = artifact.manifest["made"], artifact.manifest["config"]
    steps, seconds = environment_steps(artifact), made.get("seconds")
    yield f"iter-{artifact.name.iteration}/{artifact.stage}"
    yield short(artifact.digest)
    yield durations.words(seconds) if seconds is not None else "–"
    yield f"{steps:,}" if steps else "–"
    yield throughput(artifact, steps, seconds)
    yield str(config.get(f"{artifact.stage}.renderer", "–"))
    yield made.get("git") or "–"


def _details(artifact: Artifact) -> list[Part]:
    manifest = artifact.manifest
    made = manifest["made"]
    config = {**manifest["config"], **manifest["extent"]}
    files = {**manifest["files"], **manifest["telemetry"]}
    facts = {
        "digest": artifact.digest,
        "started": made.get("started"),
        "finished": made.get("finished"),
        "processor": _processor(artifact),
        "python": made.get("python"),
        **made.get("versions", {}),
    }
    shards = manifest["shards"]
    size = sum(f["size"] for s in shards for f in s["files"].values())
    lists = {
        "Config": config,
        "Inputs": manifest["inputs"] or {"none": "made from the config alone"},
        "Made": facts,
        "Files": {name: f"{_size(f['size'])}  {short(f['sha256'])}" for name, f in sorted(files.items())},
        "Shards": {f"{len(shards)} shards": _size(size)} if shards else {},
    }
    return [part for title, values in lists.items() if values for part in (Paragraph(title), _aligned(values))]


def _aligned(values: Mapping[str, object]) -> Code:
    width = max(map(len, values))
    rows = (f"{k:{width}}  {v if isinstance(v, str) else json.dumps(v)}" for k, v in values.items())
    return Code("\n".join(rows))


def _processor(artifact: Artifact) -> str:
    cpu = artifact.manifest["made"].get("cpu", {})
    return f"{cpu.get('model', 'unknown')} ({', '.join(cpu.get('features', ())) or 'features unknown'})"


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"
