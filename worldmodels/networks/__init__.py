"""What plays: V's encoder and decoder, M's step and dream, and C, on LiteRT and NumPy. No TensorFlow here."""

from .linear import act, parameters
from .mixture import sample
from .play import Decoder, Dream, Encoder, Step

__all__ = ["Decoder", "Dream", "Encoder", "Step", "act", "parameters", "sample"]
