"""Engines by name."""

from ..errors import ConfigError
from .base import Lanes


def make(engine: str, lanes: int) -> Lanes:
    """`lanes` lanes of "envpool" (fast) or "gymnasium" (the reference, some 9 times slower)."""
    if engine == "envpool":
        from .envpool import EnvPoolLanes  # each engine is imported where it is wanted

        return EnvPoolLanes(lanes)
    if engine == "gymnasium":
        from .gymnasium import GymnasiumLanes

        return GymnasiumLanes(lanes)
    raise ConfigError(f"there is no engine {engine!r}; engines: envpool, gymnasium", next="wm config")
