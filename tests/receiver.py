"""A web server that notifications are posted to, in this process."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = "T0P-S3CRET"


class Receiver(ThreadingHTTPServer):
    """`got` are the events in order; `answers` are the status codes of the next requests, 200 after them."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.got, self.answers, self.pause = [], [], 0.0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/hooks/{SECRET}?token={SECRET}"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        data = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(self.server.pause)
        code = self.server.answers.pop(0) if self.server.answers else 200
        if code == 200:
            self.server.got.append(data)
        self.send_response(code)
        if 300 <= code < 400:
            self.send_header("Location", self.path)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def receiving():
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()
