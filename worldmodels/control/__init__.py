"""C: a linear controller found by CMA-ES. `evolution.py` searches, `exchange.py` shares the work.

`describe(area)` says how an evolution stands.
"""

from .describe import Description, describe

__all__ = ["Description", "describe"]
