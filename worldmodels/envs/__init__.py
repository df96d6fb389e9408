"""CarRacing, many lanes at a time, on either of two engines."""

from .base import Lanes, describe, make

__all__ = ["Lanes", "describe", "make"]
