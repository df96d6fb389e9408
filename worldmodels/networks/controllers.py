"""C: maps V's latents z and M's state h to the action. One flat vector of parameters decides how."""

from itertools import pairwise
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from .. import parts
from ..config import Architecture
from ..envs import EnvSpec

Floats = NDArray[np.float32]


class Controller(Protocol):
    """C, as everything that drives calls it, in all environment slots at once.

    To write one, define a class that is created with (env, architecture, z, hidden): the environment, the settings that
    decide C's architecture, and the sizes of z and h. `parts.CONTROLLERS` makes it a value of `controller.network`.
    This one ignores what it sees, so its action is constant:

        class Constant:
            def __init__(self, env: EnvSpec, architecture: Architecture, z: int, hidden: int) -> None:
                self.parameters, self._squash = env.actions, env.squash

            def act(self, parameters: Floats, z: Floats, h: Floats) -> Floats:
                return self._squash(parameters)
    """

    @property
    def parameters(self) -> int:
        """Return P, the number of parameters; candidates of an evolution are float32 [P]."""

    def act(self, parameters: Floats, z: Floats, h: Floats) -> Floats:
        """Return actions float32 [L, A] for z [L, Z] and h [L, H], each row with its own parameters [L, P].

        A row's bits must not depend on the other rows. So sum along each row's own numbers: a matrix product would
        choose its kernel by the number of rows.
        """


def build(env: EnvSpec, architecture: Architecture, z: int, hidden: int) -> Controller:
    """Return the controller of that architecture for an environment, z [Z] and h [H]."""
    return cast(Controller, parts.load(parts.CONTROLLERS, architecture.network)(env, architecture, z, hidden))


class Layers:
    """C as one linear layer (paper, section 3.3), or with a hidden layer of tanh units, from z and h or from z alone.

    The parameters are those of each layer: W [outputs, inputs] row by row, then b [outputs].
    """

    def __init__(self, env: EnvSpec, architecture: Architecture, z: int, hidden: int) -> None:
        self._squash = env.squash
        self._sees_h = architecture.inputs == "z h"
        inputs = z + hidden if self._sees_h else z
        sizes = [inputs, *([architecture.hidden] if architecture.hidden else []), env.actions]
        self._lengths = [(before + 1) * after for before, after in pairwise(sizes)]

    @property
    def parameters(self) -> int:
        return sum(self._lengths)

    def act(self, parameters: Floats, z: Floats, h: Floats) -> Floats:
        x = np.concatenate([z, h], axis=1) if self._sees_h else z
        *hidden, last = np.split(parameters, np.cumsum(self._lengths)[:-1], axis=1)
        for weights in hidden:
            x = np.tanh(_affine(weights, x))
        return self._squash(_affine(last, x))


def _affine(weights: Floats, x: Floats) -> Floats:
    """Return W x + b [L, O] of x [L, I], each row with its own weights [L, (I + 1) O]."""
    rows, inputs = x.shape
    outputs = weights.shape[1] // (inputs + 1)
    matrix = weights[:, :-outputs].reshape(rows, outputs, inputs)
    product: Floats = (matrix * x[:, None, :]).sum(axis=2) + weights[:, -outputs:]
    return product
