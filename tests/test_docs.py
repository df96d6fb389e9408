"""The pages: a site without broken links, and tutorials whose commands work (tests/cluster/ has the other half)."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import kustomize
import pytest
from command import TINY
from pages import Page
from wm import render
from wm.main import cli
from wm.options import RunOptions

from worldmodels.config import resolve
from worldmodels.stages import STAGES

ROOT = Path(__file__).parents[1]
LAPTOP, CLUSTER = Page.named("tutorial_laptop"), Page.named("tutorial_cluster")
TYPED = [line for line in (*LAPTOP.lines, *CLUSTER.lines) if line.startswith("wm ") and line != "wm --version"]


def test_the_site_has_no_broken_link(tmp_path):
    pytest.importorskip("sphinx", reason="make lock and make install bring the extra docs")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", tmp_path / "read", ROOT / "docs"]
    done = subprocess.run([*command, tmp_path / "site"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages <= {path.stem for path in (tmp_path / "site").glob("*.html")}


@pytest.mark.parametrize("line", TYPED)
def test_a_command_of_a_tutorial_can_be_typed(line):
    _, verb, *words = shlex.split(line)
    top = click.Context(cli, **cli.context_settings)
    assert cli.get_command(top, verb).make_context(verb, words, parent=top)


def test_the_clusters_settings_and_manifests_fit_together(tmp_path):
    """The page's files are valid, its namespace, Secret and paths exist, and its Jobs ask for no GPU."""
    for number, text in enumerate(text for kind, text in CLUSTER.blocks if kind == "toml"):
        (tmp_path / f"{number}.toml").write_text(text)
    settings = resolve("demo", sorted(tmp_path.iterdir()), ())[0].kubernetes
    (secret,) = re.findall(r"kubectl -n (\S+) create secret generic (\S+) ", "\n".join(CLUSTER.lines))
    assert (settings.namespace, settings.s3_secret) == secret
    made = kustomize.build(ROOT / "k8s/base")
    assert settings.namespace in {each["metadata"]["name"] for each in made if each["kind"] == "Namespace"}
    options = RunOptions("s3://my-bucket/tutorial", files=tuple(sorted(tmp_path.iterdir())))
    jobs = [render.text(what, options) for what in (*STAGES, "pipeline")]
    assert all("name: wm-s3" in job and "nvidia.com/gpu:" not in job for job in jobs)


def test_make_knows_the_tutorials_targets():
    asked = {word for line in CLUSTER.lines if line.startswith("make ") for word in line.split()[1:] if "=" not in word}
    assert asked and asked <= set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.slow
def test_every_command_of_the_laptops_tutorial_works(tmp_path):
    """In a folder of its own, with settings that take seconds; pip may install nothing."""
    (tmp_path / "tiny.toml").write_text(TINY)
    bin = Path(sys.executable).parent
    (every,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["all"]
    typed = {
        "python3 -m venv .venv": "true",  # this environment is the tutorial's
        "source .venv/bin/activate": "true",
        "pip install 'world-models-carracing[all]'": f"pip install '{every.replace('mlflow,', '')}'",  # not locked
    }
    assert len(LAPTOP.lines) > 15 and set(typed) <= set(LAPTOP.lines)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WM_")}
    environment |= {"PATH": f"{bin}:{environment['PATH']}", "WM_CONFIG": "tiny.toml", "PIP_NO_INDEX": "1"}
    for line in LAPTOP.lines:
        done = subprocess.run(
            typed.get(line, line), shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, (line, done.stdout[-2000:], done.stderr[-2000:])
    for kind, text in LAPTOP.blocks:
        if kind == "python":
            command = [sys.executable, "-c", text.replace("terminated or truncated", "True")]  # one step
            subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    made = re.findall(r"--(?:to|write) (\S+)", LAPTOP.text)
    assert made and all((tmp_path / name).exists() for name in made)
