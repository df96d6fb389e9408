"""V: the variational autoencoder of Ha & Schmidhuber 2018, appendix A.1, in TensorFlow."""

from typing import Any

import keras
import tensorflow as tf

SIDE = 64


class Vae(keras.Model):  # type: ignore[misc]
    """The VAE: frames [B, 64, 64, 3] <-> z [B, Z]. `width` multiplies all channels; 1.0 is the paper's network."""

    def __init__(self, z: int, width: float, seed: int = 0, dtype: str = "float32") -> None:
        """Create layers with Keras' policy `dtype`: mixed policies compute in half precision, weights stay float32."""
        super().__init__(name="vae")
        self.z, self._sizes = z, (z, width, seed)
        conv = [max(1, round(width * channels)) for channels in (32, 64, 128, 256)]
        deconv = [max(1, round(width * channels)) for channels in (128, 64, 32)]
        seeds = iter(range(1000 * seed, 1000 * seed + 1000))

        def glorot() -> keras.initializers.Initializer:
            return keras.initializers.GlorotUniform(seed=next(seeds))

        self.convolutions = [
            keras.layers.Conv2D(
                n, 4, strides=2, activation="relu", kernel_initializer=glorot(), name=f"conv{i}", dtype=dtype
            )
            for i, n in enumerate(conv, 1)
        ]
        self.moments = keras.layers.Dense(2 * z, kernel_initializer=glorot(), name="moments", dtype=dtype)
        self.dense = keras.layers.Dense(4 * conv[-1], kernel_initializer=glorot(), name="dense", dtype=dtype)
        # The paper's first transposed convolution has a 1x1 input, so it equals a dense layer, which is 60 times faster
        # on TensorFlow's CPU kernels.
        self.deconv1 = keras.layers.Dense(
            25 * deconv[0], use_bias=False, kernel_initializer=glorot(), name="deconv1", dtype=dtype
        )
        self.bias1 = self.add_weight((deconv[0],), "zeros", name="bias1")  # one per channel, as a convolution's
        self.deconvolutions = [
            keras.layers.Conv2DTranspose(
                n, size, strides=2, activation=activation, kernel_initializer=glorot(), name=f"deconv{i}", dtype=dtype
            )
            for i, n, size, activation in (
                (2, deconv[1], 5, "relu"), (3, deconv[2], 6, "relu"), (4, 3, 6, "sigmoid"),
            )
        ]  # fmt: skip
        self.decode(self.encode(tf.zeros((1, SIDE, SIDE, 3), tf.uint8))[0])  # creates the variables
        self.built = True

    def encode(self, frames: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Encode uint8 [B, 64, 64, 3] to mean and log-variance, [B, Z] each."""
        x = tf.cast(frames, tf.float32) / 255.0
        for layer in self.convolutions:
            x = layer(x)
        moments = self.moments(tf.reshape(x, (-1, x.shape[1] * x.shape[2] * x.shape[3])))
        mean, logvar = tf.split(tf.cast(moments, tf.float32), 2, axis=-1)
        return mean, logvar

    def decode(self, z: tf.Tensor) -> tf.Tensor:
        """Decode z [B, Z] to float [B, 64, 64, 3] in 0..1."""
        x = tf.reshape(self.deconv1(self.dense(z)), (-1, 5, 5, self.bias1.shape[0]))
        x = tf.nn.relu(x + tf.cast(self.bias1, x.dtype))
        for layer in self.deconvolutions:
            x = layer(x)
        return tf.cast(x, tf.float32)

    def in_float32(self) -> "Vae":
        """Return the same network in float32, for inference."""
        plain = Vae(*self._sizes)
        plain.set_weights(self.get_weights())
        return plain

    def pixels(self, z: tf.Tensor) -> tf.Tensor:
        """Decode z [B, Z] to uint8 [B, 64, 64, 3]."""
        return tf.cast(tf.round(self.decode(z) * 255.0), tf.uint8)

    def objective(
        self, frames: tf.Tensor, noise: tf.Tensor, kl_tolerance: float
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return the batch means of loss, squared error and KL (the paper's vae.py).

        The squared error is summed over pixels and channels; KL is in nats.
        """
        mean, logvar = self.encode(frames)
        z = mean + tf.exp(logvar / 2) * noise
        error = tf.reduce_sum((tf.cast(frames, tf.float32) / 255.0 - self.decode(z)) ** 2, axis=(1, 2, 3))  # [B]
        kl = -0.5 * tf.reduce_sum(1 + logvar - mean**2 - tf.exp(logvar), axis=-1)  # [B]
        loss = tf.reduce_mean(error + tf.maximum(kl, kl_tolerance * self.z))
        return loss, tf.reduce_mean(error), tf.reduce_mean(kl)


def play_functions(vae: Vae) -> dict[str, Any]:
    """Return the functions for inference by file name: concrete, for any batch."""
    frames = tf.TensorSpec((None, SIDE, SIDE, 3), tf.uint8, name="frames")
    z = tf.TensorSpec((None, vae.z), tf.float32, name="z")
    encoder = tf.function(vae.encode, autograph=False, input_signature=[frames])
    decoder = tf.function(vae.pixels, autograph=False, input_signature=[z])
    return {"encoder.tflite": encoder.get_concrete_function(), "decoder.tflite": decoder.get_concrete_function()}
