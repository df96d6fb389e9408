"""Ill luck on demand: an S3 client whose calls fail as planned, a proxy that cuts connections, a clock that jumps."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    FlexibleChecksumError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

Fault = Callable[[Callable[[], Any]], Any]


def fine(call: Callable[[], Any]) -> Any:
    return call()


def refused(code: str, status: int) -> Fault:
    """The server says no, and does nothing."""

    def fault(call: Callable[[], Any]) -> Any:
        error = {"Error": {"Code": code, "Message": "words"}, "ResponseMetadata": {"HTTPStatusCode": status}}
        raise ClientError(error, "operation")

    return fault


def raised(error: Exception) -> Fault:
    """The request never arrives."""

    def fault(call: Callable[[], Any]) -> Any:
        raise error

    return fault


def lost(error: Exception) -> Fault:
    """The server does it, and its answer is lost."""

    def fault(call: Callable[[], Any]) -> Any:
        call()
        raise error

    return fault


def damaged(call: Callable[[], Any]) -> Any:
    """A body of the right length whose checksum is wrong."""

    class Body:
        def iter_chunks(self, size: int) -> Iterator[bytes]:
            yield b"?" * 10
            raise FlexibleChecksumError(error_msg="not what was promised")

    return {**call(), "Body": Body()}


TIMEOUT = ReadTimeoutError(endpoint_url="http://somewhere")
TRANSIENT = [
    refused("InternalError", 500),
    refused("Bad Gateway", 502),
    refused("ServiceUnavailable", 503),
    refused("SlowDown", 503),
    refused("Gateway Timeout", 504),
    refused("RequestTimeout", 400),
    refused("ConditionalRequestConflict", 409),
    raised(TIMEOUT),
    raised(EndpointConnectionError(endpoint_url="http://somewhere")),
    raised(ResponseStreamingError(error="cut")),
    raised(IncompleteReadError(actual_bytes=1, expected_bytes=2)),
]


class Unlucky:
    """A client; `plan` has the faults of an operation's first calls, and what follows is fine (or `always`)."""

    def __init__(self, client: Any, always: Fault = fine, **plan: list[Fault]) -> None:
        self.meta = client.meta
        self.calls: list[str] = []
        self._client, self._always, self._plan = client, always, plan

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(**arguments: Any) -> Any:
            self.calls.append(name)
            faults = self._plan.get(name, [])
            fault = faults.pop(0) if faults else self._always
            return fault(lambda: getattr(self._client, name)(**arguments))

        return call


class Clock:
    """Time that passes only when a caller sleeps."""

    def __init__(self) -> None:
        self.time = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


class Proxy:
    """Relays TCP connections to `url`; the first ones end after so many bytes of answer (-1: they stay silent)."""

    def __init__(self, url: str, *limits: int) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self.relayed = 0
        self._target, self._limits = (host, int(port)), list(limits)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listener]
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> "Proxy":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._open:
            _close(each)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._open.append(near)
                limit = self._limits.pop(0) if self._limits else 2**60
                if limit < 0:
                    continue
                far = socket.create_connection(self._target)
                self._open.append(far)
                threading.Thread(target=self._relay, args=(near, far, 2**60), daemon=True).start()
                threading.Thread(target=self._relay, args=(far, near, limit), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, limit: int) -> None:
        for data in _chunks(source):
            answer = limit < 2**60
            with contextlib.suppress(OSError):
                sink.sendall(data[:limit])
            self.relayed += len(data[:limit])
            limit -= len(data)
            if answer and limit <= 0:
                break
        _close(source)
        _close(sink)


def _chunks(source: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            yield data


def _close(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
