"""Notifications: events of a run, posted as JSON to a URL that the caller of a command gives.

The URL may contain a secret, so this module neither stores nor prints it, except for its scheme and host. A thread of
its own posts, so that a slow or broken receiver neither delays nor fails the run. docs/json.md lists the fields.
"""

import contextlib
import json
import queue
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from .. import artifacts, durations
from ..artifacts import Name
from ..errors import ConfigError, LimitReached, Stopped, WmError
from ..planning import Task
from ..stages import STAGES
from ..store import Store
from ..terminal import plain

if TYPE_CHECKING:
    from .kubernetes.job_status import View

Event = Literal["committed", "waiting", "finished", "stopped", "failed"]
WAIT_SECONDS = 300.0
"""A stage waits too long after so long without progress, or without a running pod; see `patience`."""
TRIES, TIMEOUT_SECONDS, PAUSE_SECONDS = 3, 5.0, 1.0
CLOSE_SECONDS = 20.0
"""The longest time that a command waits at its end for its last notifications to be posted."""
SCHEMA = 1
MARKUP = str.maketrans({"<": "‹", ">": "›", "@": "＠", "[": "(", "]": ")", "`": "'", "*": "∗"})


def shown(url: str) -> str:
    """Return the URL's scheme and host, which may be printed; the rest may be a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}/…"


def check(url: str) -> str:
    """Return the URL. Raise ConfigError, without the URL's secret parts, unless it is an http or https URL."""
    if reason := _wrong(url):
        raise ConfigError(
            f"notifications go to a URL like https://host/path or http://host/path: {reason}", next="wm run --help"
        )
    return url


def _wrong(url: str) -> str:
    """Return why notifications cannot be posted to the URL; empty if they can."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "this one has no valid host and port"
    if parts.scheme not in ("http", "https"):
        return f"this one begins with {parts.scheme}:" if parts.netloc else "this one does not begin so"
    if not host:
        return "this one has no host"
    if parts.username is not None:
        return "this one has a user or a password, which are not sent"
    return "" if re.fullmatch(r"[!-~]+", url) else "this one has characters that URLs escape with %"


def patience(task: Task) -> float:
    """Return after how many seconds without progress a stage on this machine waits too long."""
    return min(WAIT_SECONDS, task.config.execution.stall_seconds / 2)


class Notifier:
    """Posts a run's events to `url`; with an empty one, it does nothing.

    `say` receives one line if the receiver fails for the first time.
    """

    def __init__(
        self,
        url: str,
        store: Store,
        run: str,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url, self._store, self._run, self._say, self._clock = check(url) if url else "", store, run, say, clock
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._send_all, name="notify", daemon=True)
        self._told = False
        self._name: Name | None = None
        self._seen: object = None
        self._since, self._late = clock(), False

    def begin(self, run: str) -> None:
        """Post events of this run from now on."""
        self._run, self._name = run, None

    def post(self, event: Event, message: str, next: str = "", name: Name | None = None, score: Any = None) -> None:
        """Post an event, in the background."""
        if not self._url:
            return
        name = name or self._name
        fields = {
            "schema": SCHEMA,
            "event": event,
            "run": self._run,
            "iteration": name and name.iteration,
            "stage": name and name.stage,
            "message": message,
            "next": next,
            "score": score,
            "store": self._store.uri,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "text": _unmarked(f"{name or self._run}: {event}: {message}"),  # chats show this field
        }
        if not self._thread.is_alive():
            self._thread.start()
        self._queue.put(fields)

    @contextlib.contextmanager
    def stage(self, name: Name) -> Iterator[None]:
        """Post that the stage is committed after the `with` block; an error within it is of this stage."""
        began = self._clock()
        self._name, self._seen, self._since, self._late = name, None, began, False
        yield
        if self._url and name.stage in STAGES:  # and not the whole pipeline
            spent = durations.words(self._clock() - began)
            self.post("committed", f"after {spent}", score=_score(self._store, name))
        self._name = None

    def saw(self, state: object, limit: float, why: str) -> None:
        """Record the current state of the stage. Once it has not changed for `limit` seconds, post that it waits."""
        now = self._clock()
        if state != self._seen:
            self._seen, self._since, self._late = state, now, False
        elif not self._late and now - self._since >= limit:
            self._late = True
            self.post("waiting", f"{why} for {durations.words(now - self._since)}")

    def saw_job(self, seen: "View") -> None:
        """Record the current state of the stage's Job, which waits while no pod of it runs."""
        why = f"no pod runs ({'; '.join(seen.pending) or seen})"
        self.saw(object() if seen.running else "", WAIT_SECONDS, why)

    def failed(self, error: BaseException, next: str = "") -> None:
        """Post the end of a command by an error, by SIGTERM or by Ctrl-C, with the command to type next."""
        if isinstance(error, WmError):
            event: Event = "stopped" if isinstance(error, (Stopped, LimitReached)) else "failed"
            self.post(event, error.message, next)
        elif isinstance(error, KeyboardInterrupt):
            self.post("stopped", "stopped; the same command goes on from here")
        else:
            self.post("failed", f"{type(error).__name__}: {error}")

    def finished(self, names: Sequence[Name]) -> None:
        """Post that all of these stages are committed, with the score of the last evaluation among them."""
        if self._url:
            score = next((found for name in reversed(names) if (found := _score(self._store, name))), None)
            stages = ", ".join(dict.fromkeys(name.stage for name in names))
            self.post("finished", f"committed: {stages}", score=score)

    def close(self) -> None:
        """Wait for the last posts, at most `CLOSE_SECONDS`."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(CLOSE_SECONDS)

    def _send_all(self) -> None:
        while (fields := self._queue.get()) is not None:
            if (trouble := self._send(fields)) and not self._told:
                self._told = True
                self._say(f"a notification to {shown(self._url)} failed: {trouble}; the run goes on")

    def _send(self, fields: dict[str, Any]) -> str:
        """Post one event, in several tries; return why it failed, or an empty text."""
        for number in range(TRIES):
            time.sleep(number * PAUSE_SECONDS)
            try:
                _post(self._url, json.dumps(fields).encode())
                return ""
            except HTTPError as error:
                trouble = f"HTTP {error.code}"
                if error.code < 500 and error.code != 429:
                    break
            except URLError as error:
                trouble = str(error.reason)
            except Exception as error:  # its text may contain the URL
                trouble = type(error).__name__
        return trouble


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Turns a redirection into an error: urllib would send a GET without the event."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(url: str, data: bytes) -> None:
    headers = {"Content-Type": "application/json", "User-Agent": "wm"}
    request = urllib.request.Request(url, data, headers, method="POST")
    with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT_SECONDS) as response:
        response.read(2**16)


def _unmarked(text: str) -> str:
    """Return the text without what chats take for markup or a call of people: a message may quote a store."""
    return plain(text).translate(MARKUP)


def _score(store: Store, name: Name) -> dict[str, Any] | None:
    """Return the newest committed score, if the stage is an evaluation."""
    if name.stage != "evaluate":
        return None
    with contextlib.suppress(WmError):  # the event is worth more than the score
        if found := artifacts.manifests(store, name):
            scores = artifacts.stored_scores(store, found[-1])
            return {"mean": scores["mean"], "interval": scores["interval"], "tracks": scores["tracks"]}
    return None
