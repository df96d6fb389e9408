"""M: an LSTM with a mixture-density output (Ha & Schmidhuber 2018, appendix A.2), in TensorFlow."""

import math
from typing import Any

import keras
import tensorflow as tf

HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)
State = tuple[tf.Tensor, tf.Tensor]
Mixture = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


class Memory(keras.Model):  # type: ignore[misc]
    """M: (z_t, a_t) -> the density of z_{t+1}: per dimension a mixture of K Gaussians, dimensions independent."""

    def __init__(self, z: int, actions: int, hidden: int, mixtures: int, seed: int = 0, dtype: str = "float32") -> None:
        """Create layers with Keras' policy `dtype`: mixed policies compute in half precision, weights stay float32."""
        super().__init__(name="memory")
        self._sizes = (z, actions, hidden, mixtures, seed)
        self.z, self.actions, self.hidden, self.mixtures = z, actions, hidden, mixtures
        self.lstm = keras.layers.LSTM(
            hidden,
            return_sequences=True,
            return_state=True,
            kernel_initializer=keras.initializers.GlorotUniform(seed=1000 * seed),
            recurrent_initializer=keras.initializers.Orthogonal(seed=1000 * seed + 1),
            name="lstm",
            dtype=dtype,
        )
        self.density = keras.layers.Dense(
            3 * z * mixtures,
            kernel_initializer=keras.initializers.GlorotUniform(seed=1000 * seed + 2),
            name="density",
            dtype=dtype,
        )
        self.predict_sequence(tf.zeros((1, 1, z)), tf.zeros((1, 1, actions)), self.zero_state(1))  # makes the variables
        self.built = True

    def zero_state(self, rows: int) -> State:
        return tf.zeros((rows, self.hidden)), tf.zeros((rows, self.hidden))

    def predict_sequence(self, z: tf.Tensor, a: tf.Tensor, state: State) -> tuple[Mixture, State]:
        """Return mixtures [B, T, Z, K] for z [B, T, Z], a [B, T, A] and the first state, and the last state."""
        before = [tf.cast(each, self.lstm.compute_dtype) for each in state]
        hs, h, c = (tf.cast(each, tf.float32) for each in self.lstm(tf.concat([z, a], axis=-1), initial_state=before))
        return self.mixture(hs), (h, c)

    def in_float32(self) -> "Memory":
        """Return the same network in float32, for inference."""
        plain = Memory(*self._sizes)
        plain.set_weights(self.get_weights())
        return plain

    def mixture(self, h: tf.Tensor) -> Mixture:
        """Return logits of the weights, mu and log sigma [..., Z, K] for h [..., H]."""
        out = tf.cast(self.density(h), tf.float32)
        shape = [-1, *h.shape[1:-1], self.z, self.mixtures]
        logits, mu, log_sigma = (tf.reshape(part, shape) for part in tf.split(out, 3, axis=-1))
        return logits, mu, log_sigma

    def step(self, z: tf.Tensor, a: tf.Tensor, h: tf.Tensor, c: tf.Tensor) -> State:
        """Take one step of the LSTM, [B, ...]; Keras' order of gates: input, forget, candidate, output."""
        cell = self.lstm.cell
        weights = tf.concat([cell.kernel, cell.recurrent_kernel], axis=0)
        gates = tf.matmul(tf.concat([z, a, h], axis=-1), weights) + cell.bias  # [B, 4 H]
        i, f, g, o = tf.split(gates, 4, axis=-1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        return tf.sigmoid(o) * tf.tanh(c), c

    def dream(self, z: tf.Tensor, a: tf.Tensor, h: tf.Tensor, c: tf.Tensor) -> tuple[tf.Tensor, ...]:
        h, c = self.step(z, a, h, c)
        return h, c, *self.mixture(h)


def negative_log_likelihood(mixture: Mixture, target: tf.Tensor) -> tf.Tensor:
    """Return nats per frame [B, T] of targets [B, T, Z], summed over dimensions. Sigma has no lower bound."""
    logits, mu, log_sigma = mixture
    distance = (target[..., None] - mu) * tf.exp(-log_sigma)
    log_normal = -0.5 * distance**2 - log_sigma - HALF_LOG_TAU  # [B, T, Z, K]
    return -tf.reduce_sum(tf.reduce_logsumexp(tf.nn.log_softmax(logits) + log_normal, axis=-1), axis=-1)


def play_functions(memory: Memory) -> dict[str, Any]:
    """Return the functions for inference by file name: concrete, for any batch."""
    sizes = {"z": memory.z, "a": memory.actions, "h": memory.hidden, "c": memory.hidden}
    signature = [tf.TensorSpec((None, n), tf.float32, name=name) for name, n in sizes.items()]
    return {
        "step.tflite": tf.function(memory.step, autograph=False, input_signature=signature).get_concrete_function(),
        "dream.tflite": tf.function(memory.dream, autograph=False, input_signature=signature).get_concrete_function(),
    }
