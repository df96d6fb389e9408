"""Table of studies: sweeps with fixed lists, each with published scores to compare with. One entry is a study."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ConfigError, among
from ..reports.results import PAPER
from .axes import SEED, Axis, Value


@dataclass(frozen=True)
class Study:
    """A sweep over `axes`; its figure has a line for each combination without the seed.

    Attributes:
        preset: the preset on which it rests.
        fixed: overrides of all its runs.
        published: the published score (mean, standard deviation over tracks) by the words of a value.
        note: a sentence on what can be compared.
    """

    name: str
    title: str
    preset: str
    fixed: tuple[str, ...]
    axes: tuple[Axis, ...]
    published: Mapping[str, tuple[float, float]]
    note: str


def seeds(*numbers: int) -> Axis:
    return Axis(SEED, tuple(Value((f"seed={number}",)) for number in numbers))


STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        Study(
            name="paper-table",
            title="The paper's controllers",
            preset="laptop",
            fixed=("iterations=1", "controller.components=0", "controller.sigma=0.1", "controller.generations=40"),
            axes=(
                seeds(1, 2, 3),
                Axis(
                    "C sees",
                    (
                        Value(("controller.inputs=z",), "z", "z"),
                        Value(("controller.inputs=z", "controller.hidden=40"), "z, with a hidden layer", "z-hidden"),
                        Value(("controller.inputs=z h",), "z and h", "zh"),
                        Value(("controller.inputs=z h", "memory.epochs=0"), "z and h, M untrained", "zh-untrained"),
                    ),
                ),
            ),
            published={"z": (632, 251), "z, with a hidden layer": (788, 141), "z and h": PAPER},
            note="All controllers have the same number of generations, candidates and tracks. The paper (Ha & "
            "Schmidhuber 2018, table 1) has one controller of each kind, scored on 100 tracks of Gym's CarRacing-v0, "
            "and its standard deviations are over tracks. Those of this study are over seeds. Scores of v0 and v3 are "
            "not strictly comparable.",
        ),
    )
}


def study(name: str) -> Study:
    """Return the study of that name. Raise ConfigError, with the closest name, if there is none."""
    if name not in STUDIES:
        raise ConfigError(f"there is no study {name!r}; {among(name, STUDIES)}", next="wm study --help")
    return STUDIES[name]
