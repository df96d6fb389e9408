"""World Models (Ha & Schmidhuber 2018) as containerised batch jobs. Read `stages.py` first.

`worldmodels.open` and `worldmodels.pretrained` give committed runs to Python programs (`api.py`, docs/python.md).
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import open as open
    from .api import pretrained as pretrained

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the Python interface on demand, so that `import worldmodels` imports neither NumPy nor LiteRT."""
    if name in ("open", "pretrained"):
        return getattr(importlib.import_module(".api", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
