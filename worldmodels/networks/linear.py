"""C: one linear layer from [z, h] to the action (paper, section 3.3)."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
ACTIONS = 3


def parameters(z: int, hidden: int) -> int:
    """Return the number of C's parameters: W [3, Z + H] row by row, then b [3]."""
    return ACTIONS * (z + hidden) + ACTIONS


def act(params: Floats, z: Floats, h: Floats) -> Floats:
    """Return actions [L, 3] for z [L, Z] and h [L, H], each row with its own params [L, P].

    (steering, gas, brake) = (tanh, (tanh + 1) / 2, clip(tanh, 0, 1)) of W [z, h] + b. A row's bits do not depend on the
    batch: every sum runs along its own row (a matrix product would choose its kernel by the batch).
    """
    rows = len(z)
    x = np.concatenate([z, h], axis=1)  # [L, Z + H]
    weights = params[:, :-ACTIONS].reshape(rows, ACTIONS, x.shape[1])  # [L, 3, Z + H]
    out: Floats = np.tanh((weights * x[:, None, :]).sum(axis=2) + params[:, -ACTIONS:])  # [L, 3]
    out[:, 1] = (out[:, 1] + 1) / 2
    out[:, 2] = np.clip(out[:, 2], 0, 1)
    return out
