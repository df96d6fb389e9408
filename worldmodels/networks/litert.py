"""The trained networks as functions of NumPy arrays, on LiteRT (XNNPACK).

A call takes any number of rows. A row's result does not depend, bit for bit, on the other rows, so a lane can start a
new episode and work can move between processes without changing a score.
"""

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from ..errors import CorruptArtifact

Floats = NDArray[np.float32]
Frames = NDArray[np.uint8]


class Network:
    """A `.tflite` file whose tensors all begin with the batch. Use one per thread: calls are not reentrant.

    Opening raises CorruptArtifact for a file of another kind; a call raises ValueError for inputs of another type or
    shape than the file's.
    """

    def __init__(self, path: str | PathLike[str], threads: int = 1) -> None:
        try:
            self._open(path, threads)
        except (ValueError, RuntimeError, IndexError, KeyError) as error:
            raise CorruptArtifact(
                f"{Path(path).name} is no network that LiteRT can run: {error}", "wm verify"
            ) from error

    def _open(self, path: str | PathLike[str], threads: int) -> None:
        self._interpreter = Interpreter(str(path), num_threads=threads)
        self._inputs = [(d["index"], tuple(map(int, d["shape"][1:]))) for d in self._interpreter.get_input_details()]
        self._outputs = [d["index"] for d in self._interpreter.get_output_details()]
        self._rows = 0
        self._resize(1)
        self.output_shapes = [tuple(map(int, d["shape"][1:])) for d in self._interpreter.get_output_details()]
        self._types = [d["dtype"] for d in self._interpreter.get_output_details()]

    @property
    def input_shapes(self) -> list[tuple[int, ...]]:
        """Return the input shapes without the batch."""
        return [shape for _, shape in self._inputs]

    def run(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """Return one array [B, ...] per output, owned by the caller, for one array [B, ...] per input."""
        rows = len(inputs[0])
        if rows == 0:
            return [np.zeros((0, *s), t) for s, t in zip(self.output_shapes, self._types, strict=True)]
        if rows != self._rows:
            self._resize(rows)  # measured: as fast as an interpreter per batch size
        for (index, _), value in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(index, value)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]

    def _resize(self, rows: int) -> None:
        for index, shape in self._inputs:
            self._interpreter.resize_tensor_input(index, (rows, *shape))
        self._interpreter.allocate_tensors()
        self._rows = rows


class Encoder(Network):
    """V's encoder: frames uint8 [B, 64, 64, 3] -> mean, log-variance [B, Z]."""

    @property
    def z(self) -> int:
        return int(self.output_shapes[0][0])

    def __call__(self, frames: Frames) -> tuple[Floats, Floats]:
        mean, logvar = self.run(frames)
        return mean, logvar


class Decoder(Network):
    """V's decoder: z [B, Z] -> frames uint8 [B, 64, 64, 3]."""

    def __call__(self, z: Floats) -> Frames:
        return self.run(z)[0]


class Step(Network):
    """M's step: (z_t, a_t) and the previous state (h, c) -> the next state, [B, H] each. The first state is zero."""

    @property
    def hidden(self) -> int:
        return int(self.output_shapes[0][0])

    def __call__(self, z: Floats, a: Floats, h: Floats, c: Floats) -> tuple[Floats, Floats]:
        h, c = self.run(z, a, h, c)
        return h, c


class Dream(Network):
    """M's step and its prediction of z_{t+1} for `mixture.sample`: logits of weights, mu, log sigma, [B, Z, K] each."""

    @property
    def hidden(self) -> int:
        return int(self.output_shapes[0][0])

    def __call__(self, z: Floats, a: Floats, h: Floats, c: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        h, c, logits, mu, log_sigma = self.run(z, a, h, c)
        return h, c, logits, mu, log_sigma
