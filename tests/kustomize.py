"""`kubectl kustomize` for the few fields that k8s/ uses, without kubectl."""

from pathlib import Path
from typing import Any

import yaml

Objects = list[dict[str, Any]]
UNDERSTOOD = {"apiVersion", "kind", "namespace", "resources", "secretGenerator"}
FILES = {"credentials.env": "AWS_ACCESS_KEY_ID=key\nAWS_SECRET_ACCESS_KEY=secret\n"}  # made when it is deployed
CLUSTER_WIDE = ("Namespace", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")


def parse(text: str) -> Objects:
    return [each for each in yaml.safe_load_all(text) if each]


def read(path: Path) -> Objects:
    return parse(path.read_text())


def build(folder: Path) -> Objects:
    """Every object of a kustomization; fails on what it does not understand."""
    (plan,) = read(folder / "kustomization.yaml")
    assert set(plan) <= UNDERSTOOD, set(plan) - UNDERSTOOD
    objects = [each for name in plan["resources"] for each in _resource(folder / name)]
    objects += [_secret(**generator) for generator in plan.get("secretGenerator", [])]
    for each in objects:
        if each["kind"] not in CLUSTER_WIDE:
            each["metadata"]["namespace"] = plan["namespace"]
        for subject in each.get("subjects", []):
            if subject["kind"] == "ServiceAccount":
                subject["namespace"] = plan["namespace"]
    return objects


def _resource(path: Path) -> Objects:
    return build(path) if path.is_dir() else read(path)


def _secret(name: str, envs: list[str], options: dict[str, bool]) -> dict[str, Any]:
    assert options == {"disableNameSuffixHash": True}
    data = dict(line.split("=", 1) for env in envs for line in FILES[env].splitlines())
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque", "stringData": data}
