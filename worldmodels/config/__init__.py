"""Settings of a run: frozen models with units and bounds, three presets, TOML files, `-o section.key=value`."""

from .base import EXECUTION, EXTENT, LATER, fields, flatten, leaves
from .models import PERSONAL, SHARD_FRAMES, TEST_TRACKS, Architecture, Config, Controller, Memory, Vae, personal
from .presets import PRESETS
from .resolving import Origins, names, resolve, without_personal

__all__ = [
    "EXECUTION", "EXTENT", "LATER", "PERSONAL", "PRESETS", "SHARD_FRAMES", "TEST_TRACKS", "Architecture", "Config",
    "Controller", "Memory", "Origins", "Vae", "fields", "flatten", "leaves", "names", "personal", "resolve",
    "without_personal",
]  # fmt: skip
