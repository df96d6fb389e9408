"""The distribution: its name, the extras that errors name, and its wheel."""

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from wm.main import cli

from worldmodels import errors
from worldmodels.artifacts import provenance

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_errors_name_the_distribution_that_pyproject_names():
    assert PROJECT["name"] == errors.DISTRIBUTION


@pytest.mark.parametrize(
    ("package", "extra"),
    [
        ("flask", "board"),
        ("gymnasium", "play"),
        ("tensorflow", "train"),
        ("kubernetes", "kubernetes"),
        ("PyYAML", "kubernetes"),
        ("onnx.helper", "export"),
        ("urllib3", "all"),  # comes with another package
    ],
)
def test_a_missing_package_is_answered_with_an_extra_that_brings_it(package, extra):
    error = errors.lacking("this", package)
    assert package in error.message and error.next == f"pip install '{PROJECT['name']}[{extra}]'"


def test_the_extra_of_all_commands_holds_the_extras_of_each():
    (every,) = PROJECT["optional-dependencies"]["all"]
    tools = {"all", "dev", "sbom", "gpu"}
    assert set(every.partition("[")[2].rstrip("]").split(",")) == PROJECT["optional-dependencies"].keys() - tools


def test_a_command_without_its_package_says_which_extra_brings_it(monkeypatch, tmp_path):
    def opened(uri):
        raise ModuleNotFoundError("No module named 'gymnasium'", name="gymnasium")

    monkeypatch.setattr("worldmodels.store.open_store", opened)
    error = CliRunner().invoke(cli, ["ls", "--store", str(tmp_path)]).exception
    assert isinstance(error, errors.ConfigError) and "`wm ls` needs the package gymnasium" in error.message
    assert error.next.endswith("[play]'")


def test_an_installed_package_does_not_name_the_revision_of_a_repository_around_it(tmp_path):
    (tmp_path / "venv/worldmodels").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    assert provenance.git_revision(tmp_path / "venv/worldmodels") == ""
    assert dict(provenance.versions())["wm"]
