import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from wm.examples import examples, write
from wm.main import cli

import worldmodels
from worldmodels.config import resolve
from worldmodels.executors.kubernetes import job_spec
from worldmodels.planning import Task
from worldmodels.stages import STAGES

JOBS = Path(worldmodels.__file__).parents[1] / "k8s" / "jobs"
STORE = "s3://bucket/prefix"


def render(*arguments, store=STORE):
    done = CliRunner().invoke(cli, ["render", *arguments, "--store", store, "--run", "demo"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_rendered_as_it_is_submitted(stage):
    override = "kubernetes.pod_overrides={metadata={annotations={a=\"$(HOME): 'ü'\"}}}"
    config, _ = resolve("laptop", (), [override], iteration=2)
    rendered = yaml.safe_load(render(stage, "--preset", "laptop", "--iteration", "2", "-o", override))
    assert rendered == job_spec.job(Task("demo", 2, stage, config), STORE)


def test_the_pipeline_is_rendered_with_all_its_iterations():
    configs = tuple(resolve("demo", iteration=i)[0] for i in (1, 2, 3))
    rendered = yaml.safe_load(render("pipeline", "--iterations", "3"))
    assert rendered == job_spec.pipeline_job(job_spec.Pipeline("demo", configs), STORE)


def test_the_first_line_says_how_to_make_it_again_and_send_it(tmp_path):
    (tmp_path / "my.toml").write_text("seed = 9")
    text = render("vae", "--config", str(tmp_path / "my.toml"), "-o", "vae.epochs=3", "--iteration", "2")
    command, _, send = text.splitlines()[0].removeprefix("# ").partition(" | ")
    assert send == "kubectl create -f -"
    assert CliRunner().invoke(cli, shlex.split(command)[1:]).stdout == text


def test_neither_cluster_nor_store_is_needed():
    code = "import sys, wm.main; wm.main.cli(sys.argv[1:], standalone_mode=False); print('#', *sys.modules)"
    command = [sys.executable, "-c", code, "render", "controller", "--store", "s3://no-such-bucket"]
    modules = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1].split()
    assert "yaml" in modules
    assert not {"kubernetes", "boto3", "numpy", "tensorflow", "gymnasium", "cma"} & set(modules)


def test_the_examples_are_what_is_submitted():
    stored = {path.name: path.read_text() for path in JOBS.iterdir()}
    assert stored == examples(), "stale: make manifests"
    assert set(stored) == {f"{name}.yaml" for name in (*STAGES, "pipeline")}


def test_an_example_of_what_is_no_more_is_removed(tmp_path):
    (tmp_path / "gone.yaml").touch()
    write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(examples())
