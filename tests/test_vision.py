import threading
import time

import numpy as np
import pytest
from fakes import FolderArtifact, Killed, context, fix_threads, kill_after, not_finite, results, rollouts

from worldmodels import artifacts
from worldmodels.config import resolve
from worldmodels.errors import ConfigError, Stopped, WorkFailed
from worldmodels.networks import Decoder, Encoder
from worldmodels.stages import stage
from worldmodels.training import stream as data
from worldmodels.vision import latents

TINY = {
    "vae.z": 4, "vae.width": 0.0625, "vae.batch": 8, "vae.epochs": 3, "vae.learning_rate": 0.003,
    "rollouts.episodes": 4, "rollouts.shard_episodes": 2, "rollouts.steps": 20,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def threads():
    fix_threads()


def numbered(sizes):
    """`load` of shards whose frames are (shard, row)."""
    arrays = [np.stack([np.full(len_, i), np.arange(len_)], 1) for i, len_ in enumerate(sizes)]
    return lambda shards: [arrays[i] for i in shards]


def stream(start=data.START, sizes=(7, 9, 5, 8, 6), **changes):
    settings = {"per_pool": 2, "batch": 4, "epochs": 2, "seed": 1} | changes
    return list(data.batches(numbered(sizes), len(sizes), start=start, **settings))


def rows(batches):
    return [tuple(row) for frames, _ in batches for row in frames]


def test_an_epoch_shows_each_frame_at_most_once_and_leaves_out_less_than_a_batch_per_pool():
    seen = rows(stream(epochs=1))
    assert len(seen) == len(set(seen)) and len(seen) > 35 - 3 * 4


def test_epochs_and_seeds_have_orders_of_their_own():
    first, second = rows(stream())[:20], rows(stream(seed=2))[:20]
    assert first != second and rows(stream())[-20:] != first


def test_a_stream_goes_on_from_any_position():
    whole = stream()
    for at, (_, mark) in enumerate(whole):
        rest = stream(start=mark.after)
        assert rows(rest) == rows(whole[at + 1 :])


def test_done_counts_epochs():
    done = [mark.done for _, mark in stream()]
    assert done == sorted(done) and done[-1] == 2.0
    assert [mark.last_of_epoch for _, mark in stream()].count(True) == 2


def test_fewer_frames_than_a_batch_make_one_short_batch():
    assert [len(frames) for frames, _ in stream(sizes=(3,), epochs=2)] == [3, 3]


def test_the_cache_drops_what_was_used_longest_ago():
    decoded = []
    cache = data.Cache(lambda i: decoded.append(i) or np.zeros(10, np.uint8), lambda a: a.nbytes, limit=20)
    for shards in ([0], [1], [1, 2], [1], [0]):
        cache(shards)
    assert decoded == [0, 1, 2, 0]


def test_prefetching_keeps_the_order_and_raises_where_the_source_does():
    def source():
        yield from range(10)
        raise OSError("gone")

    seen = []
    with pytest.raises(OSError, match="gone"):
        for item in data.Prefetch(source()):
            seen.append(item)
    assert seen == list(range(10))


def test_closing_a_prefetch_stops_its_thread():
    items = data.Prefetch(iter(range(10**9)))
    next(items)
    items.close()
    assert not any(thread.name == "prefetch" for thread in threading.enumerate())


def test_the_network_has_as_many_parameters_as_the_papers():
    from worldmodels.vision.model import Vae

    assert Vae(32, 1.0).count_params() == 4_348_547


def test_the_first_layer_of_the_decoder_equals_a_transposed_convolution_of_a_1x1_image():
    import keras
    import tensorflow as tf

    from worldmodels.vision.model import Vae

    vae, z = Vae(4, 0.125), tf.random.stateless_normal((2, 4), (0, 0))
    vae.bias1.assign(tf.random.stateless_normal((16,), (0, 1)))
    conv = keras.layers.Conv2DTranspose(16, 5, strides=2, activation="relu")
    conv.build((None, 1, 1, 128))
    conv.set_weights([tf.transpose(tf.reshape(vae.deconv1.kernel, (128, 5, 5, 16)), (1, 2, 3, 0)), vae.bias1])
    x = conv(vae.dense(z)[:, None, None])
    for layer in vae.deconvolutions:
        x = layer(x)
    np.testing.assert_allclose(vae.decode(z), x, atol=1e-5)


def test_the_loss_sums_over_pixels_and_has_a_floor_under_kl():
    import tensorflow as tf

    from worldmodels.vision.model import Vae

    vae, frames, noise = Vae(4, 0.0625), np.full((2, 64, 64, 3), 255, np.uint8), np.ones((2, 4), np.float32)
    mean, logvar = (x.numpy() for x in vae.encode(tf.constant(frames)))
    error = ((1 - vae.decode(mean + np.exp(logvar / 2) * noise).numpy()) ** 2).sum() / 2
    kl = 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar).sum(1)
    for tolerance in (0.0, 10.0):
        loss, *parts = vae.objective(tf.constant(frames), noise, tolerance)
        assert float(loss) == pytest.approx(error + np.maximum(kl, 4 * tolerance).mean(), rel=1e-4)
    np.testing.assert_allclose(parts, [error, kl.mean()], rtol=1e-4)


@pytest.fixture(scope="module")
def episodes(tmp_path_factory):
    return rollouts(tmp_path_factory.mktemp("rollouts") / "shards")


def train(folder, episodes, ctx=None, **changes):
    from worldmodels.vision import train

    train.train(ctx or context(folder, "vae", TINY | changes, rollouts=episodes))
    return results(folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, episodes):
    folder = tmp_path_factory.mktemp("vae")
    return folder, train(folder, episodes)


def test_training_leaves_its_networks_and_what_it_learned(trained, episodes):
    folder, files = trained
    assert set(files) == {"encoder.tflite", "decoder.tflite", "vae.weights.h5", "vae.json"}
    losses = np.genfromtxt(folder / "telemetry" / "training.csv", delimiter=",", names=True)["loss"]
    assert losses[-1] < 0.7 * losses[0]
    assert (folder / "telemetry" / "reconstructions.png").stat().st_size > 1000


def test_a_killed_training_ends_with_the_same_bytes(trained, episodes, tmp_path):
    for step in (3, 17):
        with pytest.raises(Killed):
            ctx = context(tmp_path, "vae", TINY, rollouts=episodes)
            ctx.checkpoint_seconds = 0.0
            train(tmp_path, episodes, kill_after(ctx, step))
    assert train(tmp_path, episodes) == trained[1]


def test_training_stops_at_the_first_loss_that_is_not_finite(episodes, tmp_path):
    ctx = context(tmp_path, "vae", TINY | {"vae.learning_rate": 1e6, "vae.epochs": 1000}, rollouts=episodes)
    ctx.checkpoint_seconds = 0.0
    with pytest.raises(WorkFailed, match=r"is not finite: vae.learning_rate = 1e\+06 is too high") as caught:
        train(tmp_path, episodes, ctx)
    assert caught.value.next == "wm run vae --run tiny --iteration 1 -o vae.learning_rate=100000"
    assert not_finite(ctx) == []


@pytest.mark.parametrize("epochs", [1, 2])
def test_weights_that_are_not_finite_are_not_committed(episodes, tmp_path, epochs, monkeypatch):
    """The last step's loss is finite, and what it does to the weights is not."""
    from worldmodels.vision import train as training

    make_step = training.make_step

    def spoiling(vae, *others):
        step = make_step(vae, *others)

        def spoil(*batch):
            found = step(*batch)
            vae.trainable_variables[0].assign(vae.trainable_variables[0] * np.nan)
            return found

        return spoil

    monkeypatch.setattr(training, "make_step", spoiling)
    with pytest.raises(WorkFailed, match=r"of step \d is not finite"):
        train(tmp_path, episodes, **{"vae.epochs": epochs, "vae.batch": 100})
    assert not (tmp_path / "results" / "encoder.tflite").exists()


def test_asked_to_stop_it_saves_and_stops(trained, episodes, tmp_path):
    ctx = context(tmp_path, "vae", TINY, rollouts=episodes)
    ctx.reporter.stop.set()
    with pytest.raises(Stopped):
        train(tmp_path, episodes, ctx)
    assert ctx.checkpoints.load()[0] == 1
    assert train(tmp_path, episodes) == trained[1]


class Stuck:
    """A shard whose bytes never come once `late` is set."""

    def __init__(self, shard, late):
        self.index, self._shard, self._late = shard.index, shard, late

    def read(self, name):
        if self._late.is_set():
            threading.Event().wait(30)
        return self._shard.read(name)


def test_a_training_that_waits_for_data_saves_and_stops_when_asked(tmp_path):
    late, steps, made = threading.Event(), [], rollouts(tmp_path / "shards", shards=4)
    stuck = FolderArtifact(made.folder, tuple(Stuck(shard, late) for shard in made.shards))
    one_a_pool = {"rollouts.episodes": 40, "rollouts.shard_episodes": 40, "rollouts.steps": 820, "vae.epochs": 1}
    ctx = context(tmp_path, "vae", TINY | one_a_pool, rollouts=stuck)
    reporter, ctx.checkpoint_seconds = ctx.reporter, 1e9

    def progress(done, *rest):
        late.set()
        steps.append(done)
        reporter(done, *rest)

    progress.stop, progress.touch, progress.check = reporter.stop, reporter.touch, reporter.check
    ctx.reporter = progress
    threading.Thread(target=_stop_when_still, args=(steps, reporter.stop), daemon=True).start()
    with pytest.raises(Stopped):
        train(tmp_path, stuck, ctx)
    assert ctx.checkpoints.load()[0] == steps[-1] < 4 * 5


def _stop_when_still(steps, stop):
    seen = -1
    while not steps or len(steps) != seen:
        seen = len(steps)
        time.sleep(0.5)
    stop.set()


def test_a_warm_start_begins_with_the_earlier_weights(trained, episodes, tmp_path):
    changes = {"vae.warm_start": "true", "vae.learning_rate": 1e-9, "vae.epochs": 1}
    ctx = context(tmp_path, "vae", TINY | changes, rollouts=episodes, vae=FolderArtifact(trained[0] / "results"))
    train(tmp_path, episodes, ctx)
    frame = np.full((1, 64, 64, 3), 60, np.uint8)
    before, after = (Encoder(folder / "results" / "encoder.tflite")(frame)[0] for folder in (trained[0], tmp_path))
    np.testing.assert_allclose(before, after, atol=1e-4)


def test_a_warm_start_from_another_network_says_how_to_go_on(trained, episodes, tmp_path):
    changes = {"vae.warm_start": "true", "vae.width": 0.125}
    ctx = context(tmp_path, "vae", TINY | changes, rollouts=episodes, vae=FolderArtifact(trained[0] / "results"))
    with pytest.raises(ConfigError, match="another network") as error:
        train(tmp_path, episodes, ctx)
    assert "vae.warm_start=false" in error.value.next


def test_a_network_that_plays_otherwise_is_refused(tmp_path):
    from worldmodels.training.export import export_tflite
    from worldmodels.vision.model import Vae, play_functions

    class Off(Decoder):
        def run(self, *inputs):
            return [super().run(*inputs)[0] + np.uint8(2)]

    vae = Vae(4, 0.0625)
    function = play_functions(vae)["decoder.tflite"]
    z = np.zeros((2, 4), np.float32)
    export_tflite(tmp_path / "decoder.tflite", function, Decoder, [z])
    with pytest.raises(WorkFailed, match=r"decoder.tflite differs in LiteRT"):
        export_tflite(tmp_path / "decoder.tflite", function, Off, [z])


def test_latents_are_what_the_encoder_says_of_every_frame(trained, episodes, tmp_path):
    ctx = context(tmp_path, "latents", TINY, rollouts=episodes, vae=FolderArtifact(trained[0] / "results"))
    ctx.sources = lambda: list(episodes.shards)
    made = dict(latents.shards(ctx, [1]))
    assert made == dict(latents.shards(ctx, [1]))
    (tmp_path / latents.FILE).write_bytes(made[1][latents.FILE])
    found = latents.read(FolderArtifact(tmp_path), 3)
    expected = latents.episodes.read(episodes.shards[1], 3)
    assert [len(e.mean) for e in found] == latents.lengths(FolderArtifact(tmp_path)).tolist() == [20, 20]
    mean, logvar = Encoder(trained[0] / "results" / "encoder.tflite")(expected[1].frames)
    assert np.array_equal(found[1].mean, mean) and np.array_equal(found[1].logvar, logvar)
    assert np.array_equal(found[1].actions, expected[1].actions)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_trains_float32_weights_that_play_as_any_others(precision):
    import keras
    import tensorflow as tf

    from worldmodels.training import devices
    from worldmodels.vision import train
    from worldmodels.vision.model import Vae

    fix_threads()
    frames = np.full((8, 64, 64, 3), 220, np.uint8)
    vae = Vae(4, 0.125, 1, devices.policy(precision))
    assert {weight.dtype for weight in vae.get_weights()} == {np.dtype(np.float32)}
    assert vae.convolutions[0].compute_dtype == precision
    optimizer = devices.scaled(keras.optimizers.Adam(1e-3), precision)
    optimizer.build(vae.trainable_variables)
    step = train.make_step(vae, optimizer, 1, 0.5)
    losses = [float(step(frames, tf.constant(number))[0]) for number in range(20)]
    assert losses[-1] < 0.98 * losses[0]
    plain = vae.in_float32()
    assert plain.convolutions[0].compute_dtype == "float32"
    np.testing.assert_allclose(plain.encode(frames)[0], vae.encode(frames)[0], atol=0.05)


def test_precision_is_part_of_what_was_trained_and_absent_where_nobody_chose_it():
    def work(*overrides):
        config, _ = resolve("demo", (), overrides)
        return artifacts.identity(artifacts.Name("demo", 1, "vae"), config, stage("vae").sections, {}).config

    assert work() == work("vae.precision=float32")
    assert not [key for key in work() if "precision" in key]
    assert work("vae.precision=bfloat16")["vae.precision"] == "bfloat16"


@pytest.mark.parametrize(
    ("there", "visible", "cuda", "words"),
    [
        (False, None, False, ""),
        (True, "", True, "CUDA_VISIBLE_DEVICES hides it"),
        (True, None, False, "tensorflow[and-cuda]"),
        (True, None, True, "nvidia-smi"),
    ],
)
def test_a_gpu_that_is_not_used_is_told_with_the_reason(tmp_path, monkeypatch, there, visible, cuda, words):

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    from worldmodels.training import devices

    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if there:
        (tmp_path / "nvidia0").touch()
    said = devices.why_no_gpu(cuda, tmp_path / "nvidia0")
    assert words in said and bool(said) == there
