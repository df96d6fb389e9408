"""Real S3 servers on loopback (SeaweedFS in a process, moto in a thread), and stores on them."""

import functools
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from worldmodels.store.s3.store import S3Store, make_client

BUCKET = "bucket"
KEY, SECRET = "tests", "a-secret-that-nobody-may-print"
IDENTITIES = {
    "identities": [
        {"name": KEY, "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]},
        {
            "name": "reader",
            "credentials": [{"accessKey": "reader", "secretKey": SECRET}],
            "actions": [f"Read:{BUCKET}", f"List:{BUCKET}"],
        },
        {
            "name": "worker",
            "credentials": [{"accessKey": "worker", "secretKey": SECRET}],
            "actions": [f"Read:{BUCKET}", f"List:{BUCKET}", f"Write:{BUCKET}"],
        },
    ]
}
PORTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
         "s3.port", "s3.port.grpc")  # fmt: skip


def program() -> str | None:
    """Where the server's program is: beside this Python, or on the path."""
    return shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")


@contextmanager
def serve(folder: Path, volumes: int = 20, host: str = "127.0.0.1") -> Iterator[str]:
    """The address of a fresh server, on one of this machine's, with one empty bucket that takes `volumes` × 64 MB."""
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    (folder / "identities.json").write_text(json.dumps(IDENTITIES))
    (folder / "data").mkdir()
    options = {
        **ports, "dir": folder / "data", "ip": host, "ip.bind": host,
        "filer": "true", "filer.localSocket": folder / "filer.sock",
        "s3": "true", "s3.localSocket": folder / "s3.sock", "s3.port.iceberg": 0, "s3.port.lance": 0,
        "s3.config": folder / "identities.json", "s3.autoCreateBucket": "false",
        "master.telemetry": "false", "master.volumeSizeLimitMB": 64, "volume.max": volumes,
        "volume.minFreeSpace": "100MiB",  # by default, SeaweedFS stores nothing on a disk with less than 1 % free
    }  # fmt: skip
    command = [
        program(),
        "-logtostderr=true",
        "-v=-1",
        "server",
        *(f"-{name}={value}" for name, value in options.items()),
    ]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        url = f"http://{host}:{ports['s3.port']}"
        _wait(process, url, folder / "log")
        yield url
    finally:
        process.kill()
        process.wait()


@contextmanager
def serve_moto() -> Iterator[str]:
    """The address of another implementation, of which signatures are not checked, with one empty bucket."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        client(url).create_bucket(Bucket=BUCKET)
        yield url
    finally:
        server.stop()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Until the server stores an object."""
    deadline = time.monotonic() + 60
    while True:
        try:
            client(url).create_bucket(Bucket=BUCKET)
            client(url).put_object(Bucket=BUCKET, Key="ready", Body=b"it stores")
            return
        except (BotoCoreError, ClientError) as error:
            if isinstance(error, ClientError) and error.response["Error"]["Code"] == "BucketAlreadyExists":
                return
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@functools.cache
def client(url: str, key: str = KEY, secret: str = SECRET, read_seconds: float = 20.0) -> Any:
    return make_client(
        connect_seconds=2.0, read_seconds=read_seconds, endpoint_url=url, region_name="us-east-1",
        aws_access_key_id=key, aws_secret_access_key=secret,
    )  # fmt: skip


def open_bucket(url: str, prefix: str, lease_seconds: float = 60.0) -> S3Store:
    return S3Store(client(url), BUCKET, prefix, lease_seconds=lease_seconds)


def fresh_prefix() -> str:
    return f"{os.getpid()}-{uuid.uuid4().hex[:8]}"


def environment(url: str) -> dict[str, str]:
    """The variables that a user exports."""
    return {
        "AWS_ENDPOINT_URL_S3": url, "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
