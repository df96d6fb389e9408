"""Controllers of other architectures, evolved and driven by real commands."""

import json

import numpy as np
import pytest

from worldmodels.artifacts import Artifact, FileSet, Name, Reading
from worldmodels.config import Architecture
from worldmodels.errors import CorruptArtifact
from worldmodels.store import LocalStore

SEES_Z = ("-o", "controller.inputs=z", "-o", "controller.hidden=5")


def manifest(wm, stage):
    return json.loads(wm("show", stage, "--json").stdout)["manifests"][-1]


def test_everything_drives_with_the_controller_that_was_evolved(copy):
    wm = copy
    before = wm.digests()
    wm.ok("controller", "evaluate", *SEES_Z, "--redo")
    made = manifest(wm, "controller")
    assert {made["config"]["controller.inputs"], made["config"]["controller.hidden"]} == {"z", 5}
    mean = np.load(wm.store / made["files"]["mean.npy"]["key"])
    assert mean.shape == ((8 + 1) * 5 + (5 + 1) * 3,)
    scores = json.loads(wm("evaluate", "--seeds", "300000000:300000001", "--json").stdout)
    assert scores["scored"]["controller"] == made["digest"] and scores["tracks"] == 1
    wm.ok("rollouts", "--iteration", "2")  # its manifest decides, whatever a later setting says
    wm.ok("report", "--redo")
    assert "cannot be made" not in (wm.store / "tiny/iter-1/report/live/report.html").read_text()
    wm.ok("controller", "-o", "controller.inputs=z h", "-o", "controller.hidden=0", "--redo")
    assert [row for row in before.items() if "controller" in row[0]] == [
        row for row in wm.digests().items() if "controller" in row[0]
    ]


def artifact(tmp_path, **config):
    store = LocalStore(tmp_path)
    files = FileSet(store, Reading(tmp_path), "files", {}, "wm run controller --redo")
    return Artifact(Name("run", 1, "controller"), {"config": config}, files, ())


def test_a_manifest_without_an_architecture_has_the_first_one(tmp_path):
    assert artifact(tmp_path, seed=1).architecture == Architecture()


@pytest.mark.parametrize(
    "wrong", [{"controller.hidden": -1}, {"controller.inputs": ["z"]}, {"controller.network": "os:system"}]
)
def test_a_manifests_architecture_is_not_trusted(tmp_path, wrong):
    with pytest.raises(CorruptArtifact, match=next(iter(wrong))) as refused:
        artifact(tmp_path, **wrong).architecture  # noqa: B018
    assert refused.value.next
