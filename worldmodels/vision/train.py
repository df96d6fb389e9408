"""The `vae` stage: training of V on the frames of rollouts."""

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from ..context import Context, Shard
from ..networks import Decoder, Encoder
from ..rollouts import episodes
from ..training import checkpoints, devices, export
from ..training import stream as data
from .model import SIDE, Vae, play_functions

COLUMNS = ("step", "epoch", "loss", "squared_error", "kl", "images_per_s")
ROW_STEPS = 20
SAMPLE = 16


def train(ctx: Context) -> None:
    """Write encoder.tflite, decoder.tflite, vae.weights.h5 and vae.json; continue from the latest checkpoint."""
    config = ctx.config.vae
    devices.prepare(config.threads, ctx.log)
    vae = Vae(config.z, config.width, ctx.config.seed, devices.policy(config.precision))
    if config.warm_start and ctx.inputs.get("vae"):
        checkpoints.warm_start(vae, ctx.one("vae").path("vae.weights.h5"), "vae")
    shards = _shards(ctx)
    sample = _sample(shards)
    step = _fit(ctx, vae, shards, sample)
    _write(ctx, vae.in_float32(), sample, step)


def _shards(ctx: Context) -> list[Shard]:
    ctx.one("rollouts")
    artifacts = ctx.inputs["rollouts"][-1:] if ctx.config.vae.episodes == "latest" else ctx.inputs["rollouts"]
    return [shard for artifact in artifacts for shard in artifact.shards]


def _sample(shards: Sequence[Shard]) -> NDArray[np.uint8]:
    """Return frames of the first and the last shard, for pictures and to check the exported networks."""
    ends = [episodes.frames(shard) for shard in dict.fromkeys((shards[0], shards[-1]))]
    each = SAMPLE // len(ends)
    return np.concatenate([frames[np.linspace(0, len(frames) - 1, each).astype(int)] for frames in ends])


def make_step(vae: Vae, optimizer: Any, seed: int, kl_tolerance: float) -> Any:
    """Return the training step: (frames uint8 [B, 64, 64, 3], step) -> loss, squared error, KL.

    The noise depends only on (seed, step).
    """

    def step(frames: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        noise = tf.random.stateless_normal((tf.shape(frames)[0], vae.z), tf.stack([seed, number]))
        with tf.GradientTape() as tape:
            loss, error, kl = vae.objective(frames, noise, kl_tolerance)
            scaled = optimizer.scale_loss(loss)
        variables = vae.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(scaled, variables), variables, strict=True))
        return loss, error, kl

    signature = [tf.TensorSpec((None, SIDE, SIDE, 3), tf.uint8), tf.TensorSpec((), tf.int32)]
    return tf.function(step, autograph=False, input_signature=signature)


def stream(ctx: Context, shards: Sequence[Shard], start: data.Position) -> Iterator[tuple[data.Frames, data.Mark]]:
    """Yield batches of the shards' frames from `start` on, as configured."""
    config = ctx.config
    return data.batches(
        data.Cache(lambda i: episodes.frames(shards[i]), lambda found: found.nbytes, config.execution.cache_mb << 20),
        len(shards),
        per_pool=data.POOL_FRAMES // (config.rollouts.shard_episodes * config.rollouts.steps),
        batch=config.vae.batch,
        epochs=config.vae.epochs,
        seed=config.seed,
        start=start,
    )


def _fit(ctx: Context, vae: Vae, shards: Sequence[Shard], sample: NDArray[np.uint8]) -> int:
    config, seed = ctx.config.vae, ctx.config.seed
    optimizer = devices.scaled(keras.optimizers.Adam(config.learning_rate), config.precision)
    optimizer.build(vae.trainable_variables)
    checkpoint = checkpoints.Checkpoint(ctx, [*vae.variables, *optimizer.variables], COLUMNS)
    position = data.Position(*map(int, checkpoint.extra.get("position", (0, 0, 0))))
    step = make_step(vae, optimizer, seed, config.kl_tolerance)
    number, meter = checkpoint.step, checkpoints.Meter()
    figures: list[Any] = list(checkpoint.extra.get("figures", ()))

    def save() -> None:
        checkpoint.save(number, {"position": np.array(position), "figures": np.array(figures)})

    batches = data.Prefetch(stream(ctx, shards, position), waiting=lambda: checkpoint.stop(number, save))
    try:
        for frames, mark in batches:
            figures.append([float(x) for x in step(frames, tf.constant(number, tf.int32))])
            checkpoints.require_finite(ctx, number + 1, "the loss", figures[-1])
            number, position = number + 1, mark.after
            rate = meter(len(frames))
            loss, error, kl = map(float, np.mean(figures, axis=0))
            if mark.last_of_epoch or number % ROW_STEPS == 0:
                checkpoint.log.row(
                    step=number, epoch=mark.done, loss=loss, squared_error=error, kl=kl, images_per_s=rate
                )
                figures.clear()
            if mark.last_of_epoch:
                draw(ctx, vae, sample)
            if checkpoint.due():
                save()
            ctx.progress(
                number, round(number / mark.done * config.epochs), "steps", rate / config.batch,
                loss=loss, squared_error=error, kl=kl, images_per_s=rate,
            )  # fmt: skip
    finally:
        batches.close()
    checkpoints.require_finite(ctx, number, "a weight", *(variable.numpy() for variable in vae.variables))
    ctx.log.info("waited %.1f s for frames", batches.waited)
    return number


def draw(ctx: Context, vae: Vae, frames: NDArray[np.uint8]) -> None:
    """Write reconstructions.png: the frames above, V's reconstructions from their mean below."""
    mean, _ = vae.encode(tf.constant(frames))
    rows = [np.concatenate(list(row), axis=1) for row in (frames, vae.pixels(mean).numpy())]
    picture = Image.fromarray(np.concatenate(rows))
    picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST).save(
        ctx.telemetry / "reconstructions.png"
    )
    ctx.publish("reconstructions.png")


def _write(ctx: Context, vae: Vae, sample: NDArray[np.uint8], steps: int) -> None:
    draw(ctx, vae, sample)
    functions = play_functions(vae)
    encoder, decoder = functions["encoder.tflite"], functions["decoder.tflite"]
    export.export_tflite(ctx.results / "encoder.tflite", encoder, Encoder, [sample])
    mean = vae.encode(tf.constant(sample))[0].numpy()
    export.export_tflite(ctx.results / "decoder.tflite", decoder, Decoder, [mean])
    vae.save_weights(ctx.results / "vae.weights.h5")
    sizes = {"z": vae.z, "width": ctx.config.vae.width, "parameters": vae.count_params(), "steps": steps}
    checkpoints.write_json(ctx.results / "vae.json", sizes)
