"""Options of commands that stay until a run's work is done: where to post its events, and the most it may use."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from wm import options
from wm.out import echo

if TYPE_CHECKING:
    from worldmodels.config.cluster import Prices
    from worldmodels.executors.budget import Limits
    from worldmodels.executors.notices import Notifier

F = TypeVar("F", bound=Callable[..., Any])


def notify(command: F) -> F:
    return click.option(
        "--notify",
        "url",
        envvar="WM_NOTIFY",
        default="",
        metavar="URL",
        help="Post JSON there when a stage or the run ends, fails or waits too long; WM_NOTIFY keeps it out of ps.",
    )(command)


def limits(command: F) -> F:
    """Add --max-hours and --max-cost."""
    command = click.option(
        "--max-cost",
        type=float,
        metavar="X",
        callback=_positive,
        help="Stop once the run has cost that much, at kubernetes.prices.",
    )(command)
    return click.option(
        "--max-hours",
        type=float,
        metavar="H",
        callback=_positive,
        help="Stop as Ctrl-C does once the run has worked for so long, earlier starts included.",
    )(command)


def _positive(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise click.BadParameter(f"{value:g} is not a positive number")
    return value


def limited(hours: float | None, cost: float | None, prices: "Prices") -> "Limits":
    """Return the limits of a command; raise ConfigError for a cost without prices."""
    from worldmodels.executors.budget import Limits

    return Limits(hours, cost, prices)


def check(url: str) -> None:
    """Raise ConfigError unless events could be posted there; an empty URL posts none."""
    from worldmodels.executors import notices

    if url:
        notices.check(url)


@contextmanager
def notifying(url: str, given: options.RunOptions) -> "Iterator[Notifier]":
    """Yield what posts the command's events; post an error that ends the command, but not that it detached."""
    from worldmodels.errors import WmError
    from worldmodels.executors.notices import Notifier

    notifier = Notifier(url, given.store, given.run, lambda words: echo(f"wm: {words}", err=True))
    try:
        yield notifier
    except (click.ClickException, click.exceptions.Exit):
        raise
    except BaseException as error:
        notifier.failed(error, options.complete(error.next) if isinstance(error, WmError) else "")
        raise
    finally:
        notifier.close()
