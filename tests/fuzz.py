"""A store as its worst enemy would leave it: a small run, damaged at random, and what commands make of it.

    make test-fuzz                      some minutes, from a seed of its own, which it prints
    python tests/fuzz.py 240 7          240 seconds, from case 7 on
    python tests/fuzz.py 0 7            case 7 alone, with what it does

Each case copies the run, damages the copy, and executes some commands and readers in this process. Whatever happens:
exit codes are the documented ones, and nothing ends in a traceback; no file outside the store and scratch is touched;
nothing that is committed and was not damaged is lost; nothing that a terminal would obey is printed; memory and time
are bounded.
"""

import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import socket
import stat
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "bench")]

import numpy as np
import small_run
from small_run import RUN

from worldmodels import artifacts, npz, runner, stored
from worldmodels.context import Checkpoints
from worldmodels.errors import CorruptArtifact, WmError
from worldmodels.reports import sources
from worldmodels.rollouts import episodes
from worldmodels.rollouts.stage import load_parameters
from worldmodels.store import LocalStore
from worldmodels.store.s3.lease import _parsed
from worldmodels.terminal import UNSEEN
from worldmodels.vision import latents

CODES = frozenset({0, 2, 10, 11, 12, 13, 14, 15, 16, 42, 43})
CASE_SECONDS, MEMORY_BYTES = 30, 6 * 2**30
EVIL = "\x1b]52;c;aGk=\x07\x1b[2J\x9b31m‮[red]x[/red]\r\x00"
STRINGS = (
    "", ".", "..", "../../outside/secret", "/etc/passwd", "~/.bashrc", "a/../../b", "a//b", EVIL, "x" * 100_000,
    "iter-1/vae", "0" * 64, "g" * 64, "NaN", "1e999", "²", "../" * 40 + "outside/secret",
    "small/iter-1/vae/data/../../../../outside",
    "$(touch outside/made)", "; touch outside/made", "\ud800", "%s%n{}", "a\nb",
)  # fmt: skip
VALUES = (None, True, [], {}, 0, -1, 1.5, 2**31, 2**63, 10**400, -(10**30), 1e308, [[]], {"a": {}}, *STRINGS)
RAW = (
    b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"[" * 5000, b'"\xff\xfe"', b'{"a":1,"a":2}', b'"\\ud800"', b"01", b"",
)  # fmt: skip


class Case:
    """One damaged copy of the run below `here`, and everything random about it."""

    def __init__(self, base: Path, here: Path, seed: int) -> None:
        self.rng, self.here = random.Random(seed), here
        self.store, self.scratch, self.outside = here / "store", here / "scratch", here / "outside"
        shutil.copytree(base, self.store)
        self.scratch.mkdir()
        self.outside.mkdir()
        (self.outside / "secret").write_text("nobody may touch this")
        (self.outside / "folder" / "data").mkdir(parents=True)
        (self.outside / "folder" / "data" / "mine").write_text("nor this")
        self.done: list[str] = []

    def damage(self) -> None:
        kinds = [self.json_value] * 6 + [self.raw_json, self.bytes] * 2
        kinds += [self.arrays, self.thing, self.name, self.text, self.lock]
        for _ in range(self.rng.randint(1, 4)):
            kind = self.rng.choice(kinds)
            with contextlib.suppress(OSError, IndexError):  # an earlier damage has taken what this one wanted
                kind()

    def say(self, words: str) -> None:
        self.done.append(words)

    def file(self, *ends: str) -> Path:
        files = [p for p in sorted(self.store.rglob("*")) if p.is_file() and not p.is_symlink()]
        chosen = [p for p in files if not ends or p.name.endswith(ends)]
        if not files:
            raise FileNotFoundError("an earlier damage has taken all of them")
        return self.rng.choice(chosen or files)

    def json_value(self) -> None:
        """Another value somewhere in a JSON file, often with a checksum and a digest that fit it."""
        path = self.file(".json", "settings", "inputs", "0", "-0")
        try:
            value = json.loads(path.read_bytes())
        except ValueError:
            return
        place, steps = value, []
        while isinstance(place, (dict, list)) and place:
            key = self.rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
            steps.append(key)
            if self.rng.random() < 0.3 or not isinstance(place[key], (dict, list)) or not place[key]:
                break
            place = place[key]
        if not steps:
            return
        new = self.rng.choice(VALUES)
        what = self.rng.random()
        if what < 0.7:
            place[steps[-1]] = new
        elif what < 0.85 or not isinstance(place, dict):
            del place[steps[-1]]
        else:
            place[self.rng.choice(STRINGS)[:300]] = new
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            if isinstance(value, dict) and self.rng.random() < 0.7:
                seal(value, path)
        with contextlib.suppress(ValueError):  # Python writes no integers of more than 4,300 digits
            path.write_bytes(json.dumps(value).encode("utf-8", "surrogatepass"))
        self.say(f"{self.key(path)}: {steps} -> {new!r:.60}")

    def raw_json(self) -> None:
        path = self.file(".json", "settings", "inputs")
        data = path.read_bytes()
        at = self.rng.choice([i for i, c in enumerate(data) if c in b":,["] or [0])
        path.write_bytes(data[: at + 1] + self.rng.choice(RAW) + data[at + 1 :])
        self.say(f"{self.key(path)}: raw JSON at {at}")

    def bytes(self) -> None:
        path = self.file()
        data, kind = bytearray(path.read_bytes()), self.rng.randrange(6)
        if kind == 0 and data:
            for _ in range(self.rng.randint(1, 5)):
                data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
        elif kind == 1:
            del data[self.rng.randrange(len(data) + 1) :]
        elif kind == 2:
            data = bytearray(self.rng.randbytes(self.rng.randrange(200)))
        elif kind == 3:
            data += self.rng.randbytes(10)
        elif kind == 4:
            data = bytearray(self.file().read_bytes())
        else:
            with path.open("r+b") as file:
                file.truncate(self.rng.choice([2**33, 2**40]))  # sparse
            self.say(f"{self.key(path)}: huge")
            return
        path.write_bytes(data)
        self.say(f"{self.key(path)}: bytes {kind}")

    def arrays(self) -> None:
        """Arrays of other shapes, types and names, compressed or with headers that lie; mostly with fitting digests."""
        path = self.file(".npz", ".npy", "params", "00005", ".zst")
        members: dict[str, Any] = {}
        with contextlib.suppress(ValueError):
            members = dict(npz.load(path.read_bytes()))
        for _ in range(self.rng.randint(1, 3)):
            name = self.rng.choice([*members, "lengths", "../../../outside/secret", "mean", EVIL[:20]])
            members[name] = self.array()
        buffer = io.BytesIO()
        writer = self.rng.choice([npz.save, npz.save, np.savez, np.savez_compressed])
        writer(buffer, **members)
        data = buffer.getvalue()
        if self.rng.random() < 0.2:
            data = data.replace(b"'shape': (", b"'shape': (99999999,", 1)
        self.replace(path, data)
        self.say(f"{self.key(path)}: arrays {sorted(members)!r:.80}")

    def array(self) -> np.ndarray:
        length = self.rng.choice([0, 1, 2, 4, 27])
        kind = self.rng.choice(["f4", "f8", "i4", "i8", "u1", "U3", "?", "c8"])
        value = self.rng.choice([0, 1, -1, 2**31 - 1, 7])
        array = np.full(self.rng.choice([(), (length,), (length, 3), (length, 4), (2, 2, 2)]), value)
        if kind == "f4" and self.rng.random() < 0.5:
            array = array.astype(np.float64) * self.rng.choice([np.nan, np.inf, 1e30])
        with np.errstate(all="ignore"):
            return array.astype(kind)

    def replace(self, path: Path, data: bytes) -> None:
        """Write a file, and mostly let those that name it promise the new bytes."""
        old = artifacts.digest(path.read_bytes())
        path.write_bytes(data)
        if self.rng.random() < 0.2:
            return
        for other in sorted(self.store.rglob("*.json")):
            if other.is_symlink() or not other.is_file() or other.stat().st_size > 2**20:
                continue
            if old.encode() not in other.read_bytes():
                continue
            with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
                value = json.loads(other.read_bytes())
                for part in (value, *value.get("shards", ())):
                    for file in {**part.get("files", {}), **part.get("telemetry", {})}.values():
                        if file["sha256"] == old:
                            file |= {"sha256": artifacts.digest(data), "size": len(data)}
                seal(value, other)
                other.write_bytes(json.dumps(value).encode())

    def thing(self) -> None:
        """Something that is no regular file, where one is, or a folder is."""
        path = self.rng.choice([p for p in sorted(self.store.rglob("*")) if not p.is_symlink()])
        kinds = ["link", "link", "folder link", "pipe", "socket", "folder", "hard link", "dangling", "deep"]
        kind = self.rng.choice(kinds)
        if path.is_dir() and kind != "deep":
            shutil.rmtree(path)
        elif kind != "deep":
            path.unlink()
        if kind in ("link", "folder link", "dangling"):
            target = {"link": "secret", "folder link": "folder", "dangling": "made"}[kind]
            path.symlink_to(self.outside / target)
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            with socket.socket(socket.AF_UNIX) as own, contextlib.chdir(path.parent):
                own.bind(path.name)
        elif kind == "folder":
            (path / "inner").mkdir(parents=True)
        elif kind == "hard link":
            path.hardlink_to(self.outside / "secret")
        else:
            folder = path if path.is_dir() else path.parent
            (folder / "/".join(["d"] * 60)).mkdir(parents=True)
        self.say(f"{self.key(path)}: {kind}")

    def name(self) -> None:
        """One more file or folder, of a name that `wm` never gives."""
        parents = [p for p in sorted(self.store.rglob("*")) if p.is_dir() and not p.is_symlink()]
        parent = self.rng.choice([self.store, self.store, self.store / RUN, self.store / RUN, *parents])
        name = self.rng.choice([
            b"UPPER CASE", b"iter-0", b"iter-007", "iter-²".encode(), b"iter-" + b"9" * 200, b"x\ny",
            EVIL[:-1].encode(), b"\xff\xfe", b"a" * 250, b"...", b"-rf", b"; touch made", b"manifest-x.json",
            b"manifest.json", b"99999", b"00001-x", b".small.lock", b"abc.npz", b"00000009.npz",
            b"abcdefabcdefabcd", b"vae", b"data",
        ])  # fmt: skip
        path = os.path.join(os.fsencode(parent), name)  # noqa: PTH118 - bytes
        if self.rng.random() < 0.4:
            os.makedirs(path + b"/iter-1/vae/data", exist_ok=True)  # noqa: PTH103 - bytes
        else:
            with open(path, "wb") as file:
                file.write(self.rng.choice([b"", b"{}", b"x", EVIL.encode(), self.file().read_bytes()]))
        self.say(f"new {path!r:.100}")

    def text(self) -> None:
        path = self.file(".log", ".csv")
        texts = [EVIL.encode() * 100, b"\xff" * 1000, b'a,b\n"', b"1" * 10**6, b"\x00,\x00\n"]
        path.write_bytes(self.rng.choice(texts))
        self.say(f"{self.key(path)}: text")

    def lock(self) -> None:
        path = self.store / f".{RUN}.lock"
        kind = self.rng.choice(["link", "pipe", "folder", "text"])
        if os.path.lexists(path):
            return
        if kind == "link":
            path.symlink_to(self.outside / self.rng.choice(["secret", "made"]))
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.write_text(EVIL)
        self.say(f"lock: {kind}")

    def key(self, path: Path) -> str:
        return repr(str(path.relative_to(self.store)))

    # The commands that read it.

    def actions(self) -> list[tuple[str, Callable[[], Any]]]:
        stages = ("rollouts", "vae", "latents", "memory", "controller", "evaluate")
        stage = self.rng.choice(stages)
        commands = [
            ["ls"], ["ls", RUN], ["ls", "--json"], ["show", stage], ["show", stage, "--json"], ["status"],
            ["status", RUN], ["status", "--json"], ["config"], ["logs"], ["logs", stage], ["gc"],
            ["logs", "controller", "--file", "rewards.csv"], ["gc", "--older-than", "0s", "--delete"],
            ["gc", RUN, "--older-than", "0s", "--delete", "--json"], ["verify"], ["verify", RUN, "--json"],
            ["run", "--dry-run", *chosen()], ["run", "--dry-run", "--redo", *chosen()],
            ["cp", str(self.store), str(self.scratch / "copy")],
            ["cp", "--verify", str(self.store), str(self.scratch / "copy")],
        ]  # fmt: skip
        found: list[tuple[str, Callable[[], Any]]] = []
        for words in self.rng.sample(commands, 4):
            found.append((" ".join(words), lambda words=words: self.command(words)))
        readers = [self.read_shards, self.read_files, self.read_evolution, self.read_checkpoints, self.write]
        for reader in self.rng.sample(readers, 2):
            found.append((reader.__name__, lambda reader=reader: self.reader(reader)))
        return found

    def command(self, words: list[str]) -> int:
        from wm import main

        out, old = io.StringIO(), sys.argv
        sys.argv, main.prepare = ["wm", *words], lambda: None  # this process keeps its signals
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                main.main()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            sys.argv = old
        assert code in CODES, f"exit code {code}: {out.getvalue()[-2000:]}"
        shown = out.getvalue().replace("\n", "").replace("\t", "")
        assert not UNSEEN.search(shown), f"printed {UNSEEN.findall(shown)[:5]}: {shown[:500]!r}"
        assert "Traceback" not in shown, out.getvalue()[-2000:]
        assert "nobody may touch" not in shown, "a secret was printed"
        return code

    def reader(self, read: Callable[[], None]) -> int:
        try:
            read()
        except WmError as error:
            assert error.exit_code in CODES
            return error.exit_code
        return 0

    def artifacts(self) -> Iterator[artifacts.Artifact]:
        store = LocalStore(self.store)
        for stage in ("rollouts", "vae", "latents", "memory", "controller", "evaluate"):
            name = artifacts.Name(RUN, 1, stage)
            for manifest in artifacts.examined(store, name)[0]:
                yield artifacts.load(store, name, manifest, self.scratch / f"read-{self.rng.random()}")

    def each(self, calls: Iterator[Callable[[], Any]]) -> None:
        """All of them; the first error that a caller is to see is raised at the end."""
        errors = []
        for call in calls:
            try:
                call()
            except WmError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def read_shards(self) -> None:
        readers = {"rollouts": partial(episodes.read, actions=3), "latents": partial(latents.read, actions=3)}
        more = {"rollouts": episodes.frames, "latents": latents.lengths}
        self.each(
            lambda reader=reader, shard=shard: reader(shard)
            for artifact in self.artifacts()
            for reader in (readers.get(artifact.stage), more.get(artifact.stage), _rows)
            for shard in artifact.shards
            if reader and (reader is not _rows or artifact.stage == "evaluate")
        )

    def read_files(self) -> None:
        def read(artifact: artifacts.Artifact, name: str) -> None:
            path = artifact.path(name)
            assert self.scratch in path.parents and stat.S_ISREG(path.lstat().st_mode)
            if name == "scores.json":
                sources.document(path, stored.SCORES)
            elif name.endswith(".json"):
                sources.document(path)

        calls = [lambda a=a, n=n: read(a, n) for a in self.artifacts() for n in a.files.files]
        for artifact in self.artifacts():
            if artifact.stage == "controller":
                calls += [lambda a=artifact, w=w: load_parameters(a, w) for w in ("mean", "best", 2)]
        self.each(iter(calls))

    def read_evolution(self) -> None:
        store = LocalStore(self.store)
        for path in sorted(self.store.glob(f"{RUN}/iter-1/controller/*/generations/00004/params")):
            if self.rng.random() < 0.5:
                with contextlib.suppress(OSError):
                    path.unlink()  # so that it is played again
        small_run.evolve(store)

    def read_checkpoints(self) -> None:
        store, log = LocalStore(self.store), small_run.LOG
        for folder in sorted(self.store.glob(f"{RUN}/iter-1/*/*/")):
            Checkpoints(store, folder.relative_to(self.store).as_posix(), log).load()
        for path in self.store.rglob(".*.lock"):
            with contextlib.suppress(CorruptArtifact):
                data = store.get(path.relative_to(self.store).as_posix())
                _parsed(type("Stored", (), {"data": data})())

    def write(self) -> None:
        """Damage a file that a worker writes beside its results."""
        store, stage = LocalStore(self.store), self.rng.choice(["vae", "controller"])
        name = artifacts.Name(RUN, 1, stage)
        texts = [name.key("live", "rewards.csv"), name.key("logs", "x.log"), runner.alive_key(name, "other")]
        self.each(lambda key=key: store.follow(key, b"text\n") for key in texts)
        for key in texts:
            store.put(key, b"whole")
            store.create(key, b"twice")
            store.delete(key)
        with store.lock(RUN):
            pass


def _rows(shard: artifacts.Shard) -> None:
    from worldmodels.evaluation import stage

    stage._rows(shard)


def chosen() -> list[str]:
    return [word for override in small_run.OVERRIDES for word in ("-o", override)]


def seal(value: dict[str, Any], path: Path) -> None:
    """Make digests and the checksum fit, as a knowing attacker would."""
    value.pop("checksum", None)
    for part in (value, *value.get("shards", ())):
        if "index" in part and "files" in part:
            part["digest"] = artifacts.shard_digest(part["files"])
    if "artifact" in value:
        name = artifacts.Name.of("/".join(path.parts[path.parts.index("store") + 1 :]))
        work = artifacts.Identity(name, value["config"], value["extent"], value["inputs"])
        value["digest"] = work.digest_of(artifacts.contents(value["files"], value["shards"]))
    value["checksum"] = stored.checksum(value)


def tree(folder: Path) -> dict[str, Any]:
    """Everything below a folder, without following a link."""
    found: dict[str, Any] = {}
    for parent, folders, files in os.walk(os.fsencode(folder)):
        for name in (*folders, *files):
            path = os.path.join(parent, name)  # noqa: PTH118 - bytes
            status = os.lstat(path)
            content: Any = status.st_mode
            if stat.S_ISREG(status.st_mode):
                content = (status.st_size, Path(os.fsdecode(path)).read_bytes() if status.st_size < 2**24 else b"")
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)  # noqa: PTH115 - bytes
            found[os.fsdecode(path.removeprefix(os.fsencode(folder)))] = content
    return found


def committed(before: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """The undamaged files that something undamaged commits: manifests, records, generations, and what they name."""
    whole = {key: content for key, content in before.items() if base.get(key) == content}
    found: dict[str, Any] = {}
    for key, content in whole.items():
        parts = key.split("/")
        record = "shards" in parts and key.endswith(".json")
        if "generations" in parts or "final" in parts or parts[-1] in ("settings", "inputs"):
            found[key] = content
        if record or (len(parts) > 4 and parts[4].startswith("manifest")):
            found[key] = content
            value = json.loads(content[1])
            named = {f"/{file['key']}" for file in artifacts.stored_files(value)}
            found |= {name: whole[name] for name in named if name in whole}
    return found


def case(base: Path, seed: int, tell: bool = False) -> Counter[str]:
    """Damage and judge; returns how often each exit code came."""
    codes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        one = Case(base, Path(folder), seed)
        one.damage()
        base_tree, before, outside = tree(base), tree(one.store), tree(one.outside)
        kept = committed(before, base_tree)
        environment = {"WM_STORE": str(one.store), "WM_RUN": RUN, "TMPDIR": str(one.scratch), "WM_CONFIG": "",
                       "KUBECONFIG": str(one.scratch / "none"), "HOME": str(one.outside)}  # fmt: skip
        old = dict(os.environ)
        os.environ.update(environment)
        tempfile.tempdir = str(one.scratch)
        try:
            for name, action in one.actions():
                if tell:
                    print(f"{name}  after {one.done}", flush=True)
                signal.alarm(CASE_SECONDS)
                try:
                    codes[str(action())] += 1
                except BaseException as error:
                    raise AssertionError(f"case {seed}, {name}, after {one.done}") from error
                finally:
                    signal.alarm(0)
                now = tree(one.outside)
                assert now == outside, f"case {seed}, {name}, after {one.done}: outside is {now}"
                if name == "read_evolution":  # plays generations again that this case has removed
                    kept = {key: content for key, content in kept.items() if "/controller/" not in key}
                after = tree(one.store)
                lost = [key for key, content in kept.items() if after.get(key) != content]
                assert not lost, f"case {seed}, {name}, after {one.done}: lost {lost}"
        finally:
            os.environ.clear()
            os.environ.update(old)
            tempfile.tempdir = None
    return codes


def _late(*_: object) -> None:
    raise TimeoutError(f"more than {CASE_SECONDS} s")


@contextlib.contextmanager
def bounds() -> Iterator[None]:
    """Memory, time and log lines, while cases run."""
    level = small_run.LOG.level
    small_run.LOG.setLevel("CRITICAL")
    memory, before = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGALRM, _late)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, memory[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, memory)
        signal.signal(signal.SIGALRM, before)
        small_run.LOG.setLevel(level)


def run(base: Path, seconds: float, seed: int, tell: bool = False) -> tuple[int, Counter[str]]:
    """Cases from `seed` on for so long, at least one; returns how many, and how often each exit code came."""
    until, codes, count = time.monotonic() + seconds, Counter[str](), 0
    with bounds():
        while not count or time.monotonic() < until:
            codes += case(base, seed + count, tell)
            count += 1
    return count, codes


def main(seconds: float = 240.0, seed: int | None = None) -> None:
    seed = random.SystemRandom().randrange(10**9) if seed is None else seed
    print(f"from case {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        small_run.build(Path(folder) / "store", Path(folder) / "made")
        count, codes = run(Path(folder) / "store", seconds, seed, tell=not seconds)
    print(f"{count} cases from {seed}; exit codes: {dict(sorted(codes.items()))}")


if __name__ == "__main__":
    main(*(kind(text) for kind, text in zip((float, int), sys.argv[1:], strict=False)))
