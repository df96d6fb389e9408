"""The page of a sweep or a study: its tables, and a figure with a point per seed, as one HTML file."""

from collections.abc import Mapping, Sequence

from ..reports import page
from ..reports.figures import Panel, Picture, points
from ..reports.page import Figures, Paragraph, Part, Section, Table
from .table import Group, Row, groups, tables

MOST_GROUPS = 30
"""The most lines of the figure."""


def html(
    title: str, found: Sequence[Row], *, note: str = "", published: Mapping[str, tuple[float, float]] | None = None
) -> str:
    """Return the page; `published` scores (mean, standard deviation) are by the words of a value."""
    lines = groups(found)
    parts: list[Part] = [Paragraph(note)] if note else []
    if 1 <= len(lines) <= MOST_GROUPS:
        parts.append(Figures([_figure(lines, published or {})]))
    sections = [Section("Figure", "", parts)] if parts else []
    for cells in tables(found, published):
        sections.append(Section(cells.title, "", [Table(cells.head, cells.rows)]))
    scored = sum(row.scores is not None for row in found)
    return page.render(title, f"{scored} of {len(found)} runs are scored", sections)


def _figure(lines: Sequence[Group], published: Mapping[str, tuple[float, float]]) -> Picture:
    values = {group.words: list(group.means.values()) for group in lines}
    there = {group.words: published[each] for group in lines for each in group.values.values() if each in published}
    panel = Panel(
        "scores", "mean score over test tracks", "",
        "Mean score of each run: " + "; ".join(f"{name}: {', '.join(f'{v:.0f}' for v in each)}"
                                               for name, each in values.items()) + ".",
        "Each point is one run, a seed of its own. The bar is the mean of a line's points.",
    )  # fmt: skip
    return points(panel, values, there)
