"""The generator of `docs/commands.md`: `python -m wm.documentation > docs/commands.md` (`make docs`)."""

import click

from wm.main import COMMANDS, cli

WIDTH = 100


def commands() -> str:
    """Return every command's help as Markdown."""
    top = click.Context(cli, info_name="wm", terminal_width=WIDTH, max_content_width=WIDTH, **cli.context_settings)
    parts = ["# Commands\n\n`make docs` writes this page from the commands' own help.", _block(cli.get_help(top))]
    for name in COMMANDS:
        command = cli.get_command(top, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=top, terminal_width=WIDTH, max_content_width=WIDTH)
        parts += [f"## wm {name}", _block(command.get_help(context))]
    return "\n\n".join(parts) + "\n"


def _block(text: str) -> str:
    return "\n".join(["```", *(line.rstrip() for line in text.splitlines()), "```"])


if __name__ == "__main__":
    print(commands(), end="")
