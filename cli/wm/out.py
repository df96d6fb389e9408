"""The one way to a terminal: text that a store, a pod or an event has given is shown, and steers nothing."""

import click

from worldmodels.terminal import plain


def echo(text: object = "", *, mark: str = "", err: bool = False, nl: bool = True) -> None:
    """Print text with everything escaped that a terminal would obey, but for ends of lines and tabs.

    `mark` goes before it as it is, and may be coloured: it is never anybody else's text. A single value that must not
    begin lines of its own goes through `plain` first.
    """
    click.echo(mark + plain(text, keep="\n\t"), err=err, nl=nl)  # noqa: TID251 - the one place
