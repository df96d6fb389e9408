"""Functions compiled by numba, and where their machine code is kept between processes.

numba keeps it in `__pycache__` beside the source or, where that may not be written, in the user's cache
(`$XDG_CACHE_HOME/numba`, `~/.cache/numba`); `NUMBA_CACHE_DIR` names another folder. Images are built with the code
inside, in a folder that is read-only afterwards. Where no folder can be written, every process compiles anew.
"""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

# The least processor of an architecture: the same arithmetic on all of them, and machine code that serves all of them.
os.environ.setdefault("NUMBA_CPU_NAME", "generic")

import numba
from numba.core import caching

F = TypeVar("F", bound=Callable[..., object])


class ReadOnlyCache(caching.InTreeCacheLocator):  # type: ignore[misc]
    """Finds machine code beside the source also where that cannot be written (`NUMBA_CACHE_LOCATOR_CLASSES`)."""

    def ensure_cache_path(self) -> None:
        """Raises FileNotFoundError where nothing was compiled; numba then asks its next locator."""
        if not any(Path(self.get_cache_path()).glob("*.nbi")):
            raise FileNotFoundError(self.get_cache_path())


def part(function: F) -> F:
    """`function` as a part of compiled ones; its machine code is kept with theirs."""
    return cast(F, numba.njit(nogil=True, error_model="numpy")(function))


def compiled(function: F) -> F:
    """`function`, compiled at its first call or read from the cache; it releases the GIL while it runs."""
    try:
        return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
    except RuntimeError:  # numba has no locator for which it can write
        warnings.warn(
            f"{function.__module__} is compiled anew in every process, which takes seconds: neither its folder nor the "
            "user's cache can be written; set NUMBA_CACHE_DIR to a folder that can",
            stacklevel=2,
        )
        return part(function)
