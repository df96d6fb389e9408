"""Entry point: commands are imported when they are called, and errors become one message and an exit code."""

import functools
import importlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import click

from wm.out import echo
from worldmodels import __version__

GROUPS = {
    "On this machine": {
        "run": "wm.run:run",
        "sweep": "wm.sweep:sweep",
        "study": "wm.study:study",
        "evaluate": "wm.evaluate:evaluate",
        "config": "wm.inspection:config",
    },
    "On a cluster": {
        "submit": "wm.jobs:submit",
        "attach": "wm.jobs:attach",
        "scale": "wm.scale:scale",
        "cancel": "wm.jobs:cancel",
        "render": "wm.render:render",
    },
    "Look at runs": {
        "ls": "wm.inspection:ls",
        "show": "wm.inspection:show",
        "diff": "wm.diff:diff",
        "status": "wm.status:status",
        "logs": "wm.logs:logs",
        "board": "wm.board:board",
        "track": "wm.track:track",
    },
    "Out of a store, and in": {
        "drive": "wm.interchange:drive",
        "get": "wm.interchange:get",
        "export": "wm.interchange:export",
        "import": "wm.interchange:import_rollouts",
    },
    "Look after a store": {
        "doctor": "wm.upkeep:doctor",
        "verify": "wm.upkeep:verify",
        "gc": "wm.upkeep:gc",
        "cp": "wm.upkeep:cp",
    },
}
COMMANDS = {name: place for group in GROUPS.values() for name, place in group.items()}

EPILOG = """\b
Environment: WM_STORE (a folder or s3://bucket/prefix; default ./runs), WM_RUN (a run's name), WM_CONFIG (settings).
Exit codes:
  0 done                      14 stored bytes are damaged
  1 a bug in wm               15 the cluster refuses, or is not there
  2 usage                     16 pods found no place in time
  10 committed artifacts      42 no work is left that can succeed
     differ (--redo)          43 wrong setting, stage or name
  11 an input is missing      44 a worker hung and was given up
  12 another command          45 a worker was killed again and again
     works on it              46 --max-hours, --max-cost: a higher limit
  13 store unreadable,        130 Ctrl-C, 143 SIGTERM, SIGHUP: the
     unwritable or full           same command goes on from there
"""


class LazyGroup(click.Group):
    """A group that lists its commands by name and imports a command at its call."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return _load(name) if name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(8), _load(name).get_short_help_str(limit=80)) for name in names])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS:
            import difflib

            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean `wm {close[0]}`?" if close else ""
            raise click.UsageError(f"There is no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


@functools.cache
def _load(name: str) -> click.Command:
    module, _, attribute = COMMANDS[name].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command) and command.callback
    command.callback = _completing(command.callback)
    return command


def _completing(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Let the command's errors recommend commands that act on the same run, store and iteration.

    A missing package becomes an error that names the extra which brings it.
    """

    @functools.wraps(callback)
    def call(*args: Any, **kwargs: Any) -> Any:
        from wm import options
        from worldmodels.errors import WmError, lacking

        try:
            return callback(*args, **kwargs)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in ("worldmodels", "wm"):
                raise
            raise lacking(f"`wm {click.get_current_context().info_name}`", error.name) from error
        except WmError as error:
            error.next = options.complete(error.next)
            raise

    return call


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="wm")
def cli() -> None:
    """Train World Models: a VAE that sees, an MDN-RNN that predicts, a CMA-ES controller that drives CarRacing.

    \b
    wm run --preset demo          everything, from random driving to a score and a report
    wm config --preset laptop     every setting, its value and where it came from
    wm ls                         what is committed
    wm doctor                     whether the store is fit for use
    """


def prepare() -> None:
    """Set the signal handlers of this process, and keep its children from imports of the current directory."""
    from worldmodels.errors import Stopped

    def stop(*_: object) -> None:
        raise Stopped("stopped; the same command goes on from here")

    terminals = [descriptor for descriptor in (0, 1, 2) if os.isatty(descriptor)]

    def hang_up(*_: object) -> None:  # writes to a closed terminal raise errors
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in terminals:
            os.dup2(nowhere, descriptor)
        stop()

    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, hang_up)
    os.environ["PYTHONSAFEPATH"] = "1"  # nothing is imported from the current directory


def main() -> None:
    from wm import machine
    from worldmodels.errors import WmError

    prepare()
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
        if machine.wanted():
            machine.failed(error.format_message(), "wm --help", code, "UsageError")
    except (click.Abort, KeyboardInterrupt):
        echo("\nstopped; the same command goes on from here", err=True)
        code = 130
        if machine.wanted():
            machine.failed("stopped; the same command goes on from here", "", code, "Stopped")
    except WmError as error:
        echo(f"wm: {error.message}", err=True)
        if error.next:
            echo(f"next: {error.next}", err=True)
        code = error.exit_code
        if machine.wanted():
            machine.failed(error.message, error.next, code, type(error).__name__)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        from worldmodels.store.causes import explain

        place = str(error.filename or tempfile.gettempdir())
        reason, command = explain(error, place)
        echo(f"wm: {place}: {reason}\nnext: {command}", err=True)
        code = 13
        if machine.wanted():
            machine.failed(f"{place}: {reason}", command, code, "StoreError")
    sys.exit(code if isinstance(code, int) else 0)
