"""Cleanup of a bucket: bulk deletion, uploads that were never completed, leases that ended."""

import base64
import contextlib
import hashlib
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from ...errors import Busy, StoreError
from ..base import Leftover
from .retry import code

if TYPE_CHECKING:
    from .store import S3Store

AT_ONCE = 1000  # S3's limit of keys per request
LEASE = re.compile(r"\.(.+)\.lock")


def sign_by_md5(params: dict[str, Any], **_: Any) -> None:
    """Replace the CRC32 of a bulk delete, which boto3 sends since 1.36, by Content-MD5.

    Other servers require Content-MD5, as AWS once did.
    """
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()
    params["context"].pop("checksum", None)


def delete_many(store: "S3Store", keys: Iterable[str]) -> None:
    """Delete a thousand keys a request; repeat the failed ones singly, which retries them or raises their error."""
    remaining = iter(keys)
    while some := list(islice(remaining, AT_ONCE)):
        named = {"Objects": [{"Key": store.full(key)} for key in some], "Quiet": True}
        answer = store.request("delete", f"{some[0]} and others", "delete_objects", Delete=named)
        refused = {error.get("Key") for error in answer.get("Errors", ())}
        for key in some:
            if refused & {store.full(key), None}:  # None: the server does not name the key
                store.delete(key)


def uploads(store: "S3Store", prefix: str) -> Iterator[Leftover]:
    """List multipart uploads that were begun and neither completed nor aborted.

    Their parts are billed; the server does not list their sizes.
    """
    markers: dict[str, str] = {}
    seen: set[str] = set()
    while True:
        where = {"Prefix": store.full(prefix), **markers}
        page = store.request("list the unfinished uploads of", prefix, "list_multipart_uploads", **where)
        for item in page.get("Uploads", ()):
            if item["UploadId"] not in seen:  # SeaweedFS 4.48 repeats the end of a page in the next one
                key = item["Key"].removeprefix(store.full(""))
                yield Leftover("unfinished upload", key, 0, item["Initiated"].timestamp(), item["UploadId"])
            seen.add(item["UploadId"])
        # SeaweedFS 4.48 returns and accepts the second marker only.
        markers = {name: page[f"Next{name}"] for name in ("KeyMarker", "UploadIdMarker") if page.get(f"Next{name}")}
        if not page.get("IsTruncated") or not markers:
            return


def ended_leases(store: "S3Store", prefix: str) -> Iterator[Leftover]:
    """List expired leases on names below `prefix`, or on `prefix` itself without its slash."""
    answer = store.request("list", prefix, "list_objects_v2", Prefix=store.full("."), Delimiter="/")
    for item in answer.get("Contents", ()):
        key, written = item["Key"].removeprefix(store.full("")), item["LastModified"].timestamp()
        name = LEASE.fullmatch(key)
        if name and f"{name[1]}/".startswith(prefix) and store.now() - written > store.lease_seconds:
            yield Leftover("ended lock", name[1], item["Size"], written)


def discard(store: "S3Store", leftover: Leftover) -> None:
    if leftover.kind == "unfinished upload":
        abort(store, leftover.key, leftover.id)
    else:
        # Only a holder may remove a lease: another process can take it over between a read and a DELETE.
        with contextlib.suppress(Busy), store.lock(leftover.key):
            pass


def begin(store: "S3Store", key: str) -> str:
    """Begin a multipart upload and return its id; readers see the object only after its completion."""
    started = store.request("write", key, "create_multipart_upload", Key=store.full(key))
    return str(started["UploadId"])


def abort(store: "S3Store", key: str, id: str) -> None:
    """Abort a multipart upload, unless it was completed or aborted meanwhile."""
    try:
        store.request("abort the upload of", key, "abort_multipart_upload", Key=store.full(key), UploadId=id)
    except StoreError as error:
        if code(error.__cause__) != "NoSuchUpload":
            raise
