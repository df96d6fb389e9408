"""`wm diff`: how two runs or artifacts differ."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from wm import machine, options
from wm.out import echo
from worldmodels.terminal import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worldmodels.upkeep.comparing import Difference, Pair


@click.command()
@click.argument("left")
@click.argument("right")
@options.gathered(options.store)
@options.as_json
def diff(left: str, right: str, given: options.RunOptions, as_json: bool) -> None:
    """Compare two runs, iterations or artifacts.

    A side is RUN, RUN/iter-N or RUN/iter-N/STAGE. The command lists settings first, then results, then software. Equal
    digests mean equal bytes.

    \b
    wm diff demo laptop
    wm diff demo/iter-1/evaluate demo/iter-2/evaluate --json
    """
    from worldmodels.upkeep import comparing

    comparing.check(left, right)
    sides = comparing.find(given.store, left), comparing.find(given.store, right)
    found = comparing.compare(given.store, *sides)
    if as_json:
        results = [{**asdict(pair), "same": pair.same} for pair in found.results]
        settings, made = ([asdict(each) for each in part] for part in (found.settings, found.made))
        machine.document(left=left, right=right, settings=settings, results=results, made=made)
        return
    echo(f"{'':36}  {plain(left):>20}  {plain(right):>20}")
    _section("settings", found.settings)
    echo("results")
    for pair in found.results:
        _print_pair(pair)
    _section("software and processors", found.made)


def _section(title: str, differences: "Sequence[Difference]") -> None:
    if not differences:
        echo(f"{title}: no difference")
        return
    echo(title)
    for each in differences:
        echo(f"  {plain(each.name):34}  {_value(each.left):>20}  {_value(each.right):>20}")


def _print_pair(pair: "Pair") -> None:
    if pair.same:
        echo(f"  {pair.name:34}  {'same':>20}  {(pair.left or '')[:12]:>20}")
        return
    echo(f"  {pair.name:34}  {_digest(pair.left):>20}  {_digest(pair.right):>20}")
    for each in pair.scores:
        echo(f"    {each.name:32}  {_value(each.left):>20}  {_value(each.right):>20}")
    if pair.paired:
        tracks, mean, low, high = pair.paired
        echo(f"    on the same {tracks} tracks: {mean:+.1f} (95 % interval {low:+.1f} to {high:+.1f})")


def _digest(digest: str | None) -> str:
    return digest[:12] if digest else "not committed"


def _value(value: Any) -> str:
    if value is None:
        return "-"
    return plain(f"{value:.1f}" if isinstance(value, float) and abs(value) >= 10 else str(value))
