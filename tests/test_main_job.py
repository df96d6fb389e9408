"""The whole pipeline on real frames, tiny: what a newcomer's first run does, and how it survives."""

import json
import re
import signal
import time

import pytest

from worldmodels.stages import STAGES


def test_one_command_commits_every_stage_and_prints_the_score(finished):
    rows = json.loads(finished("ls", "--json").stdout)["artifacts"]
    assert [row["artifact"] for row in rows] == [f"tiny/iter-1/{stage}" for stage in STAGES]
    assert "score: " in finished.stdout
    assert "95 % interval" in finished.stdout
    assert f"report: {finished.store}/tiny/iter-1/report/live/report.html" in finished.stdout
    page = (finished.store / "tiny/iter-1/report/live/report.html").read_text()
    assert "<html" in page
    assert 'src="http' not in page


def test_a_second_run_does_nothing(finished):
    before = finished.digests()
    assert "everything is committed; nothing to do" in finished.ok()
    assert finished.digests() == before


def test_a_changed_setting_names_what_would_be_redone(finished):
    done = finished.run("-o", "vae.epochs=2")
    assert done.returncode == 10
    assert "vae.epochs was 1 and is now 2" in done.stderr
    assert "vae, latents, memory, controller, evaluate, report" in done.stderr
    assert "--redo" in done.stderr


def test_the_run_remembers_its_config(finished):
    config = json.loads(finished("config", "--json").stdout)
    assert config["config"]["vae"]["width"] == 0.125
    assert config["origins"]["vae.width"] == str(finished.toml)
    assert "nothing to do" in finished("run").stdout


def test_show_tells_how_an_artifact_was_made(finished):
    (manifest,) = json.loads(finished("show", "controller", "--json").stdout)["manifests"]
    assert set(manifest["inputs"]) == {"iter-1/vae", "iter-1/memory"}
    assert manifest["made"]["versions"]["cma"]
    text = finished("show", "tiny/iter-1/rollouts").stdout
    assert "shards    2" in text
    assert "from        iter-1/latents" in finished("show", "controller").stdout  # memory's input, one level down
    assert "rollouts.steps = 40" in text


def test_tables_and_logs_can_be_followed(finished):
    for stage, file, column in (
        ("vae", "training.csv", "loss"),
        ("memory", "training.csv", "loss"),
        ("controller", "rewards.csv", "mean"),
    ):
        header, *rows = finished("logs", stage, "--file", file).stdout.strip().splitlines()
        assert column in header
        assert rows
    assert "is committed" in finished("logs", "controller").stdout


def test_evaluate_scores_chosen_tracks_and_commits_nothing(finished):
    before = finished.digests()
    done = finished("evaluate", "--seeds", "5:7", "--json")
    scores = json.loads(done.stdout)
    assert [row["track"] for row in scores["scores"]] == [5, 6]
    assert finished.digests() == before


def test_workers_and_lanes_do_not_change_a_digest(finished, wm):
    wm.ok("--workers", "1", "-o", "execution.lanes=3")
    assert wm.digests() == finished.digests()


def test_more_episodes_only_add_shards(copy):
    shards = "tiny/iter-1/rollouts/*/shards/*.json"
    before = {path: path.read_bytes() for path in copy.store.glob(shards)}
    copy.ok("rollouts", "-o", "rollouts.episodes=12")
    after = {path: path.read_bytes() for path in copy.store.glob(shards)}
    assert len(after) == len(before) + 1
    assert before.items() <= after.items()


def test_latents_of_a_range_of_episodes(copy):
    copy.ok("latents", "-o", "latents.episodes=0:4")
    assert len(json.loads((copy.store / "tiny/iter-1/latents/manifest-0to4.json").read_text())["shards"]) == 1
    done = copy.run("latents", "-o", "latents.episodes=0:3")
    assert done.returncode == 43
    assert "latents.episodes = 0:3" in done.stderr


def test_more_generations_go_on_from_the_last(copy):
    copy.ok("controller", "-o", "controller.generations=4")
    rows = copy("logs", "controller", "--file", "rewards.csv").stdout.strip().splitlines()
    assert len(rows) == 5


def test_an_older_generation_can_be_started_from(copy):
    copy.ok("controller", "-o", "controller.start_from=2", "-o", "controller.sigma=0.3", "--redo")
    rows = (copy.store / "tiny/iter-1/controller/live/rewards.csv").read_text().strip().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["1", "2", "3"]


def test_an_older_generation_that_is_not_there_is_named(copy):
    done = copy.run("controller", "-o", "controller.start_from=77", "-o", "controller.generations=80", "--redo")
    assert done.returncode == 11
    assert "77" in done.stderr


def test_iteration_two_drives_with_the_controller(copy):
    stdout = copy.ok("--iteration", "2", "-o", "memory.warm_start=true", "-o", "rollouts.controller=2")
    assert "score: " in stdout

    def inputs(stage: str) -> set[str]:
        return set(json.loads(copy("show", f"tiny/iter-2/{stage}", "--json").stdout)["manifests"][0]["inputs"])

    assert inputs("rollouts") == {"iter-1/vae", "iter-1/memory", "iter-1/controller"}
    assert inputs("vae") == {"iter-1/rollouts", "iter-2/rollouts", "iter-1/vae"}
    assert inputs("latents") == {"iter-1/rollouts", "iter-2/rollouts", "iter-2/vae"}
    assert inputs("memory") == {"iter-2/latents", "iter-1/memory"}
    assert inputs("controller") == inputs("rollouts") | {"iter-2/rollouts", "iter-2/vae", "iter-2/memory"}
    assert "nothing to do" in copy("run", "--iteration", "2").stdout


def test_one_command_makes_all_iterations(wm):
    shown = wm.run("--iterations", "2", "--dry-run").stdout
    assert re.search(r"iteration 1\nrollouts +to do\n(.*\n)+controller +to do\niteration 2\nrollouts +to do\n", shown)
    assert shown.count("report") == 1 and "GB of disk" in shown
    said = wm.ok("--iterations", "2")
    assert "controller 2: done" in said and said.count("score: ") == 1
    done = wm("evaluate", "--run", "tiny", "--seeds", "7:8")
    assert "of tiny/iter-2/controller" in done.stdout
    assert "nothing to do" in wm.run("--iterations", "2").stdout
    assert "--iterations goes with whole runs" in wm.run("vae", "--iterations", "2").stderr


def test_a_missing_input_names_the_command_that_makes_it(wm):
    done = wm.run("memory")
    assert done.returncode == 11
    assert "wm run latents" in done.stderr


def test_damaged_bytes_are_refused_and_redo_mends_them(copy):
    before = copy.digests()
    shard = next(copy.store.glob("tiny/iter-1/rollouts/data/*/shard-00001/*"))
    shard.write_bytes(shard.read_bytes()[:-10])
    done = copy.run("vae", "--redo", "-o", "vae.epochs=2")
    assert done.returncode == 14
    assert "shard 1 of tiny/iter-1/rollouts" in done.stderr
    assert "wm run rollouts" in done.stderr
    copy.ok("rollouts", "vae", "--redo")
    assert copy.digests() == before


def test_a_shard_that_cannot_be_made_fails_the_stage_unless_fewer_are_enough(copy):
    before = copy.digests()
    for path in [*copy.store.glob("tiny/iter-1/latents/*.json"), *copy.store.glob("tiny/iter-1/latents/*/shards/*")]:
        path.unlink()
    source = next(copy.store.glob("tiny/iter-1/rollouts/data/*/shard-00001/*"))
    whole = source.read_bytes()
    source.write_bytes(whole[:-10])
    done = copy.run("latents")
    assert done.returncode == 42
    assert "1 of 2 shards cannot be made; shard 1: shard 1 of tiny/iter-1/rollouts" in done.stderr
    copy.ok("latents", "-o", "execution.min_shards=0.5")
    assert len(json.loads((copy.store / "tiny/iter-1/latents/manifest-all.json").read_text())["shards"]) == 1
    source.write_bytes(whole)
    copy.ok("latents", "--redo")
    assert copy.digests() == before


def test_a_truncated_manifest_is_refused_by_name(copy):
    manifest = copy.store / "tiny/iter-1/vae/manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:100])
    done = copy.run()
    assert done.returncode == 14
    assert "tiny/iter-1/vae/manifest.json" in done.stderr
    copy.ok("vae", "--redo")
    assert "nothing to do" in copy.ok()


def test_a_damaged_generation_is_refused_by_name_and_made_again(copy):
    damaged = next(copy.store.glob("tiny/iter-1/controller/*/generations/00002/params"))
    damaged.write_bytes(damaged.read_bytes()[:99])
    done = copy.run("controller", "-o", "controller.generations=4")
    assert done.returncode == 14
    assert "generations/00002/params" in done.stderr
    before = (copy.store / "tiny/iter-1/controller/live/rewards.csv").read_text()
    for number in (2, 3, 4):
        (damaged.parents[1] / f"{number:05d}/params").unlink()
    copy.ok("controller", "-o", "controller.generations=4")
    assert (copy.store / "tiny/iter-1/controller/live/rewards.csv").read_text().startswith(before)


def test_status_tells_how_an_evolution_stands_that_is_not_committed(copy):
    for manifest in (copy.store / "tiny/iter-1/controller").rglob("manifest*.json"):
        manifest.unlink()
    rows = {row["stage"]: row for row in json.loads(copy("status", "tiny", "--json").stdout)["stages"]}
    evolution = rows["controller"]["evolution"]
    assert 1 <= evolution["generation"] <= evolution["generations"] and evolution["sigma"] > 0
    assert f"generation {evolution['generation']} of" in copy("status", "tiny").stdout
    assert rows["evaluate"]["evolution"] is None


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_stopped_run_goes_on_and_leaves_no_process(wm, how, code):
    first = wm.start("run", "rollouts", "--config", str(wm.toml), "-o", "rollouts.episodes=40000")  # minutes
    until(lambda: list(wm.store.glob("tiny/iter-1/rollouts/*/shards/*.json")))
    second = wm.run("rollouts")
    assert second.returncode == 12
    assert "another `wm` command" in second.stderr
    first.send_signal(how)
    _, stderr = first.communicate(timeout=30)
    assert first.returncode == code, stderr
    wm.ok("rollouts", "-o", "rollouts.episodes=16")
    assert wm.digests()


def until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_status_tells_what_a_run_on_this_machine_is_at(wm):
    running = wm.start("run", "rollouts", "--config", str(wm.toml), "-o", "rollouts.episodes=400", "--workers", "1")
    end = time.monotonic() + 60
    while not re.search("rollouts    at work    on .* for .*: .* of .* shards", said := wm("status", "tiny").stdout):
        assert time.monotonic() < end and running.poll() is None, said
    assert "vae         waits      for rollouts" in said
    running.send_signal(signal.SIGINT)
    running.communicate()
    assert re.search("rollouts    stopped .* shards; .*Next: wm run rollouts --run tiny", wm("status", "tiny").stdout)
