import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import fakes
import pytest

import worldmodels
from worldmodels import stages
from worldmodels.config import Config, resolve
from worldmodels.errors import ConfigError

PLAYING = [name for name in stages.STAGES if name not in ("vae", "memory")]


@pytest.mark.parametrize("text", [t for s in stages.STAGES.values() for t in (s.entrypoint, s.collect, s.check) if t])
def test_every_entrypoint_is_defined(text):
    module, _, function = text.partition(":")
    spec = importlib.util.find_spec(module)
    assert spec and spec.origin
    tree = ast.parse(Path(spec.origin).read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", PLAYING)
def test_what_plays_imports_no_tensorflow(name):
    modules = {t.partition(":")[0] for t in (stages.STAGES[name].entrypoint, stages.STAGES[name].collect) if t}
    code = f"import sys, {', '.join(sorted(modules))}; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    root = Path(worldmodels.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def test_inputs_come_from_earlier_stages_or_iterations():
    order = list(stages.STAGES)
    config, _ = resolve("demo", (), ["memory.warm_start=true"], iteration=2)
    for stage in stages.STAGES.values():
        for name, iteration in stage.inputs(config, 2):
            assert iteration < 2 or order.index(name) < order.index(stage.name)


def test_iteration_two_learns_from_all_rollouts_or_the_latest():
    assert stages.stage("vae").inputs(Config(), 2) == [("rollouts", 1), ("rollouts", 2)]
    latest, _ = resolve("demo", (), ["vae.episodes=latest"])
    assert stages.stage("vae").inputs(latest, 2) == [("rollouts", 2)]


def test_an_unknown_stage_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'memory'"):
        stages.stage("memroy")


def test_help_and_readme_name_every_stage():
    from wm.run import run

    readme = (Path(worldmodels.__file__).parents[1] / "README.md").read_text()
    for name in stages.STAGES:
        assert f"| `{name}` |" in readme
        assert name in (run.help or "")


def test_what_publishing_withheld_is_shown_in_the_end(tmp_path):
    ctx = fakes.context(tmp_path, "vae", {})
    shown: list[bytes] = []
    ctx.follow, ctx.publish_seconds = lambda name, data: shown.append(data), 1000.0
    for text in ("one", "two", "three"):
        (ctx.telemetry / "table.csv").write_text(text)
        ctx.publish("table.csv")
    ctx.publish_rest()
    ctx.publish_rest()
    assert shown == [b"one", b"three"]
