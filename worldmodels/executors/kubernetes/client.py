"""Client of the API server, with objects as plain dicts.

Only this file imports the `kubernetes` client, for kubeconfigs, logins, certificates and proxies. The client's object
classes are not used, because they drop unknown fields. Every request has a time limit and is repeated while the server
is unavailable. A refusal raises ClusterError.
"""

import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

import urllib3
import yaml
from kubernetes import client, config
from requests.utils import get_environ_proxies, select_proxy
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential
from urllib3.exceptions import HTTPError, ProxyError, SSLError

from ...errors import ClusterError
from ...store.address import redacted
from . import api_errors

Dict = dict[str, Any]
log = logging.getLogger("wm.cluster")

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
# A server that has never responded more likely has a wrong address than a restart.
FIRST_ANSWER_SECONDS = 5.0
# An API server's upgrade takes a minute or two.
AWAY_SECONDS = 300.0
LONGEST_PAUSE_SECONDS = 10.0
PAGE = 500
AWAY = frozenset({429, 500, 502, 503, 504})
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
GONE = 410
# urllib3's messages begin with the repr of the connection.
CONNECTION = re.compile(r"^<?[\w.]*Connection(?:Pool)?\(.*?\)>?: |^<[^>]*>: ")
KUEUE, KUEUE_PLACES = "kueue.x-k8s.io", "visibility.kueue.x-k8s.io"


@dataclass(frozen=True)
class Connection:
    """A connection to one API server; `headers` renews a token that is about to expire."""

    host: str
    pool: urllib3.PoolManager
    headers: Callable[[], dict[str, str]]
    proxy: str = ""


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    warnings: tuple[str, ...] = ()

    def json(self) -> Dict:
        value: Dict = json.loads(self.body)
        return value


class _Away(Exception):
    """The server did not respond (`status` 0), or responded with a `status` in `AWAY`."""

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status


class Expired(Exception):
    """The server no longer has the resource version where a watch begins; the caller must list again."""


def connect(context: str = "", files: str | None = None) -> Connection:
    """Connect by the kubeconfig, or in a pod without one by its service account. Raise ClusterError if both fail.

    `files` are kubeconfigs in the syntax of KUBECONFIG, and take precedence over it.
    """
    files = files or os.environ.get("KUBECONFIG") or "~/.kube/config"
    configuration = client.Configuration()
    try:
        if not _there(files) and SERVICE_ACCOUNT.exists():
            config.load_incluster_config(configuration)
        else:
            config.load_kube_config(files, context or None, configuration)
    except (config.ConfigException, yaml.YAMLError, OSError) as error:
        raise _unusable(files, context, error) from error
    proxy = _proxy(configuration.host, files, context)
    pool = _pool(configuration, proxy)

    def headers() -> dict[str, str]:
        tokens = (each for each in configuration.auth_settings().values() if each["in"] == "header")
        return {each["key"]: each["value"] for each in tokens if each["value"]}

    return Connection(configuration.host, pool, headers, proxy)


def _proxy(host: str, files: str, context: str) -> str:
    """Return the URL of the proxy as kubectl finds it: the kubeconfig's, else the environment's, else an empty text.

    The client ignores `proxy-url` and NO_PROXY.
    """
    if _there(files):
        contexts, active = config.list_kube_config_contexts(files)
        chosen = next((each for each in contexts if each["name"] == context), active)
        for path in filter(_there, files.split(os.pathsep)):
            clusters = (yaml.safe_load(Path(path).expanduser().read_text()) or {}).get("clusters") or ()
            for each in clusters:
                if each["name"] == chosen["context"]["cluster"] and each["cluster"].get("proxy-url"):
                    return str(each["cluster"]["proxy-url"])
    return str(select_proxy(host, get_environ_proxies(host)) or "")


def _pool(configuration: Any, proxy: str) -> urllib3.PoolManager:
    """Return the client's connection pool through that proxy. Raise ClusterError if the proxy cannot be used."""
    parts, socks = urlsplit(proxy), proxy.startswith("socks")
    configuration.proxy, configuration.no_proxy = None if socks else proxy or None, None
    if parts.username:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        configuration.proxy_headers = urllib3.make_headers(proxy_basic_auth=login)
    try:
        pool: urllib3.PoolManager = client.ApiClient(configuration).rest_client.pool_manager
        if socks:
            from urllib3.contrib.socks import SOCKSProxyManager

            remote = proxy.replace("socks5://", "socks5h://")  # the proxy resolves names, as with kubectl
            pool = SOCKSProxyManager(remote, **pool.connection_pool_kw)
    except (ImportError, ValueError) as error:
        command = "pip install pysocks" if socks else "kubectl config view, echo $HTTPS_PROXY"
        raise ClusterError(f"the proxy {redacted(proxy)} cannot be used: {error}", next=command) from error
    return pool


def _there(files: str) -> bool:
    return any(path and Path(path).expanduser().is_file() for path in files.split(os.pathsep))


def _unusable(files: str, context: str, error: Exception) -> ClusterError:
    if not _there(files):
        return ClusterError(f"there is no kubeconfig: {files}", next="export KUBECONFIG=FILE")
    try:
        known = [each["name"] for each in config.list_kube_config_contexts(files)[0]]
    except (config.ConfigException, yaml.YAMLError, OSError):
        known = []
    if context and known and context not in known:
        return ClusterError(
            f"kubernetes.context = {context!r}: {files} has no such context; it has {', '.join(known)}",
            next=f"-o kubernetes.context={known[0]}",
        )
    reason = " ".join(str(error).split())
    return ClusterError(f"the kubeconfig {files} cannot be used: {reason}", next="kubectl config view")


class KubernetesClient:
    """Client for one namespace of a cluster.

    It repeats a request for `first_seconds` before the server's first response, later for `away_seconds`, and reports
    outages through `say`.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        namespace: str,
        *,
        first_seconds: float = FIRST_ANSWER_SECONDS,
        away_seconds: float = AWAY_SECONDS,
        say: Callable[[str], None] = log.warning,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.namespace = namespace
        self.host = ""
        self._connect, self._connection = connect, connect()
        self.host = self._connection.host
        self._first, self._away, self._say, self._sleep = first_seconds, away_seconds, say, sleep
        self._answered = False

    # Jobs

    def job(self, name: str) -> Dict | None:
        """Return the Job, or None if it does not exist."""
        reply = self._send("GET", self._jobs(name), okay=(404,))
        return reply.json() if reply.status == 200 else None

    def jobs(self, labels: Mapping[str, str]) -> list[Dict]:
        """Return the Jobs with these labels."""
        return self.objects(self._jobs(), labels)[0]

    def create(self, job: Dict, *, dry_run: bool = False) -> tuple[Dict | None, tuple[str, ...]]:
        """Create a Job. Return it as the server stored it, or None if its name is in use, and the server's warnings."""
        query = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        reply = self._send("POST", self._jobs(), query, job, okay=(409,))
        return (None if reply.status == 409 else reply.json()), reply.warnings

    def delete(self, job: Dict) -> None:
        """Delete this Job, by its uid, after its pods; do nothing if it is gone or another Job has its name."""
        metadata = job["metadata"]
        options = {"propagationPolicy": "Foreground", "preconditions": {"uid": metadata["uid"]}}
        self._send("DELETE", self._jobs(metadata["name"]), body=options, okay=(404, 409))

    def patch(self, job: Dict, spec: Dict) -> None:
        """Change these fields of this Job's spec in one request; its uid must match."""
        body = {"metadata": {"uid": job["metadata"]["uid"]}, "spec": spec}
        self._send("PATCH", self._jobs(job["metadata"]["name"]), body=body)

    # Pods, events, queues, logs, rights

    def objects(self, path: str, labels: Mapping[str, str]) -> tuple[list[Dict], str]:
        """Return every object at `path` with these labels, and the resource version from which to watch."""
        query = {"labelSelector": _selector(labels), "limit": str(PAGE)}
        found: list[Dict] = []
        while True:
            reply = self._send("GET", path, query, okay=(GONE,))
            if reply.status == GONE:  # the token of the next page expired: request one long page
                found, query = [], {"labelSelector": _selector(labels)}
                continue
            page = reply.json()
            found += page.get("items") or []
            if not page["metadata"].get("continue"):
                return found, page["metadata"].get("resourceVersion", "")
            query["continue"] = page["metadata"]["continue"]

    def watch(self, path: str, labels: Mapping[str, str], version: str, seconds: float) -> Iterator[Dict]:
        """Yield changes after `version` as {"type", "object"} for at most `seconds`; end if the connection breaks.

        Raise Expired if the server no longer has that version, or refuses the watch.
        """
        query = {
            "labelSelector": _selector(labels), "watch": "true", "resourceVersion": version,
            "timeoutSeconds": str(max(1, round(seconds))), "allowWatchBookmarks": "true",
        }  # fmt: skip
        try:
            with self._open("GET", path, query, None, seconds + CONNECT_SECONDS) as response:
                if response.status != 200:
                    raise Expired
                for line in _lines(response):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise Expired
                    yield event
        except (HTTPError, ValueError):
            return  # the caller watches again

    def pods(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods"

    def events(self, kind: str, name: str) -> list[Dict]:
        """List an object's recent events, oldest first; empty if the user may not list events."""
        fields = urlencode({"fieldSelector": f"involvedObject.kind={kind},involvedObject.name={name}"})
        found = self.get(f"/api/v1/namespaces/{self.namespace}/events?{fields}", okay=(403,)) or {"items": []}
        return sorted(found["items"], key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")

    def queued(self, uid: str, queue: str) -> list[Dict]:
        """Return why Kueue holds back a Job of that queue, as events; empty without Kueue or the right to read it."""
        groups = {each["name"]: each["preferredVersion"]["version"] for each in (self.get("/apis") or {})["groups"]}
        if KUEUE not in groups:
            return []
        label = urlencode({"labelSelector": f"{KUEUE}/job-uid={uid}"})
        path = f"/apis/{KUEUE}/{groups[KUEUE]}/namespaces/{self.namespace}/workloads?{label}"
        found = (self.get(path, okay=(403, 404)) or {"items": []})["items"]
        conditions = [c for each in found for c in (each.get("status") or {}).get("conditions", ())]
        messages = [c["message"] for c in conditions if c["status"] == "False"]
        if KUEUE_PLACES in groups:
            messages += self._places({each["metadata"]["name"] for each in found}, queue, groups[KUEUE_PLACES])
        return [{"reason": "Pending", "message": "; ".join(messages)}] if messages else []

    def _places(self, workloads: set[str], queue: str, version: str) -> list[str]:
        """List the workloads' positions in their queue, as messages.

        https://kueue.sigs.k8s.io/docs/tasks/manage/monitor_pending_workloads/pending_workloads_on_demand/
        """
        path = f"/apis/{KUEUE_PLACES}/{version}/namespaces/{self.namespace}/localqueues/{queue}/pendingworkloads"
        waiting = (self.get(path, okay=(403, 404, 503)) or {}).get("items") or []
        return [
            f"number {each.get('positionInLocalQueue', 0) + 1} of {len(waiting)} in this queue,"
            f" {each.get('positionInClusterQueue', 0) + 1} in the cluster's"
            for each in waiting
            if each["metadata"]["name"] in workloads
        ]

    def log(self, pod: str, container: str, *, tail: int | None = None, since: str = "") -> list[tuple[str, str]]:
        """List (time, line) of a container's output after `since` (RFC 3339); empty before the container starts."""
        query = {"container": container, "timestamps": "true"}
        query |= {"tailLines": str(tail)} if tail else {}
        query |= {"sinceTime": since} if since else {}
        reply = self._send("GET", f"{self.pods()}/{pod}/log", query, okay=(400, 404), plain=True)
        if reply.status != 200:
            return []
        pairs = (line.partition(" ") for line in reply.body.decode(errors="replace").splitlines())
        return [(moment, text) for moment, _, text in pairs if moment > since]

    def get(self, path: str, okay: tuple[int, ...] = ()) -> Dict | None:
        """Return any object by its path; None if the response's status is in `okay`."""
        reply = self._send("GET", path, okay=okay)
        return reply.json() if reply.status == 200 else None

    def exists(self, path: str) -> bool | None:
        """Return whether an object exists; None if the user may not read it."""
        return {200: True, 404: False}.get(self._send("GET", path, okay=(403, 404)).status)

    def may(self, verb: str, resource: str, group: str = "", subresource: str = "") -> bool:
        """Return whether the kubeconfig's user may do that in the namespace."""
        asked = {"namespace": self.namespace, "verb": verb, "resource": resource, "group": group}
        review = {"spec": {"resourceAttributes": asked | {"subresource": subresource}}}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        return bool(self._send("POST", path, body=review).json()["status"]["allowed"])

    # Requests

    def _jobs(self, name: str = "") -> str:
        return f"/apis/batch/v1/namespaces/{self.namespace}/jobs" + (f"/{name}" if name else "")

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        okay: tuple[int, ...] = (),
        *,
        plain: bool = False,
    ) -> Reply:
        """Return the server's response, JSON unless `plain` allows text; repeat the request while it is unavailable.

        Raise ClusterError unless the status is a success or in `okay`.
        """
        began = time.monotonic()

        def over(state: RetryCallState) -> bool:
            limit = self._away if self._answered else min(self._first, self._away)
            return time.monotonic() - began + state.upcoming_sleep > limit

        def tell(state: RetryCallState) -> None:
            if self._answered and state.attempt_number == 1 and state.outcome:
                reason: Any = state.outcome.exception()
                says = f"says {reason}" if reason.status else f"does not answer ({reason})"
                self._say(f"{self.host} {says}; asking again for {self._away:.0f} s")

        again = Retrying(
            retry=retry_if_exception_type(_Away),
            wait=wait_random_exponential(multiplier=0.5, max=LONGEST_PAUSE_SECONDS),
            stop=over, before_sleep=tell, sleep=self._sleep, reraise=True,
        )  # fmt: skip
        try:
            reply: Reply = again(self._once, method, path, query, body, okay)
        except _Away as error:
            spent = time.monotonic() - began
            if error.status:
                raise api_errors.failing(self.host, f"{method} {path.partition('?')[0]}", str(error), spent) from error
            raise api_errors.unreachable(self.host, str(error), spent) from error
        if again.statistics.get("attempt_number", 1) > 1 and self._answered:
            self._say(f"{self.host} answers again after {time.monotonic() - began:.0f} s")
        self._answered = True
        answer = api_errors.parsed(reply.body)
        good = reply.status < 300 and (plain or answer or reply.body.strip() == b"{}")
        if not (good or (reply.status in okay and answer.get("kind") == "Status")):
            raise api_errors.refusal(reply.status, reply.body, f"the cluster at {self.host}", self.namespace)
        return reply

    def _once(self, method: str, path: str, query: Mapping[str, str] | None, body: Any, okay: tuple[int, ...]) -> Reply:
        try:
            reply = self._read(method, path, query, body)
            if reply.status == 401:  # the client keeps an expired token: read the kubeconfig again
                self._connection = self._connect()
                reply = self._read(method, path, query, body)
        except SSLError as error:
            raise api_errors.unreachable(self.host, f"its certificate is not trusted: {error}", 0) from error
        except HTTPError as error:
            raise _Away(self._reason(error)) from error
        if reply.status in AWAY and reply.status not in okay:
            message = " ".join(str(api_errors.parsed(reply.body).get("message", "")).split())
            raise _Away(f"{reply.status}" + (f": {message}" if message else ""), reply.status)
        return reply

    def _reason(self, error: HTTPError) -> str:
        """Return urllib3's message without the connection's repr; name the proxy if that failed."""
        cause = error.original_error if isinstance(error, ProxyError) else error
        words = CONNECTION.sub("", str(cause)).strip("'\"") or type(cause).__name__
        if isinstance(error, ProxyError):
            return f"{api_errors.PROXY} {redacted(self._connection.proxy)} does not serve: {words}"
        return words

    def _read(self, method: str, path: str, query: Mapping[str, str] | None, body: Any) -> Reply:
        with self._open(method, path, query, body, READ_SECONDS) as response:
            return Reply(response.status, response.data, _warnings(response))

    def _open(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Any, seconds: float
    ) -> urllib3.BaseHTTPResponse:
        connection = self._connection
        return connection.pool.request(
            method,
            connection.host + path + (f"?{urlencode(query)}" if query else ""),
            body=None if body is None else json.dumps(body),
            headers={"Accept": "application/json", "Content-Type": _content(method), **connection.headers()},
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=seconds),
            retries=False,
            preload_content=False,
        )


def _content(method: str) -> str:
    """Return the content type of a request's body.

    https://kubernetes.io/docs/reference/using-api/api-concepts/#patch-and-apply
    """
    return "application/merge-patch+json" if method == "PATCH" else "application/json"


def _warnings(response: urllib3.BaseHTTPResponse) -> tuple[str, ...]:
    """Return the texts of the server's Warning headers, which read: 299 - "text"."""
    texts = (each.partition(" - ")[2].strip('"') for each in response.headers.getlist("Warning"))
    return tuple(text.replace('\\"', '"') for text in texts)


def _selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in labels.items())


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for chunk in response.stream(2**16, decode_content=False):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from filter(None, lines)
