"""`wm doctor`, `wm gc`, `wm cp` as a user calls them, and a `wm ls` that stays quick."""

import json
import subprocess
import sys

import buckets
import pytest
from places import VAE, WORK, Careless, commit, keys
from wm.inspection import table

from worldmodels.store import LocalStore
from worldmodels.store.s3.store import S3Store


def wm(*arguments):
    done = subprocess.run([sys.executable, "-m", "wm", *map(str, arguments)], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_the_commands_say_what_they_did(tmp_path):
    store = LocalStore(tmp_path / "store")
    commit(store, tmp_path)
    store.put(VAE.key("data", "lost", "weights"), b"12")
    code, text, _ = wm("doctor", "--store", store.root, "--json")
    assert (code, {row["state"] for row in json.loads(text)["checks"]}) == (0, {"ok"})
    assert "1 object, 2 B, can go" in wm("gc", "--store", store.root, "--older-than", "0s")[1]
    found = json.loads(wm("gc", "run", "--store", store.root, "--older-than", "0s", "--delete", "--json")[1])
    assert [(row["where"], row["count"]) for row in found["garbage"]] == [(VAE.key("data", "lost"), 1)]
    assert "run: 2 objects" in wm("cp", store.root, tmp_path / "target")[1]
    assert wm("cp", store.root, tmp_path / "target", "--verify")[1].endswith("read back: all whole\n")


def test_a_run_that_is_being_worked_on_is_left_alone(folder):
    folder.put(VAE.key("data", "lost", "weights"), b"12")
    with folder.lock("run"):
        code, _, said = wm("gc", "--store", folder.root, "--older-than", "0s", "--delete")
        assert (code, "works on run" in said) == (12, True)
        assert wm("cp", folder.root, folder.root.parent / "target")[0] == 0
    assert keys(folder)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["gc", "--older-than", "7x"], 2, "'7x' is no age"),
        (["gc", "nope"], 11, "there is no run 'nope'"),
        (["cp", "a", "./b/../a"], 43, "to copy from and to copy to"),
        (["cp", "a", "b", "--run", "No Name"], 43, "run name 'No Name'"),
        (["doctor", "--store", "/proc/no"], 13, "checks failed: write"),
    ],
)
def test_bad_input_has_one_message_and_a_documented_code(arguments, code, words):
    got, _, said = wm(*arguments)
    assert (got, words in said) == (code, True)


def test_listing_what_is_committed_asks_the_same_however_much_there_is(endpoint, tmp_path):
    client = Careless(buckets.client(endpoint), list_objects_v2={"MaxKeys": 10})
    store = S3Store(client, buckets.BUCKET, buckets.fresh_prefix())
    commit(store, tmp_path)
    client.calls.clear()
    assert len(table(store, store.folders(""))) == 1
    before = sorted(client.calls)
    for i in range(40):
        store.put(VAE.key("data", "lost", str(i)), b"")
        store.put(VAE.key(WORK, "generations", f"{i:05d}", "params"), b"")
    client.calls.clear()
    assert len(table(store, store.folders(""))) == 1
    assert sorted(client.calls) == before


def test_listing_a_folder_does_not_enter_data(folder, tmp_path):
    commit(folder, tmp_path)
    folder.put(VAE.key(WORK, "generations", "00001", "params"), b"")
    code = """import sys, wm.main
sys.addaudithook(lambda event, arguments: print(f"opened {arguments[0]}\\n", end="") if event == "open" else None)
wm.main.cli(["ls", "--store", sys.argv[1]], standalone_mode=False)"""
    done = subprocess.run([sys.executable, "-c", code, str(folder.root)], capture_output=True, text=True)
    assert "run/iter-1/vae " in done.stdout
    opened = {line.removeprefix("opened ") for line in done.stdout.splitlines()}
    assert {"iter-1", "vae", "manifest.json"} <= opened and not {"data", WORK} & opened
