"""Servers that give credentials, or do not: what STS and the identity agents of nodes answer."""

import datetime
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import buckets


def given(key=buckets.KEY, secret=buckets.SECRET):
    """The answers of Pod Identity's and ECS's agents."""
    end = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return 200, json.dumps({"AccessKeyId": key, "SecretAccessKey": secret, "Token": "", "Expiration": end})


def sts(key=buckets.KEY, secret=buckets.SECRET):
    end = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    keys = f"<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>"
    keys += f"<SessionToken></SessionToken><Expiration>{end}</Expiration>"
    result = f"<AssumeRoleWithWebIdentityResult><Credentials>{keys}</Credentials></AssumeRoleWithWebIdentityResult>"
    return 200, f"<AssumeRoleWithWebIdentityResponse>{result}</AssumeRoleWithWebIdentityResponse>"


def refuses(status, code):
    return status, f"<ErrorResponse><Error><Code>{code}</Code><Message>words</Message></Error></ErrorResponse>"


@contextmanager
def server(*answers, host="127.0.0.1", port=0):
    """Gives these answers in turn, the last one for ever; yields its address."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def do_POST(self):
            server.asked.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def do_CONNECT(self):
            server.asked.append(self.path)
            self.do_GET()

        def log_message(self, *_):
            pass

    listening = HTTPServer((host, port), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield f"http://{host}:{listening.server_port}"
    finally:
        listening.shutdown()
        listening.server_close()


server.asked = []
