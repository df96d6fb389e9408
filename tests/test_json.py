"""Standard output as programs read it: nothing but JSON, errors included."""

import json
import sys
from pathlib import Path

import buckets
import pytest
from api import Api
from receiver import receiving
from test_driver import commit, fail
from wm import machine, main, options

from worldmodels.store import open_store


@pytest.fixture
def server():
    return Api()


@pytest.fixture
def wm(endpoint, server, monkeypatch, capsys):
    """`wm` in this process, on a bucket and a cluster in memory; gives (exit code, standard output)."""
    for name, value in buckets.environment(endpoint).items():
        monkeypatch.setenv(name, value)
    store = f"s3://{buckets.BUCKET}/{buckets.fresh_prefix()}"
    monkeypatch.setenv("WM_STORE", store)
    monkeypatch.setattr(main, "prepare", lambda: None)  # this process keeps its signals and its environment
    monkeypatch.setattr(options, "cluster", lambda settings, first_seconds=5.0: server.cluster())
    monkeypatch.setattr("worldmodels.executors.kubernetes.submission.POLL_SECONDS", 0.01)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["wm", *arguments])
        monkeypatch.setattr(machine, "_printed", set())
        with pytest.raises(SystemExit) as ended:
            main.main()
        return ended.value.code or 0, capsys.readouterr().out

    run.store = open_store(store)
    return run


def lines(said):
    return [json.loads(line) for line in said.splitlines()]


def test_a_submission_is_one_document_whatever_comes_of_it(wm, server):
    outcomes = []
    for _ in range(2):
        code, said = wm("submit", "rollouts", "--json")
        assert code == 0
        told = json.loads(said)
        assert told["schema"] == 1
        (job,) = told["jobs"]
        assert job["work"] == "demo/iter-1/rollouts" and job["namespace"] == "wm"
        outcomes.append(job["outcome"])
    commit(wm.store, *server.jobs.values())
    outcomes.append(json.loads(wm("submit", "rollouts", "--json")[1])["jobs"][0]["outcome"])
    assert outcomes == ["created", "attached", "committed"]


def test_a_run_with_jobs_is_continued_on_the_cluster(wm, server):
    assert wm("submit", "rollouts")[0] == 0
    commit(wm.store, *server.jobs.values())
    assert "Next: wm submit vae --run demo" in wm("status", "demo")[1]
    assert "demo/iter-1/rollouts: 4 pods" not in wm("submit", "pipeline")[1]  # no estimate of committed work


def test_a_waiting_program_gets_a_line_for_each_event(wm, server):
    server.made = lambda job: commit(wm.store, job)
    code, said = wm("submit", "rollouts", "vae", "--json", "--wait")
    assert code == 0
    told = [(each["event"], each["work"].rpartition("/")[2]) for each in lines(said)]
    assert told == [("submitted", "rollouts"), ("committed", "rollouts"), ("submitted", "vae"), ("committed", "vae")]
    assert lines(wm("attach", "vae", "--json")[1])[0]["event"] == "committed"


def test_a_command_that_waits_posts_what_its_jobs_do(wm, server):
    server.made = lambda job: commit(wm.store, job)
    with receiving() as receiver:
        assert wm("submit", "rollouts", "vae", "--wait", "--notify", receiver.url)[0] == 0
        server.made = lambda job: fail(wm.store, job)
        assert wm("submit", "rollouts", "--run", "other", "--notify", receiver.url, "--wait")[0] == 42
        assert wm("attach", "rollouts", "--run", "other", "--notify", receiver.url)[0] == 42
    assert [(each["stage"], each["event"]) for each in receiver.got] == [
        ("rollouts", "committed"), ("vae", "committed"), (None, "finished"), *[("rollouts", "failed")] * 2
    ]  # fmt: skip
    assert receiver.got[-1]["next"].startswith("wm logs rollouts --run other")


def test_a_bucket_that_pods_would_look_for_elsewhere_is_warned_of_before(wm, capsys, monkeypatch):
    said = []
    monkeypatch.setattr("wm.jobs._say", said.append)
    wm("submit", "rollouts", "--dry-run", "client")
    assert "kubernetes.s3_endpoint is empty" in said[0] and "next: " in said[0]
    wm("submit", "pipeline", "--dry-run", "client", "-o", "kubernetes.s3_endpoint='http://s3.wm.svc:8333'")
    assert len(said) == 1


def test_a_dry_run_is_the_jobs(wm):
    (job,) = json.loads(wm("submit", "rollouts", "--json", "--dry-run", "client")[1])["jobs"]
    assert job["kind"] == "Job"
    (job,) = json.loads(wm("submit", "rollouts", "--json", "--dry-run", "server")[1])["jobs"]
    assert job["accepted"] is True


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["submit", "vae", "--json"], 11, "MissingInput"),
        (["submit", "vae", "--json", "-o", "vae.epoch=1"], 43, "ConfigError"),
        (["submit", "rollouts", "pipeline", "--json"], 2, "UsageError"),
        (["attach", "rollouts", "--json"], 15, "ClusterError"),
        (["run", "no-stage", "--json"], 43, "ConfigError"),
        (["ls", "--json", "--no-such-option"], 2, "UsageError"),
        (["status", "--json", "--config", "none.toml"], 43, "ConfigError"),
    ],
)
def test_an_error_is_the_document(wm, arguments, code, kind):
    ended, said = wm(*arguments)
    assert ended == code
    error = json.loads(said)["error"]
    assert (error["exit_code"], error["kind"]) == (code, kind)
    assert error["message"] and error["next"]


def test_an_error_of_somebody_who_waits_is_the_last_line(wm, server):
    code, said = wm("submit", "rollouts", "vae", "--wait", "--json", "--pending-timeout", "1")
    assert code == 16
    *_, last = lines(said)
    assert (last["event"], last["error"]["kind"]) == ("error", "Pending")


def test_a_run_tells_events_and_a_pipe_gets_no_colours(make_wm):
    here = make_wm(FORCE_COLOR="1")
    short = ("-o", "rollouts.episodes=4", "-o", "rollouts.steps=20", "--workers", "1")
    plan = json.loads(here.ok("rollouts", "--dry-run", "--json", *short))
    assert plan["stages"] == [
        {"iteration": 1, "stage": "rollouts", "state": "missing", "asked_for": True, "reasons": []}
    ]
    told = lines(here.ok("rollouts", "--json", *short))
    assert [each["event"] for each in told if each["event"] != "progress"] == ["started", "committed"]
    assert [each["event"] for each in lines(here.ok("rollouts", "--json", *short))] == ["note"]
    again = make_wm(FORCE_COLOR="1").ok("rollouts", *short)
    assert "\x1b" not in again and "rollouts: done in" in again


def test_every_command_with_json_is_documented():
    page = (Path(main.__file__).parents[2] / "docs/json.md").read_text()
    for name in main.COMMANDS:
        command = main.cli.get_command(None, name)
        if any("--json" in parameter.opts for parameter in command.params):
            assert f"wm {name}" in page
