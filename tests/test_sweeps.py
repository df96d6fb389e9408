"""Sweeps: names of runs, artifacts that are copied where they are equal, and `wm sweep` itself."""

import csv
import json
import re
import shlex
import shutil
import signal
import time
from pathlib import Path

import buckets
import pytest
import small_run
import test_driver
from api import Api
from click.testing import CliRunner
from receiver import receiving
from wm.main import cli

from worldmodels import artifacts, stages, sweeps
from worldmodels.artifacts import publishing
from worldmodels.config import resolve
from worldmodels.control import describe
from worldmodels.errors import ConfigError, WorkFailed
from worldmodels.planning import Task, TaskState
from worldmodels.store import LocalStore
from worldmodels.upkeep import copying, garbage, verifying

STAGES = [name for name in stages.STAGES if name != "report"]


def runs(*overrides, name="s", preset="demo"):
    fixed, axes = sweeps.split(overrides)
    return sweeps.combined(name, fixed, axes, lambda values: resolve(preset, (), values))


def names(*overrides, **how):
    return [run.name for run in runs(*overrides, **how)]


# Names.


def test_the_last_setting_varies_fastest_and_names_have_the_seed_last():
    assert names("seed=1,2", "controller.sigma=0.05,0.1") == [
        "s-sigma0.05-seed1", "s-sigma0.1-seed1", "s-sigma0.05-seed2", "s-sigma0.1-seed2",
    ]  # fmt: skip


def test_more_values_another_order_and_other_spellings_leave_names_as_they_are():
    few = set(names("seed=1,2", "controller.sigma=0.05,0.1"))
    assert few < set(names("controller.sigma=0.2,1e-1,0.050", "seed=3,2,1"))


def test_a_setting_whose_last_word_others_have_too_is_written_out():
    assert names("vae.epochs=2,3") == ["s-vae.epochs2", "s-vae.epochs3"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("controller.inputs=z,z h", ["s-inputsz", "s-inputszh"]),
        ("vae.warm_start=true,false", ["s-vae.warm_starttrue", "s-vae.warm_startfalse"]),
        ("latents.episodes=all,0:4", ["s-latents.episodesall", "s-latents.episodes0to4"]),
        ("controller.target=none,800", ["s-targetnone", "s-target800"]),
    ],
)
def test_every_kind_of_value_makes_a_name(override, expected):
    assert names(override) == expected


def test_commas_within_brackets_and_quotation_marks_do_not_separate():
    growth = "controller.growth=[{score=1.0, tracks=3}, {score=2.0}]"
    assert sweeps.split((growth, 'env="a,b"')) == ((growth, 'env="a,b"'), ())
    few = names("controller.growth=[{score=1.0, tracks=3}],[]")
    assert len(few) == 2 and all(re.fullmatch("s-growth[0-9a-f]{6}", name) for name in few)


def test_values_are_told_as_the_settings_have_them():
    found = runs("vae.z=8", "seed=1,2", "controller.sigma=1e-1,1")
    assert [dict(run.values) for run in found[:2]] == [
        {"seed": "1", "controller.sigma": "0.1"}, {"seed": "1", "controller.sigma": "1"},
    ]  # fmt: skip
    assert [(run.config.vae.z, run.config.seed, run.config.controller.sigma) for run in found[2:]] == [
        (8, 2, 0.1), (8, 2, 1.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("seed=1",), "nothing to compare"),
        (("seed=1,",), "empty value"),
        (("seed=,",), "empty value"),
        (("seed=1,1",), "two combinations would be the run s-seed1"),
        (("controller.sigma=0.1,0.10",), "two combinations would be the run"),
        (("seed=1,2", "seed=3"), "several values already"),
        (("seed=1,2", "seed=3,4"), "several values already"),
        (("sed=1,2",), "did you mean 'seed'"),
        (("seed=1,a",), "seed = 'a'"),
        (("seed=1,2", "vae.z=" + ",".join(map(str, range(1, 102)))), "202 runs"),
    ],
)
def test_lists_that_cannot_be_swept(overrides, words):
    with pytest.raises(ConfigError, match=words) as caught:
        runs(*overrides)
    assert caught.value.next


@pytest.mark.parametrize("name", ["x" * 45, "Bad name"])
def test_a_run_name_that_cannot_be_is_refused(name):
    with pytest.raises(ConfigError, match="use 1 to 48"):
        runs("seed=1,2", name=name)


# Copies.


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("sweeps")
    return small_run.build(root / "store", root / "scratch")


@pytest.fixture(params=["folder", "bucket"])
def store(request, built, tmp_path):
    """A store of its own with the run `small`."""
    found = LocalStore(tmp_path / "store")
    if request.param == "bucket":
        found = buckets.open_bucket(request.getfixturevalue("endpoint"), buckets.fresh_prefix(), lease_seconds=1.0)
    copying.copy(copying.plan(built, found, "small"), built, found)
    return found


def state(store, stage, *overrides, run="twin"):
    return TaskState(store, Task(run, 1, stage, resolve("demo", (), (*small_run.OVERRIDES, *overrides))[0]))


def test_a_copied_run_is_an_ordinary_one_that_needs_the_other_no_more(store):
    assert [sweeps.adopt(state(store, stage), ["missing", "small", "twin"]) for stage in STAGES] == ["small"] * 6
    for stage in STAGES:
        made, copy = (state(store, stage, run=run).committed() for run in ("small", "twin"))
        assert (copy["digest"], copy["inputs"]) == (made["digest"], made["inputs"])
        assert copy["made"]["notes"]["copied"] == "small"
        assert all(file["key"].startswith(f"twin/iter-1/{stage}/data/") for file in artifacts.stored_files(copy))
    assert store.get("twin/iter-1/controller/live/rewards.csv") == store.get("small/iter-1/controller/live/rewards.csv")
    store.delete_many([entry.key for entry in store.entries("small/")])
    assert verifying.verify(store, "twin").damage == []
    assert verifying.verify(store, "twin").objects > 20
    assert garbage.survey(store, "twin", 0.0).garbage == []


def test_a_report_is_not_copied_since_it_names_its_run(store):
    work = state(store, "report", run="small").identity
    publishing.commit(store, work, files={}, telemetry={}, shards=[], resolved={}, made={"finished": "now"})
    for stage in STAGES:
        sweeps.adopt(state(store, stage), ["small"])
    assert state(store, "report").identity.differences(state(store, "report", run="small").committed()) == []
    assert sweeps.adopt(state(store, "report"), ["small"]) == ""
    found = runs(*small_run.OVERRIDES, "seed=1,2", name="small")
    tasks = {run.name: [Task(run.name, 1, stage, run.config) for stage in stages.STAGES] for run in found}
    planned = sweeps.plan(store, tasks, names_of(tasks, stages.STAGES), "small").runs["small-seed1"]
    assert [each.source for each in planned] == ["small"] * 6 + [""]


def test_a_copy_of_a_copy_names_the_run_that_did_the_work(store):
    sweeps.adopt(state(store, "rollouts"), ["small"])
    assert sweeps.adopt(state(store, "rollouts", run="third"), ["twin"]) == "twin"
    assert state(store, "rollouts", run="third").committed()["made"]["notes"]["copied"] == "small"


@pytest.mark.parametrize("override", ["seed=2", "rollouts.hold=3", "rollouts.episodes=8"])
def test_another_setting_is_not_copied(built, override):
    assert sweeps.adopt(state(built, "rollouts", override), ["small"]) == ""


def test_other_inputs_are_not_copied(store):
    """V's settings are equal; its rollouts are not."""
    sweeps.adopt(state(store, "rollouts"), ["small"])
    manifest = dict(state(store, "rollouts").committed())
    other = state(store, "vae").identity
    assert other.inputs["iter-1/rollouts"] == manifest["digest"]
    changed = TaskState(store, Task("twin", 1, "vae", state(store, "vae", "vae.epochs=9").task.config))
    assert sweeps.adopt(changed, ["small"]) == ""


def test_a_damaged_manifest_elsewhere_is_not_copied(store):
    key = state(store, "rollouts", run="small").identity.manifest_key
    store.put(key, b"{")
    assert sweeps.adopt(state(store, "rollouts"), ["small"]) == ""


def test_more_generations_and_episodes_go_on_from_the_other_runs_work(store):
    for stage in STAGES[:4]:
        sweeps.adopt(state(store, stage), ["small"])
    more = state(store, "controller", "controller.generations=9")
    assert sweeps.adopt(more, ["small"]) == ""
    assert sweeps.prepare(more, ["missing", "small"]) == "small"
    assert describe(more.workspace, more.task.config.controller).generation >= 5
    assert sweeps.prepare(more, ["small"]) == ""  # it has begun
    episodes = state(store, "rollouts", "rollouts.episodes=8", run="long")
    assert sweeps.prepare(episodes, ["small"]) == "small"
    records = [artifacts.read_record(store, episodes.identity.shard_key(index)) for index in range(2)]
    assert all(
        file["key"].startswith("long/") and store.get(file["key"]) for r in records for file in r["files"].values()
    )
    assert verifying.verify(store, "long").damage == []


# The plan.


def plan(store, *overrides, chosen=STAGES, name="s"):
    found = runs(*small_run.OVERRIDES, *overrides, name=name)
    tasks = {run.name: [Task(run.name, 1, stage, run.config) for stage in STAGES] for run in found}
    return sweeps.plan(store, tasks, names_of(tasks, chosen), name)


def names_of(tasks, chosen=STAGES):
    return {task.name for each in tasks.values() for task in each if task.stage in chosen}


def states(plan):
    return {run: " ".join(f"{s.source or s.state}" for s in each) for run, each in plan.runs.items()}


def test_equal_stages_are_planned_once(tmp_path):
    found = plan(LocalStore(tmp_path), "seed=1,2", "memory.epochs=0,1")
    assert states(found) == {
        "s-memory.epochs0-seed1": "missing missing missing missing missing missing",
        "s-memory.epochs1-seed1": " ".join(["s-memory.epochs0-seed1"] * 3 + ["missing"] * 3),
        "s-memory.epochs0-seed2": "missing missing missing missing missing missing",
        "s-memory.epochs1-seed2": " ".join(["s-memory.epochs0-seed2"] * 3 + ["missing"] * 3),
    }
    once = plan(LocalStore(tmp_path), "seed=1", "memory.epochs=0,1")
    assert found.core_hours() == pytest.approx(2 * once.core_hours())
    assert found.hours(2) > found.hours(4)


def test_the_run_of_the_sweeps_name_and_later_runs_are_copied_from(built):
    found = plan(built, "controller.sigma=0.2,0.1", "vae.epochs=2,3", name="small")
    assert states(found) == {
        "small-vae.epochs2-sigma0.2": "small small small small missing missing",
        "small-vae.epochs3-sigma0.2": "small missing missing missing missing missing",
        "small-vae.epochs2-sigma0.1": "small small small small small small",
        "small-vae.epochs3-sigma0.1": " ".join(["small"] + ["small-vae.epochs3-sigma0.2"] * 3 + ["missing"] * 2),
    }


def test_prices_are_part_of_the_plan(tmp_path):
    found = plan(LocalStore(tmp_path), "seed=1,2", "kubernetes.prices.cpu_hour=0.5")
    assert found.local_price() == pytest.approx(found.core_hours() / 2)


@pytest.mark.parametrize(
    ("override", "chosen"), [("execution.workers=1,2", STAGES), ("controller.sigma=0.1,0.2", ["rollouts", "vae"])]
)
def test_runs_that_would_be_equal_are_refused(tmp_path, override, chosen):
    with pytest.raises(ConfigError, match="would be equal: no chosen stage"):
        plan(LocalStore(tmp_path), override, chosen=chosen)


# The table.


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A store with two whole runs of a sweep over seeds, and the arguments of that sweep."""
    root = tmp_path_factory.mktemp("scored")
    with pytest.MonkeyPatch.context() as patch:
        for seed in (1, 2):
            patch.setattr(small_run, "RUN", f"small-seed{seed}")
            patch.setattr(small_run, "OVERRIDES", (*OVERRIDES, f"seed={seed}"))
            small_run.build(root / "store", root / str(seed))
    words = [word for override in OVERRIDES for word in ("-o", override)]
    return ["sweep", *words, "--run", "small", "--store", str(root / "store")]


OVERRIDES = small_run.OVERRIDES


def committed(scored, stage):
    """The manifest of a stage of the first run, and its store."""
    store = LocalStore(Path(scored[-1]))
    (manifest,) = artifacts.manifests(store, artifacts.Name("small-seed1", 1, stage))
    return manifest, store


def table(scored, *words):
    return CliRunner().invoke(cli, [*scored, *words, "--table"], catch_exceptions=False).output


def test_the_table_has_scores_times_and_the_mean_over_seeds(scored):
    text = table(scored, "-o", "seed=1,2,3")
    rows = [line.split() for line in text.splitlines()]
    by_run = {row[0]: row[1:] for row in rows if row}
    digest = committed(scored, "evaluate")[0]["digest"][:12]
    controller, store = committed(scored, "controller")
    rewards = csv.DictReader(store.get(controller["files"]["rewards.csv"]["key"]).decode().splitlines())
    validated = f"{[float(row['validation']) for row in rewards if row['validation']][-1]:.0f}"
    first = next(row for row in rows if row and row[0] == "small-seed1")
    assert first[1:] == ["16", "±", "14", "16", "(0", "to", "32)", "0", "of", "4", validated, digest]
    assert next(row for row in rows if row and row[0] == "small-seed3")[1:3] == ["not", "scored"]
    assert by_run["all"] == ["16", "±", "0", "1:", "16,", "2:", "16"]
    assert by_run["small-seed1"].count("1:00") == 6  # every stage took a minute
    assert by_run["small-seed1"][-1] == "6:00"


def test_the_table_is_one_json_document_for_programs(scored):
    told = json.loads(table(scored, "-o", "seed=1,2", "--json"))
    assert [row["values"] for row in told["runs"]] == [{"seed": "1"}, {"seed": "2"}]
    assert told["groups"] == [{"values": {}, "means": {"1": 15.75, "2": 15.75}, "mean": 15.75, "std": 0.0}]
    assert told["runs"][0]["seconds"]["vae"] == 60.0 and told["runs"][0]["scores"]["tracks"] == 4


def test_a_damaged_run_does_not_hide_the_others(scored, tmp_path):
    shutil.copytree(scored[-1], tmp_path / "store")
    for path in (tmp_path / "store/small-seed1/iter-1/evaluate").glob("manifest*.json"):
        path.write_text("{")
    text = table([*scored[:-1], str(tmp_path / "store")], "-o", "seed=1,2")
    assert re.search("small-seed1 +damaged", text) and re.search("small-seed2 +16 ± ", text)
    assert re.search("all +16 +2: 16$", text, re.MULTILINE), "one seed has no deviation"


# On a cluster.


def test_jobs_make_each_equal_artifact_once_and_a_failed_one_stops_its_own_run_only(tmp_path, monkeypatch):
    """A folder goes by a bucket's name; the API server commits for the pods."""
    from wm import options

    store, server = LocalStore(tmp_path), Api()
    store.uri = "s3://bucket"

    def made(job):
        label = job["metadata"]["labels"]["app.kubernetes.io/instance"]
        test_driver.fail(store, job) if label == "demo-memory.epochs1" else test_driver.commit(store, job)

    server.made = made
    monkeypatch.setattr("worldmodels.store.open_store", lambda uri: store)
    monkeypatch.setattr(options, "cluster", lambda settings: server.cluster())
    words = ["sweep", "memory", "latents", "vae", "rollouts", "-o", "memory.epochs=0,1,2", "--store", "s3://bucket"]
    done = CliRunner().invoke(cli, [*words, "--cluster", "-o", "kubernetes.s3_endpoint="])
    assert isinstance(done.exception, WorkFailed)
    assert "1 of 3 runs failed: demo-memory.epochs1" in done.exception.message
    labels = [job["metadata"]["labels"] for job in server.jobs.values()]
    jobs = [(label["app.kubernetes.io/instance"], label["app.kubernetes.io/component"]) for label in labels]
    assert jobs == [
        *(("demo-memory.epochs0", stage) for stage in STAGES[:4]),
        ("demo-memory.epochs1", "memory"), ("demo-memory.epochs2", "memory"),
    ]  # fmt: skip
    assert "6 stages to do, 6 shared, 0 committed" in done.output
    assert "pod-hours; the hours of vae and memory on GPUs are unknown" in done.output


def test_a_cluster_needs_a_bucket(tmp_path):
    done = CliRunner().invoke(cli, ["sweep", "-o", "seed=1,2", "--cluster", "--store", str(tmp_path)])
    assert isinstance(done.exception, ConfigError) and "cannot reach a folder" in done.exception.message


# The paper's table.


def test_every_study_is_in_the_help_and_its_runs_differ(tmp_path):
    text = CliRunner().invoke(cli, ["study", "--help"]).output
    for name, each in sweeps.STUDIES.items():
        assert f"{name}:" in text
        found = sweeps.combined(name, each.fixed, each.axes, lambda values: resolve(each.preset, (), values))  # noqa: B023
        tasks = {run.name: [Task(run.name, 1, stage, run.config) for stage in stages.STAGES] for run in found}
        assert len(sweeps.plan(LocalStore(tmp_path), tasks, names_of(tasks), name).runs) == len(found)
        assert set(each.published) <= {value for run in found for value in run.values.values()}


def test_a_run_of_several_iterations_is_planned_as_a_whole(tmp_path):
    done = CliRunner().invoke(
        cli,
        ["sweep", "-o", "iterations=2", "-o", "evaluate.tracks=5,10", "--dry-run", "--store", str(tmp_path), "--json"],
    )
    first, second = json.loads(done.output)["runs"]
    own = [(each["iteration"], each["stage"]) for each in second["stages"] if not each["source"]]
    assert own == [(2, "evaluate"), (2, "report")]
    assert [each["iteration"] for each in first["stages"]] == [1] * 5 + [2] * 7


def test_the_papers_table_shares_v_and_leaves_m_untrained_once_a_seed(tmp_path):
    done = CliRunner().invoke(cli, ["study", "paper-table", "--dry-run", "--store", str(tmp_path), "--json"])
    rows = {row["run"]: row for row in json.loads(done.output)["runs"]}
    assert len(rows) == 12
    made = [(run, each["stage"]) for run, row in rows.items() for each in row["stages"] if not each["source"]]
    counts = {stage: sum(each == stage for _, each in made) for stage in STAGES}
    assert counts == {"rollouts": 3, "vae": 3, "latents": 3, "memory": 6, "controller": 12, "evaluate": 12}
    table_of = sweeps.study("paper-table")
    found = sweeps.combined("p", table_of.fixed, table_of.axes, lambda values: resolve("laptop", (), values))
    by_name = {run.name: run.config for run in found}
    assert by_name["p-zh-untrained-seed2"].memory.epochs == 0 and by_name["p-zh-seed2"].memory.epochs == 12
    assert by_name["p-z-hidden-seed3"].controller.hidden == 40 and by_name["p-z-seed3"].controller.inputs == "z"
    assert len({run.config.controller.generations for run in found}) == 1


def test_a_page_that_cannot_be_written_is_refused_before_the_sweep(tmp_path):
    page = tmp_path / "missing" / "page.html"
    done = CliRunner().invoke(cli, ["sweep", "-o", "seed=1,2", "--page", str(page), "--store", str(tmp_path / "store")])
    assert done.exit_code == 2 and f"{page.parent} is not a folder" in done.output
    assert not (tmp_path / "store").exists()


def test_the_page_has_the_papers_scores_beside_those_of_each_seed(tmp_path, monkeypatch):
    for seed in (1, 2):
        monkeypatch.setattr(small_run, "RUN", f"paper-table-z-seed{seed}")
        monkeypatch.setattr(small_run, "OVERRIDES", (*OVERRIDES, f"seed={seed}", "controller.inputs=z"))
        small_run.build(tmp_path / "store", tmp_path / str(seed))
    words = [word for override in OVERRIDES for word in ("-o", override)]
    where = ["--preset", "demo", "--page", str(tmp_path / "page.html"), "--store", str(tmp_path / "store")]
    done = CliRunner().invoke(cli, ["study", "paper-table", *words, *where, "--table"], catch_exceptions=False)
    (line,) = (line for line in done.output.splitlines() if line.startswith("C sees z "))
    assert line.split() == ["C", "sees", "z", "16", "±", "0", "1:", "16,", "2:", "16", "632", "±", "251"]
    page = (tmp_path / "page.html").read_text()
    assert "632 ± 251" in page and "<svg" in page and "paper-table-zh-untrained-seed3" in page


def test_an_unknown_study_is_refused_with_the_closest():
    done = CliRunner().invoke(cli, ["study", "paper-tabel"])
    assert isinstance(done.exception, ConfigError) and "did you mean 'paper-table'" in done.exception.message


# The command.


def sweep(wm, *words, name="s"):
    return wm("sweep", *words, "--run", name, "--config", str(wm.toml))


def attempts(wm, stage):
    paths = wm.store.glob(f"s-*/iter-1/{stage}/manifest*.json")
    return {path.parts[-4]: json.loads(path.read_text())["made"]["attempt"] for path in paths}


def test_rollouts_v_and_latents_are_made_once_for_two_kinds_of_m(wm):
    done = sweep(wm, "rollouts", "vae", "latents", "memory", "-o", "memory.epochs=0,1")
    assert done.returncode == 0, done.stdout + done.stderr
    for stage, count in (("rollouts", 1), ("vae", 1), ("latents", 1), ("memory", 2)):
        found = attempts(wm, stage)
        assert (len(found), len(set(found.values()))) == (2, count), stage
    assert "2 runs: 5 stages to do, 3 shared, 0 committed" in done.stdout
    assert done.stdout.count("copied from s-memory.epochs0") == 3
    assert [wm("verify", f"s-memory.epochs{n}").returncode for n in (0, 1)] == [0, 0]
    again = sweep(wm, "rollouts", "vae", "latents", "memory", "-o", "memory.epochs=0,1", "--dry-run")
    assert "2 runs: 0 stages to do, 0 shared, 8 committed" in again.stdout


def test_a_stopped_sweep_goes_on_and_another_value_is_added(wm):
    words = ("rollouts", "-o", "rollouts.hold=2,3")
    process = wm.start("sweep", *words, "--run", "s", "--config", str(wm.toml))
    deadline = time.monotonic() + 120
    while not list(wm.store.glob("s-hold2/iter-1/rollouts/manifest*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 143
    before = attempts(wm, "rollouts")
    assert list(before) == ["s-hold2"]
    done = sweep(wm, "rollouts", "-o", "rollouts.hold=3,2,4")
    assert done.returncode == 0, done.stdout + done.stderr
    after = attempts(wm, "rollouts")
    assert set(after) == {"s-hold2", "s-hold3", "s-hold4"} and after["s-hold2"] == before["s-hold2"]
    assert json.loads(wm("config", "--run", "s-hold3", "--json").stdout)["config"]["rollouts"]["hold"] == 3


def test_a_failed_run_does_not_stop_the_others_and_its_hint_is_about_it(wm):
    assert wm("run", "rollouts", "--run", "s-hold2", "--config", str(wm.toml), "-o", "rollouts.hold=5").returncode == 0
    done = sweep(wm, "rollouts", "-o", "rollouts.hold=2,3")
    assert done.returncode == 10
    assert set(attempts(wm, "rollouts")) == {"s-hold2", "s-hold3"}
    assert "1 of 2 runs failed: s-hold2" in done.stderr and "rollouts.hold was 5.0 and is now 2.0" in done.stderr
    assert f"next: wm sweep rollouts -o rollouts.hold=2,3 --run s --config {wm.toml} --redo" in done.stderr
    told = sweep(wm, "rollouts", "-o", "rollouts.hold=2,3", "--json")
    events = [json.loads(line) for line in told.stdout.splitlines()]
    assert [each["event"] for each in events] == ["plan", "run", "failed", "run", "note", "table", "error"]
    assert events[2]["run"] == "s-hold2" and events[2]["error"]["exit_code"] == 10
    repaired = sweep(wm, "rollouts", "-o", "rollouts.hold=2,3", "--redo")
    assert repaired.returncode == 0, repaired.stderr


def test_a_sweep_posts_what_becomes_of_its_runs(wm):
    assert wm("run", "rollouts", "--run", "s-hold2", "--config", str(wm.toml), "-o", "rollouts.hold=5").returncode == 0
    with receiving() as receiver:
        words = ("rollouts", "-o", "rollouts.hold=2,3", "--notify")
        assert sweep(wm, *words, receiver.url).returncode == 10
    posted = [(each["run"], each["event"], each["stage"]) for each in receiver.got]
    assert posted == [
        ("s-hold2", "failed", None),
        ("s-hold3", "committed", "rollouts"),
        ("s-hold3", "finished", None),
        ("s", "failed", None),
    ]
    assert "--redo" in receiver.got[0]["next"] and receiver.got[3]["message"] == "1 of 2 runs are committed"
    refused = sweep(wm, *words, "ftp://host/x")
    assert refused.returncode == 43 and "notifications go to a URL" in refused.stderr


def test_the_hint_for_a_damaged_run_repairs_it_alone(wm):
    words = ("rollouts", "-o", "rollouts.hold=2,3")
    assert sweep(wm, *words).returncode == 0
    before = attempts(wm, "rollouts")
    for path in wm.store.glob("s-hold2/iter-1/rollouts/manifest*.json"):
        path.write_text("{")
    done = sweep(wm, *words)
    assert done.returncode == 14
    repair, again = re.search("next: (.*), then (.*)$", done.stderr, re.MULTILINE).groups()
    assert wm(*shlex.split(repair)[1:]).returncode == 0
    assert wm(*shlex.split(again)[1:]).returncode == 0
    after = attempts(wm, "rollouts")
    assert set(after) == set(before) and after["s-hold3"] == before["s-hold3"]


def test_a_sweep_that_another_command_works_on_is_left_alone(wm):
    store = LocalStore(wm.store)
    with store.lock("s"):
        done = sweep(wm, "rollouts", "-o", "rollouts.hold=2,3")
    assert done.returncode == 12 and not list(wm.store.glob("s-*"))
    (command,) = re.findall("next: (.*)", done.stderr)
    assert wm(*shlex.split(command)[1:]).returncode == 0


def test_a_sweep_takes_v_and_m_from_the_run_of_its_name(copy):
    """Its controllers and scores alone are made."""
    done = sweep(copy, "controller", "evaluate", "-o", "controller.generations=3,4", name="tiny")
    assert done.returncode == 0, done.stdout + done.stderr
    digests = {run: {row["artifact"].partition("/")[2]: row["digest"] for row in listed(copy, run)} for run in
               ("tiny", "tiny-generations3", "tiny-generations4")}  # fmt: skip
    assert digests["tiny-generations3"] == {key: value for key, value in digests["tiny"].items() if "report" not in key}
    assert digests["tiny-generations4"]["iter-1/memory"] == digests["tiny"]["iter-1/memory"]
    assert "controller: goes on from the work of" in done.stdout
    assert "tiny-generations4" in done.stdout.splitlines()[-1]


def listed(wm, run):
    return json.loads(wm("ls", run, "--json").stdout)["artifacts"]
