"""Samples of M's prediction: a mixture of Gaussians per latent dimension (paper, appendix A.2)."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def sample(logits: Floats, mu: Floats, log_sigma: Floats, rng: np.random.Generator, temperature: float = 1.0) -> Floats:
    """Draw z [B, Z] from mixtures [B, Z, K].

    The temperature divides the logits of the weights and multiplies the variance (Ha & Eck 2017, section 3.3).
    """
    gumbel = rng.gumbel(size=logits.shape).astype(np.float32)
    chosen = np.argmax(logits / np.float32(temperature) + gumbel, axis=-1)[..., None]  # [B, Z, 1]
    center = np.take_along_axis(mu, chosen, axis=-1)[..., 0]
    sigma = np.exp(np.take_along_axis(log_sigma, chosen, axis=-1)[..., 0]) * np.float32(np.sqrt(temperature))
    return center + sigma * rng.standard_normal(center.shape, dtype=np.float32)
