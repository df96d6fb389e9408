"""A dream: a drive in M's predictions, with V's and M's networks and without the simulator."""

from dataclasses import dataclass

import numpy as np

from ..networks import Controller, Decoder, Dream, Encoder, Step, sample
from ..rollouts.episodes import Episode


@dataclass(frozen=True)
class Networks:
    """V and M for inference, and C with its parameters f32 [P] (None: the episode's own actions are repeated)."""

    encoder: Encoder
    decoder: Decoder
    step: Step
    dream: Dream
    controller: tuple[Controller, np.ndarray] | None


def roll_out(
    networks: Networks,
    episode: Episode,
    rng: np.random.Generator,
    *,
    warm_up: int,
    steps: int,
    temperature: float = 1.0,
) -> np.ndarray:
    """Return decoded frames u8 [steps + 1, 64, 64, 3]; the first one shows the real start.

    M first follows `warm_up` real frames and actions, so that h represents the car's speed. Then each z is drawn from
    M's own prediction, and C acts on it (paper, section 4).
    """
    warm_up = min(warm_up, len(episode.frames) - 1)
    mean, _ = networks.encoder(episode.frames[: warm_up + 1])  # [W + 1, Z]
    h = c = np.zeros((1, networks.step.hidden), np.float32)
    for t in range(warm_up):
        h, c = networks.step(mean[t : t + 1], episode.actions[t : t + 1], h, c)
    z = mean[warm_up : warm_up + 1]
    seen = [z]
    for t in range(warm_up, warm_up + steps):
        if networks.controller is None:
            a = episode.actions[t % len(episode.actions)][None]
        else:
            controller, parameters = networks.controller
            a = controller.act(parameters[None], z, h)
        h, c, logits, mu, log_sigma = networks.dream(z, a, h, c)
        z = sample(logits, mu, log_sigma, rng, temperature)
        seen.append(z)
    return networks.decoder(np.concatenate(seen))
