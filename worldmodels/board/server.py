"""The addresses of the page, on loopback only. Every one begins with a secret token.

A page of another site cannot know the token. A name that resolves to 127.0.0.1 (DNS rebinding) is refused by its Host
header, whatever the token. Requests to drive must come from this page: their Origin and Sec-Fetch-Site headers say so,
and a form sends no JSON. Stored text reaches the page as JSON, and the page's script writes it as text.
"""

import json
import logging
import secrets
import socket
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, abort, jsonify, render_template, request, send_from_directory
from jinja2 import select_autoescape
from pydantic import ValidationError
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from ..errors import ConfigError, WmError
from ..terminal import plain
from .details import Film
from .driving import Driving, Move, Picture, Start
from .watching import Watch

log = logging.getLogger("wm.board")

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
LIVE = ("drive.js",)  # not part of the page as files
REQUEST_BYTES = 2000


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
    app.config["MAX_CONTENT_LENGTH"] = REQUEST_BYTES

    @app.before_request
    def admit() -> Response | None:
        name = request.host.rpartition(":")[0] or request.host
        given = request.path.split("/")[1]
        if name not in NAMES or not secrets.compare_digest(given.encode(), token.encode()):
            return Response("Open the address that `wm board` printed, with its token.\n", 403, mimetype="text/plain")
        if request.method not in ("GET", "HEAD", "OPTIONS") and not _own():
            return Response("Only the board's own page may ask for this.\n", 403, mimetype="text/plain")
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

    @app.get(f"/{token}/<any({', '.join(map(repr, (*ASSETS, *LIVE)))}):name>")
    def asset(name: str) -> Response:
        return send_from_directory(f"{app.root_path}/static", name)

    def render(state: dict[str, Any]) -> str:
        return render_template("page.html", state=state, policy=POLICY)

    _add_drives(app, f"/{token}/drives", Driving(watch.store))
    return app


def _add_drives(app: Flask, path: str, driving: Driving) -> None:
    """Add the addresses of the live drive."""

    @app.post(path)
    def start() -> Response:
        return _answer(lambda: jsonify(driving.start(Start.model_validate_json(request.get_data()))))

    @app.post(f"{path}/<id>")
    def move(id: str) -> Response:
        return _answer(lambda: shown(driving.move(id, Move.model_validate_json(request.get_data()))))

    @app.delete(f"{path}/<id>")
    def end(id: str) -> Response:
        driving.end(id)
        return Response(status=204)

    def shown(picture: Picture) -> Response:
        return Response(picture.data, mimetype="image/jpeg", headers={"Wm-View": json.dumps(picture.facts)})


def _own() -> bool:
    """Return whether the request comes from the board's own page, or from no browser."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    json_only = request.mimetype == "application/json"
    return json_only and site in (None, "same-origin") and origin in (None, f"http://{request.host}")


def _answer(make: Callable[[], Response]) -> Response:
    """Return the response, or an error's text for the page."""
    try:
        return make()
    except WmError as error:
        text = f"{error.message}; next: {error.next}" if error.next else error.message
    except ValidationError as error:
        first = error.errors()[0]
        text = f"{'.'.join(map(str, first['loc'][:1])) or 'request'} {first['input']!r:.80}: {first['msg']}"
    except Exception as error:  # a stored network of another shape, or a bug
        log.exception("the drive cannot go on")
        text = f"{type(error).__name__}: {error}; the terminal of `wm board` shows more"
    response = jsonify(error=plain(text))
    response.status_code = 409
    return response


def _picture(film: Film) -> Response:
    try:
        response = Response(film.read(), mimetype=f"image/{film.name.rpartition('.')[2]}")
    except WmError as error:
        return Response(error.message, 404, mimetype="text/plain")
    response.headers["Cache-Control"] = "private, max-age=31536000, immutable"
    return response
