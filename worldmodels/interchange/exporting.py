"""A run's networks, policy and rollouts in formats of other tools, for `wm export`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import stages
from ..api import Run, Which
from . import card
from .checks import Reference, Written

WRITERS = {
    "onnx": "worldmodels.interchange.onnx_files:write",
    "keras": "worldmodels.interchange.keras_files:write",
    "minari": "worldmodels.interchange.rollout_files:write_minari",
    "npz": "worldmodels.interchange.rollout_files:write_npz",
}
"""Functions by format. They are strings, because some import TensorFlow, which others must not."""
NETWORKS = ("onnx", "keras")
"""Formats of networks, beside which a model card is written."""


def export(run: Run, folder: Path, formats: Sequence[str], which: Which = "mean") -> Iterator[Written]:
    """Write the run in each of the formats, with the chosen controller; yield each file as it gets its name.

    Raise MissingInput if a part is not committed, and the errors of the writers.
    """
    reference, networks = Reference(run, which), []
    for name in formats:
        for written in stages.function(WRITERS[name])(reference, folder):
            networks += [written.path] if name in NETWORKS else []
            yield written
    if networks:
        yield card.write(reference, folder, networks)
