"""k8s/ on a real cluster, by kubectl: admitted as it is, and with the rights that it promises."""

import json
import os
import re
import secrets
import shutil
import subprocess
from pathlib import Path

import kustomize
import pytest
from wm import render
from wm.options import RunOptions

import worldmodels
from worldmodels.stages import STAGES

pytestmark = pytest.mark.cluster
K8S = Path(worldmodels.__file__).parents[1] / "k8s"
READ = {"get", "list", "watch"}
JOBS = READ | {"create", "delete"}
RIGHTS = {
    "--as=system:serviceaccount:{namespace}:wm-worker": {},
    "--as=system:serviceaccount:{namespace}:wm-pipeline": {
        "jobs.batch": JOBS,
        "pods": READ,
        "pods/log": {"get"},
        "events": {"list"},
        "events.events.k8s.io": {"list"},
        "workloads.kueue.x-k8s.io": {"list"},
        "localqueues.visibility.kueue.x-k8s.io/pendingworkloads": {"get"},
    },
    "--as=somebody --as-group=wm-users": {
        "jobs.batch": JOBS | {"patch"},
        "pods": READ | {"delete"},
        "pods/log": {"get"},
        "events": {"list", "watch"},
        "events.events.k8s.io": {"list", "watch"},
        "workloads.kueue.x-k8s.io": {"list"},
        "localqueues.visibility.kueue.x-k8s.io/pendingworkloads": {"get"},
        "serviceaccounts": {"get", "list"},
        "resourcequotas": {"get", "list"},
        "limitranges": {"get", "list"},
        "namespaces": {"get"},
    },
}


def kubectl(*arguments, stdin=""):
    done = subprocess.run(["kubectl", *arguments], input=stdin, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def ok(*arguments, stdin=""):
    code, said = kubectl(*arguments, stdin=stdin)
    assert code == 0, said
    return said


@pytest.fixture(scope="module")
def overlay(tmp_path_factory):
    """Makes an overlay of parts of k8s/ in a namespace of this module's own; gives its folder."""
    if not shutil.which("kubectl") or kubectl("version")[0]:
        pytest.skip("`kubectl version` fails: no kubectl, or KUBECONFIG leads to no cluster")
    there, namespace = tmp_path_factory.mktemp("overlay"), f"wm-test-{secrets.token_hex(4)}"
    shutil.copytree(K8S, there / "k8s")
    (there / "k8s/overlays/dev-s3/credentials.env").write_text(kustomize.FILES["credentials.env"])

    def make(**parts):
        folder = there / "-".join(parts)
        folder.mkdir()
        plan = {kind: [os.path.relpath(there / "k8s" / part, folder)] for kind, part in parts.items()}
        (folder / "kustomization.yaml").write_text(json.dumps({"namespace": namespace, **plan}))
        return str(folder)

    make.namespace = namespace
    return make


@pytest.fixture(scope="module")
def namespace(overlay):
    ok("apply", "-k", overlay(resources="base"))
    yield overlay.namespace
    ok("delete", "namespace", overlay.namespace, "--wait=false")


def test_the_offline_tests_see_what_kubectl_makes():
    def ordered(objects):
        return sorted(objects, key=lambda each: (each["kind"], each["metadata"]["name"]))

    made = kustomize.parse(ok("kustomize", str(K8S / "base")))
    assert ordered(made) == ordered(kustomize.build(K8S / "base"))


def test_the_s3_server_and_the_api_servers_addresses_are_admitted(overlay, namespace):
    said = ok(
        "apply", "--dry-run=server", "-k", overlay(resources="overlays/dev-s3", components="components/api-server")
    )
    assert "deployment.apps/s3 created (server dry run)" in said
    assert "networkpolicy.networking.k8s.io/https configured (server dry run)" in said
    assert "Warning" not in said  # Pod Security warns of a Deployment whose pods it would refuse


@pytest.mark.parametrize("what", [*STAGES, "pipeline"])
def test_every_job_is_admitted(namespace, what):
    text = render.text(what, RunOptions("s3://bucket", overrides=(f"kubernetes.namespace={namespace}",)))
    assert "Warning" not in ok("create", "--dry-run=server", "-f", "-", stdin=text)


def test_a_pod_that_says_nothing_is_refused(namespace):
    code, said = kubectl("run", "plain", "--image=plain", "--dry-run=server", "-n", namespace)
    assert code == 1
    assert 'violates PodSecurity "restricted:v1.34"' in said


@pytest.mark.parametrize("who", RIGHTS)
def test_everybody_has_the_rights_that_are_needed_and_no_others(namespace, who):
    table = ok("auth", "can-i", "--list", "-n", namespace, *who.format(namespace=namespace).split())
    rights = {resource: set(verbs.split()) for resource, verbs in re.findall(r"^(\S+) .*\[([a-z ]+)\]$", table, re.M)}
    of_everybody = {resource for resource in rights if resource.startswith("selfsubject")}
    assert {resource: rights[resource] for resource in rights.keys() - of_everybody} == RIGHTS[who]
