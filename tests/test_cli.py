import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from wm.main import COMMANDS, cli

import worldmodels


def commands():
    context = click.Context(cli, **cli.context_settings)
    return [(name, cli.get_command(context, name)) for name in COMMANDS]


@pytest.fixture
def wm(tmp_path):
    """Run `wm` with a store of its own; gives (exit code, stdout, stderr)."""

    def run(*arguments, **environment):
        env = os.environ | {"WM_RUN": "", "WM_CONFIG": "", "WM_STORE": str(tmp_path / "store")} | environment
        done = subprocess.run([sys.executable, "-m", "wm", *arguments], capture_output=True, text=True, env=env)
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.mark.parametrize(("name", "command"), commands())
def test_every_command_has_help_with_an_example(name, command):
    assert f"wm {name}" in command.help
    for parameter in command.params:
        assert isinstance(parameter, click.Argument) or parameter.help, f"{name} {parameter.name}"


def test_help_is_quick_and_imports_nothing_heavy():
    code = "import sys, wm.main; wm.main.cli(['--help'], standalone_mode=False); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    assert not {"numpy", "pydantic", "rich", "tensorflow", "cma", "gymnasium", "numba"} & set(modules)


def test_the_summary_of_every_command_is_complete():
    lines = CliRunner().invoke(cli, ["--help"]).output.splitlines()
    summaries = [line for line in lines if line.split() and line.split()[0] in COMMANDS and line.startswith("  ")]
    assert {line.split()[0] for line in summaries} == set(COMMANDS)
    assert all(line.endswith(".") and not line.endswith("...") and len(line) <= 80 for line in summaries)


def test_help_names_every_command_and_exit_code():
    text = CliRunner().invoke(cli, ["--help"]).output
    assert all(name in text for name in COMMANDS)
    assert all(f" {code} " in text for code in (0, 1, 2, 10, 11, 12, 13, 14, 15, 16, 42, 43, 44, 45, 46, 130))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "rolouts"], 43, "did you mean 'rollouts'"),
        (["run", "--preset", "papr"], 43, "did you mean 'paper'"),
        (["run", "-o", "vae.epoch=2"], 43, "did you mean 'vae.epochs'"),
        (["run", "-o", "vae.epochs=-1"], 43, "vae.epochs = -1"),
        (["run", "--config", "missing.toml"], 43, "missing.toml"),
        (["run", "--run", "Bad Name"], 43, "run name 'Bad Name'"),
        (["run", "rollouts", "-o", "rollouts.controller=mean"], 43, "iteration 1"),
        (["run", "--store", "/proc/no", "--preset", "demo"], 13, "/proc/no"),
        (["run", "--store", "gs://bucket"], 43, "gs://bucket"),
        (["run", "memory"], 11, "is not committed"),
        (["show", "vae"], 11, "not committed"),
        (["show", "a/b"], 43, "RUN/iter-N/STAGE"),
        (["logs", "vae"], 11, "has no log"),
        (["evaluate"], 11, "not committed"),
        (["evaluate", "--seeds", "5:1"], 2, "5:1"),
        (["render", "vae", "--store", "./runs"], 43, "cannot reach a folder"),
        (["render", "rolouts", "--store", "s3://bucket"], 43, "did you mean 'rollouts'"),
        (["render", "rollouts", "--store", "s3://bucket", "-o", "rollouts.controller=mean"], 43, "iteration 1"),
        (["render", "pipeline", "--store", "s3://bucket", "-o", "rollouts.controller=mean"], 43, "iteration 1"),
        (["render", "pipeline", "--iteration", "2"], 2, "--iterations"),
        (["render", "vae", "--iterations", "2"], 2, "--iteration N"),
        (["rnu"], 2, "wm run"),
        (["submit", "rollouts"], 43, "cannot reach a folder"),
        (["submit", "rollouts", "-o", "kubernetes.s3_endpoint=http://s3:8333"], 43, "cannot reach a folder"),
        (["submit", "rolouts"], 43, "did you mean 'rollouts'"),
        (["submit", "pipeline", "vae"], 2, "no stage beside it"),
        (["submit", "vae", "--iterations", "2"], 2, "--iteration"),
        (["run", "--max-hours", "0"], 2, "0 is not a positive number"),
        (["run", "--max-cost", "nan"], 2, "nan is not a positive number"),
        (["run", "--max-cost", "5"], 43, "kubernetes.prices.cpu_hour is 0"),
        (["run", "--notify", "ftp://host"], 43, "begins with ftp:"),
        (["submit", "vae", "--max-hours", "5"], 2, "go with `wm submit pipeline`"),
        (["submit", "vae", "--notify", "https://host"], 2, "--notify needs --wait"),
        (["attach", "vaa"], 43, "did you mean 'vae'"),
        (["cancel"], 2, "--all"),
        (["logs", "pipeline"], 11, "no pods"),
        (["status", "-o", "kubernetes.namespace=A"], 43, "kubernetes.namespace"),
        (["scale", "controller"], 2, "--pods N, --pause and --resume"),
        (["scale", "controller", "--pods", "0"], 2, "0 is not in the range"),
        (["scale", "rollouts", "--pods", "9"], 43, "only the controller's come and go"),
    ],
)
def test_bad_input_has_one_message_a_next_command_and_a_documented_code(wm, arguments, code, words):
    got, _, stderr = wm(*arguments)
    assert got == code
    assert words in stderr
    assert "Traceback" not in stderr
    assert code == 2 or stderr.count("next: ") == 1


def test_config_prints_toml_that_config_takes(wm, tmp_path):
    _, text, _ = wm("config", "--preset", "laptop", "-o", "seed=9")
    (tmp_path / "again.toml").write_text(text)
    _, again, _ = wm("config", "--config", str(tmp_path / "again.toml"), "--json")
    _, first, _ = wm("config", "--preset", "laptop", "-o", "seed=9", "--json")
    assert json.loads(again)["config"] == json.loads(first)["config"]
    assert json.loads(first)["origins"]["seed"] == "-o seed=9"


def test_ls_of_an_empty_store_says_what_to_do(wm):
    code, stdout, _ = wm("ls")
    assert code == 0
    assert stdout.startswith("there is no folder ") and "next: wm run --preset demo" in stdout
    Path(stdout.split()[4].rstrip(";")).mkdir()
    assert wm("ls")[1].startswith("nothing is committed in ")
    assert json.loads(wm("ls", "--json")[1]) == {"schema": 1, "artifacts": []}


@pytest.mark.parametrize("name", [n for n, c in commands() if any("--json" in p.opts for p in c.params)])
def test_json_is_one_object_of_a_schema_whatever_happens(wm, name):
    arguments = {
        "evaluate": ["--seeds", "0:1"],
        "show": ["vae"],
        "diff": ["demo", "demo"],
        "submit": ["vae"],
        "attach": ["vae"],
        "run": ["vae", "-o", "x=1"],
    }
    _, stdout, _ = wm(name, *arguments.get(name, []), "--json", KUBECONFIG="/nowhere")
    assert json.loads(stdout)["schema"] == 1


def test_dry_run_changes_nothing(wm, tmp_path):
    code, stdout, _ = wm("run", "--preset", "demo", "--dry-run")
    assert code == 0
    assert "rollouts    to do" in stdout
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("words", "incomplete", "offered"),
    [
        ([], "sub", ["submit"]),
        (["run"], "r", ["rollouts", "report"]),
        (["submit"], "p", ["pipeline"]),
        (["attach"], "v", ["vae"]),
        (["cancel"], "m", ["memory"]),
    ],
)
def test_a_shell_completes_commands_and_stages(words, incomplete, offered):
    shell = ShellComplete(cli, {}, "wm", "_WM_COMPLETE")
    assert [item.value for item in shell.get_completions(words, incomplete)] == offered


def test_status_without_a_cluster_shows_what_the_store_knows(wm, tmp_path):
    (tmp_path / "store" / "demo" / "iter-1").mkdir(parents=True)
    (tmp_path / "store" / "demo" / "iter-1" / "config.json").write_text(json.dumps({"config": {}, "origins": {}}))
    code, stdout, stderr = wm("status", KUBECONFIG="/nowhere")
    assert code == 0
    assert "demo/iter-1/rollouts    not begun" in stdout and "demo/iter-1/vae         not begun" in stdout
    assert "no cluster was asked: there is no kubeconfig: /nowhere" in stderr
    told = json.loads(wm("status", "--json", KUBECONFIG="/nowhere")[1])
    assert [row["digest"] for row in told["stages"]] == [None] * 7


def test_settings_may_come_from_the_environment(wm, tmp_path):
    (tmp_path / "a.toml").write_text("seed = 7")
    (tmp_path / "b.toml").write_text("[vae]\nepochs = 3")
    _, text, _ = wm("config", "--json", WM_CONFIG=f"{tmp_path / 'a.toml'}{os.pathsep}{tmp_path / 'b.toml'}")
    config = json.loads(text)["config"]
    assert (config["seed"], config["vae"]["epochs"]) == (7, 3)


def test_every_next_command_exists():
    sources = [path.read_text() for path in Path(worldmodels.__file__).parents[1].glob("*/**/*.py")]
    suggested = {word for text in sources for word in re.findall(r'next=f?"wm ([a-z]+)', text)}
    assert suggested
    assert suggested <= set(COMMANDS)


def test_the_commands_page_is_what_the_commands_say():
    from wm.documentation import commands

    page = Path(worldmodels.__file__).parents[1] / "docs" / "commands.md"
    assert page.read_text() == commands(), "stale: make docs"
