"""Sweeps: the product of lists of values, each combination an ordinary run; equal artifacts are made once.

A sweep is not stored. The same lists give the same runs, because a run's name follows from its values. So a sweep that
was stopped goes on, and one with more values keeps the runs that it has.
"""

from .axes import SEED, Axis, SweepRun, Value, combined, split
from .plan import SweepPlan, plan
from .sharing import adopt, prepare
from .studies import STUDIES, Study, study
from .table import Cells, Group, Row, groups, rows, tables

__all__ = [
    "SEED", "STUDIES", "Axis", "Cells", "Group", "Row", "Study", "SweepPlan", "SweepRun", "Value", "adopt", "combined",
    "groups", "plan", "prepare", "rows", "split", "study", "tables",
]  # fmt: skip
