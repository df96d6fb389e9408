"""Inference without TensorFlow: V's encoder and decoder and M's step and dream on LiteRT, C on NumPy."""

from .controllers import Controller, build
from .litert import Decoder, Dream, Encoder, Step
from .mixture import sample

__all__ = ["Controller", "Decoder", "Dream", "Encoder", "Step", "build", "sample"]
