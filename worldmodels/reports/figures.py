"""Curves and histograms as SVG; the only module of this project that imports matplotlib.

Every figure is one small panel (a phone shows one per row, a desktop two) in the light colours of `THEME`; the page
replaces these by CSS variables, so that the same drawing follows the reader's light or dark scheme.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

matplotlib.rcdefaults()  # ignores a matplotlibrc of the current directory

# name -> (light, dark); contrast with the background: text at least 4.5:1, lines 3:1
THEME: Mapping[str, tuple[str, str]] = {
    "paper": ("#ffffff", "#14181d"),
    "panel": ("#f5f7f9", "#1c2229"),
    "ink": ("#1b2733", "#e4e9ee"),
    "muted": ("#566473", "#a3afbb"),
    "rule": ("#dbe1e7", "#343d47"),
    "blue": ("#2468b0", "#6cb0f5"),
    "orange": ("#c25a06", "#f5a356"),
    "green": ("#237a57", "#5cc79a"),
}
INK, MUTED, RULE = (THEME[name][0] for name in ("ink", "muted", "rule"))

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "svg.fonttype": "none",
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": THEME["paper"][0],
    "axes.facecolor": THEME["paper"][0],
}


@dataclass(frozen=True)
class Picture:
    """A picture: file name (its suffix gives the format), content, alternative text, and caption."""

    name: str
    data: bytes
    alt: str
    caption: str = ""
    still: bytes = b""  # PNG that replaces an animation for readers who prefer reduced motion
    wide: bool = False


@dataclass(frozen=True)
class Line:
    """One curve: label for the legend, points (NaN: missing), name of a colour in `THEME`."""

    label: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    colour: str = "blue"
    style: str = "-"
    points: bool = False


@dataclass(frozen=True)
class Panel:
    """A figure's file name, the titles of its axes (with units), its description and its caption."""

    name: str
    x: str
    y: str
    alt: str
    caption: str = ""
    levels: Mapping[str, float] = field(default_factory=dict)  # dashed horizontal references, labelled at the line


def curves(panel: Panel, lines: Sequence[Line]) -> Picture:
    """Draw lines over one x axis, the legend above them."""
    with _axes(panel) as (axes, out):
        for line in lines:
            x, y = (np.asarray(v, dtype=float) for v in (line.x, line.y))
            seen = np.isfinite(x) & np.isfinite(y)
            marker = "o" if line.points or seen.sum() < 3 else None  # one point alone would draw no line
            axes.plot(x[seen], y[seen], line.style, color=THEME[line.colour][0], label=line.label,
                      marker=marker, markersize=4, linewidth=1.2 if line.style != "-" else None)  # fmt: skip
        for label, level in panel.levels.items():
            axes.axhline(level, color=MUTED, linestyle=(0, (4, 3)), linewidth=1)
            axes.annotate(label, (1, level), xycoords=("axes fraction", "data"), xytext=(-2, -4),
                          textcoords="offset points", ha="right", va="top", color=MUTED, fontsize=9)  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if len(lines) > 1:
            _legend(axes)
    return Picture(f"{panel.name}.svg", out.getvalue(), panel.alt, panel.caption)


def histogram(panel: Panel, values: np.ndarray, interval: Sequence[float], reference: tuple[str, float]) -> Picture:
    """Draw the spread of `values`: bars, a tick for each value, the mean with `interval`, and a `reference`."""
    mean = float(values.mean())
    with _axes(panel) as (axes, out):
        low, high = min(values.min(), reference[1]), max(values.max(), reference[1])
        width = _round_width((high - low) / 20)
        edges = np.arange(np.floor(low / width), np.ceil(high / width) + 1.5) * width
        axes.hist(values, bins=list(edges), color=THEME["blue"][0], alpha=0.45, rwidth=0.92)
        axes.plot(values, np.zeros(len(values)), "|", color=THEME["blue"][0], markersize=9, clip_on=False)
        axes.axvspan(interval[0], interval[1], color=THEME["orange"][0], alpha=0.2, linewidth=0)
        axes.axvline(mean, color=THEME["orange"][0], label=f"mean {mean:.0f}, with its 95 % interval")
        axes.axvline(reference[1], color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2, label=reference[0])
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        _legend(axes)
    return Picture(f"{panel.name}.svg", out.getvalue(), panel.alt, panel.caption)


def bars(panel: Panel, values: Mapping[str, float], colours: Sequence[str]) -> Picture:
    """Draw named values as horizontal bars, each with its number."""
    with _axes(panel) as (axes, out):
        numbers = list(values.values())
        axes.barh(range(len(numbers)), numbers, color=[THEME[c][0] for c in colours], height=0.42)
        span = max(max(numbers), 0.0) - min(min(numbers), 0.0) or 1.0
        for row, (name, number) in enumerate(values.items()):
            axes.annotate(name, (0, row), xycoords=("axes fraction", "data"), xytext=(2, 17),
                          textcoords="offset points", fontsize=10)  # fmt: skip
            side = 1 if number >= 0 else -1
            axes.annotate(f"{number:,.1f}", (number, row), xytext=(4 * side, 0), textcoords="offset points",
                          va="center", ha="left" if side > 0 else "right", fontsize=10)  # fmt: skip
        axes.set_xlim(min(min(numbers) * 1.0, 0) - 0.14 * span * (min(numbers) < 0),
                      max(max(numbers), 0) + 0.14 * span * (max(numbers) > 0))  # fmt: skip
        axes.set_ylim(len(numbers) - 0.5, -0.75)
        axes.set_yticks([])
        axes.axvline(0, color=MUTED, linewidth=1)
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)
    return Picture(f"{panel.name}.svg", out.getvalue(), panel.alt, panel.caption)


def points(
    panel: Panel, groups: Mapping[str, Sequence[float]], published: Mapping[str, tuple[float, float]]
) -> Picture:
    """Draw a line per group: a point per value, their mean, and the published (mean, deviation) if there is one."""
    with _axes(panel, height=1.1 + 0.55 * len(groups)) as (axes, out):
        for row, (name, values) in enumerate(groups.items()):
            axes.annotate(name, (0, row), xycoords=("axes fraction", "data"), xytext=(2, 9),
                          textcoords="offset points", fontsize=10)  # fmt: skip
            axes.plot(values, [row] * len(values), "o", color=THEME["blue"][0], alpha=0.75,
                      label="a seed" if not row else None)  # fmt: skip
            axes.plot([np.mean(values)], [row], "|", color=THEME["orange"][0], markersize=16, markeredgewidth=2,
                      label="mean of the seeds" if not row else None)  # fmt: skip
        lines = [row for row, name in enumerate(groups) if name in published]
        if lines:
            mean, deviation = zip(*(published[name] for name in groups if name in published), strict=True)
            axes.errorbar(mean, [row + 0.22 for row in lines], xerr=deviation, fmt="D", color=MUTED, markersize=4,
                          elinewidth=1, label="published, ± over tracks")  # fmt: skip
        axes.set_ylim(len(groups) - 0.45, -0.75)
        axes.set_yticks([])
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        _legend(axes)
    return Picture(f"{panel.name}.svg", out.getvalue(), panel.alt, panel.caption, wide=True)


@contextmanager
def _axes(panel: Panel, height: float = 2.95) -> Iterator[tuple[Axes, io.BytesIO]]:
    """Yield labelled axes, and a buffer for their SVG; its bytes depend only on the drawing."""
    out = io.BytesIO()
    with plt.rc_context({**STYLE, "svg.hashsalt": panel.name}):
        figure, axes = plt.subplots(figsize=(4.5, height), layout="constrained")
        try:
            axes.set_xlabel(panel.x)
            axes.set_ylabel(panel.y)
            yield axes, out
            figure.savefig(out, format="svg", metadata={"Date": None})
        finally:
            plt.close(figure)


def _legend(axes: Axes) -> None:
    """Put the legend above the drawing, at most two entries per row; its width does not change the axes."""
    handles, _ = axes.get_legend_handles_labels()
    columns = min(2, len(handles))
    rows = -(-len(handles) // columns)
    axes.set_title("\n".join([" "] * rows), fontsize=10, pad=7)  # reserves the space
    legend = axes.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns, handlelength=1.3, columnspacing=1.2, borderpad=0.2
    )
    legend.set_in_layout(False)


def _round_width(width: float) -> float:
    """Return the next of 1, 2, 5, 10 … at or above `width`."""
    power = 10.0 ** np.floor(np.log10(max(width, 1.0)))
    return float(next(m * power for m in (1, 2, 5, 10) if m * power >= width - 1e-9))
