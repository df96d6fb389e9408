import json

import numpy as np
import pytest
from fakes import FolderArtifact, Killed, context, fix_threads, folder_shards, kill_after, not_finite, results

from worldmodels.errors import WorkFailed
from worldmodels.memory import baselines
from worldmodels.memory.data import Episodes, windows
from worldmodels.networks import Step
from worldmodels.vision import latents
from worldmodels.vision.latents import Latents

Z = 3
TINY = {
    "memory.hidden": 8, "memory.mixtures": 2, "memory.batch": 3, "memory.sequence": 5, "memory.epochs": 4,
    "memory.held_out": 0.3, "memory.learning_rate": 0.01,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def threads():
    fix_threads()


def drift(rng, length):
    """z moves by what the first action says, and a little noise."""
    actions = rng.uniform(-1, 1, (length, 3)).astype(np.float32)
    moved = np.concatenate([[0], np.cumsum(actions[:-1, 0])])
    mean = moved[:, None] + 0.05 * rng.standard_normal((length, Z))
    return Latents(mean.astype(np.float32), np.full((length, Z), -6, np.float32), actions)


def shards(folder, lengths):
    rng = np.random.default_rng(0)
    made = [{latents.FILE: latents.pack([drift(rng, n) for n in shard])} for shard in lengths]
    return folder_shards(folder, made)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return shards(tmp_path_factory.mktemp("latents") / "shards", [[12, 7], [20, 2], [9, 14], [1, 16]])


@pytest.fixture
def episodes(artifact):
    return Episodes(artifact.shards, 3, seed=1, held_out=0.3, cache_bytes=0)


def key(episode):
    return episode.mean.tobytes()


def held(episodes):
    return {key(episode) for episode, _ in episodes.held_out()}


def test_windows_show_every_step_of_every_training_episode_once_and_in_order(episodes):
    seen, state = {}, {}
    for window, _ in windows(episodes, batch=3, sequence=5, epochs=1):
        state = {} if window.first else state
        for row, mask in enumerate(window.mask):
            steps = int(mask.sum())
            assert mask.tolist() == [1] * steps + [0] * (5 - steps)
            state[row] = [*state.get(row, []), *window.actions[row][:steps].tolist()]
            if steps:
                seen[str(state[row][0])] = state[row]
    trained = episodes.training(range(4))
    expected = {str(e.actions[0].tolist()): e.actions[:-1].tolist() for e in trained if len(e.mean) > 1}
    assert seen == expected


def test_a_windows_target_is_the_next_frame_of_the_same_episode(episodes):
    for window, _ in windows(episodes, batch=3, sequence=5, epochs=1):
        change = (window.mean[:, 1:] - window.mean[:, :-1]).mean(-1) - window.actions[:, :, 0]
        assert np.abs(change * window.mask).max() < 0.4


def test_windows_go_on_from_any_position(episodes):
    whole = list(windows(episodes, batch=2, sequence=5, epochs=2))
    for at, (_, mark) in enumerate(whole):
        rest = list(windows(episodes, batch=2, sequence=5, epochs=2, start=mark.after))
        assert [w.mean.tobytes() for w, _ in rest] == [w.mean.tobytes() for w, _ in whole[at + 1 :]]


def test_what_is_held_out_is_never_trained_on(episodes):
    trained = {key(episode) for episode in episodes.training(range(4))}
    assert (len(trained), len(held(episodes))) == (4, 3) == (episodes.trained, episodes.held)  # one has a single frame
    assert not trained & held(episodes)


def test_more_shards_leave_the_choice_of_the_held_out_as_it_is(artifact):
    few, many = (Episodes(artifact.shards[:n], 3, 1, 0.3, 0) for n in (3, 4))
    assert held(few) <= held(many)
    assert not {key(e) for e in few.training(range(3))} & held(many)


def test_one_episode_at_least_is_held_out(artifact):
    assert Episodes(artifact.shards, 3, seed=1, held_out=1e-9, cache_bytes=0).held == 1


def test_held_out_draws_are_always_the_same(episodes):
    first, second = ([z for _, z in episodes.held_out()] for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_baselines_find_the_density_that_made_the_data():
    rng = np.random.default_rng(0)
    steps = rng.normal(0, 0.5, (4000, 2))
    walk = Latents(np.cumsum(steps, 0).astype(np.float32), np.full((4000, 2), -30, np.float32), np.zeros((4000, 3)))
    noise = Latents(rng.normal(3, 2, (4000, 2)).astype(np.float32), walk.logvar, walk.actions)
    entropy = [2 * 0.5 * np.log(2 * np.pi * np.e * s**2) for s in (0.5, 2)]
    assert baselines.fit([walk]).nll(walk.mean)[0] / 3999 == pytest.approx(entropy[0], abs=0.05)
    assert baselines.fit([noise]).nll(noise.mean)[1] / 3999 == pytest.approx(entropy[1], abs=0.05)


def test_baselines_count_the_spread_of_the_draws():
    still = Latents(np.zeros((50, 1), np.float32), np.full((50, 1), np.log(4), np.float32), np.zeros((50, 3)))
    fitted = baselines.fit([still])
    assert (fitted.variance, fitted.step) == (pytest.approx(4), pytest.approx(8))


def test_the_likelihood_is_that_of_a_mixture_per_dimension():
    from worldmodels.memory.model import negative_log_likelihood

    rng = np.random.default_rng(0)
    logits, mu, log_sigma = (rng.standard_normal((1, 2, Z, 4)) for _ in range(3))
    z = rng.standard_normal((1, 2, Z))
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    sigma = np.exp(log_sigma)
    density = (weights * np.exp(-(((z[..., None] - mu) / sigma) ** 2) / 2) / (sigma * np.sqrt(2 * np.pi))).sum(-1)
    np.testing.assert_allclose(negative_log_likelihood((logits, mu, log_sigma), z), -np.log(density).sum(-1))


def test_sigma_may_be_far_below_one():
    from worldmodels.memory.model import negative_log_likelihood

    sharp = np.zeros((1, 1, 1, 1)), np.ones((1, 1, 1, 1)), np.full((1, 1, 1, 1), -5.0)
    assert float(negative_log_likelihood(sharp, np.ones((1, 1, 1)))[0, 0]) == pytest.approx(-5 + 0.919, abs=1e-3)


def test_steps_are_the_sequence_one_by_one():
    import tensorflow as tf

    from worldmodels.memory.model import Memory

    memory = Memory(Z, 3, 8, 2)
    z, a = tf.random.stateless_normal((2, 6, Z), (1, 1)), tf.random.stateless_normal((2, 6, 3), (1, 2))
    (_, mu, _), (h, c) = memory.predict_sequence(z, a, memory.zero_state(2))
    state = memory.zero_state(2)
    for t in range(6):
        *state, _, one_mu, _ = memory.dream(z[:, t], a[:, t], *state)
        np.testing.assert_allclose(one_mu, mu[:, t], atol=1e-5)
    np.testing.assert_allclose(state, [h, c], atol=1e-5)


def test_the_learning_rate_decays_towards_its_lower_end():
    from worldmodels.memory.train import learning_rate

    rates = [learning_rate(step, 1e-3, 1e-5, 0.99) for step in (0, 100, 10_000)]
    assert rates == pytest.approx([1e-3, 3.724e-4, 1e-5], rel=1e-3)


def train(folder, artifact, ctx=None, **inputs):
    from worldmodels.memory import train

    train.train(ctx or context(folder, "memory", TINY, latents=artifact, **inputs))
    return results(folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, artifact):
    folder = tmp_path_factory.mktemp("memory")
    return folder, train(folder, artifact)


def test_training_leaves_its_networks_and_its_likelihood_beside_trivial_ones(trained):
    folder, files = trained
    assert set(files) == {"step.tflite", "dream.tflite", "memory.weights.h5", "memory.json", "heldout.json"}
    figures = json.loads(files["heldout.json"])
    assert set(figures) == {"mdn_rnn", "unchanged", "gaussian", "frames", "episodes"}
    rows = np.genfromtxt(folder / "telemetry" / "training.csv", delimiter=",", names=True)
    assert np.nanmin(rows["held_out"]) == pytest.approx(figures["mdn_rnn"], rel=1e-5)
    assert rows["loss"][-1] < rows["loss"][0]
    assert Step(folder / "results" / "step.tflite").hidden == 8


def test_a_killed_training_ends_with_the_same_bytes(trained, artifact, tmp_path):
    for step in (2, 9):
        with pytest.raises(Killed):
            ctx = context(tmp_path, "memory", TINY, latents=artifact)
            ctx.checkpoint_seconds = 0.0
            train(tmp_path, artifact, kill_after(ctx, step))
    assert train(tmp_path, artifact) == trained[1]


OVERFITTING = TINY | {"memory.epochs": 30, "memory.learning_rate": 0.1, "memory.decay": 1.0}


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory, artifact):
    folder = tmp_path_factory.mktemp("overfitted")
    ctx = context(folder, "memory", OVERFITTING, latents=artifact)
    return folder, train(folder, artifact, ctx), ctx.notes


def test_the_best_epoch_on_held_out_episodes_is_committed(overfitted, artifact, tmp_path):
    folder, files, notes = overfitted
    rows = np.genfromtxt(folder / "telemetry" / "training.csv", delimiter=",", names=True)
    held_out = rows["held_out"][~np.isnan(rows["held_out"])]
    best = int(held_out.argmin()) + 1
    assert best < 30 and held_out.min() < held_out[-1] - 0.05
    lowest = json.loads(files["heldout.json"])["mdn_rnn"]
    assert lowest == pytest.approx(held_out.min(), rel=1e-5)
    assert json.loads(files["memory.json"])["epoch"] == best == rows["best_epoch"][-1]
    assert notes["epoch"].startswith(f"{best} of 30, {lowest:.3f} nats")
    stopped = train(
        tmp_path, artifact, context(tmp_path, "memory", OVERFITTING | {"memory.epochs": best}, latents=artifact)
    )
    assert [files[name] == stopped[name] for name in ("step.tflite", "dream.tflite", "memory.weights.h5")] == [True] * 3


def test_the_best_epoch_is_part_of_what_a_killed_training_goes_on_from(overfitted, artifact, tmp_path):
    best = json.loads(overfitted[1]["memory.json"])
    per_epoch = best["steps"] // 30
    for step in (best["epoch"] * per_epoch - 1, best["epoch"] * per_epoch + 1, best["steps"] - 1, best["steps"]):
        with pytest.raises(Killed):
            ctx = context(tmp_path, "memory", OVERFITTING, latents=artifact)
            ctx.checkpoint_seconds = 0.0
            train(tmp_path, artifact, kill_after(ctx, step))
    ctx = context(tmp_path, "memory", OVERFITTING, latents=artifact)
    assert train(tmp_path, artifact, ctx) == overfitted[1]
    assert ctx.notes == overfitted[2]


def test_training_stops_at_the_first_loss_that_is_not_finite(artifact, tmp_path):
    ctx = context(tmp_path, "memory", TINY | {"memory.learning_rate": 1e6, "memory.epochs": 1000}, latents=artifact)
    ctx.checkpoint_seconds = 0.0
    with pytest.raises(WorkFailed, match=r"is not finite: memory.learning_rate = 1e\+06 is too high") as caught:
        train(tmp_path, artifact, ctx)
    assert caught.value.next == "wm run memory --run tiny --iteration 1 -o memory.learning_rate=100000"
    assert not_finite(ctx) == []


def test_a_warm_start_begins_with_the_earlier_weights(trained, artifact, tmp_path):
    changes = {"memory.warm_start": "true", "memory.learning_rate": 1e-9, "memory.learning_rate_min": 1e-9}
    earlier = FolderArtifact(trained[0] / "results")
    ctx = context(tmp_path, "memory", TINY | changes, latents=artifact, memory=earlier)
    before, after = (
        json.loads(files["heldout.json"])["mdn_rnn"] for files in (trained[1], train(tmp_path, artifact, ctx))
    )
    assert before == pytest.approx(after, abs=1e-3)


def test_too_few_episodes_are_refused(tmp_path):
    with pytest.raises(WorkFailed, match="none is left to train on"):
        train(tmp_path, shards(tmp_path / "shards", [[12]]))


def test_without_epochs_m_keeps_its_initial_weights_and_its_likelihood_is_measured(trained, artifact, tmp_path):
    import h5py

    ctx = context(tmp_path, "memory", TINY | {"memory.epochs": 0}, latents=artifact)
    files = train(tmp_path, artifact, ctx)
    assert set(files) == set(trained[1])
    there = json.loads(files["memory.json"])
    assert (there["steps"], there["epoch"]) == (0, 0)
    assert ctx.notes["epoch"].endswith("M keeps the weights that it began with")
    untrained, after = (json.loads(each["heldout.json"])["mdn_rnn"] for each in (files, trained[1]))
    assert untrained > after
    from worldmodels.memory.model import Memory

    initial = Memory(Z, 3, 8, 2, ctx.config.seed)
    stored: list[np.ndarray] = []
    with h5py.File(tmp_path / "results" / "memory.weights.h5") as file:
        file.visititems(lambda name, item: stored.append(item[()]) if isinstance(item, h5py.Dataset) else None)
    assert sorted(w.tobytes() for w in stored) == sorted(w.tobytes() for w in initial.get_weights())


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_predicts_about_the_same_and_plays_in_float32(precision):
    import tensorflow as tf

    from worldmodels.memory.model import Memory
    from worldmodels.training import devices

    fix_threads()
    plain = Memory(Z, 3, 8, 2)
    half = Memory(Z, 3, 8, 2, dtype=devices.policy(precision))
    half.set_weights(plain.get_weights())
    z, a = tf.random.stateless_normal((2, 5, Z), (0, 0)), tf.zeros((2, 5, 3))
    (_, mu, _), (h, c) = half.predict_sequence(z, a, half.zero_state(2))
    (_, expected, _), _ = plain.predict_sequence(z, a, plain.zero_state(2))
    assert {x.dtype for x in (mu, h, c)} == {tf.float32}
    np.testing.assert_allclose(mu, expected, atol=0.02)
    np.testing.assert_array_equal(half.in_float32().density.kernel, plain.density.kernel)
