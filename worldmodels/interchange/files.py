"""Files that get their names only once they are complete."""

import os
from collections.abc import Callable
from pathlib import Path

from ..errors import StoreError
from ..store.causes import explain


def replace(path: Path, save: Callable[[Path], object], check: Callable[[Path], None] = lambda path: None) -> None:
    """Save a file beside its place, check it, and give it its name. Raise StoreError if it cannot be written."""
    unchecked = path.with_name(f".{os.getpid()}-{path.name}")  # the ending says the format
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(unchecked)
        check(unchecked)
        os.replace(unchecked, path)
    except OSError as error:
        reason, command = explain(error, str(path.parent))
        raise StoreError(f"{path} cannot be written: {reason}", next=command) from error
    finally:
        unchecked.unlink(missing_ok=True)
