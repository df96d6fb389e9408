"""Readers of the report's inputs: tables and numbers of committed artifacts."""

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
    """Read a CSV file's columns by name, [rows] each; NaN for a cell that is empty or not a number.

    Raise MissingInput if it has no rows.
    """
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise MissingInput(f"{path.name} has no rows yet")
    return {name: np.array([_number(row.get(name)) for row in rows]) for name in rows[0] if name}


def document(path: Path, model: stored.Model = stored.ANYTHING) -> Any:
    """Read a JSON file; raise CorruptArtifact if it does not fit the model."""
    return stored.parse(path.read_bytes(), model, path.name, "wm verify")


def optional(artifact: Artifact, name: str) -> Path | None:
    """Return the path of the artifact's file of that name, or None if it has none."""
    try:
        return artifact.path(name)
    except MissingInput:
        return None


def short(digest: str) -> str:
    """Return the first 12 characters of a digest, enough to distinguish two."""
    return digest[:12]


def _number(cell: str | None) -> float:
    try:
        return float(cell or "nan")
    except ValueError:
        return math.nan
