"""The distribution: its name, the extras that errors name, its wheel, and a release of it."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from wm.main import cli

import worldmodels
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
    tools = {"all", "dev", "docs", "sbom", "gpu"}
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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run(command, check=True, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    (found,) = folder.iterdir()
    return found


def test_the_wheel_holds_the_packages_and_nothing_else(wheel):
    sources = {
        path.relative_to(base).as_posix(): path
        for base, package in ((ROOT, "worldmodels"), (ROOT / "cli", "wm"))
        for path in (base / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert names == sources.keys()
        assert all(archive.read(name) == path.read_bytes() for name, path in sources.items())
    assert {"worldmodels/py.typed", "worldmodels/board/static/board.js", "worldmodels/reports/templates/report.html",
            "worldmodels/packaged/pretrained/iter-2/vae/manifest.json"} <= names  # fmt: skip
    assert wheel.stat().st_size < 10e6


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The programs' folder of an environment that has the wheel, and of this checkout only its dependencies."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python3.*/site-packages")
    install = ["install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run([sys.executable, "-m", "pip", "--python", folder / "bin/python", *install], check=True)
    dependencies = {str(Path(module.__file__).parents[1]) for module in (pytest, __import__("numpy"))}
    (site / "dependencies.pth").write_text("\n".join(dependencies))
    return folder / "bin"


def test_the_wheel_works_without_the_checkout(installed, tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("WM_", "PYTHON"))}

    def wm(*arguments):
        command = [installed / "wm", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    command = [installed / "python", "-P", "-c", "import worldmodels, wm; print(worldmodels.__file__, wm.__file__)"]
    where = subprocess.run(command, env=environment, capture_output=True, text=True).stdout
    assert str(ROOT) not in where and str(installed.parent) in where
    assert wm("--version") == f"wm, version {worldmodels.__version__}\n"
    assert "rollouts" in wm("run", "--preset", "demo", "--dry-run")
    assert json.loads(wm("evaluate", "--pretrained", "--seeds", "7:8", "--workers", "1", "--json"))["tracks"] == 1
    assert "index.html" in wm("board", "--store", "package:", "--write", "page")
    assert (tmp_path / "page/board.js").exists()
    wm("run", "rollouts", "-o", "rollouts.episodes=2", "-o", "rollouts.shard_episodes=2", "-o", "rollouts.steps=5")
    assert "rollouts" in wm("ls")


@pytest.fixture
def release(tmp_path):
    """A repository of its own with this code, and a function that runs its release."""
    copy, ignored = tmp_path / "copy", shutil.ignore_patterns("__pycache__", ".*_cache")
    for name in ("worldmodels", "cli", "images"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore", "CHANGELOG.md"):
        shutil.copy(ROOT / name, copy)
    (copy / "CHANGELOG.md").write_text(
        f"# Changelog\n\n## {worldmodels.__version__} (today)\n\n- It drives.\n\n## 0.0.1\n\n- It stands.\n"
    )
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]

    def git(*arguments):
        subprocess.run(["git", "-C", copy, *who, *arguments], check=True, capture_output=True)

    def run():
        command = [sys.executable, copy / "images/release.py", "dist", "--images", ""]
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(command, cwd=copy, capture_output=True, text=True, env=environment)

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "all")
    return copy, git, run


def test_a_release_is_made_of_a_tagged_commit(release):
    pytest.importorskip("cyclonedx", reason="make lock and make install bring the extra sbom")
    copy, git, run = release
    git("tag", "--annotate", "--message", "it", f"v{worldmodels.__version__}")
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    wheel, source = sorted((copy / "dist").glob("*.whl")) + sorted((copy / "dist").glob("*.tar.gz"))
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("worldmodels/_revision").decode() == f"v{worldmodels.__version__}"
    notes, sums = ((copy / "dist" / name).read_text() for name in ("notes.md", "SHA256SUMS"))
    assert "- It drives." in notes and "It stands" not in notes and sums.strip() in notes
    listed = dict(reversed(line.split("  ")) for line in sums.splitlines())
    assert {wheel.name, source.name, "sbom/wm-cpu.cdx.json", "sbom/wm-gpu.cdx.json", "sbom/laptop.cdx.json"} <= set(
        listed
    )
    for name, digest in listed.items():
        assert hashlib.sha256((copy / "dist" / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize(
    ("tag", "changelog", "says"),
    [
        (None, None, "HEAD has no tag.*next: git tag --annotate v"),
        ("v0.0.1", None, r"HEAD has v0\.0\.1"),
        ("v{}", "## 0.0.1\n\n- It stands.\n", "CHANGELOG.md has no section `## "),
        ("v{}", "## {}\n\n## 0.0.1\n\n- It stands.\n", "CHANGELOG.md has no section `## .* with text"),
        ("v{}", "## Unreleased\n\n- It jumps.\n\n## {}\n\n- It drives.\n", "still has changes below `## Unreleased`"),
    ],
)
def test_version_change_log_and_tag_must_agree(release, tag, changelog, says):
    copy, git, run = release
    if changelog:
        (copy / "CHANGELOG.md").write_text(changelog.format(worldmodels.__version__))
        git("commit", "--quiet", "--all", "--message", "log")
    if tag:
        git("tag", tag.format(worldmodels.__version__))
    done = run()
    assert done.returncode == 1 and re.search(says, done.stderr, re.DOTALL), done.stderr
    assert not (copy / "dist").exists()


def test_a_release_is_not_made_of_changed_files(release):
    copy, git, run = release
    git("tag", f"v{worldmodels.__version__}")
    (copy / "README.md").write_text("changed")
    done = run()
    assert done.returncode == 1 and "files have changed since the commit: M README.md" in done.stderr
