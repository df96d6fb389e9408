"""A failing worker's messages: to a laptop's user, and in a pod's log."""

import logging
import os
import subprocess
import sys

import pytest

from worldmodels.config import resolve
from worldmodels.context import ProgressReporter
from worldmodels.planning import Task


@pytest.mark.parametrize(("pods", "said"), [({"WM_PODS": "4"}, "next: wm submit"), ({}, "next: wm run")])
def test_in_a_pod_what_comes_next_is_submitted(pods, said, tmp_path):
    task = Task("demo", 1, "controller", resolve("demo")[0])
    work = {"WM_TASK": task.to_json(), "WM_STORE": str(tmp_path)}
    command = [sys.executable, "-m", "worldmodels.executors.worker"]
    done = subprocess.run(command, env={**os.environ, **work, **pods}, capture_output=True, text=True)
    assert done.returncode == 11
    assert said in done.stdout


def test_the_time_left_of_work_that_is_gone_on_with_follows_from_what_is_done_now(caplog):
    moments = iter([0.0, 10.0])
    reporter = ProgressReporter(logging.getLogger("reporter"), log_seconds=0.0, clock=lambda: next(moments))
    with caplog.at_level(logging.INFO, "reporter"):
        reporter(80, 100, "steps", 1.0, {})
        reporter(90, 100, "steps", 1.0, {})
    assert caplog.messages[-1] == "90 of 100 steps  1/s  0:10 left"
