"""The axes of a sweep, from `-o key=value,value`, and the runs of their product with their names."""

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import artifacts, config
from ..artifacts import RUN_NAME
from ..config import Config, Origins
from ..errors import ConfigError

SEED = "seed"
MOST_RUNS = 200
EXAMPLE = "wm sweep -o seed=1,2,3"

Resolve = Callable[[tuple[str, ...]], tuple[Config, Origins]]
"""Returns the config of these overrides, and each value's origin."""


@dataclass(frozen=True)
class Value:
    """A value of an axis: its settings, its words in tables, and its part of a run's name.

    Without words and a label, both follow from the setting that the axis names.
    """

    overrides: tuple[str, ...]
    words: str = ""
    label: str = ""


@dataclass(frozen=True)
class Axis:
    """Alternatives of which each run has one. `key` is a setting's name, or a study's name for its alternatives."""

    key: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class SweepRun:
    """One combination: its run's name, its values in words by axis, its overrides, and the config that results."""

    name: str
    values: Mapping[str, str]
    overrides: tuple[str, ...]
    config: Config
    origins: Origins


def split(overrides: Sequence[str]) -> tuple[tuple[str, ...], tuple[Axis, ...]]:
    """Return the overrides with one value, and an axis for each with several, which commas separate.

    Commas within brackets, braces and quotation marks do not separate. Raise ConfigError for an empty value, and for a
    setting that is given twice, once with several values.
    """
    fixed: list[str] = []
    axes: dict[str, Axis] = {}
    for text in overrides:
        key, equals, values = text.partition("=")
        key, parts = key.strip(), [part.strip() for part in _parts(values)]
        if not equals or len(parts) == 1:
            fixed.append(text)
            continue
        if "" in parts:
            raise ConfigError(f"-o {text[:200]!r} has an empty value between its commas", next=EXAMPLE)
        if key in axes:
            raise ConfigError(f"-o {text[:200]!r}: {key} has several values already", next=EXAMPLE)
        axes[key] = Axis(key, tuple(Value((f"{key}={part}",)) for part in parts))
    for text in fixed:
        if (key := text.partition("=")[0].strip()) in axes:
            raise ConfigError(f"-o {text[:200]!r}: {key} has several values already", next=EXAMPLE)
    return tuple(fixed), tuple(axes.values())


def _parts(text: str) -> list[str]:
    parts, depth, quote = [""], 0, ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        else:
            depth += (char in "[{") - (char in "]}")
        if char == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def combined(name: str, fixed: Sequence[str], axes: Sequence[Axis], resolve: Resolve) -> list[SweepRun]:
    """Return the run of every combination, the last axis' values varying fastest. `name` begins the runs' names.

    Raise ConfigError without axes, for more than `MOST_RUNS` runs, two runs of one name, and what `resolve` refuses.
    """
    if not axes:
        raise ConfigError("no setting has several values, so there is nothing to compare", next=EXAMPLE)
    count = 1
    for axis in axes:
        count *= len(axis.values)
    if count > MOST_RUNS:
        sizes = " × ".join(f"{len(axis.values)} of {axis.key}" for axis in axes)
        raise ConfigError(f"{sizes} are {count} runs, more than the {MOST_RUNS} of one sweep", next=EXAMPLE)
    runs: dict[str, SweepRun] = {}
    for values in itertools.product(*(axis.values for axis in axes)):
        run = _combination(name, fixed, dict(zip((axis.key for axis in axes), values, strict=True)), resolve)
        if run.name in runs:
            pairs = (f"{key} = {runs[run.name].values[key]} and {run.values[key]}" for key in run.values)
            raise ConfigError(f"two combinations would be the run {run.name}: {'; '.join(pairs)}", next=EXAMPLE)
        runs[run.name] = run
    return list(runs.values())


def _combination(name: str, fixed: Sequence[str], values: Mapping[str, Value], resolve: Resolve) -> SweepRun:
    overrides = (*fixed, *itertools.chain.from_iterable(value.overrides for value in values.values()))
    settled, origins = resolve(overrides)
    shown = {key: value.words or _shown(_setting(settled, key)) for key, value in values.items()}
    labels = [value.label or _label(key, _setting(settled, key)) for key, value in _in_order(values)]
    run = "-".join((name, *labels))
    if not RUN_NAME.fullmatch(run):
        raise ConfigError(
            f"the run {run!r} of this sweep has a name of {len(run)} characters: use 1 to 48 of a-z 0-9 . _ -"
            " beginning and ending with a letter or digit; a shorter --run helps",
            next=f"{EXAMPLE} --run s",
        )
    return SweepRun(run, shown, overrides, settled, origins)


def _in_order(values: Mapping[str, Value]) -> list[tuple[str, Value]]:
    """Return the values in an order that does not depend on the command's: the settings' order, the seed last."""
    order = config.names()
    return sorted(values.items(), key=lambda item: (item[0] == SEED, order.index(item[0]) if item[0] in order else -1))


def _setting(settled: Config, key: str) -> Any:
    found: Any = settled.model_dump()
    for part in key.split("."):
        found = found[part]
    return found


def _label(key: str, value: Any) -> str:
    """Return a setting's part of a run's name: its last word if no other setting has it, and its value."""
    leaf = key.rpartition(".")[2]
    known = [name for name in config.names() if not config.personal(name)]
    word = leaf if sum(name.rpartition(".")[2] == leaf for name in known) == 1 else key
    if isinstance(value, (list, dict)):
        return f"{word}{artifacts.digest(value)[:6]}"
    return word + re.sub(r"[^a-z0-9._-]", "", _shown(value).lower().replace(":", "to"))


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return value if isinstance(value, str) else json.dumps(value)
