"""CarRacing, many lanes at a time, on either of two engines."""

from .base import Lanes, describe
from .engines import make

__all__ = ["Lanes", "describe", "make"]
