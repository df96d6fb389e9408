"""What plays: V's encoder and decoder, M's step and dream, and C, on LiteRT and NumPy. No TensorFlow here."""

from .linear import act, parameters
from .litert import Decoder, Dream, Encoder, Step
from .mixture import sample

__all__ = ["Decoder", "Dream", "Encoder", "Step", "act", "parameters", "sample"]
