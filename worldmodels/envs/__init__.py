"""CarRacing in several environment slots at once, drawn by either of two renderers."""

from .base import Lanes, describe, make

__all__ = ["Lanes", "describe", "make"]
