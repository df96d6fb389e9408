"""Estimates of a stage's cost, before it is submitted."""

import re

import pytest

from worldmodels.config import resolve
from worldmodels.planning import Task
from worldmodels.planning.estimate import estimate, needs
from worldmodels.stages import STAGES


def task(stage, *overrides):
    return Task("demo", 1, stage, resolve("demo", (), overrides)[0])


def test_the_demo_takes_about_as_long_as_it_was_seen_to():
    """On two cores: six minutes of training, one of evaluation."""
    minutes = {stage: STAGES[stage].core_seconds(task(stage).config) / 60 / 2 for stage in STAGES}
    assert minutes.pop("evaluate") == pytest.approx(1.2, rel=0.3)
    assert sum(minutes.values()) == pytest.approx(6, rel=0.3)


def test_more_pods_cost_the_same_and_larger_ones_are_as_many_pod_hours_fewer():
    few, many, large = (estimate(task("controller", f"kubernetes.{o}")) for o in
                        ("pods.controller=2", "pods.controller=64", "resources.controller.cpu=4"))  # fmt: skip
    assert few.pods * few.hours == pytest.approx(many.pods * many.hours)
    assert large.pods * large.hours == pytest.approx(few.pods * few.hours / 4)


def test_it_is_told_in_pod_hours_and_money():
    wanted = ["kubernetes.prices.cpu_hour=0.04", "kubernetes.pods.evaluate=8"]
    assert str(estimate(task("evaluate", *wanted))) == "8 pods, about 0.036 pod-hours × 0.04 = 0.0015"
    assert str(estimate(task("evaluate"))) == "4 pods, about 0.036 pod-hours"


def test_the_time_of_a_gpu_is_unknown():
    assert str(estimate(task("vae", "kubernetes.prices.gpu_hour=2.5"))) == "1 pod, 2.5 an hour"
    assert "about" in str(estimate(task("vae", "kubernetes.gpus=false")))


def test_a_machine_needs_the_time_of_all_tasks_and_the_memory_of_the_largest():
    tasks = [task(stage) for stage in STAGES]
    all_of_them, half = needs(tasks, 2), needs(tasks, 1)
    assert all_of_them.hours == pytest.approx(sum(STAGES[t.stage].core_seconds(t.config) for t in tasks) / 3600 / 2)
    assert half.hours == pytest.approx(2 * all_of_them.hours)
    assert needs(tasks[:1], 2).memory < all_of_them.memory == needs(tasks[1:2], 2).memory
    assert re.fullmatch(r"about 8 minutes on 2 cores, 0.1 GB of disk and .* GB of memory; .*", str(all_of_them))
