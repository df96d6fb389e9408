"""Inference without TensorFlow: V's encoder and decoder and M's step and dream on LiteRT, C on NumPy."""

from .linear import act, parameters
from .litert import Decoder, Dream, Encoder, Step
from .mixture import sample

__all__ = ["Decoder", "Dream", "Encoder", "Step", "act", "parameters", "sample"]
