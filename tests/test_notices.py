"""Notifications: each event once, to a URL that appears nowhere, and at no cost to the run."""

import signal
import time

import pytest
from receiver import SECRET, receiving
from test_processes import LONG, shards, until

from worldmodels.artifacts import Name
from worldmodels.errors import ConfigError
from worldmodels.executors import notices
from worldmodels.executors.kubernetes.job_status import View
from worldmodels.executors.notices import Notifier
from worldmodels.store import LocalStore

NAME = Name("demo", 1, "vae")


@pytest.fixture
def receiver():
    with receiving() as server:
        yield server


@pytest.fixture
def notify(tmp_path, monkeypatch):
    """Return a notifier that posts to a URL; `said` are its lines, `now` is its clock."""
    monkeypatch.setattr(notices, "PAUSE_SECONDS", 0.01)

    def make(url):
        said, now = [], [0.0]
        made = Notifier(url, LocalStore(tmp_path), "demo", said.append, clock=lambda: now[0])
        made.said, made.now = said, now
        return made

    return make


def events(receiver):
    return [(each["stage"], each["event"]) for each in receiver.got]


def everything(wm, done):
    """Return the bytes that a command printed and stored."""
    return (done.stdout + done.stderr).encode() + b"".join(p.read_bytes() for p in wm.store.rglob("*") if p.is_file())


def test_a_run_posts_each_stage_and_its_end_and_keeps_the_url_to_itself(wm, receiver):
    done = wm.run("rollouts", "--notify", receiver.url)
    assert done.returncode == 0, done.stderr
    assert events(receiver) == [("rollouts", "committed"), (None, "finished")]
    first = receiver.got[0]
    assert (first["schema"], first["run"], first["iteration"], first["store"]) == (1, "tiny", 1, str(wm.store))
    assert first["text"].startswith("tiny/iter-1/rollouts: committed: after ")
    assert SECRET.encode() not in everything(wm, done)


def test_an_error_is_posted_with_the_command_to_type_which_lacks_the_url(copy, receiver):
    copy.more = {"WM_NOTIFY": receiver.url}
    by_environment = copy.run("vae", "-o", "vae.epochs=2")
    copy.more = {}
    typed = copy.run("vae", "-o", "vae.epochs=2", "--notify", receiver.url)
    for done, posted in zip((by_environment, typed), receiver.got, strict=True):
        assert done.returncode == 10 and posted["event"] == "failed"
        assert posted["next"].endswith("--redo") and posted["next"] in done.stderr
        assert SECRET.encode() not in everything(copy, done) and "--notify" not in done.stderr


def test_a_finished_run_posts_its_score(copy, receiver):
    assert copy.run("--notify", receiver.url).returncode == 0
    (posted,) = receiver.got
    assert posted["event"] == "finished" and posted["score"]["tracks"] == 4
    assert posted["score"]["interval"][0] <= posted["score"]["mean"] <= posted["score"]["interval"][1]


def test_ctrl_c_is_posted_as_a_stop(wm, receiver):
    process = wm.start("run", "rollouts", "--config", str(wm.toml), *LONG, "--notify", receiver.url)
    until(lambda: shards(wm))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert events(receiver) == [("rollouts", "stopped")]


def test_a_receiver_that_recovers_gets_each_event_once(notify, receiver):
    receiver.answers = [500, 429]
    notifier = notify(receiver.url)
    notifier.post("failed", "the disk is full", name=NAME)
    notifier.close()
    assert events(receiver) == [("vae", "failed")] and not notifier.said


@pytest.mark.parametrize(("answers", "words"), [([404] * 2, "HTTP 404"), ([500] * 6, "HTTP 500"), ([302] * 2, "302")])
def test_a_receiver_that_refuses_is_reported_once_without_its_url(notify, receiver, answers, words):
    receiver.answers = list(answers)
    notifier = notify(receiver.url)
    for _ in range(2):
        notifier.post("failed", "the disk is full", name=NAME)
    notifier.close()
    (line,) = notifier.said
    assert words in line and "the run goes on" in line and SECRET not in line
    assert not receiver.answers and not receiver.got


def test_a_receiver_that_does_not_answer_delays_nothing(notify, receiver, monkeypatch):
    monkeypatch.setattr(notices, "CLOSE_SECONDS", 0.2)
    receiver.pause = 3.0
    notifier, began = notify(receiver.url), time.monotonic()
    notifier.post("failed", "the disk is full", name=NAME)
    assert time.monotonic() - began < 0.1
    notifier.close()
    assert time.monotonic() - began < 1


def test_an_address_without_a_server_is_reported(notify):
    notifier = notify("http://127.0.0.1:9/x")
    notifier.post("failed", "the disk is full", name=NAME)
    notifier.close()
    assert "a notification to http://127.0.0.1/… failed: " in notifier.said[0] and "refused" in notifier.said[0]


def test_a_stage_without_progress_is_posted_once_and_again_after_progress(notify, receiver):
    notifier = notify(receiver.url)
    with pytest.raises(KeyError), notifier.stage(NAME):
        for now, state in ((0, 1), (100, 2), (390, 2), (400, 2), (800, 2), (900, 3), (1250, 3)):
            notifier.now[0] = now
            notifier.saw(state, 300.0, "no progress")
        raise KeyError
    notifier.close()
    assert [each["message"] for each in receiver.got] == [
        "no progress for 5 min 00 s", "no progress for 5 min 50 s"
    ]  # fmt: skip
    assert events(receiver) == [("vae", "waiting")] * 2


def test_a_job_waits_while_no_pod_runs(notify, receiver):
    notifier = notify(receiver.url)
    pending = View(1, waiting=1, pending=("no node: 0/3 nodes are available",))
    with notifier.stage(NAME):
        for now, seen in (
            (0, pending),
            (200, View(1, running=1)),
            (600, View(1, running=1)),
            (700, pending),
            (1000, pending),
        ):
            notifier.now[0] = now
            notifier.saw_job(seen)
    notifier.close()
    assert events(receiver) == [("vae", "waiting"), ("vae", "committed")]
    assert receiver.got[0]["message"] == "no pod runs (no node: 0/3 nodes are available) for 5 min 00 s"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"ftp://host/{SECRET}", "ftp:"),
        (f"file:///{SECRET}", "does not begin so"),
        (SECRET, "does not begin so"),
        (f"http:///{SECRET}", "no host"),
        (f"https://user:{SECRET}@host/x", "a user or a password"),
        (f"https://host:{SECRET}/x", "no valid host and port"),
        (f"https://[::1/{SECRET}", "no valid host and port"),
        (f"https://host/{SECRET}\r\nX: y", "escape"),
        (f"https://host/ü {SECRET}", "escape"),
    ],
)
def test_other_urls_are_refused_without_being_printed(notify, url, words):
    with pytest.raises(ConfigError) as caught:
        notify(url)
    assert words in caught.value.message and SECRET not in caught.value.message


def test_text_that_a_message_quotes_is_no_markup_in_a_chat(notify, receiver):
    notifier = notify(receiver.url)
    message = "made with env = '<!channel> @here [a](http://b) \x1b[31m *x* `y`'\u202e"
    notifier.post("failed", message)
    notifier.close()
    (got,) = receiver.got
    assert got["message"] == message  # for programs, as it is
    assert not set("<>@[]`*\u202e") & set(got["text"]) and "channel" in got["text"]
