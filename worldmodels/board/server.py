"""The addresses of the page, on loopback only. Every one begins with a secret token.

A page of another site cannot know the token. A name that resolves to 127.0.0.1 (DNS rebinding) is refused by its Host
header, whatever the token. Stored text reaches the page as JSON, and the page's script writes it as text.
"""

import secrets
import socket
from typing import Any

from flask import Flask, Response, abort, jsonify, render_template, request, send_from_directory
from jinja2 import select_autoescape
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from ..errors import ConfigError, WmError
from .details import Film
from .watching import Watch

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
POLICY = "; ".join([
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'",
    "base-uri 'none'", "form-action 'none'",
])  # fmt: skip
HEADERS = {
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
ASSETS = ("board.css", "board.js", "charts.js", "icon.svg")


class Quiet(WSGIRequestHandler):
    """Logs no requests: their addresses contain the token."""

    def log(self, type: str, message: str, *args: Any) -> None:
        pass


def listen(port: int) -> socket.socket:
    """Return a socket on loopback; raise ConfigError if the port is taken or not allowed. 0 is any free one."""
    found = socket.socket()
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((HOST, port))
        found.listen(64)
    except OSError as error:
        found.close()
        raise ConfigError(
            f"--port {port}: {HOST} gives no such port: {error.strerror}", next="wm board --port 0"
        ) from error
    return found


def serve(watch: Watch, found: socket.socket) -> tuple[BaseWSGIServer, str]:
    """Return a server on that socket, and the page's address."""
    token, port = secrets.token_urlsafe(24), found.getsockname()[1]
    server = make_server(HOST, port, create(watch, token), threaded=True, request_handler=Quiet, fd=found.fileno())
    return server, f"http://{HOST}:{port}/{token}/"


def create(watch: Watch, token: str) -> Flask:
    """Return the application."""
    app = Flask(__name__, static_folder=None)
    app.jinja_env.autoescape = select_autoescape(default=True)

    @app.before_request
    def admit() -> Response | None:
        name = request.host.rpartition(":")[0] or request.host
        given = request.path.split("/")[1]
        if name not in NAMES or not secrets.compare_digest(given.encode(), token.encode()):
            return Response("Open the address that `wm board` printed, with its token.\n", 403, mimetype="text/plain")
        return None

    @app.after_request
    def protect(response: Response) -> Response:
        for header, value in HEADERS.items():
            response.headers[header] = value
        response.headers.setdefault("Cache-Control", "private, no-cache")
        return response

    @app.get(f"/{token}/")
    def page() -> str:
        return render(watch.state())

    @app.get(f"/{token}/state.json")
    def state() -> Response:
        response = jsonify(watch.state(request.args.getlist("run")))
        response.add_etag()
        response.make_conditional(request)
        return response

    @app.get(f"/{token}/films/<name>")
    def film(name: str) -> Response:
        found = watch.film(f"films/{name}")
        return _picture(found) if found else abort(404)

    @app.get(f"/{token}/<any({', '.join(map(repr, ASSETS))}):name>")
    def asset(name: str) -> Response:
        return send_from_directory(f"{app.root_path}/static", name)

    def render(state: dict[str, Any]) -> str:
        return render_template("page.html", state=state, policy=POLICY)

    return app


def _picture(film: Film) -> Response:
    try:
        response = Response(film.read(), mimetype=f"image/{film.name.rpartition('.')[2]}")
    except WmError as error:
        return Response(error.message, 404, mimetype="text/plain")
    response.headers["Cache-Control"] = "private, max-age=31536000, immutable"
    return response
