"""`wm diff`: settings first, then results, then software."""

import json
import shutil

import pytest
import small_run
from click.testing import CliRunner
from wm.main import cli

from worldmodels.errors import ConfigError, CorruptArtifact, MissingInput
from worldmodels.upkeep import comparing


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("diff")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("small", "other"):
            patch.setattr(small_run, "RUN", name)
            found = small_run.build(root / "store", root / name)
    return found


@pytest.fixture
def changed(store, monkeypatch):
    """The store, with another seed, track and version in the second run's manifests."""
    real = comparing.artifacts.manifests

    def manifests(store, name):
        found = real(store, name)
        if name.run == "other":
            for each in found:
                each["config"]["seed"], each["made"]["versions"] = 2, {"numpy": "2.1"}
                each["digest"] = "f" * 64
        return found

    monkeypatch.setattr(comparing.artifacts, "manifests", manifests)
    return store


def wm(store, *words):
    return CliRunner().invoke(cli, ["diff", *words, "--store", store.uri], catch_exceptions=False)


def test_a_run_equals_itself(store):
    found = comparing.compare(store, *(comparing.find(store, "small") for _ in "ab"))
    assert not found.settings and not found.made and all(pair.same for pair in found.results)
    assert [pair.name for pair in found.results][:2] == ["iter-1/rollouts", "iter-1/vae"]
    assert "settings: no difference" in wm(store, "small", "small").output


def test_settings_results_and_software_that_differ_are_named_once(changed, monkeypatch):
    scores = {"mean": 15.75, "std": 1.0, "scores": [{"track": 300_000_000 + i, "score": 10.5 * i} for i in range(4)]}
    better = {**scores, "mean": 17.75, "scores": [{**row, "score": row["score"] + 2} for row in scores["scores"]]}
    found = {"f" * 64: better}
    monkeypatch.setattr(comparing.artifacts, "stored_scores", lambda store, m: found.get(m["digest"], scores))
    lines = [line.split() for line in wm(changed, "small", "other").output.splitlines()]
    assert lines[0] == ["small", "other"]
    assert lines[1:3] == [["settings"], ["seed", "1", "2"]]
    assert ["mean", "15.8", "17.8"] in lines
    assert ["on", "the", "same", "4", "tracks:", "+2.0", "(95", "%", "interval", "+2.0", "to", "+2.0)"] in lines
    assert lines[-2:] == [["software", "and", "processors"], ["numpy", "2.0", "2.1"]]
    told = json.loads(wm(changed, "small/iter-1/vae", "other/iter-1/vae", "--json").output)
    assert told["settings"] == [{"name": "seed", "left": 1, "right": 2}]
    assert [(each["name"], each["same"]) for each in told["results"]] == [("vae", False)]


def test_an_artifact_that_one_side_lacks_differs(store):
    found = comparing.find(store, "small")
    (pair,) = (p for p in comparing.compare(store, found, {}).results if p.name == "iter-1/vae")
    assert not pair.same and pair.right is None


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("small", "small/iter-1"), ConfigError),
        (("small/iter-1/vae", "small/iter-1/memory"), ConfigError),
        (("small", "none"), MissingInput),
        (("small/iter-7", "small/iter-1"), MissingInput),
        (("small/iter-1/no", "small/iter-1/no"), ConfigError),
        (("../small", "../small"), ConfigError),
    ],
)
def test_sides_that_cannot_be_compared(store, words, error):
    with pytest.raises(error):
        wm(store, *words)


def test_damaged_bytes_are_an_error(store, tmp_path):
    shutil.copytree(store.root, tmp_path / "store")
    for path in (tmp_path / "store" / "other").rglob("vae/manifest*.json"):
        path.write_text("{")
    from worldmodels.store import LocalStore

    with pytest.raises(CorruptArtifact):
        wm(LocalStore(tmp_path / "store"), "small", "other")
