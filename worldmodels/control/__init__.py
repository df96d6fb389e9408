"""C: found by CMA-ES or another strategy. `evolution.py` searches, `exchange.py` shares the work between workers.

`describe(workspace, settings)` returns the progress of an evolution.
"""

from .describe import Description, describe

__all__ = ["Description", "describe"]
