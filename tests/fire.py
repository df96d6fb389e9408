"""An S3 endpoint under fire: an HTTP proxy before a real server, where a share of all calls goes wrong.

It forwards requests as they are, `Host` included, so that signatures hold. By hand, to be ended with Ctrl-C:

    PYTHONPATH=tests python -m fire http://127.0.0.1:8333 --share 0.1
"""

import contextlib
import random
import re
import select
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

# The faults, and their relative frequencies. `silent` costs a client its whole time-out: about one fault in 40.
FAULTS = {
    "SlowDown": 5,  # 503, and nothing is done
    "InternalError": 5,  # 500, and nothing is done
    "ConditionalRequestConflict": 10,  # 409, and nothing is done; only of conditional writes
    "OperationAborted": 10,  # the same by another name
    "closed": 5,  # the connection ends before the request's body is read
    "cut request": 5,  # the server gets half of the body, then the connection ends
    "cut answer": 5,  # done, but half of the answer's body (of its head, if it has none) arrives
    "lost answer": 4,  # done, and the connection ends
    "false error": 4,  # done, and the answer is 500 InternalError
    "skewed": 1,  # done, and the answer's Date is an hour off
    "silent": 1,  # nothing happens until the client's time-out
}
# Refusals that no repetition mends: to be asked for by name.
STATUSES = {
    "SlowDown": 503, "InternalError": 500, "ConditionalRequestConflict": 409, "OperationAborted": 409,
    "ExpiredToken": 400, "RequestTimeTooSkewed": 403,
}  # fmt: skip
SKEW_SECONDS = 3600
SILENT_SECONDS = 60
OWN = {"connection", "content-length", "expect", "keep-alive", "transfer-encoding"}  # of one connection


@dataclass(frozen=True)
class Call:
    """One request and what was done to it ("" if nothing)."""

    method: str
    target: str
    fault: str

    @property
    def operation(self) -> str:
        """As it is billed: a listing apart from a GET."""
        return "LIST" if self.method == "GET" and "list-type=2" in self.target else self.method

    @property
    def stage(self) -> str:
        found = re.search(r"iter-\d+/[a-z]+", unquote(self.target))
        return found.group() if found else "run"


class Fire:
    """The proxy, in threads of this process: `with Fire(url, share=0.1) as fire:` and clients call `fire.url`.

    The same seed draws the same sequence of faults; which call meets which is up to the order in which they arrive.
    """

    def __init__(
        self,
        url: str,
        share: float,
        seed: int = 1,
        faults: Mapping[str, int] = FAULTS,
        without: frozenset[str] = frozenset(),
        port: int = 0,
    ) -> None:
        """`without` names request headers, in small letters, that the server is not to see."""
        self.share, self.faults, self.without = share, faults, without
        self.target = urlsplit(url).netloc
        self.calls: list[Call] = []
        self._chance, self._lock = random.Random(seed), threading.Lock()
        self._server = _Server(("127.0.0.1", port), type("Relay", (_Relay,), {"fire": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Fire":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def draw(self, call: BaseHTTPRequestHandler, size: int) -> tuple[str, float]:
        """The fault that this call meets, and a number from 0 to 1 for its details."""
        conditional = call.command == "PUT" and ("If-None-Match" in call.headers or "If-Match" in call.headers)
        fitting = {
            name: weight
            for name, weight in self.faults.items()
            if (STATUSES.get(name) != 409 or conditional) and (name != "cut request" or size)
        }
        with self._lock:
            goes_wrong, detail = self._chance.random() < self.share and fitting, self._chance.random()
            fault = self._chance.choices([*fitting], [*fitting.values()])[0] if goes_wrong else ""
        self.calls.append(Call(call.command, call.path, fault))
        return fault, detail

    def met(self) -> Counter[str]:
        """How many calls met which fault."""
        return Counter(call.fault for call in self.calls if call.fault)

    def table(self) -> str:
        """Calls by part of the run and operation, those that met a fault, and which faults; to be read by people."""
        rows = Counter((call.stage, call.operation) for call in self.calls)
        bad = Counter((call.stage, call.operation) for call in self.calls if call.fault)
        lines = [f"{row[0]:20} {row[1]:6} {count:6} {bad[row] or '':6}" for row, count in sorted(rows.items())]
        return "\n".join([*lines, ", ".join(f"{fault} {count}" for fault, count in self.met().most_common())])


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that went away is no news
            super().handle_error(request, client_address)


class _Relay(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fire: Fire

    def handle_expect_100(self) -> bool:
        return True  # said when the body is wanted

    def log_message(self, *_: object) -> None:
        """`Fire.calls` has it all."""

    def relay(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        fault, detail = self.fire.draw(self, size)
        self.close_connection = self.close_connection or fault in ("closed", "cut request", "cut answer", "lost answer")
        if fault == "closed":
            return
        if "Expect" in self.headers:
            self.send_response_only(100)
            self.end_headers()
        body = self.rfile.read(size // 2 if fault == "cut request" else size)
        if fault == "silent":
            self._wait()
        elif fault in STATUSES:
            self._refuse(fault)
        else:
            try:
                self._forward(body, fault, detail)
            except (OSError, HTTPException):
                self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = relay  # noqa: N815 - http.server's names

    def _forward(self, body: bytes, fault: str, detail: float) -> None:
        server = HTTPConnection(self.fire.target, timeout=SILENT_SECONDS)
        with contextlib.closing(server):
            server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in (OWN - {"content-length"}) | self.fire.without:
                    server.putheader(name, value)
            server.endheaders(body or None)
            if fault == "cut request":
                return
            answer = server.getresponse()
            data = answer.read()
        if fault == "lost answer":
            return
        if fault == "false error":
            self._refuse("InternalError")
            return
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in OWN}
        if self.command == "HEAD":
            headers["Content-Length"] = answer.getheader("Content-Length", "0")
        elif answer.status != 204:
            headers["Content-Length"] = str(len(data))
        if fault == "skewed":
            headers["Date"] = formatdate(time.time() + (SKEW_SECONDS if detail < 0.5 else -SKEW_SECONDS), usegmt=True)
        self._say(answer.status, headers, data, detail if fault == "cut answer" else 1.0)

    def _refuse(self, code: str) -> None:
        said = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as planned</Message></Error>".encode()
        headers = {"Date": formatdate(usegmt=True), "Content-Type": "application/xml", "Content-Length": str(len(said))}
        self._say(STATUSES[code], headers, b"" if self.command == "HEAD" else said)

    def _say(self, status: int, headers: Mapping[str, str], data: bytes, share: float = 1.0) -> None:
        """The answer, or with a `share` below 1 its beginning: its body is cut, or its head if it has no body."""
        lines = [f"HTTP/1.1 {status} {self.responses[status][0]}", *(f"{name}: {headers[name]}" for name in headers)]
        head = "\r\n".join((*lines, "", "")).encode()
        said = head + data[: int(share * len(data))] if data else head[: int(share * len(head))]
        self.connection.sendall(said if share < 1 else head + data)

    def _wait(self) -> None:
        self.close_connection = True
        select.select([self.connection], [], [], SILENT_SECONDS)


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url", help="the server's address")
    parser.add_argument("--share", type=float, default=0.1, help="of calls that go wrong")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    with Fire(options.url, options.share, options.seed, port=options.port) as fire:
        print(f"export AWS_ENDPOINT_URL_S3={fire.url}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    print(fire.table())


if __name__ == "__main__":
    main()
