"""The model card of exported networks (Mitchell et al. 2019): parts, data, scores and limits, from the manifests."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import __version__, artifacts
from ..artifacts import Artifact
from ..errors import MissingInput
from ..terminal import plain
from .checks import Reference, Written
from .files import replace

FILE = "MODEL_CARD.md"
PARAMETERS = {"mean": "the evolution's mean, `mean.npy`", "best": "its best candidate, `best.npy`"}
CARD = """# Model card: {title}

World models of Gymnasium's CarRacing (Ha & Schmidhuber 2018), exported by `wm` {version}. V, a variational autoencoder,
turns a frame into z. M, an LSTM with a mixture-density output, predicts the next z. C maps z and M's state to steering,
gas and brake.

## Parts

| part | artifact | digest (SHA-256) | finished | made with |
|---|---|---|---|---|
{parts}

C's parameters are {parameters}.

## Data

{data}

V, M and C saw frames of 64×64 pixels without the gauges.

## Scores

{scores}

## Use

- For research on world models, and as a baseline on CarRacing. The networks know this one simulator and nothing else.
- `policy.onnx` takes the observations of `gymnasium.make("CarRacing-v3")`; it has not seen other renderers or colours.
- Rounding differs between runtimes and processors, and the closed loop amplifies it, so a single track's score may
  differ. Compare means over many tracks.

## Settings

| setting | value |
|---|---|
{settings}

## Files

| file | SHA-256 |
|---|---|
{files}
"""


def write(reference: Reference, folder: Path, files: Sequence[Path]) -> Written:
    """Write the card of these files, which are in `folder`. Raise MissingInput if V, M or C is not committed."""
    text = compose(reference, {path.name: artifacts.sha256(path) for path in files})
    replace(folder / FILE, lambda unchecked: unchecked.write_text(text, encoding="utf-8"))
    return Written(folder / FILE)


def compose(reference: Reference, files: Mapping[str, str]) -> str:
    """Return the card as Markdown; texts of the store appear as code only."""
    run, controller = reference.run, reference.run.artifact("controller")
    parts = {"V": reference.vae, "M": reference.memory, "C": controller}
    settings = {name: value for part in parts.values() for name, value in _settings(part).items()}
    which = reference.which
    return CARD.format(
        title=_code(f"{run.name}, iteration {run.iteration}"),
        version=__version__,
        parts=_rows((name, _code(part.name), _code(part.digest), *_made(part)) for name, part in parts.items()),
        parameters=PARAMETERS.get(str(which), f"the mean after generation {which}"),
        data=_data(reference),
        scores=_scores(reference, controller),
        settings=_rows((_code(name), _code(value)) for name, value in sorted(settings.items())),
        files=_rows((_code(name), _code(digest)) for name, digest in files.items()),
    )


def _data(reference: Reference) -> str:
    """Return the rollouts that V was trained on, by digest, and how those of this iteration were driven."""
    inputs = reference.vae.manifest["inputs"].items()
    text = _rows((_code(name), _code(digest)) for name, digest in inputs if name.endswith("/rollouts"))
    text = f"V was trained on the frames of these rollouts:\n\n| rollouts | digest (SHA-256) |\n|---|---|\n{text}"
    try:
        rollouts = reference.run.artifact("rollouts")
    except MissingInput:
        return text
    settings = _settings(rollouts)
    count, steps, driver = (_code(settings.get(f"rollouts.{key}")) for key in ("episodes", "steps", "controller"))
    text += f"\n\nThis iteration's are {count} episodes of at most {steps} steps, driven by: {driver}."
    origin = rollouts.manifest["made"].get("notes", {}).get("imported")
    return f"{text} They were imported {_code(origin)}." if origin else text


def _scores(reference: Reference, controller: Artifact) -> str:
    """Return the committed scores, if they are those of these parameters."""
    nothing = "No scores of these parameters are committed: `wm evaluate` drives chosen tracks."
    try:
        found = reference.run.artifact("evaluate")
    except MissingInput:
        return nothing
    if reference.which != "mean" or found.manifest["inputs"].get(controller.name.input) != controller.digest:
        return nothing
    s = artifacts.scores(found)
    first, last = s["scores"][0]["track"], s["scores"][-1]["track"]
    text = (
        f"Mean {s['mean']:.1f} ± {s['std']:.1f} (standard deviation over tracks; 95 % interval of the mean"
        f" {s['interval'][0]:.1f} to {s['interval'][1]:.1f}) over {s['tracks']} tracks that training never saw,"
        f" Gymnasium's seeds {first} to {last}, drawn by the fast renderer; {s['laps']} laps complete."
        f" Worst {s['min']:.1f}, best {s['max']:.1f}."
    )
    if r := s.get("reference"):
        text += f" The first {r['tracks']} on unmodified Gymnasium: {r['mean']:.1f}, instead of {r['fast_mean']:.1f}."
    return text


def _made(part: Artifact) -> tuple[str, str]:
    made = part.manifest["made"]
    versions = made.get("versions", {})
    with_what = ", ".join(f"{name} {versions[name]}" for name in sorted(versions) if name in SHOWN)
    return _code(made["finished"]), _code(with_what or "unknown")


SHOWN = ("wm", "tensorflow", "tensorflow-cpu", "keras", "cma", "gymnasium")


def _settings(part: Artifact) -> dict[str, Any]:
    return {**part.manifest["config"], **part.manifest["extent"]}


def _rows(rows: Any) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _code(value: object) -> str:
    """Return a value as code in a cell: without control characters, and without characters that end either."""
    text = plain(str(value)[:1000]).replace("`", "'").replace("|", "/")
    return f"`{text}`" if text.strip() else "`-`"
