"""A run's networks, policy and rollouts in formats of other tools, for `wm export`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from .. import runner
from ..api import Run, Which
from .checks import Reference, Written

Writer = Callable[[Reference, Path], Iterable[Written]]
WRITERS = {
    "onnx": "worldmodels.interchange.onnx_files:write",
    "minari": "worldmodels.interchange.rollout_files:write_minari",
    "npz": "worldmodels.interchange.rollout_files:write_npz",
}
"""Functions by format. They are strings, because some import TensorFlow, which others must not."""


def export(run: Run, folder: Path, formats: Sequence[str], which: Which = "mean") -> Iterator[Written]:
    """Write the run in each of the formats, with the chosen controller; yield each file as it gets its name.

    Raise MissingInput if a part is not committed, and the errors of the writers.
    """
    reference = Reference(run, which)
    for name in formats:
        yield from runner.entrypoint(WRITERS[name])(reference, folder)
