"""The commands that errors recommend can be typed, and act on the run that the error was about."""

import ast
import doctest
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from wm.main import COMMANDS, cli

import worldmodels
from worldmodels import hints
from worldmodels.executors import worker
from worldmodels.planning import Task

ROOT = Path(worldmodels.__file__).parents[1]


def context(text):
    """The click context of a `wm` command; click's own error if it cannot be typed."""
    _, verb, *words = shlex.split(text)
    command = cli.get_command(click.Context(cli, **cli.context_settings), verb)
    return command.make_context(verb, words, parent=click.Context(cli, **cli.context_settings))


class Person:
    """Types `wm` in a directory of its own, with nothing in the environment, and every option on the command line."""

    def __init__(self, folder, settings):
        self.folder = folder
        (folder / "tiny.toml").write_text(settings)
        self.store = folder / "the store"
        self.where = ("--run", "tiny", "--store", str(self.store), "--config", str(folder / "tiny.toml"))

    def __call__(self, *arguments):
        env = {key: value for key, value in os.environ.items() if not key.startswith("WM_")}
        command = [sys.executable, "-m", "wm", *map(str, arguments)]
        return subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True)

    def acted_elsewhere(self):
        return (self.folder / "runs").exists() or (self.store / "demo").exists()


def recommended(done):
    """Every `wm` command that follows `next:`."""
    said = re.findall(r"next: (.*)$", done.stdout + done.stderr, re.MULTILINE)
    parts = [part for line in said for part in re.split(r", or |, then | \| | > ", line)]
    return [part for part in parts if part.startswith("wm ") and "--help" not in part]


@pytest.fixture
def person(tmp_path, wm):
    return Person(tmp_path, wm.toml.read_text())


@pytest.fixture
def copy(finished, person):
    """The finished run without its last stages."""
    ignored = shutil.ignore_patterns("evaluate", "report")
    shutil.copytree(finished.store, person.store, ignore=ignored)
    return person


def test_a_user_who_follows_the_hints_gets_there(person):
    """From nothing to latents, by the hints alone."""
    todo, typed = [["wm", "run", "latents", *person.where]], 0
    while todo:
        typed += 1
        assert typed < 9
        done = person(*todo[-1][1:])
        if done.returncode == 0:
            todo.pop()
            continue
        (command,) = recommended(done)
        todo.append(shlex.split(command))
    assert {path.name for path in person.store.glob("tiny/iter-1/*/manifest*")} >= {"manifest-all.json"}
    assert not person.acted_elsewhere()


SECOND = ("--iteration", "2")


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "memory", *SECOND),
        ("run", "vae", "-o", "vae.epochs=2"),
        ("run", "vae", "-o", "vae.epoch=2"),
        ("run", "evaluate", *SECOND),
        ("run", "controller", "-o", "controller.start_from=9", "-o", "controller.generations=12", "--redo"),
        ("run", "rollouts", *SECOND, "-o", "rollouts.controller=7"),
        ("run", "vae", *SECOND),
        ("show", "evaluate"),
        ("show", "a/b"),
        ("logs", "report"),
        ("logs", "vae", *SECOND),
        ("evaluate", *SECOND),
        ("ls", "another"),
        ("run", "latents", "-o", "latents.episodes=0:3"),
    ],
)
def test_what_is_recommended_acts_on_the_same_run(copy, arguments):
    verb, where = arguments[0], copy.where
    if verb in ("ls", "show", "evaluate"):
        where = where[2:4] if verb == "ls" else where[:4]
    done = copy(*arguments, *where)
    commands = recommended(done)
    assert commands, done.stdout + done.stderr
    for command in commands:
        params = context(command).params
        assert params["store_uri"] == str(copy.store), command
        assert params.get("run_name") in ("tiny", None) or verb == "ls", command
        if "files" in params and "--config" in where and not command.startswith("wm config"):
            assert params["files"], command
        if params.get("names") == ():  # all stages: minutes
            continue
        again = copy(*shlex.split(command)[1:])
        assert again.returncode != 2 and "Traceback" not in again.stderr, again.stderr
    assert not copy.acted_elsewhere()


def test_settings_that_were_typed_are_part_of_what_is_recommended(copy):
    done = copy("run", "controller", *copy.where, "--workers", "1", "-o", "seed=1", "-o", "controller.start_from=2",
                "-o", "controller.population=6", "--redo")  # fmt: skip
    (command,) = recommended(done)
    params = context(command).params
    assert params["overrides"] == ("seed=1", "controller.start_from=2", "controller.population=4")
    assert params["workers"] == 1


def test_a_log_recommends_whole_commands():
    task = Task("night", 2, "vae", worldmodels.config.Config())
    where = {"WM_STORE": "s3://bucket/a prefix"}
    assert worker.command("wm logs vae", where, task) == (
        "wm logs vae --run night --store 's3://bucket/a prefix' --iteration 2"
    )
    assert worker.command("wm run vae", where | {"WM_PODS": "1"}, task).startswith("wm submit vae --run night")


def test_what_is_said_stays():
    given = {"--run": ["a"], "--store": ["s"], "--iteration": ["2"], "-o": ["vae.z=1", "kubernetes.context=c"]}
    assert hints.complete("wm run vae --run b --iteration 1 -o vae.z=3", given) == (
        "wm run vae -o kubernetes.context=c --run b --iteration 1 -o vae.z=3 --store s"
    )
    assert hints.complete("wm logs vae", given) == (
        "wm logs vae -o kubernetes.context=c --run a --store s --iteration 2"
    )
    assert hints.complete("df -h .", given) == "df -h ."
    assert hints.complete("wm run vae -o kubernetes.…=…", {}) == "wm run vae -o kubernetes.…=…"


def test_every_command_takes_what_hints_add():
    for name in COMMANDS:
        params = cli.get_command(click.Context(cli, **cli.context_settings), name).params
        takes = {option for param in params for option in param.opts}
        says = set(hints.TAKES.get(name, ()))
        assert says <= takes, name
        left = {"--run", "--store", "--iteration", "--config", "-o"} & takes - says
        assert not left or name in ("cp", "config"), f"{name}: {left}"


@pytest.mark.parametrize("wrong", ["vae.epoch=2", "vae.epochs=-1", "controller.start_from=3"])
def test_what_shows_the_right_settings_does_not_fail_for_the_wrong_ones(copy, wrong):
    path = copy.store / "tiny/iter-1/config.json"
    stored = json.loads(path.read_text())
    del stored["checksum"]
    stored["config"]["controller"]["start_from"] = 99  # as earlier versions remembered a refused command's settings
    path.write_text(json.dumps(stored))
    (command,) = recommended(copy("run", "vae", *copy.where, "-o", wrong))
    assert copy(*shlex.split(command)[1:]).returncode == 0
    assert copy("run", "vae", *copy.where, "-o", "controller.start_from=none").returncode == 0


def literals():
    """Every `next=` of the sources that begins with `wm`, with 1 for what is filled in."""
    for path in [*ROOT.glob("worldmodels/**/*.py"), *ROOT.glob("cli/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "next":
                parts = node.value.values if isinstance(node.value, ast.JoinedStr) else [node.value]
                text = "".join(part.value if isinstance(part, ast.Constant) else "1" for part in parts)
                found = (part for part in re.split(r", or |, then | \| | > ", text) if part.startswith("wm "))
                yield from (part for part in found if "--help" not in part and "wm cp" not in part)


@pytest.mark.parametrize("text", sorted(set(literals())))
def test_every_recommended_command_can_be_typed(text):
    context(text)


def test_the_examples_of_completion():
    assert not doctest.testmod(hints).failed
