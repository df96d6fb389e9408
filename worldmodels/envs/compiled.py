"""Functions compiled by numba, and the place of their machine code between processes.

numba keeps it in `__pycache__` beside the source or, if that is not writable, in the user's cache
(`$XDG_CACHE_HOME/numba`, `~/.cache/numba`); `NUMBA_CACHE_DIR` names another folder. Container images are built with the
code inside, in a folder that is read-only afterwards. If no folder is writable, every process compiles again.
"""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

# The baseline processor of the architecture: the same machine code and arithmetic on all its processors.
os.environ.setdefault("NUMBA_CPU_NAME", "generic")

import numba
from numba.core import caching

F = TypeVar("F", bound=Callable[..., object])


class ReadOnlyCache(caching.InTreeCacheLocator):  # type: ignore[misc]
    """Locator of machine code beside the source, also in a read-only folder (`NUMBA_CACHE_LOCATOR_CLASSES`)."""

    def ensure_cache_path(self) -> None:
        """Raise FileNotFoundError if there is no machine code; numba then tries its next locator."""
        if not any(Path(self.get_cache_path()).glob("*.nbi")):
            raise FileNotFoundError(self.get_cache_path())


def part(function: F) -> F:
    """Compile `function` as a part of other compiled functions; its machine code is cached with theirs."""
    return cast(F, numba.njit(nogil=True, error_model="numpy")(function))


def compiled(function: F) -> F:
    """Compile `function` at its first call, or read it from the cache; it releases the GIL while it runs."""
    try:
        return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
    except RuntimeError:  # numba finds no writable cache
        warnings.warn(
            f"{function.__module__} is compiled anew in every process, which takes seconds: neither its folder nor the "
            "user's cache can be written; set NUMBA_CACHE_DIR to a folder that can",
            stacklevel=2,
        )
        return part(function)
