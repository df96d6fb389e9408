"""World Models (Ha & Schmidhuber 2018) as containerised batch jobs. Read `stages.py` first.

`worldmodels.open` gives committed runs to Python programs (`api.py`, docs/python.md).
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import open as open

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the Python interface on demand, so that `import worldmodels` imports neither NumPy nor LiteRT."""
    if name == "open":
        return importlib.import_module(".api", __name__).open
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
