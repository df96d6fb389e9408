"""Pure functions from the API server's refusals to ClusterErrors, each with the next command for the user.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

import json
import re
from typing import Any

from ...errors import ClusterError

PROXY = "the proxy"
QUOTA = re.compile(r"exceeded quota: (?P<name>[^,]+), (?P<rest>requested: .*)")
CANNOT = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource "(?P<resource>[\w/.]+)"(?: in API group "(?P<group>[^"]*)")?'
    r'(?: in the namespace "(?P<namespace>[^"]*)")?'
)


def refusal(status: int, body: bytes, where: str, namespace: str) -> ClusterError:
    """Return the error for a response with that HTTP status; `where` names the server."""
    answer = parsed(body)
    if answer.get("kind") != "Status":
        begins = " ".join(body[:200].decode(errors="replace").split())
        return ClusterError(
            f"{where} answers {status}, and not as Kubernetes does: {begins!r}; is this its address?",
            next="kubectl cluster-info",
        )
    message = " ".join(str(answer.get("message", "")).split())
    if status == 401:
        return ClusterError(
            f"{where} does not accept the kubeconfig's credentials (401 {message}); have they expired?",
            next="kubectl auth whoami, then log in as your cluster wants it",
        )
    if match := QUOTA.search(message):
        return ClusterError(
            f"quota {match['name']} of namespace {namespace} is used up: {match['rest']}",
            next=f"kubectl -n {namespace} describe quota {match['name']}",
        )
    if status == 403:
        return _forbidden(message, where, namespace)
    if status == 404 and message.startswith("namespaces "):
        return ClusterError(
            f"{where} has no namespace {namespace!r}",
            next=f"kubectl apply -k k8s/base (it makes the namespace wm), or kubectl create namespace {namespace}",
        )
    if status in (400, 422):
        causes = _causes(answer)
        return ClusterError(
            f"{where} finds the request invalid: {message}" + (f" ({causes})" if causes else ""), next="wm config"
        )
    return ClusterError(f"{where}: {message} ({status})", next="kubectl cluster-info")


def unreachable(host: str, reason: str, seconds: float) -> ClusterError:
    """Return the error for a server that did not respond for `seconds`, or whose proxy failed (`reason`)."""
    after = f"; gave up after {seconds:.0f} s" if seconds >= 1 else ""
    if reason.startswith(PROXY):
        return ClusterError(
            f"the cluster at {host} is out of reach: {reason}{after}", next="env | grep -i _proxy; kubectl config view"
        )
    return ClusterError(f"no cluster answers at {host}: {reason}{after}", next="kubectl cluster-info")


def failing(host: str, request: str, message: str, seconds: float) -> ClusterError:
    """Return the error for a server that responded with server errors only, for `seconds`; `message` is the last."""
    after = f"; gave up after {seconds:.0f} s" if seconds >= 1 else ""
    command = "kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations"
    return ClusterError(
        f"the cluster at {host} cannot do {request}: {message}{after}",
        next=command if "webhook" in message else "kubectl get --raw '/readyz?verbose'",
    )


def parsed(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a response; an empty one if the body is anything else."""
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _forbidden(message: str, where: str, namespace: str) -> ClusterError:
    match = CANNOT.search(message)
    if "system:anonymous" in message:
        return ClusterError(f"{where} was given no credentials: {message}", next="kubectl auth whoami")
    if not match:  # an admission policy's own message
        return ClusterError(f"{where} refuses: {message}", next=f"kubectl -n {namespace} get events")
    resource = match["resource"] + (f".{match['group']}" if match["group"] else "")
    at = match["namespace"] or namespace
    return ClusterError(
        f"{where} does not let {match['user']} {match['verb']} {resource} in namespace {at}",
        next=f"kubectl auth can-i {match['verb']} {resource} -n {at}; the rights are in k8s/base",
    )


def _causes(status: dict[str, Any]) -> str:
    causes = (status.get("details") or {}).get("causes") or []
    return "; ".join(f"{cause.get('field', '')}: {cause.get('message', '')}" for cause in causes)
