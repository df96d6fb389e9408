"""Where to compute is said by who types a command, and by no store."""

import json
import shutil

import pytest

from worldmodels.config import Config, resolve

TOKEN = "t0ken-of-a-person"
PERSONAL = [
    f'kubernetes.pod_overrides={{metadata={{annotations={{token="{TOKEN}"}}}}}}',
    "kubernetes.context=somebody-elses",
    "kubernetes.image_cpu=evil.example/wm@sha256:0",
]


def stored(**kubernetes):
    return {**Config().model_dump(), "kubernetes": Config().kubernetes.model_dump() | kubernetes}


def test_what_a_store_says_of_where_to_compute_is_not_read():
    there = stored(context="theirs", namespace="theirs", pod_overrides={"spec": {"hostNetwork": True}})
    config, origins = resolve(stored=(there, {"kubernetes.context": "-o kubernetes.context=theirs"}))
    assert config.kubernetes == Config().kubernetes
    assert origins["kubernetes.context"] == "default"
    ours, _ = resolve(None, (), ["kubernetes.context=ours"], stored=(there, {}))
    assert (ours.kubernetes.context, ours.kubernetes.namespace) == ("ours", "wm")


def test_a_run_whose_store_says_nonsense_of_it_goes_on():
    config, _ = resolve(stored=({**Config().model_dump(), "kubernetes": {"no_such": {"setting": 1}}}, {}))
    assert config == Config()


def test_nothing_of_it_reaches_the_store(wm):
    wm.ok("rollouts", *(word for each in PERSONAL for word in ("-o", each)))
    texts = [path.read_bytes() for path in wm.store.rglob("*") if path.is_file()]
    assert any(b'"resolved"' in text for text in texts)
    assert not [text for text in texts if b"kubernetes" in text or TOKEN.encode() in text]


@pytest.mark.parametrize("command", [("status", "tiny"), ("submit", "rollouts"), ("attach", "vae")])
def test_no_command_goes_where_a_store_sends_it(wm, command, tmp_path):
    """The kubeconfig knows both contexts; that of the store has a login plugin, which leaves a file behind."""
    login = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": shutil.which("touch"),
        "args": [str(tmp_path / "touched")],
    }
    config = {
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [
            {"name": "theirs", "user": {"exec": {**login, "interactiveMode": "Never"}}},
            {"name": "mine", "user": {"token": "mine"}},
        ],
        "contexts": [{"name": name, "context": {"cluster": "c", "user": name}} for name in ("theirs", "mine")],
        "current-context": "mine",
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    (wm.store / "tiny" / "iter-1").mkdir(parents=True)
    (wm.store / "tiny" / "iter-1" / "config.json").write_text(
        json.dumps({"config": stored(context="theirs"), "origins": {}})
    )
    wm.more["KUBECONFIG"] = str(tmp_path / "kubeconfig")
    done = wm(*command)
    assert "kubernetes.context" in done.stderr and "not used" in done.stderr, done.stderr
    assert not (tmp_path / "touched").exists()
    assert "Traceback" not in done.stderr
