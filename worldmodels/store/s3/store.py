"""The store in a bucket of AWS S3, or of any server that has its protocol and honours `If-None-Match`."""

import base64
import contextlib
import hashlib
import io
import mimetypes
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore import exceptions as boto
from botocore.config import Config

from ...errors import ConfigError, StoreError
from ..address import bucket_and_prefix, redacted
from ..base import GET_BYTES, Entry, Leftover, bounded, hidden, read, too_large
from . import cleanup
from .credentials import Resolver
from .lease import LEASE_SECONDS, hold
from .retry import DAMAGED, DEADLINE_SECONDS, FAILURES, Retry, code, status

ABSENT = ("NoSuchKey", "404")  # a response to HEAD has no body that names the error
PART_BYTES = 16 * 2**20
PARTS_AT_ONCE = 4
# Progress of a slow body is reported at every chunk.
CHUNK_BYTES = 2**18
# Threads share the client: readers ahead of a training, parts of an upload, the log, most of all a leader that reads
# results. More threads than this would reconnect every time.
CONNECTIONS = 64
CLOCK_SECONDS = 60.0
# Fields of a complete response. botocore accepts one without its body, or with half its head: then a listing or an
# object would look empty.
RESPONSE_FIELDS = {
    "complete_multipart_upload": ("ETag",),
    "copy_object": ("CopyObjectResult",),
    "create_multipart_upload": ("UploadId",),
    "get_object": ("ETag", "LastModified", "ContentLength"),
    "head_object": ("LastModified",),
    "list_multipart_uploads": ("IsTruncated",),
    "list_objects_v2": ("IsTruncated",),
    "put_object": ("ETag",),
    "upload_part": ("ETag",),
}


def connect(uri: str, **options: Any) -> "S3Store":
    """Open the store at s3://bucket/prefix.

    boto3 finds endpoint, region, addressing style and credentials:
    AWS_ENDPOINT_URL_S3, AWS_REGION, AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws, a pod's role.
    """
    bucket, prefix = bucket_and_prefix(uri)
    try:
        return S3Store(make_client(), bucket, prefix, **options)
    except (boto.BotoCoreError, ValueError) as error:
        command = "export AWS_ENDPOINT_URL_S3=http://…" if "endpoint" in str(error) else "aws configure list"
        raise ConfigError(f"store {uri}: {redacted(str(error))}", next=command) from error


def make_client(connect_seconds: float = 5.0, read_seconds: float = 20.0, **options: Any) -> Any:
    """Return a client without retries. Threads may share it; a process makes one when it opens its store."""
    session = _session(options.pop("region_name", None))
    config = Config(
        retries={"total_max_attempts": 1},
        connect_timeout=connect_seconds,
        read_timeout=read_seconds,
        tcp_keepalive=True,
        max_pool_connections=CONNECTIONS,
    )
    client = session.client("s3", config=config, **options)
    host = urlsplit(client.meta.endpoint_url).hostname or ""
    if not host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        # Other servers know fewer checksums than AWS, and some refuse requests that carry one.
        plain = Config(request_checksum_calculation="when_required", response_checksum_validation="when_required")
        client = session.client("s3", config=config.merge(plain), **options)
        client.meta.events.register_last("before-call.s3.DeleteObjects", cleanup.sign_by_md5)
    client.meta.events.register_last("before-call.s3", _expect_nothing)
    if encryption := os.environ.get("WM_S3_ENCRYPTION", ""):
        for method in ("PutObject", "CopyObject", "CreateMultipartUpload"):
            client.meta.events.register(f"provide-client-params.s3.{method}", partial(_encrypt, encryption))
    return client


def _encrypt(encryption: str, params: dict[str, Any], **more: Any) -> None:
    """Add the encryption to a request, for buckets that require it: `AES256`, `aws:kms` or `aws:kms KEY`."""
    kind, _, key = encryption.partition(" ")
    params.update(ServerSideEncryption=kind, **({"SSEKMSKeyId": key} if key else {}))


def _session(region: str | None) -> Any:
    """Return a boto3 session with `Late` credentials, and the region of AWS_REGION, as other SDKs read it."""
    core = botocore.session.Session()
    # botocore's own clients get a role's keys; they take these settings.
    core.set_default_client_config(Config(connect_timeout=5.0, read_timeout=20.0, retries={"total_max_attempts": 1}))
    core.register_component("credential_provider", Resolver(core.get_component("credential_provider")))
    return boto3.session.Session(botocore_session=core, region_name=region or os.environ.get("AWS_REGION") or None)


def _expect_nothing(params: dict[str, Any], **_: Any) -> None:
    """Remove the Expect header: botocore 1.44 reads for ever when a connection ends within a `100 Continue`."""
    params["headers"].pop("Expect", None)


@dataclass(frozen=True)
class Stored:
    """An object's bytes, its entity tag, and its modification time by the server's clock (Unix seconds)."""

    data: bytes
    tag: str
    modified: float


class S3Store:
    """A store in a bucket, below `prefix`. Every method raises StoreError after `deadline` seconds without progress."""

    # A write costs money and a round trip; users rarely need fresher telemetry of a pod.
    publish_seconds = 15.0
    local = False

    def __init__(
        self,
        client: Any,
        bucket: str,
        prefix: str = "",
        *,
        deadline: float = DEADLINE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        lease_seconds: float = LEASE_SECONDS,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self._client, self._bucket = client, bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.uri = f"s3://{bucket}/{self._prefix}".rstrip("/")
        self.endpoint = redacted(client.meta.endpoint_url)
        self._clock, self.lease_seconds, self._part_bytes = clock, lease_seconds, part_bytes
        self._try = Retry(self.uri, client.meta.endpoint_url, deadline=deadline, clock=clock, sleep=sleep)
        self._server: tuple[float, float] | None = None

    def get(self, key: str) -> bytes | None:
        return read(self, key)

    def receive(self, key: str, sink: IO[bytes]) -> bool:
        return self._copy(key, sink) is not None

    def put(self, key: str, data: bytes) -> None:
        self._write(key, io.BytesIO(data), len(data))

    def create(self, key: str, data: bytes) -> bool:
        return self.write_if(key, data, IfNoneMatch="*") is not None

    def upload(self, key: str, path: Path) -> None:
        with open(path, "rb") as file:
            self._write(key, file, path.stat().st_size)

    def copy(self, source: str, target: str) -> None:
        where = {"Bucket": self._bucket, "Key": self._prefix + source}
        self._try("copy", source, partial(self._send, "copy_object", Key=self._prefix + target, CopySource=where))

    def follow(self, key: str, data: bytes) -> None:
        self.put(key, data)

    def entries(self, prefix: str) -> Iterator[Entry]:
        found = [
            Entry(item["Key"].removeprefix(self._prefix), item["Size"], item["LastModified"].timestamp())
            for page in self._pages(prefix)
            for item in page.get("Contents", ())
            if not hidden(item["Key"]) and not item["Key"].endswith("/")
        ]
        yield from sorted(found, key=lambda entry: entry.key)

    def folders(self, prefix: str) -> list[str]:
        found = (
            item["Prefix"] for page in self._pages(prefix, Delimiter="/") for item in page.get("CommonPrefixes", ())
        )
        names = (path.removeprefix(self._prefix + prefix).rstrip("/") for path in found)
        return sorted(name for name in names if name and not hidden(name))

    def modified(self, key: str) -> float | None:
        def attempt() -> float | None:
            try:
                return float(self._send("head_object", Key=self._prefix + key)["LastModified"].timestamp())
            except boto.ClientError as error:
                if code(error) not in ABSENT:
                    raise
                return None

        return self._try("read", key, attempt)

    def delete(self, key: str) -> None:
        def attempt() -> None:
            try:
                self._send("delete_object", Key=self._prefix + key)
            except boto.ClientError as error:
                if code(error) != "NoSuchKey":
                    raise

        self._try("delete", key, attempt)

    def delete_many(self, keys: Iterable[str]) -> None:
        cleanup.delete_many(self, keys)

    def leftovers(self, prefix: str) -> Iterator[Leftover]:
        yield from cleanup.uploads(self, prefix)
        yield from cleanup.ended_leases(self, prefix)

    def discard(self, leftover: Leftover) -> None:
        cleanup.discard(self, leftover)

    def now(self) -> float:
        """Return the Date of the last response plus the time since, at one second's resolution, as `modified` has."""
        if self._server is None or self._clock() - self._server[1] > CLOCK_SECONDS:
            ask = partial(self._send, "list_objects_v2", Prefix=self._prefix, MaxKeys=1)
            self._try("list", "", ask)
        if self._server is None:
            raise StoreError(f"store {self.uri}: the server's answers carry no Date", next="wm run --store DIR")
        date, heard = self._server
        return date + self._clock() - heard

    def lock(self, name: str) -> contextlib.AbstractContextManager[None]:
        return hold(self, name, self.lease_seconds)

    # Further methods for leases.

    def read(self, key: str) -> Stored | None:
        """Return the object with its tag and time, or None if absent."""
        sink = io.BytesIO()
        answer = self._copy(key, bounded(sink, GET_BYTES, too_large(self, key, GET_BYTES)))
        return answer and Stored(sink.getvalue(), answer["ETag"], answer["LastModified"].timestamp())

    def write_if(self, key: str, data: bytes, **condition: str) -> str | None:
        """Write under IfNoneMatch or IfMatch; return the new tag, or None if the condition does not hold.

        If the condition fails after a try whose response was lost, that try may have written the object. Then the
        object holds `data`, and the method returns its tag.
        """
        lost = False

        def attempt() -> str | None:
            nonlocal lost
            try:
                return str(self._send("put_object", Key=self._prefix + key, Body=data, **condition)["ETag"])
            except FAILURES as error:
                if status(error) == 412 or code(error) == "NoSuchKey":
                    return None
                lost = lost or status(error) != 409  # 409, a conflict: the server wrote nothing
                raise

        tag = self._try("create", key, attempt)
        if tag is None and lost and (there := self.read(key)) and there.data == data:
            return there.tag
        return tag

    # Further methods for `cleanup` and `wm doctor`.

    @property
    def answered(self) -> bool:
        """Return whether the endpoint has responded at all, even with an error."""
        return self._try.answered

    def full(self, key: str) -> str:
        """Return the key with the store's prefix."""
        return self._prefix + key

    def request(self, verb: str, key: str, method: str, **arguments: Any) -> Any:
        """Call the client's `method` with retries; the message of a StoreError contains `cannot <verb> <key>`."""
        return self._try(verb, key, partial(self._send, method, **arguments))

    # Requests.

    def _send(self, method: str, **arguments: Any) -> Any:
        """Send one request without retries, and keep the Date of the response.

        Raise ResponseStreamingError for a truncated response.
        """
        if "Body" in arguments:
            # Without it SeaweedFS 4.48 stores an empty object when the connection breaks right after the headers.
            md5 = hashlib.md5(arguments["Body"], usedforsecurity=False).digest()
            arguments["ContentMD5"] = base64.b64encode(md5).decode()
        try:
            answer = getattr(self._client, method)(Bucket=self._bucket, **arguments)
        except boto.ClientError as error:
            self._hear(error.response)
            raise
        except ValueError as error:  # a header's value was truncated: half a number, half a date
            raise boto.ResponseStreamingError(error=error) from error
        self._hear(answer)
        if missing := _missing(method, answer):
            raise boto.ResponseStreamingError(error=f"no {missing}: it was cut")
        return answer

    def _hear(self, answer: Any) -> None:
        self._try.answered = True
        date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
        if date.endswith("GMT"):  # not truncated
            with contextlib.suppress(ValueError):
                self._server = (parsedate_to_datetime(date).timestamp(), self._clock())

    def _pages(self, prefix: str, **more: Any) -> Iterator[Any]:
        while True:
            ask = partial(self._send, "list_objects_v2", Prefix=self._prefix + prefix, **more)
            page = self._try("list", prefix, ask)
            yield page
            if not page.get("IsTruncated"):
                return
            more["ContinuationToken"] = page["NextContinuationToken"]

    def _copy(self, key: str, sink: IO[bytes]) -> Any:
        """Copy the object into `sink`, each try from where the last one ended; return the response, None if absent."""
        tag = ""

        def rewind() -> None:
            sink.seek(0)
            sink.truncate()

        def attempt() -> Any:
            nonlocal tag
            part = {"Range": f"bytes={sink.tell()}-", "IfMatch": tag} if sink.tell() else {}
            try:
                answer = self._send("get_object", Key=self._prefix + key, **part)
                if part and status_of(answer) != 206:  # the whole object: some servers ignore ranges
                    rewind()
                tag = answer["ETag"]
                for chunk in answer["Body"].iter_chunks(CHUNK_BYTES):
                    sink.write(chunk)
                return answer
            except DAMAGED:
                rewind()
                raise
            except boto.ClientError as error:
                if code(error) in ABSENT:
                    return None
                if part and status(error) in (412, 416):  # overwritten since the last try
                    rewind()
                    return attempt()
                raise

        return self._try("read", key, attempt, gained=sink.tell)

    def _write(self, key: str, file: IO[bytes], size: int) -> None:
        kind = {"ContentType": mimetypes.guess_type(key)[0] or "application/octet-stream"}
        if size > self._part_bytes:
            self._write_parts(key, file, size, kind)
            return
        self._try("write", key, partial(self._send, "put_object", Key=self._prefix + key, Body=file.read(), **kind))

    def _write_parts(self, key: str, file: IO[bytes], size: int, kind: dict[str, str]) -> None:
        """Upload in parts, a few in memory at a time, each with its own retries; readers see nothing before the end."""
        where = {"Key": self._prefix + key}
        if self._client.meta.config.request_checksum_calculation == "when_supported":
            kind = {**kind, "ChecksumAlgorithm": "CRC32"}
        started = self._try("write", key, partial(self._send, "create_multipart_upload", **where, **kind))
        where["UploadId"] = started["UploadId"]
        try:
            parts = self._send_parts(key, file, where)
            self._try("write", key, partial(self._complete, key, size, where, parts))
        except BaseException:
            with contextlib.suppress(*FAILURES):
                self._send("abort_multipart_upload", **where)
            raise

    def _send_parts(self, key: str, file: IO[bytes], where: dict[str, str]) -> list[dict[str, Any]]:
        """Upload all parts, and return the number, tag and checksum of each. No request outlasts the call."""

        def send(number: int, data: bytes) -> dict[str, Any]:
            request = partial(self._send, "upload_part", **where, PartNumber=number, Body=data)
            answer = self._try("write", f"{key}, part {number}", request)
            checksums = {name: value for name, value in answer.items() if name == "ChecksumCRC32"}
            return {"PartNumber": number, "ETag": answer["ETag"], **checksums}

        parts: list[dict[str, Any]] = []
        sent: deque[Future[dict[str, Any]]] = deque()
        with ThreadPoolExecutor(PARTS_AT_ONCE) as threads:
            while data := file.read(self._part_bytes):
                sent.append(threads.submit(send, len(parts) + len(sent) + 1, data))
                del data  # else memory would hold one part more
                if len(sent) == PARTS_AT_ONCE:
                    parts.append(sent.popleft().result())
            parts += [part.result() for part in sent]
        return parts

    def _complete(self, key: str, size: int, where: dict[str, str], parts: list[dict[str, Any]]) -> None:
        try:
            self._send("complete_multipart_upload", **where, MultipartUpload={"Parts": parts})
        except boto.ClientError as error:
            # If an earlier try completed the upload and its response was lost, the object exists.
            if code(error) != "NoSuchUpload" or not any(e.key == key and e.size == size for e in self.entries(key)):
                raise


def _missing(method: str, answer: Any) -> str:
    """Return the first missing field of a complete success; empty if none is missing."""
    written = answer["ResponseMetadata"]["HTTPHeaders"].get("last-modified", "GMT")
    half = [] if written.endswith("GMT") else ["LastModified"]  # a truncated date may parse as another date
    return next(iter(half + [field for field in RESPONSE_FIELDS.get(method, ()) if field not in answer]), "")


def status_of(answer: Any) -> int:
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
