"""The images' lock files, Dockerfiles and tools. The build checks the contents of images (`smoke.py`)."""

import ast
import contextlib
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import worldmodels
from worldmodels import planning
from worldmodels.artifacts import provenance
from worldmodels.config import Config

ROOT = Path(worldmodels.__file__).parents[1]
EXTRAS = {
    "laptop": ("play", "train", "report", "s3", "kubernetes", "dev", "sbom"),
    "cpu": ("play", "report", "s3", "kubernetes"),
    "gpu-cpu": ("train", "s3"),
    "gpu-cuda": ("gpu", "s3"),
}
DOCKERFILES = ("Dockerfile.cpu", "Dockerfile.gpu")


def text(lock: str) -> str:
    return (ROOT / f"images/requirements.{lock}.txt").read_text()


def wanted_here(requirement: Requirement, extras: Iterable[str] = ()) -> bool:
    """Whether Python 3.11 on Linux x86-64 gets it, as a requirement of a package with these extras."""
    here = {
        "python_full_version": "3.11.9",
        "python_version": "3.11",
        "sys_platform": "linux",
        "platform_machine": "x86_64",
    }
    marker = requirement.marker
    return marker is None or any(marker.evaluate({**here, "extra": extra}) for extra in ("", *extras))


def locked(lock: str) -> dict[str, str]:
    """Version by package, of those that Python 3.11 on Linux gets."""
    found = [Requirement(line) for line in re.findall(r"^(\S+==[^\\\n]*)", text(lock), re.MULTILINE)]
    return {r.name: str(r.specifier)[2:] for r in found if wanted_here(r)}


def instructions(dockerfile: str, name: str) -> list[str]:
    lines = re.sub(r"\\\n", "", (ROOT / dockerfile).read_text()).splitlines()
    return [line.removeprefix(f"{name} ") for line in lines if line.startswith(f"{name} ")]


@pytest.mark.parametrize("lock", EXTRAS)
def test_a_lock_file_has_everything_that_its_image_asks_for(lock):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [r for extra in EXTRAS[lock] for r in project["optional-dependencies"][extra]]
    versions = locked(lock)
    for requirement in filter(wanted_here, map(Requirement, wanted)):
        assert requirement.specifier.contains(versions[requirement.name]), requirement


def closure(requirements: list[str]) -> set[str]:
    """The names of these packages and of all that they require, as far as they are installed here."""
    found: set[str] = set()
    todo = list(filter(wanted_here, map(Requirement, requirements)))
    while todo:
        requirement = todo.pop()
        if requirement.name not in found:
            found.add(requirement.name)
            with contextlib.suppress(metadata.PackageNotFoundError):
                needs = map(Requirement, metadata.requires(requirement.name) or ())
                todo += [each for each in needs if wanted_here(each, requirement.extras)]
    return set(map(canonicalize_name, found))


def imported(pattern: str) -> set[str]:
    nodes = [node for path in ROOT.glob(pattern) for node in ast.walk(ast.parse(path.read_text()))]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"worldmodels", "wm"}


@pytest.mark.parametrize(("pattern", "extra"), [
    ("cli/wm/*.py", None), ("worldmodels/*.py", None), ("worldmodels/executors/kubernetes/*.py", "kubernetes"),
    ("worldmodels/store/s3/*.py", "s3"), ("worldmodels/reports/*.py", "report"), ("worldmodels/envs/*.py", "play"),
    ("worldmodels/control/*.py", "play"), ("worldmodels/vision/*.py", "train"), ("worldmodels/memory/*.py", "train"),
])  # fmt: skip
def test_an_extra_brings_every_package_that_its_modules_import(pattern, extra):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    there = closure(project["dependencies"] + (project["optional-dependencies"][extra] if extra else []))
    sources = metadata.packages_distributions()
    names = imported(pattern)
    assert names
    missing = {name for name in names if not there & {canonicalize_name(each) for each in sources[name]}}
    assert not missing


@pytest.mark.parametrize("lock", [*EXTRAS, "build"])
def test_everything_locked_has_hashes_and_no_index_is_named(lock):
    blocks = re.split(r"^(?=\S+==)", text(lock), flags=re.MULTILINE)[1:]
    assert blocks and all("--hash=sha256:" in block for block in blocks)
    assert not re.search(r"https?:|index-url|find-links", text(lock))


@pytest.mark.parametrize("lock", ["cpu", "gpu-cpu", "gpu-cuda", "build"])
def test_images_and_laptops_run_the_same_versions(lock):
    laptop = locked("laptop") | {"tensorflow": locked("laptop")["tensorflow-cpu"]}
    assert {n: v for n, v in locked(lock).items() if n in laptop and laptop[n] != v} == {}
    assert {n for n in locked(lock) if n not in laptop and not n.startswith("nvidia-")} == set()


def test_wm_cpu_gets_no_tensorflow():
    assert not [n for n in locked("cpu") if re.match("tensorflow|keras|nvidia", n)]
    assert not [n for n in locked("gpu-cpu") if n.startswith("nvidia")]


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_images_start_from_a_full_name_and_run_wm_as_nobody(dockerfile):
    first, *others = instructions(dockerfile, "FROM")
    assert first == "${BASE} AS base"
    assert re.match(r"BASE=docker\.io/library/python:3\.11\S*$", instructions(dockerfile, "ARG")[0])
    assert all(other.split()[0] == "base" for other in others)
    assert instructions(dockerfile, "USER") == ["65532:65532"]
    assert [json.loads(text) for text in instructions(dockerfile, "ENTRYPOINT")] == [["wm"]]


def test_both_images_hold_the_same_code():
    stages = [re.search(r"^FROM base AS code\n.*?^$", (ROOT / d).read_text(), re.M | re.S) for d in DOCKERFILES]
    assert stages[0] and stages[1] and stages[0][0] == stages[1][0]


def test_a_container_that_still_imports_stops_when_asked(tmp_path):
    (tmp_path / "wm").mkdir()
    (tmp_path / "wm/__init__.py").touch()
    (tmp_path / "wm/main.py").write_text("import time; print('importing', flush=True); time.sleep(60)")
    process = subprocess.Popen(
        [sys.executable, ROOT / "images/entrypoint.py"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)}, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout and process.stdout.readline() == b"importing\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    process.stdout.close()


@pytest.mark.parametrize(
    ("version", "machine", "words"),
    [
        ((3, 14), ("Linux", "x86_64"), "this is 3.14"),
        ((3, 10), ("Linux", "x86_64"), "this is 3.10"),
        ((3, 12), ("Linux", "aarch64"), "this is Linux aarch64"),
    ],
)
def test_make_stops_at_once_where_packages_have_no_wheels(version, machine, words):
    obstacle = runpy.run_path(str(ROOT / "images/platforms.py"))["obstacle"]
    assert words in obstacle(version, machine)
    assert obstacle((3, 11), ("Linux", "x86_64")) is None
    assert obstacle((3, 13), ("Darwin", "arm64")) is None


def test_an_image_knows_its_revision_without_git(tmp_path):
    (tmp_path / "_revision").write_text("abc123")
    assert provenance.git_revision(tmp_path) == "abc123"


def test_a_stage_in_the_wrong_image_says_so(tmp_path):
    task = planning.Task("tiny", 1, "rollouts", Config())
    (tmp_path / "zstandard.py").write_text("raise ModuleNotFoundError(name='zstandard')")
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"WM_TASK": task.to_json(), "WM_STORE": str(tmp_path / "store"), "PYTHONPATH": paths}
    worker = [sys.executable, "-m", "worldmodels.executors.worker"]
    done = subprocess.run(worker, capture_output=True, text=True, env=env)
    assert done.returncode == 43
    assert "tiny/iter-1/rollouts needs the package zstandard" in done.stdout


def test_trimming_leaves_what_is_used_and_notices_changed_packages(tmp_path):
    trim = runpy.run_path(str(ROOT / "images/trim.py"))["trim"]
    for path in ("data/s3/service.json", "data/ec2/service.json", "session.py"):
        (tmp_path / "botocore" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "botocore" / path).write_bytes(bytes(100))
    assert trim(tmp_path) == [("botocore: other services than S3's", 100)]
    assert sorted(path.name for path in (tmp_path / "botocore").iterdir()) == ["data", "session.py"]
    assert (tmp_path / "botocore/data/s3/service.json").exists()
    with pytest.raises(SystemExit, match="botocore has no other services"):
        trim(tmp_path)


def test_the_smoke_tests_network_is_v():
    from fakes import fix_threads

    from worldmodels.networks import Encoder
    from worldmodels.vision.model import Vae

    fix_threads()
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    mean, logvar = Encoder(ROOT / "images/smoke.tflite")(frames)
    expected = Vae(4, 1 / 32).encode(frames)
    np.testing.assert_allclose(np.stack([mean, logvar]), np.stack(expected), atol=1e-5)


def test_the_smoke_test_of_wm_gpu_follows_the_code():
    """Its half that trains also works in this environment; the other half insists that TensorFlow is absent."""
    command = [sys.executable, "-c", "import smoke; smoke.train()"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": f"{ROOT / 'images'}:{ROOT}"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "what was trained plays: dream" in done.stdout


@pytest.fixture
def images(tmp_path):
    """`images/build.py` among tools that only note what they are asked; gives (exit code, what it says, the notes)."""
    tools = {
        "docker": "exit 1",
        "podman": "exit 1",
        "buildah": 'case "$1" in inspect) echo abc;; push) printf sha256:def > "$4";; esac',
    }

    def run(*arguments, program=ROOT / "images/build.py", **scripts):
        for name, script in (tools | scripts).items():
            (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/notes\n{script}\n')
            (tmp_path / name).chmod(0o755)
        command = [sys.executable, program, *arguments]
        env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
        return done.returncode, done.stdout + done.stderr, (tmp_path / "notes").read_text()

    return run


def test_images_are_built_and_checked_with_the_first_tool_that_works(images):
    code, _, notes = images("build", "--images", "gpu", "--tensorflow", "cpu")
    assert code == 0
    assert re.search(
        r"^buildah build .*-t wm-gpu:dev-cpu .*--build-arg TENSORFLOW=cpu -f Dockerfile.gpu \.$", notes, re.M
    )
    assert re.search(r"^buildah run .*python /opt/wm/smoke.py$", notes, re.M)


def test_the_base_is_one_for_all_images_and_may_be_named_by_digest(images):
    base = (ROOT / "images/base.txt").read_text().strip()
    files = [(ROOT / name).read_text() for name in (*DOCKERFILES, "images/Dockerfile.s3")]
    assert {re.search(r"^ARG BASE=(\S+)$", each, re.M)[1] for each in files} == {base.partition("@")[0]}
    assert f"--build-arg BASE={base} " in images("build", "--images", "cpu")[2]
    assert "--build-arg BASE=host/python@sha256:abc " in images("build", "--base", "host/python@sha256:abc")[2]


@pytest.mark.parametrize("tool", ["buildah", "podman"])
def test_a_base_is_pinned_by_the_digest_that_its_registry_tells(images, tool, tmp_path):
    told = {"buildah": 'test "$1" = inspect && echo sha256:abc; true',
            "podman": 'test "$1" = image && echo host/other@sha256:def host/python@sha256:abc; true'}  # fmt: skip
    shutil.copytree(ROOT / "images", tmp_path / "copy/images", ignore=shutil.ignore_patterns("*.tflite"))
    code, said, _ = images(
        "pin", "--base", "host/python:3.11@sha256:old", "--tool", tool, program=tmp_path / "copy/images/build.py",
        **{tool: told[tool]},
    )  # fmt: skip
    assert code == 0
    assert said.splitlines()[-1] == "host/python:3.11@sha256:abc"
    assert (tmp_path / "copy/images/base.txt").read_text() == "host/python:3.11@sha256:abc\n"


def test_what_a_build_needs_in_a_closed_network_reaches_it_without_passwords_in_sight(images, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy:3128")
    _, said, notes = images(
        "build", "--images", "cpu", "--platform", "linux/arm64", "--index", "https://me:secret@pypi.test/simple"
    )
    (command,) = [line for line in notes.splitlines() if line.startswith("buildah build")]
    assert "--platform linux/arm64" in command
    assert "--build-arg HTTPS_PROXY --build-arg PIP_INDEX_URL" in command
    assert "secret" not in notes + said


def test_a_buildx_builder_in_a_container_hands_over_the_image(images):
    _, _, notes = images("build", "--images", "cpu", docker='test "$1" != buildx || echo v1')
    assert "docker buildx build --load --platform linux/amd64" in notes
    _, _, notes = images("build", "--images", "cpu", docker='test "$1" != buildx')
    assert "docker build --platform linux/amd64" in notes


def test_a_bill_of_materials_names_every_locked_package_and_the_base(images, tmp_path):
    pytest.importorskip("cyclonedx", reason="make lock and make install bring the extra sbom")
    code, said, _ = images(tmp_path / "sbom", buildah="exit 1", program=ROOT / "images/sbom.py")
    assert code == 0, said
    for lock, name in (("cpu", "wm-cpu"), ("gpu-cuda", "wm-gpu")):
        bom = json.loads((tmp_path / f"sbom/{name}.cdx.json").read_text())
        packages = {each["name"]: each["version"] for each in bom["components"] if "pkg:pypi/" in each["purl"]}
        assert packages == locked(lock)
        assert [each["name"] for each in bom["components"] if each["type"] == "container"] == [
            "docker.io/library/python"
        ]


HELD = json.dumps({"python": "3.11.9", "packages": {"/opt/venv/lib/python3.11/site-packages": [["zlib", "1"]]}})


def test_an_image_that_holds_something_else_gets_no_bill(images, tmp_path):
    pytest.importorskip("cyclonedx", reason="make lock and make install bring the extra sbom")
    told = f"""case "$1" in inspect|from) echo abc;; run) test "$5" = python && echo '{HELD}'; true;; esac"""
    code, said, _ = images(tmp_path / "sbom", buildah=told, program=ROOT / "images/sbom.py")
    assert code == 1
    assert "is not what requirements.cpu.txt says" in said and "zlib 1" in said


def test_docker_checks_images_as_a_pod_would_run_them(images):
    _, _, notes = images("build", "--images", "cpu", docker="")
    assert "buildah" not in notes
    assert re.search(r"^docker run --rm --read-only --tmpfs /tmp .*/opt/wm/smoke.py$", notes, re.M)


def test_a_push_with_docker_tells_the_registrys_digest(images, tmp_path):
    script = 'case "$*" in "image inspect "*) echo other/wm-cpu@sha256:abc host/wm-cpu@sha256:def;; esac'
    assert images("push", "--images", "cpu", "--registry", "host/", docker=script)[0] == 0
    assert 'image_cpu = "host/wm-cpu@sha256:def"' in (tmp_path / "images.toml").read_text()


def test_an_image_that_fails_its_smoke_test_fails_the_build(images):
    code, said, _ = images("build", "--images", "cpu", buildah='test "$1" != run')
    assert code == 1
    assert "smoke.py` failed" in said


def test_a_push_names_images_by_digest_in_a_config_file(images, tmp_path):
    code, _, notes = images("push", "--registry", "host:5000/me", "--plain-http")
    assert code == 0
    assert "buildah push --tls-verify=false" in notes
    written = tomllib.loads((tmp_path / "images.toml").read_text())["kubernetes"]
    assert written == {f"image_{kind}": f"host:5000/me/wm-{kind}@sha256:def" for kind in ("cpu", "gpu")}


@pytest.mark.parametrize(
    ("arguments", "scripts", "words"),
    [
        (["build"], {"buildah": "exit 1"}, "docker, podman, buildah none works"),
        (["push"], {}, "next: make push-images REGISTRY="),
        (["push", "--registry", "host"], {"buildah": 'test "$1" != inspect'}, "next: make build-images"),
        (["push", "--registry", "host"], {"buildah": 'test "$1" != push && echo abc'}, "PLAIN_HTTP=1 if it has no TLS"),
    ],
)
def test_what_is_missing_is_named_with_the_next_command(images, arguments, scripts, words):
    code, said, _ = images(*arguments, **scripts)
    assert code == 1
    assert words in said
    assert "Traceback" not in said
