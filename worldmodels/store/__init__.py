"""Where artifacts live: a folder (`local.py`), or a bucket (`s3.py`, which alone imports boto3)."""

from pathlib import Path

from ..errors import ConfigError
from .base import Entry, Store
from .local import LocalStore

__all__ = ["Entry", "LocalStore", "Store", "open_store"]


def open_store(uri: str) -> Store:
    """The store at `uri`: a folder's path, or s3://bucket/prefix."""
    if uri.startswith("s3://"):
        try:
            from . import s3
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"store {uri}: a bucket needs the package {error.name}, which is not installed",
                next="pip install --editable '.[s3]'",
            ) from error
        return s3.connect(uri)
    if "://" in uri:
        raise ConfigError(
            f"store {uri}: only a folder's path and s3://bucket/prefix are understood", next="wm run --store ./runs"
        )
    return LocalStore(Path(uri))
