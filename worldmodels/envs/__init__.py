"""CarRacing, many episodes at a time, drawn by either of two renderers."""

from .base import Lanes, describe, make

__all__ = ["Lanes", "describe", "make"]
