"""Gymnasium's CarRacing, checked at import.

The import raises ConfigError if CarRacing cannot be imported, or differs from the version that the fast renderer draws.
"""

import hashlib
import os
from importlib.metadata import version
from pathlib import Path

from ..errors import ConfigError

# pygame draws to memory and must not open a display.
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

SUPPORTED = "1.4.0"

try:
    import Box2D
    from gymnasium.envs.box2d import car_dynamics, car_racing
except ModuleNotFoundError:
    raise  # the worker reports the missing package, and the image that has it
except Exception as error:  # a broken shared object raises ImportError, Gymnasium DependencyNotInstalled
    raise ConfigError(
        f"Gymnasium's CarRacing cannot be imported here: {type(error).__name__}: {error}",
        next=f"pip install --force-reinstall 'gymnasium[box2d]=={SUPPORTED}'",
    ) from error

__all__ = ["Box2D", "CarRacing"]

CarRacing = car_racing.CarRacing

SOURCES = {
    car_racing: "f5be6dad0c570688846250185a201352fc7f0cdff37867c07b5ee6fada8469d1",
    car_dynamics: "df9d65d4d32a9d0189ca6672431b67cad84b195ef22c3908affc627bd29c4e56",
}


def differences() -> list[str]:
    """List the installed CarRacing files that differ from Gymnasium SUPPORTED, which the renderer follows."""
    return [
        str(module.__file__)
        for module, digest in SOURCES.items()
        if hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest() != digest
    ]


if different := differences():
    raise ConfigError(
        f"the CarRacing of Gymnasium {version('gymnasium')} is not that of {SUPPORTED}, which the fast renderer draws "
        f"({', '.join(different)} differs)",
        next=f"pip install gymnasium=={SUPPORTED}",
    )
