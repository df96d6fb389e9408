"""V, M and C, as everything that drives with them needs them together."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..config import Architecture
from ..envs import EnvSpec, spec
from ..networks import Controller, build

Floats = NDArray[np.float32]


class EncoderFn(Protocol):
    """V's encoder as drivers call it: frames -> mean [n, Z], log-variance [n, Z]."""

    @property
    def z(self) -> int: ...

    def __call__(self, frames: NDArray[np.uint8], /) -> tuple[Floats, Floats]: ...


class RecurrentFn(Protocol):
    """M's step as drivers call it: z, a, h, c -> h, c."""

    @property
    def hidden(self) -> int: ...

    def __call__(self, z: Floats, a: Floats, h: Floats, c: Floats, /) -> tuple[Floats, Floats]: ...


@dataclass(frozen=True)
class Driver:
    """An environment, V's encoder, M's step and C; C's parameters come with each episode (`EpisodeSpec`)."""

    env: EnvSpec
    encoder: EncoderFn
    step: RecurrentFn
    controller: Controller

    @classmethod
    def of(cls, env: str, architecture: Architecture, encoder: EncoderFn, step: RecurrentFn) -> "Driver":
        """Return the driver whose C has that architecture, and the sizes of V and M.

        A C that is evolved has the environment and the architecture of the settings. A stored C has those of its
        manifest: `Artifact.env`, `Artifact.architecture`.
        """
        drives_in = spec(env)
        return cls(drives_in, encoder, step, build(drives_in, architecture, encoder.z, step.hidden))
