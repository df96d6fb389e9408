"""The only output to a terminal: it escapes control characters in text from stores, pods and events."""

import click

from worldmodels.terminal import plain


def echo(text: object = "", *, mark: str = "", err: bool = False, nl: bool = True) -> None:
    """Print text with control characters escaped, except for ends of lines and tabs.

    `mark` precedes it unescaped and may be coloured, so it must be a constant. A single value that must not begin lines
    of its own goes through `plain` first.
    """
    click.echo(mark + plain(text, keep="\n\t"), err=err, nl=nl)  # noqa: TID251 - the one place
