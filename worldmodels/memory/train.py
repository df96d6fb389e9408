"""The `memory` stage: training of M on latents, and its held-out likelihood beside trivial baselines."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..context import Context
from ..envs import base
from ..errors import WorkFailed
from ..networks import Dream, Step
from ..training import checkpoints, devices, export
from ..training import stream as frames
from ..vision.latents import Latents
from . import baselines
from .data import Episodes, Window, cut, windows
from .model import Memory, negative_log_likelihood, play_functions

COLUMNS = ("step", "epoch", "loss", "held_out", "best_epoch", "learning_rate", "frames_per_s")
ROW_STEPS = 20
CHECKED = 16


def train(ctx: Context) -> None:
    """Write step.tflite, dream.tflite, memory.weights.h5, memory.json and heldout.json; continue from a checkpoint.

    The weights are those of the epoch with the lowest held-out negative log-likelihood, because M overfits. With
    `memory.epochs` 0, they are those that M begins with. Raise WorkFailed if no episode is left to train on.
    """
    config = ctx.config.memory
    devices.prepare(config.threads, ctx.log)
    cache = ctx.config.execution.cache_mb << 20
    actions, shards = base.spec(ctx.config.env).actions, ctx.one("latents").shards
    episodes = Episodes(shards, actions, ctx.config.seed, config.held_out, cache, ctx.alive)
    if not episodes.trained:
        raise WorkFailed(
            f"{episodes.held} episode(s) of two frames or more: one is held out and none is left to train on",
            next=f"wm run memory --run {ctx.run} -o rollouts.episodes={2 * ctx.config.rollouts.shard_episodes}",
        )
    z = episodes.load([0])[0][0].mean.shape[1]
    dtype = devices.policy(config.precision)
    memory = Memory(z, actions, config.hidden, config.mixtures, ctx.config.seed, dtype)
    if config.warm_start and ctx.inputs.get("memory"):
        checkpoints.warm_start(memory, ctx.one("memory").path("memory.weights.h5"), "memory")
    trainer = Trainer(ctx, memory, episodes)
    steps = trainer.fit()
    best = trainer.best
    best.restore(memory)
    kept = "the best is kept" if config.epochs else "M keeps the weights that it began with"
    ctx.notes["epoch"] = f"{best.epoch} of {config.epochs}, {best.held_out:.3f} nats per held-out frame: {kept}"
    ctx.log.info("M is that of epoch %s", ctx.notes["epoch"])
    _write(ctx, memory.in_float32(), episodes, best, steps)


def learning_rate(step: int, first: float, least: float, decay: float) -> float:
    """Return (first - least) decay^step + least, as in the paper's code."""
    return (first - least) * decay**step + least


@dataclass
class Best:
    """The epoch whose held-out negative log-likelihood (nats per frame) is the lowest so far, and its weights."""

    held_out: float = math.inf
    epoch: int = 0
    weights: list[np.ndarray[Any, Any]] = field(default_factory=list)

    def offer(self, held_out: float, epoch: int, memory: Memory) -> None:
        """Keep the epoch's weights if its held-out value is lower than all before."""
        if held_out < self.held_out:
            self.held_out, self.epoch = held_out, epoch
            self.weights = [variable.numpy() for variable in memory.variables]

    def restore(self, memory: Memory) -> None:
        for variable, value in zip(memory.variables, self.weights, strict=True):
            variable.assign(value)

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return all of it as named arrays of a checkpoint; an empty dict before the end of the first epoch."""
        if not self.epoch:
            return {}
        weights = {f"best{index:03d}": value for index, value in enumerate(self.weights)}
        return {"best": np.array([self.held_out, self.epoch]), **weights}

    @classmethod
    def of(cls, arrays: Mapping[str, Any]) -> "Best":
        """Return the Best that `arrays` stored; an initial one if a checkpoint has none of it."""
        held_out, epoch = arrays.get("best", (math.inf, 0))
        weights = [arrays[name] for name in sorted(arrays) if name.startswith("best") and name != "best"]
        return cls(float(held_out), int(epoch), weights)


class Trainer:
    """The training loop, and the state that it carries from window to window."""

    def __init__(self, ctx: Context, memory: Memory, episodes: Episodes) -> None:
        self.ctx, self.memory, self.episodes = ctx, memory, episodes
        self.config = ctx.config.memory
        self.sequence = min(self.config.sequence, episodes.longest())
        adam = keras.optimizers.Adam(self.config.learning_rate, global_clipnorm=self.config.clip)
        self.optimizer = devices.scaled(adam, self.config.precision)
        self.optimizer.build(memory.trainable_variables)
        self.best = Best()
        self._train, self._nll = self._functions()

    def _functions(self) -> tuple[Any, Any]:
        memory, steps, seed = self.memory, self.sequence, self.ctx.config.seed

        def spec(*shape: int | None) -> tf.TensorSpec:
            return tf.TensorSpec((None, *shape), tf.float32)

        state = [spec(memory.hidden), spec(memory.hidden)]
        inputs = [spec(steps + 1, memory.z), spec(steps, memory.actions), spec(steps), *state]

        def nll(z: Any, a: Any, mask: Any, h: Any, c: Any) -> tuple[Any, Any, Any]:
            """Return nats summed over frames and dimensions, and the state after the window."""
            mixture, (h, c) = memory.predict_sequence(z[:, :-1], a, (h, c))
            return tf.reduce_sum(negative_log_likelihood(mixture, z[:, 1:]) * mask), h, c

        def train(mean: Any, logvar: Any, a: Any, mask: Any, h: Any, c: Any, number: Any) -> tuple[Any, Any, Any]:
            z = mean + tf.exp(logvar / 2) * tf.random.stateless_normal(tf.shape(mean), tf.stack([seed, number]))
            count = tf.reduce_sum(mask)
            with tf.GradientTape() as tape:
                nats, h, c = nll(z, a, mask, h, c)
                # Per dimension, as in the paper: `clip` is for this scale.
                loss = self.optimizer.scale_loss(nats / (count * memory.z))
            variables = memory.trainable_variables
            self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            return nats / count, h, c

        number = tf.TensorSpec((), tf.int32)
        return (
            tf.function(train, autograph=False, input_signature=[inputs[0], *inputs, number]),
            tf.function(nll, autograph=False, input_signature=inputs),
        )

    def fit(self) -> int:
        """Train from the latest checkpoint to the end; set `best` to the best epoch; return the number of steps."""
        ctx, config = self.ctx, self.config
        variables = [*self.memory.variables, *self.optimizer.variables]
        checkpoint = checkpoints.Checkpoint(ctx, variables, COLUMNS)
        position = frames.Position(*map(int, checkpoint.extra.get("position", (0, 0, 0))))
        h, c = checkpoint.extra.get("h"), checkpoint.extra.get("c")
        number, meter = checkpoint.step, checkpoints.Meter()
        losses = [float(loss) for loss in checkpoint.extra.get("losses", ())]
        self.best = Best.of(checkpoint.extra)

        def save() -> None:
            carried = {"position": position, "h": h, "c": c, "losses": losses, **self.best.arrays()}
            checkpoint.save(number, {name: np.array(value) for name, value in carried.items()})

        stream = frames.Prefetch(self.stream(position), waiting=lambda: checkpoint.stop(number, save))
        try:
            for window, mark in stream:
                if window.first or h is None:
                    h, c = self.memory.zero_state(len(window.mask))
                rate = learning_rate(number, config.learning_rate, config.learning_rate_min, config.decay)
                self.optimizer.learning_rate.assign(rate)
                loss, h, c = self.step(window, h, c, number)
                number, position = number + 1, mark.after
                losses.append(float(loss))
                checkpoints.require_finite(ctx, number, "the loss", losses[-1])
                speed = meter(int(window.mask.sum()))
                if mark.last_of_epoch or number % ROW_STEPS == 0:
                    row = {"step": number, "epoch": mark.done, "loss": float(np.mean(losses)), "learning_rate": rate}
                    if mark.last_of_epoch:
                        row["held_out"] = self.held_out()
                        checkpoints.require_finite(ctx, number, "the held-out likelihood", row["held_out"])
                        self.best.offer(row["held_out"], round(mark.done), self.memory)
                        row["best_epoch"] = self.best.epoch
                    checkpoint.log.row(**row, frames_per_s=speed)
                    losses.clear()
                if checkpoint.due():
                    save()
                total = round(number / mark.done * config.epochs)
                ctx.progress(number, total, "steps", speed / window.mask.sum(), loss=float(loss), frames_per_s=speed)
        finally:
            stream.close()
        if not self.best.epoch:  # no epochs, or an earlier version's checkpoint from the end of the last one
            self.best.offer(self.held_out(), config.epochs, self.memory)
        ctx.log.info("waited %.1f s for latents", stream.waited)
        return number

    def stream(self, start: frames.Position) -> Iterator[tuple[Window, frames.Mark]]:
        config = self.config
        return windows(self.episodes, batch=config.batch, sequence=self.sequence, epochs=config.epochs, start=start)

    def step(self, window: Window, h: Any, c: Any, number: int) -> tuple[Any, Any, Any]:
        step = tf.constant(number, tf.int32)
        return self._train(window.mean, window.logvar, window.actions, window.mask, h, c, step)  # type: ignore[no-any-return]

    def held_out(self) -> float:
        """Return the nats per held-out frame under M, always for the same frames and draws."""
        sums: list[tuple[float, float]] = []
        group: list[Latents] = []
        for episode, z in self.episodes.held_out():
            group.append(replace(episode, mean=z))
            if len(group) == self.config.batch:
                sums.append(self._group_nll(group))
                group = []
        if group:
            sums.append(self._group_nll(group))
        nats, count = np.sum(sums, axis=0)
        return float(nats / count)

    def _group_nll(self, group: list[Latents]) -> tuple[float, float]:
        h, c = self.memory.zero_state(len(group))
        nats = count = 0.0
        for at in range(0, max(len(e.mean) for e in group) - 1, self.sequence):
            window = cut(group, at, self.sequence)
            value, h, c = self._nll(window.mean, window.actions, window.mask, h, c)
            nats += float(value)
            count += float(window.mask.sum())
        return nats, count


def _write(ctx: Context, memory: Memory, episodes: Episodes, best: Best, steps: int) -> None:
    functions = play_functions(memory)
    inputs = _real_inputs(memory, episodes)
    export.export_tflite(ctx.results / "step.tflite", functions["step.tflite"], Step, inputs)
    export.export_tflite(ctx.results / "dream.tflite", functions["dream.tflite"], Dream, inputs)
    memory.save_weights(ctx.results / "memory.weights.h5")
    sizes = {"z": memory.z, "hidden": memory.hidden, "mixtures": memory.mixtures}
    trained = {"parameters": memory.count_params(), "steps": steps, "epoch": best.epoch}
    checkpoints.write_json(ctx.results / "memory.json", {**sizes, **trained})
    trivial = baselines.fit(episodes.all_training())
    held = [(len(z) - 1, *trivial.nll(z)) for _, z in episodes.held_out()]
    count, unchanged, gaussian = np.sum(held, axis=0)
    figures = {"mdn_rnn": best.held_out, "unchanged": unchanged / count, "gaussian": gaussian / count}
    checkpoints.write_json(ctx.results / "heldout.json", {**figures, "frames": int(count), "episodes": episodes.held})
    ctx.log.info("held out, nats per frame: %s", "  ".join(f"{k} {v:.3f}" for k, v in figures.items()))


def _real_inputs(memory: Memory, episodes: Episodes) -> list[np.ndarray[Any, Any]]:
    """Return real z, a, h, c: those of the first frames of a held-out episode, at most CHECKED."""
    episode, z = next(episodes.held_out())
    rows = min(CHECKED, len(z) - 1)
    h, c = (s.numpy() for s in memory.zero_state(1))
    states = []
    for t in range(rows):
        states.append((h, c))
        h, c = (s.numpy() for s in memory.step(z[t : t + 1], episode.actions[t : t + 1], h, c))
    hs, cs = (np.concatenate(part) for part in zip(*states, strict=True))
    return [z[:rows], episode.actions[:rows], hs, cs]
