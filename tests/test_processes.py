"""Workers that are killed, suspended or left alone, and terminals that are closed."""

import contextlib
import errno
import fcntl
import json
import logging
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
import time

import pytest
from botocore.exceptions import EndpointConnectionError
from processes import alive, workers

from worldmodels.context import ProgressReporter
from worldmodels.executors import local
from worldmodels.executors import worker as one_worker
from worldmodels.store.causes import CAUSES, explain
from worldmodels.store.s3.retry import Retry

LONG = ("--workers", "1", "-o", "rollouts.episodes=4000", "-o", "rollouts.shard_episodes=4")


def until(true, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)
    return found


def shards(wm):
    return len(list(wm.store.glob("tiny/iter-1/rollouts/*/shards/*.json")))


def start(wm, *arguments):
    return wm.start("run", *arguments, "--config", str(wm.toml))


def test_a_worker_that_is_killed_is_started_again(wm, make_wm):
    process = start(wm, "rollouts", "--workers", "1", "-o", "rollouts.episodes=40")
    until(lambda: shards(wm))
    os.kill(workers(process)[0], signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert "its worker was killed by SIGKILL; it is started again" in stdout
    calm = make_wm()
    calm.ok("rollouts", "-o", "rollouts.episodes=40")
    assert wm.digests() == calm.digests()


@pytest.mark.parametrize(
    ("stage", "number"), [("rollouts", signal.SIGKILL), ("rollouts", signal.SIGSEGV), ("rollouts", signal.SIGTERM)]
)
def test_a_worker_that_is_killed_three_times_without_progress_ends_the_run(wm, stage, number):
    process = start(wm, stage, *LONG)
    killed = set()
    while process.poll() is None:
        for pid in set(workers(process)) - killed:
            if number == signal.SIGKILL or (wm.store / "tiny").exists():
                os.kill(pid, number)
                killed.add(pid)
        time.sleep(0.02)
    stdout, stderr = process.communicate()
    assert process.returncode == 45, stdout + stderr
    assert len(killed) == 3
    assert f"its worker was killed by {number.name} 3 times and got no further in between" in stderr
    assert "next: " in stderr and "oneDNN" not in stderr


def test_kills_with_progress_in_between_do_not_end_a_run(wm):
    process = start(wm, "rollouts", *LONG)
    for _ in range(5):
        before = shards(wm)
        until(lambda before=before: shards(wm) > before)
        os.kill(until(lambda: workers(process))[0], signal.SIGKILL)
    before = shards(wm)
    until(lambda: shards(wm) > before)
    assert process.poll() is None
    process.terminate()
    process.communicate(timeout=60)


def test_what_libraries_say_though_nothing_is_wrong_is_left_out(tmp_path):
    (tmp_path / "stderr").write_text(
        "2026-01-01 10:00:00.000001: I tensorflow/core/util/port.cc:153] oneDNN custom operations are on.\n"
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
        "I0000 00:00:1767225600.000000 1 cpu_feature_guard.cc:210] This TensorFlow binary is optimized\n"
        "Fatal Python error: Segmentation fault\n"
    )
    with open(tmp_path / "stderr", "rb") as stderr:
        assert local._last_words(local.Worker(0, None, None, stderr)) == "Fatal Python error: Segmentation fault"


class Watched(Exception):
    pass


def watch(monkeypatch, pauses, beating=False):
    """Let a watch sleep as `pauses` say, with a limit of 10 s; returns the exit code it ended the process with."""
    now, codes = [0.0], []
    reporter = ProgressReporter(logging.getLogger("watched"), clock=lambda: now[0], beat=0.0)
    todo = iter(pauses)

    def sleep(seconds):
        try:
            now[0] += max(seconds, next(todo))
        except StopIteration:
            raise Watched from None
        if beating:
            reporter.touch()

    def end(code):
        codes.append(code)
        raise Watched

    monkeypatch.setattr(one_worker.os, "_exit", end)
    monkeypatch.setattr(one_worker.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(one_worker.time, "sleep", sleep)
    with pytest.raises(Watched):
        one_worker._watch(reporter, 10.0, "wm run")
    return codes


def test_time_in_which_a_worker_was_suspended_is_no_time_without_progress(monkeypatch):
    assert watch(monkeypatch, [5, 5, 5]) == [44]
    assert watch(monkeypatch, [1000]) == []
    assert watch(monkeypatch, [86400] * 5, beating=True) == []


def test_time_in_which_a_process_was_suspended_does_not_count_for_its_store():
    now, tries = [0.0], []

    def operation():
        tries.append(now[0])
        if len(tries) == 2:  # suspended for an hour, and then the connection is gone
            now[0] += 3600
        if len(tries) < 5:
            raise EndpointConnectionError(endpoint_url="http://127.0.0.1")
        return "there"

    def sleep(seconds):
        now[0] += seconds

    again = Retry("s3://bucket", "http://127.0.0.1", deadline=120.0, clock=lambda: now[0], sleep=sleep)
    again.answered = True
    assert again("read", "key", operation) == "there"


def test_a_worker_goes_on_though_nobody_reads_what_it_says():
    """Ctrl-Z suspends `wm run` and not its workers."""
    reading, writing = os.pipe()
    emit = one_worker._emitter(str(writing))
    said = threading.Thread(target=lambda: [emit({"done": n, "figures": {}}) for n in range(20_000)], daemon=True)
    said.start()
    said.join(timeout=20)
    assert not said.is_alive()
    threading.Thread(target=emit, args=({"error": {"message": "x" * 100_000}},), daemon=True).start()
    data = b""
    while b"error" not in data or not data.endswith(b"}}\n"):
        data += os.read(reading, 65536)
    *progress, error = [json.loads(line) for line in data.splitlines()]
    assert len(error["error"]["message"]) == 100_000
    assert [event["done"] for event in progress] == list(range(len(progress)))


def on_a_terminal(wm, scratch, *arguments):
    """`wm run` on a terminal of its own; the file descriptor is the terminal's other end."""
    ours, theirs = pty.openpty()

    def own_session():
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where the tests themselves run under nohup
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, "-m", "wm", "run", *arguments, "--config", str(wm.toml)],
        stdin=theirs, stdout=theirs, stderr=theirs, env=wm.environment() | {"TMPDIR": str(scratch)},
        preexec_fn=own_session,
    )  # fmt: skip
    os.close(theirs)
    return process, ours


@pytest.mark.parametrize("how", ["the terminal is closed", "wm run is killed"])
def test_training_that_is_left_alone_saves_a_checkpoint_and_tidies_up(wm, tmp_path, how):
    wm.ok("rollouts")
    process, terminal = on_a_terminal(wm, tmp_path, "vae", "-o", "vae.epochs=100000")
    closing = threading.Event()
    threading.Thread(target=_read_all, args=(terminal, closing), daemon=True).start()
    table = wm.store / "tiny/iter-1/vae/live/training.csv"
    until(lambda: table.exists() and table.read_text().count("\n") > 1)
    (worker,) = workers(process)
    if how == "wm run is killed":
        process.kill()
    else:
        closing.set()
    assert process.wait(timeout=30) == (-signal.SIGKILL if how == "wm run is killed" else 143)
    until(lambda: not alive(worker))
    assert list(wm.store.glob("tiny/iter-1/vae/*/checkpoints/*.npz"))
    assert not list(tmp_path.glob("wm-*"))


def _read_all(terminal, closing):
    """Read what is written to a terminal until it is to be closed."""
    with contextlib.suppress(OSError):
        while not closing.is_set():
            if select.select([terminal], [], [], 0.1)[0]:
                os.read(terminal, 65536)
    os.close(terminal)


@pytest.mark.parametrize("number", [*CAUSES, errno.ENOENT])
def test_what_to_look_at_follows_from_the_cause(number):
    reason, command = explain(OSError(number, os.strerror(number)), "/a b")
    assert reason
    assert ("df -h" in command) == (number == errno.ENOSPC)
    assert "/a b" not in command or "'/a b'" in command
