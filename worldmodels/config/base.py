"""Base of all settings: frozen models that reject unknown keys, and the roles of their fields.

A field marked EXECUTION sets how to execute and never changes a result. A field marked EXTENT sets how much of the
same work to do: a larger value adds to the existing work, and None is left out. Every other field is part of an
artifact's identity. A field marked LATER is part of it only if its value is not the default, so that artifacts from
before the field existed still fit.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

EXECUTION: dict[str, Any] = {"role": "execution"}
EXTENT: dict[str, Any] = {"role": "extent"}
LATER: dict[str, Any] = {"role": "later"}

# Large enough for every use, and small enough for every machine and store.
MOST = 1_000_000
Count = Annotated[int, Field(ge=1, le=MOST)]
Positive = Annotated[float, Field(gt=0, le=MOST)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def leaves(section: type[Section], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield ("section.key", description) of every setting; a mapping whose keys are the user's is one setting."""
    for name, info in section.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            yield from leaves(info.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", info.description or ""


def flatten(tree: Mapping[str, Any], whole: Any = (), prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ("section.key", value) per leaf of a nested mapping; keys in `whole` are leaves even with a mapping."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and f"{prefix}{key}" not in whole:
            yield from flatten(value, whole, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def fields(section: type[Section] | None, *, role: str | None = None) -> list[str]:
    """List the names of a section's fields, all or those of one role."""
    if section is None:
        return []
    return [
        name for name, info in section.model_fields.items() if role is None or _role(info.json_schema_extra) == role
    ]


def _role(extra: Any) -> str:
    return extra.get("role", "identity") if isinstance(extra, dict) else "identity"
