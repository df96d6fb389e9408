"""The parsing of a bucket's address, without boto3."""

import re

from ..errors import ConfigError

BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")  # wider than AWS's rules: other servers allow more


def bucket_and_prefix(uri: str) -> tuple[str, str]:
    """Return ("bucket", "prefix") of s3://bucket/prefix; raise ConfigError for an invalid bucket name."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    if not BUCKET.fullmatch(bucket):
        raise ConfigError(f"store {uri}: {bucket!r} is no bucket's name", next="export WM_STORE=s3://bucket/prefix")
    return bucket, prefix


def redacted(text: str) -> str:
    """Return the text without the user and password that a URL may carry."""
    return re.sub(r"//[^/@\s]*@", "//", text)
