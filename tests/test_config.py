from pathlib import Path

import pytest

from worldmodels.config import PRESETS, Config, resolve
from worldmodels.errors import ConfigError


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_resolves(preset):
    config, origins = resolve(preset)
    assert origins["vae.epochs"] in (f"preset {preset}", "default")
    assert config.controller.generations >= 10


def test_the_paper_preset_has_the_papers_numbers():
    config, _ = resolve("paper")
    assert (config.rollouts.episodes, config.rollouts.steps) == (10_000, 1000)
    assert (config.vae.z, config.vae.width, config.vae.epochs) == (32, 1.0, 10)
    assert (config.memory.hidden, config.memory.mixtures, config.memory.epochs) == (256, 5, 20)
    assert (config.controller.population, config.controller.tracks, config.controller.generations) == (64, 16, 1800)
    assert config.controller.evaluate_every == 25


def test_later_sources_win_and_are_named(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text("seed = 7\n[vae]\nepochs = 5\nbatch = 50\n")
    config, origins = resolve("demo", [file], ["vae.epochs=6"])
    assert (config.seed, config.vae.epochs, config.vae.batch) == (7, 6, 50)
    assert origins["vae.epochs"] == "-o vae.epochs=6"
    assert origins["vae.batch"] == str(file)
    assert origins["vae.width"] == "preset demo"
    assert origins["vae.z"] == "default"


def test_the_stored_config_goes_on_unless_a_preset_is_named():
    before, origins = resolve("laptop", (), ["seed=3"])
    again, where = resolve(None, (), ["vae.epochs=9"], stored=(before.model_dump(), origins))
    assert (again.seed, again.vae.epochs, where["seed"]) == (3, 9, "-o seed=3")
    assert resolve("laptop", stored=(before.model_dump(), origins))[0].seed == 1


def test_iteration_two_drives_with_the_controller_and_keeps_its_overrides():
    config, origins = resolve("demo", iteration=2)
    assert (config.rollouts.controller, config.vae.warm_start) == ("mean", True)
    chosen, origins = resolve("demo", (), ["rollouts.controller=418"], iteration=2)
    assert resolve(None, iteration=2, stored=(chosen.model_dump(), origins))[0].rollouts.controller == 418


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("vae.epoch=2", "did you mean 'vae.epochs'"),
        ("epochs=2", "vae.epochs"),
        ("vae.epochs=-1", "vae.epochs = -1"),
        ("vae.epochs=two", "vae.epochs = 'two'"),
        ("vae.width=true", "vae.width"),
        ("vae.epochs", "section.key=value"),
        ("rollouts.controller=bestest", "rollouts.controller"),
        ("rollouts.episodes=7", "multiple of shard_episodes"),
        ("latents.episodes=3", "latents.episodes"),
        ("controller.growth=[{score=4}, {score=1}]", "controller.growth = .* scores must rise"),
        ("controller.growth=[{scor=4}]", "controller.growth"),
        ("controller.target=1e3x", "controller.target"),
        ("seed=-1", "seed = -1"),
        ("vae=3", "vae"),
    ],
)
def test_wrong_settings_are_refused_by_name(override, words):
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")) as caught:
        resolve("demo", (), [override])
    assert caught.value.exit_code == 43
    assert caught.value.next


@pytest.mark.parametrize(("text", "words"), [("vae = [", "is not TOML"), (None, "there is no config file")])
def test_unreadable_files_are_refused(tmp_path: Path, text, words):
    file = tmp_path / "x.toml"
    if text:
        file.write_text(text)
    with pytest.raises(ConfigError, match=words):
        resolve("demo", [file])


def test_goals_need_scores():
    with pytest.raises(ConfigError, match="target goes by validation scores"):
        resolve("paper", (), ["controller.target=800", "controller.evaluate_every=0"])


def test_what_may_be_unset_can_be_unset_again():
    before = resolve("demo", (), ["controller.target=800", "controller.start_from=3"])
    after, _ = resolve(None, (), ["controller.target=none", "controller.start_from=none"],
                       stored=(before[0].model_dump(), before[1]))  # fmt: skip
    assert after.controller.target is None and after.controller.start_from is None
    with pytest.raises(ConfigError, match="generations"):
        resolve("demo", (), ["controller.generations=none"])


def test_growth_is_a_list_of_levels():
    found, _ = resolve("demo", (), ["controller.growth=[{score=400, tracks=4, sigma=0.04}, {score=700, steps=900}]"])
    assert [(g.score, g.tracks, g.steps, g.sigma) for g in found.controller.growth] == [
        (400, 4, 0, 0.04),
        (700, 0, 900, 0),
    ]


def test_configs_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Config().seed = 2


def test_a_preset_changes_in_iteration_two_however_the_run_is_resumed():
    fresh, origins = resolve("laptop", iteration=2)
    assert (fresh.rollouts.controller, fresh.rollouts.steps, fresh.controller.warm_start) == ("mean", 1000, True)
    assert origins["rollouts.steps"] == "preset laptop, iteration 2"
    first, told = resolve("laptop")
    assert first.rollouts.controller == "random" and first.iterations == 2
    assert resolve(iteration=2, stored=(first.storable(), told))[0] == fresh
    second, told = resolve("laptop", (), ["vae.epochs=7"], iteration=2)
    assert resolve(iteration=2, stored=(second.storable(), told))[0] == second
    assert resolve("demo", iteration=2)[0].rollouts.steps == resolve("demo")[0].rollouts.steps
