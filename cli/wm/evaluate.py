"""`wm evaluate`: scores a controller on chosen tracks, and commits nothing."""

import re
from collections.abc import Mapping
from typing import Any

import click

from wm import machine, options
from wm.out import echo

MOST_TRACKS = 100_000


@click.command()
@options.gathered(options.run, options.store, options.evolved_iteration, options.pretrained)
@click.option("--seeds", default="300000000:300000010", show_default=True, metavar="A:B", help="From A to before B.")
@click.option(
    "--renderer",
    type=click.Choice(["fast", "gymnasium"]),
    default="fast",
    show_default=True,
    help="Who draws the frames: wm's renderer, or unmodified Gymnasium, some 40 times slower.",
)
@options.controller
@click.option(
    "--vary",
    is_flag=True,
    help="Score also with less grip and gas, noise, other colours, and a bar across the picture.",
)
@click.option("--workers", type=click.IntRange(0, 256), default=0, metavar="N", help="Processes; 0: one per core.")
@options.as_json
def evaluate(
    given: options.RunOptions, seeds: str, renderer: str, which: str | int, vary: bool, workers: int, as_json: bool
) -> None:
    """Score a run's controller on chosen tracks; commit nothing.

    It drives with the V and M that it was evolved with, even if others were trained since.

    A track is a Gymnasium seed: `gymnasium.make("CarRacing-v3").reset(seed=n)` gives anyone the same one. Seeds below
    100000000 are for random driving, then CMA-ES, from 200000000 validation, from 300000000 test.

    \b
    wm evaluate --run demo --seeds 0:20 --controller best
    wm evaluate --pretrained
    wm evaluate --run demo --seeds 300000000:300000010 --renderer gymnasium --json
    wm evaluate --run demo --seeds 300000000:300000050 --vary
    """
    from worldmodels.executors import scoring

    tracks = _range(seeds)
    scores = scoring.score(given.store, given.run, given.iteration, tracks, renderer, workers, which, vary=vary)
    if as_json:
        machine.document(**scores)
        return
    for row in scores["scores"]:
        echo(f"track {row['track']:>10}  {row['score']:7.1f}  {row['steps']:4} steps  {'lap' if row['lap'] else ''}")
    echo(scored(scores["scored"], which))
    echo(
        f"mean {scores['mean']:.1f} ± {scores['std']:.1f}, {spread(scores)}; "
        f"{scores['env']} of Gymnasium {scores['gymnasium']}, {renderer} renderer, its seeds {seeds}"
    )
    if vary:
        _print_variations(scores)


def _print_variations(scores: Mapping[str, Any]) -> None:
    echo(f"\n{'':32}  {'mean':>6}   {'sd':>5}  {'laps':>4}  difference, 95 % interval")
    echo(f"{'plain':32}  {scores['mean']:6.1f} ± {scores['std']:5.1f}  {scores['laps']:4}")
    for name, found in scores["variations"].items():
        low, high = found["difference_interval"]
        echo(
            f"{name:32}  {found['mean']:6.1f} ± {found['std']:5.1f}  {found['laps']:4}"
            f"  {found['difference']:+.1f}, {low:+.1f} to {high:+.1f}"
        )


def spread(scores: Mapping[str, Any]) -> str:
    """Return the confidence intervals of the scores and the numbers of laps, as text."""
    low, high = scores["interval"]
    words = [f"95 % interval of the mean {low:.1f} to {high:.1f}"]
    if "interquartile_mean" in scores:
        low, high = scores["interquartile_interval"]
        words.append(f"interquartile mean {scores['interquartile_mean']:.1f}, {low:.1f} to {high:.1f}")
    words.append(f"{scores['laps']} laps completed")
    if "laps_95" in scores:
        words.append(f"{scores['laps_95']} with more than 95 % of the tiles")
    return "; ".join(words)


def scored(what: dict[str, Any], which: str | int) -> str:
    """Return a line that names the parameters and the artifacts that drove.

    With `controller.select=best`, "mean" may be one of an earlier generation than the last.
    """
    kinds = {"mean": "the mean of {artifact}, {generation} generations",
             "best": "the best candidate of {artifact}, {generation} generations"}  # fmt: skip
    kind = kinds.get(str(which), "the mean after generation {generation} of {artifact}").format(**what)
    digests = ", ".join(
        f"{name} {what[stage][:12]}" for name, stage in (("C", "controller"), ("V", "vae"), ("M", "memory"))
    )
    return f"{kind}: {digests}"


def _range(text: str) -> list[int]:
    first, _, last = text.partition(":")
    if not re.fullmatch("[0-9]{1,10}:[0-9]{1,10}", text) or int(first) >= int(last) or int(last) >= 2**31:
        raise click.BadParameter(f"{text!r:.100} is not A:B with A < B < 2147483648", param_hint="--seeds")
    if int(last) - int(first) > MOST_TRACKS:
        raise click.BadParameter(f"{text!r} are more than {MOST_TRACKS} tracks", param_hint="--seeds")
    return list(range(int(first), int(last)))
