"""Settings from their sources: defaults, preset, stored config, TOML files, `-o section.key=value`."""

import difflib
import shlex
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import ConfigError
from ..stages import NO_INPUTS
from .base import Section, flatten, leaves
from .models import PERSONAL, Config, personal
from .presets import ITERATION_TWO, LATER_ITERATIONS, PRESETS

CONFIG_BYTES = 2**20

DEEPEST_KEY, LONGEST_VALUE = 10, 500

Origins = dict[str, str]

SHOW = "wm config --preset demo"
"""The command that lists every setting, even if typed or stored settings are wrong."""


def resolve(
    preset: str | None = None,
    files: Iterable[Path] = (),
    overrides: Iterable[str] = (),
    *,
    iteration: int = 1,
    stored: tuple[Mapping[str, Any], Origins] | None = None,
) -> tuple[Config, Origins]:
    """Return the config, and the source of each value.

    Later sources win: defaults, `stored` (the run's own config) or the preset, changes of iteration 2 and later, files,
    overrides. Without a preset and a stored config, the preset is the demo.

    Raise ConfigError for an unknown preset or key (with the nearest right one), a wrong type or a value out of bounds.
    """
    origins = {key: "default" for key, _ in leaves(Config)}
    layers: list[tuple[str, Mapping[str, Any]]] = []
    if preset is None and stored:
        origins |= {key: origin for key, origin in stored[1].items() if key in origins and not personal(key)}
        layers.append(("", {name: section for name, section in stored[0].items() if name not in PERSONAL}))
    else:
        layers.append((f"preset {preset or 'demo'}", _preset(preset or "demo")))
    if iteration > 1 and not (stored and preset is None and stored[0]["rollouts"]["controller"] not in NO_INPUTS):
        layers.append((f"iteration {iteration}", ITERATION_TWO))
        begun = preset or (_preset_of(stored[1]) if stored else "demo")
        layers.append((f"preset {begun}, iteration {iteration}", LATER_ITERATIONS.get(begun, {})))
    layers += [(str(path), _read_toml(path)) for path in files]
    layers += [(f"-o {text[:LONGEST_VALUE]}", _parse_override(text)) for text in overrides]
    values = Config().model_dump()
    for origin, layer in layers:
        for key, value in flatten(layer, origins):
            if key not in origins and not origin:
                continue  # a setting of an earlier version, whose artifacts differ anyway
            if key not in origins:
                raise ConfigError(f"{origin}: there is no setting {key!r}{_nearest(key, origins)}", next=SHOW)
            origins[key] = origin or origins[key]
            *sections, name = key.split(".")
            at = values
            for section in sections:
                at = at[section]
            at[name] = value
    try:
        return Config.model_validate(values), origins
    except ValidationError as error:
        raise ConfigError(_explain(error, origins), next=SHOW) from None


def names() -> list[str]:
    """Return the full name of every setting."""
    return [key for key, _ in leaves(Config)]


def without_personal(remembered: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's stored {"config", "origins"} without personal settings: earlier versions stored them, too."""
    return {
        "config": {name: section for name, section in remembered["config"].items() if name not in PERSONAL},
        "origins": {key: origin for key, origin in remembered["origins"].items() if not personal(key)},
    }


def _preset(name: str) -> Mapping[str, Any]:
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}{_nearest(name, PRESETS)}", next="wm config --preset demo")
    return PRESETS[name]


def _preset_of(origins: Origins) -> str:
    """Return the preset that a run was started with; empty if there was none."""
    named = (origin.removeprefix("preset ") for origin in origins.values() if origin.startswith("preset "))
    return next((name for name in named if name in PRESETS), "")


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError(f"-o {text!r} is not of the form section.key=value", next="wm run -o vae.epochs=2")
    if key.count(".") > DEEPEST_KEY:
        raise ConfigError(f"there is no setting {key[:100]!r}", next="wm config")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        parsed = value.strip()
    except ValueError as error:  # a number of thousands of digits
        raise ConfigError(f"-o {text[:100]!r}: {error}", next=f"wm config | grep {shlex.quote(key)}") from None
    if parsed == "none" and _may_be_none(key):
        parsed = None
    tree: Any = parsed
    for part in reversed(key.split(".")):
        tree = {part: tree}
    return dict(tree)


def _may_be_none(key: str) -> bool:
    section, _, name = key.partition(".")
    model = Config.model_fields[section].annotation if section in Config.model_fields else None
    return isinstance(model, type) and issubclass(model, Section) and getattr(model(), name, "") is None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(CONFIG_BYTES + 1)
        if len(data) > CONFIG_BYTES:
            raise ConfigError(f"{path} has more than {CONFIG_BYTES} bytes: no settings are that long", f"ls -l {path}")
        return tomllib.loads(data.decode())
    except FileNotFoundError:
        raise ConfigError(f"there is no config file {path}", next="wm config > wm.toml") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}", next=f"edit {path}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", next=f"ls -l {path}") from None


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes no integers of more than 4,300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def _nearest(word: str, among: Iterable[str]) -> str:
    known = list(among)
    by_leaf = [key for key in known if key.rpartition(".")[2] == word.rpartition(".")[2]]
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5) or by_leaf[:1]
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def _explain(error: ValidationError, origins: Origins) -> str:
    lines = []
    for detail in error.errors():
        parts = [str(part) for part in detail["loc"]]
        starts = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
        key = next((start for start in starts if start in origins), starts[0])
        if key not in origins and isinstance(detail["input"], dict):  # a rule for several settings of a section
            lines.append(f"{key}: {detail['msg'].removeprefix('Value error, ')}")
        else:
            lines.append(f"{key} = {_shown(detail['input'])} ({origins.get(key, 'together')}): {detail['msg']}")
    return "; ".join(dict.fromkeys(lines))
