"""Environments in several slots at once. CarRacing is one, drawn by either of two renderers."""

from .base import FRAME_SHAPE, EnvSpec, Lanes, describe, spec

__all__ = ["FRAME_SHAPE", "EnvSpec", "Lanes", "describe", "spec"]
