"""A bucket's address, without a client that could open it."""

import re

from ..errors import ConfigError

BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")  # not only AWS names buckets


def bucket_and_prefix(uri: str) -> tuple[str, str]:
    """("bucket", "prefix") of s3://bucket/prefix; ConfigError if no bucket can be called that."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    if not BUCKET.fullmatch(bucket):
        raise ConfigError(f"store {uri}: {bucket!r} is no bucket's name", next="export WM_STORE=s3://bucket/prefix")
    return bucket, prefix


def redacted(text: str) -> str:
    """Without the user and password that a URL may carry."""
    return re.sub(r"//[^/@\s]*@", "//", text)
