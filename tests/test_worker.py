"""What a worker says when it fails: to a laptop's user, and in a pod's log."""

import os
import subprocess
import sys

import pytest

from worldmodels.config import resolve
from worldmodels.runner import Task


@pytest.mark.parametrize(("pods", "said"), [({"WM_PODS": "4"}, "next: wm submit"), ({}, "next: wm run")])
def test_in_a_pod_what_comes_next_is_submitted(pods, said, tmp_path):
    task = Task("demo", 1, "controller", resolve("demo")[0])
    work = {"WM_TASK": task.to_json(), "WM_STORE": str(tmp_path)}
    command = [sys.executable, "-m", "worldmodels.executors.worker"]
    done = subprocess.run(command, env={**os.environ, **work, **pods}, capture_output=True, text=True)
    assert done.returncode == 11
    assert said in done.stdout
