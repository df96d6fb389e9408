"""The recipes of docs/extending.md, with the code that stands there."""

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from textwrap import indent

import pytest
import small_run

from worldmodels import planning
from worldmodels.config import resolve
from worldmodels.planning import Task
from worldmodels.store import LocalStore

ROOT = Path(__file__).parents[1]
BLOCKS = dict(re.findall(r"^```python (.+?)\n(.*?)^```$", (ROOT / "docs/extending.md").read_text(), re.DOTALL | re.M))
# Where the recipe puts a block: before this text; and what stands between them.
PLACES = {
    "worldmodels/config/models.py: section": ("class Execution(Section):", "\n\n\n"),
    "worldmodels/config/models.py: field": ("    execution: Execution = Execution()", "\n"),
    "worldmodels/stages.py: entry": ('        Stage(\n            name="report",', ",\n"),
}


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """Run a command line in a copy of the code that has the recipe's stage, and a small run to apply it to."""
    code, store = tmp_path_factory.mktemp("code"), tmp_path_factory.mktemp("store")
    for package in ("worldmodels", "cli"):
        shutil.copytree(ROOT / package, code / package)  # with the compiled renderer in __pycache__
    for where, text in BLOCKS.items():
        path, _, part = where.partition(": ")
        if part:
            after, between = PLACES[where]
            depth, whole = len(after) - len(after.lstrip()), (code / path).read_text()
            assert whole.count(after) == 1
            block = indent(text, " " * depth).rstrip() + between + after
            (code / path).write_text(whole.replace(after, block))
        elif path.endswith(".py"):
            (code / path).write_text(text)
    small_run.build(store, tmp_path_factory.mktemp("scratch"))
    environment = os.environ | {"PYTHONPATH": f"{code}:{code / 'cli'}", "WM_STORE": str(store), "WM_RUN": "small"}

    def call(*arguments):
        done = subprocess.run([sys.executable, *arguments], env=environment, cwd=code, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return lambda *arguments: call("-m", "wm", *arguments), lambda code: call("-c", code)


def test_a_new_stage_is_planned_estimated_run_and_shown(extended):
    wm, python = extended
    assert "returns" in wm("run", "--help") and "[returns]" in wm("config")
    assert re.search(r"^returns +to do$", wm("run", "returns", "--dry-run"), re.M)
    estimate = "from worldmodels.planning import estimate, Task; from worldmodels.config import Config;"
    assert "1 pod, about" in python(f"{estimate} print(estimate.estimate(Task('small', 1, 'returns', Config())))")
    job = wm("render", "returns", "--store", "s3://bucket", "-o", "kubernetes.resources.returns.memory=3Gi")
    assert "memory: 3Gi" in job and "wm-returns-" in job
    wm("run", "returns", "-o", "returns.most=3")
    shown = json.loads(wm("show", "returns", "--json"))["manifests"][0]
    assert list(shown["inputs"]) == ["iter-1/rollouts"] and shown["config"] == {"seed": 1, "returns.most": 3}
    assert list(shown["files"]) == ["returns.json"]
    rows = {row["stage"]: row for row in json.loads(wm("status", "small", "--json"))["stages"]}
    assert rows["returns"]["digest"] == shown["digest"] and rows["report"]["digest"] is None
    assert re.search(r"^returns +nothing to do$", wm("run", "returns", "--dry-run"), re.M)


def test_a_new_executor_runs_tasks_up_to_their_artifacts(tmp_path):
    own = {}
    exec(BLOCKS["executor"], own)
    store, seen = LocalStore(tmp_path), []
    config, _ = resolve("demo", (), ["rollouts.episodes=2", "rollouts.shard_episodes=1", "rollouts.steps=5"])
    tasks = [Task("tiny", 1, "rollouts", config)]

    @contextmanager
    def watch(task):
        seen.append(f"{task.stage} begins")
        yield seen.append
        seen.append(f"{task.stage} ends")

    for _ in range(2):  # the second time, all is committed
        steps = planning.plan(store, tasks)
        planning.check(store, steps)
        planning.execute(store, steps, own["InProcess"](), watch, redo=False)
    assert seen[0] == "rollouts begins" and seen[-1] == "rollouts ends" and seen.count("rollouts begins") == 1
    assert any(re.fullmatch(r"\d+ of \d+ .+", words) for words in seen)
    assert [step.state for step in planning.plan(store, tasks)] == ["committed"]
