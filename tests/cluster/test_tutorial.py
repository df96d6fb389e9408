"""docs/tutorial_cluster.md on a real cluster: each of its commands, in its order, with settings that take seconds."""

import os
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from command import TINY
from pages import ROOT, Page
from receiver import receiving

from worldmodels.stages import STAGES

PAGE = Page.named("tutorial_cluster")
# The commands that this test types otherwise, and how. Its k8s/base names another namespace than wm.
INSTEAD = {
    "make install": "true",  # this environment is the tutorial's
    "source .venv/bin/activate": "true",
    "make build-images push-images TENSORFLOW=cpu REGISTRY=registry.example/wm": "true",  # WM_IMAGE_CPU, WM_IMAGE_GPU
    "export WM_STORE=s3://my-bucket/tutorial": "export WM_STORE={WM_STORE}",
    "export AWS_REGION=eu-central-1": "export AWS_REGION={AWS_REGION} AWS_ENDPOINT_URL_S3={AWS_ENDPOINT_URL_S3}",
    "export AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…":
        "export AWS_ACCESS_KEY_ID={AWS_ACCESS_KEY_ID} AWS_SECRET_ACCESS_KEY={AWS_SECRET_ACCESS_KEY}",
    "export WM_CONFIG=images.toml:cluster.toml": "export WM_CONFIG=images.toml:cluster.toml:smaller.toml",
    "export WM_NOTIFY=https://chat.example/hooks/…": "export WM_NOTIFY='{hook}'",
    "wm board --open": "timeout --signal INT --preserve-status 10 wm board; test $? = 130",  # Ctrl-C, and no browser
}  # fmt: skip
# The page says that these commands print this.
SEEN = {
    "kubectl auth can-i create namespaces": "yes",
    "wm doctor": "ok",
    "wm doctor --cluster": "checks of the bucket hold from there",
    "wm submit rollouts --preset demo --dry-run server": "the cluster would take it",
    "wm submit rollouts --preset demo": "is submitted",
    "wm submit rollouts": "no Job is needed",
    "wm cancel controller": "is deleted",
    "wm attach pipeline": "score:",
}
LATER = ("wm logs controller --file rewards.csv",)  # after the first generation
SMALLER = """
[kubernetes]
namespace = "{namespace}"
s3_endpoint = "{AWS_ENDPOINT_URL_S3}"
s3_region = "{AWS_REGION}"
"""


@pytest.fixture
def reader(wm, tmp_path):
    """A reader in a folder like the checkout, whose commands run as in one shell; gives a function of a line."""
    names = {**wm.more, "namespace": f"wm-test-{uuid.uuid4().hex[:8]}"}
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    base = tmp_path / "k8s/base/kustomization.yaml"
    base.write_text(base.read_text().replace("namespace: wm\n", f"namespace: {names['namespace']}\n"))
    for name, text in PAGE.files.items():
        (tmp_path / name).write_text(text)
    resources = "".join((wm.toml.parent / "cluster.toml").read_text().partition("[kubernetes.resources]")[1:])
    tiny = TINY.replace("generations = 3", "generations = 40")  # long enough to be scaled
    (tmp_path / "smaller.toml").write_text(tiny + SMALLER.format(**names) + resources)
    images = [f'image_{kind} = "{os.environ[f"WM_IMAGE_{kind.upper()}"]}"' for kind in ("cpu", "gpu")]
    (tmp_path / "images.toml").write_text("\n".join(["[kubernetes]", *images, ""]))
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("WM_", "AWS_"))}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    exported: list[str] = []

    def type(line):
        words = INSTEAD[line].format(**names) if line in INSTEAD else line
        words = words.replace("kubectl -n wm ", f"kubectl -n {names['namespace']} ")
        script = "\n".join([*exported, words])
        if line.startswith("export "):
            exported.append(words)
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        return done.returncode, done.stdout, done.stderr

    type.folder, type.names = tmp_path, names
    yield type
    subprocess.run(["kubectl", "delete", "namespace", names["namespace"], "--ignore-not-found", "--wait=false"])


def test_every_command_of_the_tutorial_works(reader, until):
    assert len(PAGE.lines) > 30 and {*INSTEAD, *SEEN, *LATER} <= set(PAGE.lines)
    assert all(f"`{words}`" in PAGE.text for words in SEEN.values())
    with receiving() as receiver:
        reader.names["hook"] = receiver.url
        for line in PAGE.lines:
            code, said, errors = until(lambda line=line: passed(reader, line))
            assert code == 0, (line, said[-2000:], errors[-2000:])
            assert SEEN.get(line, "") in said, (line, said)
            if line == "wm attach pipeline":
                states = reader("wm status demo")[1]
                assert states.count(" committed ") == len(STAGES) and " complete" in states
    posted = [(each["stage"], each["event"]) for each in receiver.got]
    assert posted[:4] == [*((stage, "committed") for stage in ("vae", "latents", "memory")), (None, "finished")]
    assert posted[-1] == (None, "finished") and len(posted) > 4
    made = [*re.findall(r"--to (\S+\.\w+)", "\n".join(PAGE.lines)), "report.html", "runs/demo/iter-1/report"]
    assert all((reader.folder / name).exists() for name in made)


def passed(reader, line):
    """The outcome of a command; None for one that has to wait, and did not work yet."""
    outcome = reader(line)
    return None if outcome[0] and line in LATER else outcome
