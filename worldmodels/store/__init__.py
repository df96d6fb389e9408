"""The stores of artifacts: a folder (`local.py`), a bucket (`s3/`, which alone imports boto3), the package's model."""

from pathlib import Path
from typing import Any

from ..errors import ConfigError, lacking
from .base import GET_BYTES, Entry, Leftover, Store, bounded, read, too_large
from .local import LocalStore
from .packaged import ADDRESS, PackagedStore

__all__ = [
    "GET_BYTES",
    "Entry",
    "Leftover",
    "LocalStore",
    "PackagedStore",
    "Store",
    "bounded",
    "open_store",
    "read",
    "too_large",
]


def open_store(uri: str, **options: Any) -> Store:
    """Open the store at `uri`: a folder's path, s3://bucket/prefix, which takes S3Store's `options`, or package:."""
    if uri == ADDRESS:
        return PackagedStore()
    if uri.startswith("s3://"):
        try:
            from .s3 import store as s3
        except ModuleNotFoundError as error:
            raise lacking(f"store {uri}: a bucket", error.name) from error
        return s3.connect(uri, **options)
    if "://" in uri:
        raise ConfigError(
            f"store {uri}: only a folder's path and s3://bucket/prefix are understood", next="wm run --store ./runs"
        )
    return LocalStore(Path(uri))
