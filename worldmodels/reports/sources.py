"""What the report reads: tables and numbers of committed artifacts."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np

from .. import stored
from ..artifacts import Artifact
from ..errors import MissingInput

Columns = dict[str, np.ndarray]


def table(path: Path) -> Columns:
    """A CSV file's numeric columns by name, [rows] each; NaN where a cell is empty or not a number."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise MissingInput(f"{path.name} has no rows yet")
    return {name: np.array([_number(row.get(name)) for row in rows]) for name in rows[0] if name}


def document(path: Path, model: stored.Model = stored.ANYTHING) -> Any:
    """A JSON file's content; CorruptArtifact if it does not fit the model."""
    return stored.parse(path.read_bytes(), model, path.name, "wm verify")


def optional(artifact: Artifact, name: str) -> Path | None:
    """The artifact's file of that name, or None if it has none."""
    try:
        return artifact.path(name)
    except MissingInput:
        return None


def short(digest: str) -> str:
    """The first characters of a digest, enough to tell two apart."""
    return digest[:12]


def _number(cell: str | None) -> float:
    try:
        return float(cell or "nan")
    except ValueError:
        return math.nan
