"""Two iterations while pods are deleted, the node is drained, and the API server is away: the same digests."""

import json
import random
import subprocess
import time

import pytest

DELETIONS = 20
PIPELINE = ("submit", "pipeline", "--iterations", "2", "--wait")


def digests(wm, run):
    rows = json.loads(wm("ls", run, "--json").stdout)["artifacts"]
    return {row["artifact"].removeprefix(f"{run}/") + row["extent"]: row["digest"] for row in rows}


def drain(kubectl):
    """Evict every pod of the namespace from the only node, and give it back."""
    (node,) = [each["metadata"]["name"] for each in kubectl.get("nodes")]
    selector = ("--pod-selector", "app.kubernetes.io/name=wm", "--force", "--timeout=60s", "--delete-emptydir-data")
    try:
        subprocess.run(["kubectl", "drain", node, *selector], capture_output=True, timeout=90)
    finally:
        kubectl("uncordon", node)


@pytest.mark.lab
def test_a_pipeline_in_a_storm_ends_with_the_digests_of_a_laptop(wm, make_wm, kubectl, restart_api_server):
    here, chance = make_wm(), random.Random(1)
    here.ok("--run", "tiny")
    here.ok("--run", "tiny", "--iteration", "2")
    began = time.monotonic()
    calm = wm(*PIPELINE, "--run", "calm")
    calm_seconds = time.monotonic() - began
    assert calm.returncode == 0, calm.stdout + calm.stderr
    began, deleted = time.monotonic(), 0
    storm = wm.start(*PIPELINE, "--run", "storm")
    while storm.poll() is None and deleted < DELETIONS:
        time.sleep(chance.uniform(2, 8))
        if running := kubectl.running("storm"):
            kubectl("delete", "pod", chance.choice(running), "--wait=false", "--ignore-not-found")
            deleted += 1
            if deleted == DELETIONS // 3:
                drain(kubectl)
            if deleted == 2 * DELETIONS // 3:
                restart_api_server(30)
    stdout, stderr = storm.communicate()
    assert storm.returncode == 0, stdout + stderr
    print(f"calm {calm_seconds:.0f} s, storm {time.monotonic() - began:.0f} s, {deleted} pods deleted")
    assert deleted == DELETIONS
    assert digests(wm, "storm") == digests(wm, "calm") == digests(here, "tiny")
