"""The pages: a site without broken links, and a tutorial whose commands work."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from command import TINY
from wm.main import cli

ROOT = Path(__file__).parents[1]
TUTORIAL = (ROOT / "docs/tutorial_laptop.md").read_text()
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```$", TUTORIAL, re.DOTALL | re.MULTILINE)
LINES = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]


def test_the_site_has_no_broken_link(tmp_path):
    pytest.importorskip("sphinx", reason="make lock and make install bring the extra docs")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", tmp_path / "read", ROOT / "docs"]
    done = subprocess.run([*command, tmp_path / "site"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages <= {path.stem for path in (tmp_path / "site").glob("*.html")}


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("wm ") and line != "wm --version"])
def test_a_command_of_the_tutorial_can_be_typed(line):
    _, verb, *words = shlex.split(line)
    top = click.Context(cli, **cli.context_settings)
    assert cli.get_command(top, verb).make_context(verb, words, parent=top)


@pytest.mark.slow
def test_every_command_of_the_tutorial_works(tmp_path):
    """In a folder of its own, with settings that take seconds; pip may install nothing."""
    (tmp_path / "tiny.toml").write_text(TINY)
    bin = Path(sys.executable).parent
    typed = {"python3 -m venv .venv": "true", "source .venv/bin/activate": "true"}  # this environment is the tutorial's
    assert len(LINES) > 15 and set(typed) <= set(LINES)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WM_")}
    environment |= {"PATH": f"{bin}:{environment['PATH']}", "WM_CONFIG": "tiny.toml", "PIP_NO_INDEX": "1"}
    for line in LINES:
        done = subprocess.run(
            typed.get(line, line), shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, (line, done.stdout[-2000:], done.stderr[-2000:])
    for kind, text in BLOCKS:
        if kind == "python":
            command = [sys.executable, "-c", text.replace("terminated or truncated", "True")]  # one step
            subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    made = re.findall(r"--(?:to|write) (\S+)", TUTORIAL)
    assert made and all((tmp_path / name).exists() for name in made)
