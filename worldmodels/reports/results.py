"""The report's sections on the score and the evolution."""

from statistics import median

import numpy as np

from .. import artifacts, stored
from ..context import Context
from .figures import Line, Panel, curves, histogram
from .page import Code, Figures, Paragraph, Part, Tiles
from .pictures import animated
from .sources import optional, table

PAPER = (906, 21)  # Ha & Schmidhuber 2018, table 1: 100 tracks of Gym's CarRacing-v0
STEPS_PER_SECOND = 50


def headline(ctx: Context) -> list[Part]:
    """Show the score as large numbers, beside the paper's."""
    found = artifacts.scores(ctx.one("evaluate"))
    tracks = found["tracks"]
    low, high = found["interval"]
    missed = median([row["missed"] for row in found["scores"]])
    tiles = [
        (f"{found['mean']:.0f} ± {found['std']:.0f}", f"mean ± standard deviation over {tracks} tracks",
         f"95 % interval of the mean: {round(low)} to {round(high)}"),
        (f"{found['laps']} of {tracks}", "laps completed", _lap_rules(found)),
        *_typical(found),
        (f"{found['tiles_missed']:.1f}", "tiles missed per track", f"median {missed:.0f}"),
        (f"{PAPER[0]} ± {PAPER[1]}", "the paper's score, for reference",
         "100 tracks of Gym's CarRacing-v0; scores of v0 and v3 are not strictly comparable"),
    ]  # fmt: skip
    first, last = found["scores"][0]["track"], found["scores"][-1]["track"]
    lap = found["lap_steps"]
    took = f" A completed lap took {lap:.0f} steps on average, {lap / STEPS_PER_SECOND:.1f} s." if lap else ""
    return [
        Tiles(tiles),
        Paragraph(
            "The controller (the mean of CMA-ES's search distribution, or an average of several means) drove "
            f"{tracks} test tracks that training never saw, once each, in {found['env']} of Gymnasium "
            f"{found['gymnasium']} with the {found['renderer']} renderer."
            f"{took} Track n is Gymnasium's seed n, here {first} to {last}, so anyone gets the same tracks:"
        ),
        Code(
            f'env = gymnasium.make("{found["env"]}")\n'
            f"observation, info = env.reset(seed={first})\n"
            "observation, reward, terminated, truncated, info = env.step(action)"
        ),
        *_reference(found.get("reference")),
    ]


def _typical(found: stored.Scores) -> list[tuple[str, str, str]]:
    """Return the interquartile mean as a large number, if the artifact has it."""
    if "interquartile_mean" not in found:
        return []
    low, high = found["interquartile_interval"]
    note = f"the middle half of the tracks; 95 % interval: {round(low)} to {round(high)}"
    return [(f"{found['interquartile_mean']:.0f}", "interquartile mean", note)]


def _lap_rules(found: stored.Scores) -> str:
    also = f"; more than 95 % of them: {found['laps_95']}" if "laps_95" in found else ""
    return f"every tile of the track driven over{also}"


def _reference(found: stored.Reference | None) -> list[Part]:
    """Show the same controller's score on unmodified Gymnasium, on the first tracks."""
    if not found:
        return []
    low, high = found["difference_interval"]
    return [
        Paragraph(
            f"The first {found['tracks']} tracks were driven on unmodified Gymnasium as well: {found['mean']:.1f} "
            f"instead of {found['fast_mean']:.1f}. The difference, track by track, is {found['difference']:+.1f} on "
            f"average (95 % interval {low:+.1f} to {high:+.1f})."
        )
    ]


def evolution(ctx: Context) -> list[Part]:
    """Show CMA-ES over generations: scores and step size."""
    rows = table(ctx.one("controller").path("rewards.csv"))
    x = rows["generation"]
    lines = [
        Line("population mean", x, rows["mean"]),
        Line("best candidate", x, rows["best"], "muted", ":"),
        Line("mean, validation tracks", x, rows["validation"], "orange", points=True),
    ]
    last = rows["validation"][np.isfinite(rows["validation"])]
    validated = f" Its last validation score is {last[-1]:.0f}." if len(last) else ""
    score = Panel(
        "evolution", "generation", "score",
        f"Scores over {len(x)} generations: the population's mean ends at {rows['mean'][-1]:.0f}, "
        f"its best at {rows['best'][-1]:.0f}.{validated}",
        "A generation's tracks are its own, so population curves wobble with their difficulty. The best candidate is "
        "partly luck; the orange points score the mean parameters on the same validation tracks each time.",
    )  # fmt: skip
    sigma = Panel(
        "sigma", "generation", "step size σ",
        f"CMA-ES's step size, from {rows['sigma'][0]:.3g} to {rows['sigma'][-1]:.3g}.",
        "How widely candidates are scattered around the mean. It should shrink once the car drives well; while it "
        "grows and the score does not, scores are too noisy: use more tracks or longer episodes.",
    )  # fmt: skip
    return [Figures([curves(score, lines), curves(sigma, [Line("σ", x, rows["sigma"])])])]


def scores(ctx: Context) -> list[Part]:
    """Show a histogram of the scores over test tracks."""
    found = artifacts.scores(ctx.one("evaluate"))
    extremes = f"lowest {found['min']:.0f}, median {found['median']:.0f}, highest {found['max']:.0f}"
    panel = Panel(
        "scores", "score of an episode", "tracks",
        f"Histogram of {found['tracks']} scores: {extremes}; mean {found['mean']:.0f}, the paper's mean {PAPER[0]}.",
        f"{extremes.capitalize()}. Each tick at the bottom is one track.",
    )  # fmt: skip
    values = np.array([row["score"] for row in found["scores"]])
    return [Figures([histogram(panel, values, found["interval"], (f"the paper's {PAPER[0]}", PAPER[0]))])]


def drive(ctx: Context) -> list[Part]:
    """Show the evaluation's video."""
    path = optional(ctx.one("evaluate"), "drive.webp")
    if path is None:
        return [Paragraph("This evaluation recorded no drive.", "missing")]
    alt = "Animation: the car on a test track, seen from above as Gymnasium draws it."
    return [Figures([animated("drive.webp", path.read_bytes(), alt, "The track with the median score, in real time.")])]
