"""A writer of the store can spoil a run, and nothing else: commands never obey stored data."""

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import buckets
import fuzz
import numpy as np
import pytest
import small_run
import zstandard
from rich.console import Console
from small_run import RUN
from wm import machine, main

from worldmodels import artifacts, config, npz, planning, stored
from worldmodels.artifacts import Name
from worldmodels.context import Checkpoints
from worldmodels.control.records import pack, unpack
from worldmodels.errors import Busy, ConfigError, CorruptArtifact, WmError
from worldmodels.rollouts import episodes
from worldmodels.store import LocalStore, process_identity
from worldmodels.terminal import plain
from worldmodels.upkeep import verifying

VAE, CONTROLLER = Name(RUN, 1, "vae"), Name(RUN, 1, "controller")
OSC = "\x1b]52;c;aGk=\x07\x1b]0;title\x07\x1b[2J\u202e[docker.io/x]"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    return small_run.build(folder / "store", folder / "made").root


@pytest.fixture
def store(base, tmp_path) -> LocalStore:
    shutil.copytree(base, tmp_path / "store")
    return LocalStore(tmp_path / "store")


@pytest.fixture
def victim(tmp_path) -> Path:
    path = tmp_path / "home" / "secret"
    path.parent.mkdir()
    path.write_text("mine")
    return path


def wm(store: LocalStore, *words: str, seconds: int = 60) -> subprocess.CompletedProcess[str]:
    """`wm` in this process, which saves a second each time; TimeoutError if it takes longer than that."""
    environment = {"WM_STORE": str(store.root), "WM_CONFIG": "", "KUBECONFIG": "/nonexistent"}
    out, err = io.StringIO(), io.StringIO()
    before = signal.signal(signal.SIGALRM, fuzz._late)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.delenv("WM_RUN", raising=False)
        patch.setattr(sys, "argv", ["wm", *words])
        patch.setattr(machine, "_printed", set())
        patch.setattr(main, "prepare", lambda: None)  # this process keeps its signals and its environment
        signal.alarm(seconds)
        try:
            with pytest.raises(SystemExit) as ended:
                main.main()
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
    code = int(ended.value.code or 0)
    assert "Traceback" not in err.getvalue() and code in fuzz.CODES, err.getvalue()
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def change(store, key, edit, seal=True):
    """Edit stored JSON; with `seal`, so that its digests and its checksum fit again."""
    value = json.loads(store.get(key))
    edit(value)
    if seal:
        fuzz.seal(value, store.root / key)
    store.put(key, json.dumps(value).encode())


def manifest_key(store, name=VAE):
    return artifacts.manifest_keys(store, name)[0]


# Keys become paths.


@pytest.mark.parametrize("key", ["/{victim}", "{victim}", "small/iter-1/vae/data/../../../../home/secret", "a//b", "."])
@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_a_key_never_leads_out_of_its_stage(store, victim, tmp_path, request, key, place):
    change(store, manifest_key(store), lambda m: m["files"]["encoder.tflite"].update(key=key.format(victim=victim)))
    where = store
    if place == "bucket":
        where = buckets.open_bucket(request.getfixturevalue("endpoint"), buckets.fresh_prefix())
        where.put(manifest_key(store), store.get(manifest_key(store)))
    with pytest.raises(CorruptArtifact, match=r"vae/manifest\.json.*files\.encoder"):
        for manifest in artifacts.manifests(where, VAE):
            artifacts.load(where, VAE, manifest, tmp_path / "scratch").path("encoder.tflite")
    assert victim.read_text() == "mine"


def test_a_key_of_another_stage_is_not_a_stages_own(store):
    other = artifacts.manifests(store, Name(RUN, 1, "memory"))[0]["files"]["step.tflite"]
    change(store, manifest_key(store), lambda m: m["files"].update({"encoder.tflite": other}))
    with pytest.raises(CorruptArtifact, match="is not below small/iter-1/vae/data/"):
        artifacts.manifests(store, VAE)


def test_a_file_is_handed_on_only_after_its_check_under_a_name_of_its_content(store, tmp_path):
    manifest = artifacts.manifests(store, VAE)[0]
    entry = manifest["files"]["encoder.tflite"]
    path = artifacts.load(store, VAE, manifest, tmp_path / "scratch").path("encoder.tflite")
    assert path == tmp_path / "scratch" / entry["sha256"] / "encoder.tflite" and path.read_bytes() == b"encoder"
    store.put(entry["key"], b"another")
    with pytest.raises(CorruptArtifact, match="has changed"):
        artifacts.load(store, VAE, manifest, tmp_path / "again").path("encoder.tflite")
    assert [path for path in (tmp_path / "again").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_no_more_bytes_are_taken_than_were_promised(store, tmp_path, request, place):
    manifest = artifacts.manifests(store, VAE)[0]
    if place == "bucket":
        store = buckets.open_bucket(request.getfixturevalue("endpoint"), buckets.fresh_prefix())
    store.put(manifest["files"]["encoder.tflite"]["key"], b"x" * 2**22)
    files = artifacts.load(store, VAE, manifest, tmp_path / "scratch").files
    for read in (files.read, files.path):
        with pytest.raises(CorruptArtifact, match="more than the 7 bytes"):
            read("encoder.tflite")


def test_gc_deletes_nothing_through_a_link(store, victim):
    shutil.rmtree(store.root / VAE.key("data"))
    (store.root / VAE.key("data")).symlink_to(victim.parent)
    done = wm(store, "gc", RUN, "--older-than", "0s", "--delete")
    assert (done.returncode, victim.read_text()) == (14, "mine") and "symbolic link" in done.stderr


@pytest.mark.parametrize("whole_folder", [False, True])
def test_cp_copies_nothing_through_a_link(store, victim, tmp_path, whole_folder):
    link = store.root / VAE.key("logs") if whole_folder else store.root / VAE.key("logs", "x.log")
    shutil.rmtree(link) if whole_folder else None
    link.symlink_to(victim.parent if whole_folder else victim)
    done = wm(store, "cp", str(store.root), str(tmp_path / "copy"))
    assert done.returncode == 14 and "symbolic link" in done.stderr
    assert not [path for path in (tmp_path / "copy").rglob("*") if path.is_file() and path.read_bytes() == b"mine"]


@pytest.mark.parametrize(
    "action", ["follow", "put", "create", "upload", "delete", "lock", "get", "modified", "entries"]
)
@pytest.mark.parametrize("kind", ["link", "folder link", "dangling", "pipe", "socket", "folder", "hard link"])
def test_a_folder_store_touches_nothing_but_its_own_regular_files(store, victim, tmp_path, action, kind):
    key = "run/live/report.html" if action != "lock" else "run/live/.report.html.lock"
    path = store.root / key
    path.parent.mkdir(parents=True)
    if kind == "folder link":
        path.parent.rmdir()
        path.parent.symlink_to(victim.parent)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as own, contextlib.chdir(path.parent):
            own.bind(path.name)
    elif kind == "folder":
        path.mkdir()
    else:
        {
            "link": lambda: path.symlink_to(victim),
            "dangling": lambda: path.symlink_to(victim.parent / "made"),
            "pipe": lambda: os.mkfifo(path),
            "hard link": lambda: path.hardlink_to(victim),
        }[kind]()
    (tmp_path / "file").write_text("file")

    def act() -> None:
        name = "run/live/report.html"
        with open(os.devnull) if action != "lock" else store.lock(name):
            {
                "follow": lambda: store.follow(key, b"evil"), "put": lambda: store.put(key, b"evil"),
                "create": lambda: store.create(key, b"evil"), "upload": lambda: store.upload(key, tmp_path / "file"),
                "delete": lambda: store.delete(key), "get": lambda: store.get(key), "lock": lambda: None,
                "modified": lambda: store.modified(key), "entries": lambda: list(store.entries("run/")),
            }[action]()  # fmt: skip

    failed: list[BaseException] = []

    def caught() -> None:
        try:
            act()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=caught, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "it waits"
    assert all(isinstance(error, WmError) for error in failed), failed
    assert fuzz.tree(victim.parent) == {"/secret": (4, b"mine")}
    harmless = kind == "hard link" or (kind != "folder link" and action in ("put", "upload", "delete"))
    if not harmless and not (kind == "folder" and action == "entries"):
        assert failed, "no error was raised"


def test_ls_does_not_wait_for_a_pipe(store):
    path = store.root / manifest_key(store)
    path.unlink()
    os.mkfifo(path)
    done = wm(store, "ls", seconds=20)
    assert done.returncode == 0 and "damaged" in done.stdout and "a pipe" in done.stdout
    assert "small/iter-1/controller" in done.stdout


def test_a_folder_that_is_exchanged_for_a_link_meanwhile_leads_nowhere(store, victim):
    """The race that checking a path before using it would lose."""
    folder, stop = store.root / "run" / "a", threading.Event()
    folder.mkdir(parents=True)

    def exchange() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):  # the store makes folders that are missing
                folder.rename(folder.with_name(f"b{time.monotonic_ns()}"))
                folder.symlink_to(victim.parent)
                folder.unlink()

    thread = threading.Thread(target=exchange)
    thread.start()
    until = time.monotonic() + 1
    try:
        while time.monotonic() < until:
            for action in (lambda: store.put("run/a/secret", b"evil"), lambda: store.delete("run/a/secret")):
                try:
                    action()
                except WmError:
                    continue
    finally:
        stop.set()
        thread.join()
    assert fuzz.tree(victim.parent) == {"/secret": (4, b"mine")}


def test_an_evolutions_files_get_no_other_names(tmp_path):
    files = dict.fromkeys(("mean.npy", "best.npy", "generations.npz", "rewards.csv"), b"")
    assert unpack(pack(files), "final/00005") == files
    with pytest.raises(CorruptArtifact, match="final/00005"):
        unpack(pack({**files, "../../../home/secret": b"evil"}), "final/00005")


def test_a_heartbeats_process_is_no_path(tmp_path):
    fifo = tmp_path / "stat"
    os.mkfifo(fifo)
    beat = json.dumps({"machine": process_identity.machine(), "process": f"../..{tmp_path}", "began": "1"}).encode()
    assert stored.advice(beat, stored.SIGNATURE) is None


# Stored JSON has no schema.


def put(value):
    return lambda manifest: manifest.update(value)


DAMAGE = {
    "empty": lambda m: m.clear(),
    "text for a number": lambda m: m["files"]["encoder.tflite"].update(size="7"),
    "true for a number": lambda m: m["files"]["encoder.tflite"].update(size=True),
    "negative size": lambda m: m["files"]["encoder.tflite"].update(size=-1),
    "huge size": lambda m: m["files"]["encoder.tflite"].update(size=10**30),
    "digest that is a path": put({"digest": "../../x"}),
    "another digest": put({"digest": "0" * 64}),
    "another setting": lambda m: m["config"].update({"vae.z": 7}),
    "another input": lambda m: m["inputs"].update({"iter-1/rollouts": "0" * 64}),
    "its own input": lambda m: m["inputs"].update({"iter-1/vae": m["digest"]}),
    "no iteration": lambda m: m["inputs"].update({"iter-²/vae": "0" * 64}),
    "another artifact": put({"artifact": "small/iter-1/memory"}),
    "not a number": lambda m: m["made"].update(seconds=float("nan")),
    "no end": lambda m: m["made"].pop("finished"),
    "list for a mapping": put({"files": []}),
    "unknown part": put({"more": 1}),
    "deep": lambda m: m["made"].update(notes=json.loads("[" * 900 + "]" * 900)),
    "many": lambda m: m["made"].update(x=[0] * 400_000),
    "shards out of order": lambda m: m["shards"].extend([{"index": 1, "failed": ""}, {"index": 0, "failed": ""}]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_manifest_that_is_none_is_damaged_and_costs_nothing_else(store, damage):
    key = manifest_key(store)
    sealed = damage in ("another artifact", "its own input", "unknown part", "shards out of order")
    change(store, key, DAMAGE[damage], seal=sealed)
    with pytest.raises(CorruptArtifact, match=r"small/iter-1/vae/manifest\.json"):
        artifacts.manifests(store, VAE)
    before = fuzz.tree(store.root)
    found, damaged = artifacts.examined(store, VAE)
    assert (found, len(damaged)) == ([], 1)
    collected = wm(store, "gc", RUN, "--older-than", "0s", "--delete") if damage in ("empty", "deep") else None
    assert collected is None or collected.returncode == 14
    assert {k: v for k, v in fuzz.tree(store.root).items() if not k.endswith(".lock")} == before


@pytest.mark.parametrize("command", ["ls", "status"])
def test_what_is_damaged_is_shown_as_damaged_and_the_rest_as_ever(store, command):
    change(store, manifest_key(store), lambda m: m.clear(), seal=False)
    (store.root / "UPPER CASE" / "iter-1" / "vae").mkdir(parents=True)
    (store.root / "other" / "iter-²").mkdir(parents=True)
    (store.root / "elsewhere").symlink_to("/")
    done = wm(store, command)
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert any(line.startswith("small/iter-1/vae") and "damaged" in line for line in lines)
    assert any(line.startswith("UPPER CASE") and "damaged" in line for line in lines)
    assert any(line.startswith("elsewhere") and "damaged" in line for line in lines)
    digest = artifacts.manifests(store, CONTROLLER)[0]["digest"][:12]
    assert any(line.startswith("small/iter-1/controller") and digest in line for line in lines)
    told = json.loads(wm(store, command, "--json").stdout)
    rows = told["artifacts" if command == "ls" else "stages"]
    assert {bool(row["damaged"]) for row in rows} == {True, False}


def test_a_lineage_is_told_once_however_often_it_is_inherited(store):
    lines = wm(store, "show", "evaluate", "--run", RUN).stdout.splitlines()
    assert sum("iter-1/rollouts" in line for line in lines if line.startswith("  from")) == 2
    assert any("(see above)" in line for line in lines)


@pytest.mark.parametrize("text", [b"{}", b'{"config": {}, "origins": {}}', b"[" * 9000, b'{"config": 1, "origins": 2}'])
@pytest.mark.parametrize("command", [["config"], ["status"], ["run", "--dry-run"]])
def test_a_stored_config_that_is_none_is_named(store, text, command):
    store.put(f"{RUN}/iter-1/config.json", text)
    done = wm(store, *command, *([RUN] if command == ["status"] else ["--run", RUN]))
    assert done.returncode == (0 if command == ["status"] else 14)
    if done.returncode:
        assert f"{RUN}/iter-1/config.json" in done.stderr and f"next: wm run --run {RUN}" in done.stderr


@pytest.mark.parametrize("seconds", ['"60"', "NaN", "1e400", "[]", "1e9"])
def test_a_lease_that_no_process_renews_ends_as_one_that_says_nothing(endpoint, seconds):
    bucket = buckets.open_bucket(endpoint, buckets.fresh_prefix(), lease_seconds=30)
    bucket.put(".run.lock", f'{{"holder": "x", "seconds": {seconds}}}'.encode())
    with pytest.raises(Busy, match=r"its lease ends in (29|30) s"), bucket.lock("run"):
        pass


def test_damaged_records_are_dropped_by_redo_and_by_nothing_else(store):
    task = planning.Task(RUN, 1, "rollouts", small_run.config()[0])
    work = planning.TaskState(store, task).identity
    change(store, work.shard_key(0), lambda record: record.update(digest="0" * 64), seal=False)
    with pytest.raises(CorruptArtifact, match=r"shards/00000\.json"):
        artifacts.read_record(store, work.shard_key(0))
    from worldmodels.artifacts import publishing

    publishing.drop_failed_shards(store, work)
    assert [entry.key for entry in store.entries(work.work_key("shards/"))] == [work.shard_key(1)]


@pytest.mark.parametrize(
    "key",
    ["workers/abc", "generations/00005/results/99999", "generations/00005/claims/x", "generations/00005/odd", "x"],
)
def test_names_that_wm_never_gives_do_not_disturb_an_evolution(store, key):
    task = planning.Task(RUN, 1, "controller", small_run.config()[0])
    work = small_run.state(store, "controller").identity
    before = {entry.key: store.get(entry.key) for entry in store.entries(CONTROLLER.key("data/"))}
    for entry in store.entries(work.work_key("generations/00006")):
        store.delete(entry.key)
    store.delete_many([entry.key for entry in store.entries(work.work_key("final/"))])
    store.delete_many([entry.key for entry in store.entries(work.work_key("generations/00005/results/"))])
    store.delete(work.work_key("status"))  # it would say that they are there
    store.put(work.work_key(key), b"{}")
    files = small_run.evolve(store)
    assert {data for name, data in files.items()} <= set(before.values()) and task.stage == "controller"


def test_a_result_of_another_block_is_not_taken_for_ones_own(store):
    work = small_run.state(store, "controller").identity
    store.delete(work.work_key("generations/00006/params"))
    store.delete_many([entry.key for entry in store.entries(work.work_key("final/"))])
    key = next(entry.key for entry in store.entries(work.work_key("generations/00005/results/")))
    store.put(key, stored.encode({"scores": [1.0] * 50, "steps": [1] * 50}))
    with pytest.raises(CorruptArtifact, match=r"results/.*its block has"):
        small_run.evolve(store)


# Stored text reaches the terminal.


def test_text_is_printed_as_text(store):
    change(store, manifest_key(store), lambda m: m["made"].update(git=OSC, host=OSC, notes={"a\nforged": OSC}))
    store.put(VAE.key("logs", "20260101T000000-worker-00000.log"), f"{OSC}\nline\n".encode() + b"\xff\r")
    os.makedirs(os.fsencode(store.root) + b"/x\n\x1b[2J\xff/iter-1/vae")  # noqa: PTH103 - bytes
    store.put(VAE.key("alive", "x"), OSC.encode())
    for words in (["show", f"{RUN}/iter-1/vae"], ["logs", "vae", "--run", RUN], ["ls"], ["status"], ["gc"], ["verify"]):
        done = wm(store, *words)
        said = (done.stdout + done.stderr).replace("\n", "").replace("\t", "")
        assert plain(said) == said, words
        assert not any(line.startswith("forged") for line in done.stdout.splitlines())
    assert "[docker.io/x]" in wm(store, "logs", "vae", "--run", RUN).stdout


def test_markup_is_text_on_the_screen_too(monkeypatch):
    from wm import progress

    out = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=out, highlight=False))
    progress.Screen().say(OSC)
    assert out.getvalue() == plain(OSC) + "\n" and "[docker.io/x]" in out.getvalue()


def test_an_origin_adds_no_line_to_the_settings_that_are_printed(store):
    evil = 'preset demo\n[kubernetes]\nimage_cpu = "evil"  #'
    change(store, f"{RUN}/iter-1/config.json", lambda c: c["origins"].update({"vae.z": evil}))
    done = wm(store, "config", "--run", RUN)
    assert done.returncode == 0 and not any(line.startswith('image_cpu = "evil"') for line in done.stdout.splitlines())


# Bounds.


def test_seeds_are_bounded(store):
    done = wm(store, "evaluate", "--run", RUN, "--seeds", "0:2000000000", seconds=20)
    assert done.returncode == 2 and "more than 100000 tracks" in done.stderr


@pytest.mark.parametrize(
    "override",
    [
        "rollouts.episodes=1000000000", "rollouts.shard_episodes=100000", "controller.population=1000000000",
        "controller.generations=1000000000", "controller.tracks=1000000", "memory.sequence=1000000000",
        "evaluate.tracks=1000000000", "vae.learning_rate=inf", "vae.learning_rate=nan", "controller.target=nan",
        "execution.cache_mb=1000000000000", "latents.episodes=0:99999999999999999999", f"seed={'9' * 5000}",
        f"seed=0x{'f' * 9000}", "seed=" + "[" * 5000, "a" + ".a" * 5000 + "=1",
    ],
)  # fmt: skip
def test_every_size_is_bounded(override):
    with pytest.raises(ConfigError) as caught:
        config.resolve("demo", (), (override,))
    assert len(caught.value.message) < 2000 and caught.value.next


def test_a_config_file_is_bounded(tmp_path):
    with pytest.raises(ConfigError, match="more than"):
        config.resolve("demo", (Path("/dev/zero"),))
    (tmp_path / "deep.toml").write_text("a = " + "[" * 5000)
    with pytest.raises(ConfigError, match=r"deep\.toml is not TOML"):
        config.resolve("demo", (tmp_path / "deep.toml",))


def test_what_is_stored_takes_no_more_memory_than_it_has_bytes(store):
    bomb = io.BytesIO()
    np.savez_compressed(bomb, lengths=np.zeros(2**24, np.int32))
    for data in (bomb.getvalue(), bomb.getvalue()[:-30], b"PK\x05\x06" + b"\xff" * 18):
        with pytest.raises(ValueError):
            npz.load(data)
    lying = io.BytesIO()
    npz.save(lying, mean=np.zeros(4, np.float32))
    with pytest.raises(ValueError, match=r"array|holds|Bad"):
        npz.load(lying.getvalue().replace(b"(4,), }", b"(9" + b"9" * 5 + b",)}"))
    store.put("checkpoints/00000001.npz", bomb.getvalue())
    assert Checkpoints(store, "checkpoints", small_run.LOG).load() is None


@pytest.mark.parametrize(
    "array", [np.float32(1), np.zeros((2, 2)), np.zeros(0), np.full(3, np.nan), np.array(["a"]), np.zeros(3, complex)]
)
def test_a_controllers_parameters_are_a_row_of_numbers(tmp_path, array):
    np.save(tmp_path / "mean.npy", array)
    with pytest.raises(CorruptArtifact, match=r"mean\.npy"):
        npz.read(tmp_path / "mean.npy")


class Files:
    index = 0
    repair = "wm run rollouts --redo"

    def __init__(self, **files: bytes) -> None:
        self.files = files

    def read(self, name: str) -> bytes:
        return self.files[name.replace(".", "_")]


def shard(lengths=(3,), compressed=None, frames=None, **other) -> Files:
    count, total = len(lengths), max(0, min(sum(lengths), 100))
    raw = zstandard.ZstdCompressor().compress(bytes(total * episodes.FRAME_BYTES)) if frames is None else frames
    table = {
        "actions": np.zeros((total, 3), np.float32), "rewards": np.zeros(total, np.float32),
        "lengths": np.array(lengths, np.int32), "tracks": np.zeros(count, np.int32),
        "terminated": np.zeros(count, np.bool_),
        "compressed": np.array([len(raw)] if compressed is None else compressed, np.int32),
    } | other  # fmt: skip
    data = io.BytesIO()
    npz.save(data, **table)
    return Files(frames_zst=raw, episodes_npz=data.getvalue())


def test_a_shards_arrays_are_what_they_say():
    assert len(episodes.read(shard(), 3)) == 1
    bomb = zstandard.ZstdCompressor().compress(bytes(2**26))
    for bad in (
        shard((2**31 - 1,)), shard((2**30, 2**30)), shard((-5,)), shard(()), shard((0,)), shard(frames=bomb),
        shard(compressed=(-1,)), shard(compressed=(2**31 - 1,)), shard(actions=np.zeros((3, 4), np.float32)),
        shard(rewards=np.zeros(3)), shard(tracks=np.zeros((), np.int32)), shard(lengths=(3, 1), frames=b""),
    ):  # fmt: skip
        with pytest.raises(CorruptArtifact, match="rollouts shard 0"):
            episodes.read(bad, 3)


def test_texts_are_bounded_before_they_are_read(store):
    for key in (manifest_key(store), f"{RUN}/iter-1/config.json"):
        with (store.root / key).open("r+b") as file:
            file.truncate(2**40)
    for words in (["ls"], ["status"], ["gc"], ["config", "--run", RUN], ["verify"]):
        done = wm(store, *words, seconds=60)
        assert done.returncode in (0, 14)


# Verify, and everything at random.

UNPROMISED = ("/live/", "/logs/", "/alive/", "/claims/")


@pytest.mark.parametrize("place", [0.02, 0.5, 0.95])
def test_a_flipped_bit_in_any_file_is_found_and_named(store, place):
    assert verifying.verify(store, RUN).damage == []
    keys = [entry.key for entry in store.entries("") if not any(part in f"/{entry.key}" for part in UNPROMISED)]
    assert len(keys) > 80
    last = [f"{RUN}/iter-1/{stage}/" for stage in ("memory", "evaluate")]  # of each kind of file one at least
    for key in keys:
        data = store.get(key)
        flipped = bytearray(data)
        flipped[int(place * len(data))] ^= 1 << len(key) % 8
        (store.root / key).write_bytes(flipped)
        alone = key.endswith(".json") or any(key.startswith(prefix) for prefix in last)
        found = verifying.verify(store, RUN).damage if alone else []
        assert not alone or key in {damage.key for damage in found}, (key, place)
        if alone:  # what a damaged manifest names cannot be told from what it does not name
            (store.root / key).write_bytes(data)
    damaged = {damage.key for damage in verifying.verify(store, RUN).damage}
    assert {key for key in keys if not key.endswith(".json") and not key.startswith(tuple(last))} <= damaged


def test_verify_names_what_is_damaged_and_changes_nothing(store):
    key = artifacts.manifests(store, VAE)[0]["files"]["encoder.tflite"]["key"]
    (store.root / key).write_bytes(b"encodes")
    before = fuzz.tree(store.root)
    done = wm(store, "verify", RUN)
    assert done.returncode == 14 and f"damaged {key}" in done.stdout and "1 of 90 objects" in done.stderr
    assert [row["damage"][0]["key"] for row in json.loads(wm(store, "verify", "--json").stdout)["runs"]] == [key]
    (store.root / key).write_bytes(b"encoder")
    done = wm(store, "verify")
    assert done.returncode == 0 and "all whole" in done.stdout
    assert fuzz.tree(store.root).keys() == before.keys()


def test_verify_reads_a_bucket(store, endpoint):
    bucket = buckets.open_bucket(endpoint, buckets.fresh_prefix())
    for entry in store.entries(VAE.key("")):
        bucket.put(entry.key, store.get(entry.key))
    assert verifying.verify(bucket, RUN).damage == []
    key = artifacts.manifests(store, VAE)[0]["files"]["encoder.tflite"]["key"]
    bucket.put(key, b"encodes")
    assert [damage.key for damage in verifying.verify(bucket, RUN).damage] == [key]


def test_a_store_damaged_at_random(base):
    count, codes = fuzz.run(base, seconds=6, seed=1)
    assert count and codes
