"""A bucket's credentials: searched whenever a request lacks them, with a cause and a remedy for each failure.

boto3 searches once, when a client is made, and stays without credentials if it finds none. But a node's identity agent
may start after its pods, a metadata service may be down, and a token may be mounted late. So here, missing credentials
fail one request, and `retry.py` decides whether to repeat it.
"""

import logging
import os
import threading
from typing import Any

from botocore import exceptions as boto
from botocore.credentials import Credentials

logging.getLogger("botocore").setLevel(logging.ERROR)  # it logs each failure with a traceback

LOGIN = "export AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…, or AWS_PROFILE=…"
IN_POD = "-o kubernetes.s3_secret=NAME, or give the service account a role (k8s/base/accounts.yaml)"
LISTED = "aws configure list"
# By name: the oldest supported boto3 lacks the exceptions of `aws login`.
NOT_LOGGED_IN = {
    "LoginRefreshRequired", "LoginTokenLoadError", "SSOTokenLoadError", "TokenRetrievalError",
    "UnauthorizedSSOTokenError",
}  # fmt: skip
UNREACHABLE = (boto.ConnectionError, boto.HTTPClientError)
# https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html#API_AssumeRoleWithWebIdentity_Errors
STS = {
    "AccessDenied": "its trust policy does not let this identity assume it",
    "ExpiredTokenException": "the identity's token has expired",
    "IDPRejectedClaim": "its trust policy does not let this identity assume it",
    "InvalidIdentityToken": "AWS does not know who signed the token: is there an OIDC provider of this cluster?",
    "RegionDisabledException": "STS is not enabled in this region",
}


class Unavailable(boto.BotoCoreError):  # type: ignore[misc]
    """Error of a request without credentials. `why` and `next` are shown to users and contain no secret.

    `later`: a later try may succeed. `wrong`: a setting is wrong, so every try fails.
    """

    fmt = "{why}"

    def __init__(self, why: str, next: str, *, later: bool = False, wrong: bool = False) -> None:
        super().__init__(why=why)
        self.why, self.next, self.later, self.wrong = why, next, later, wrong


class Late(Credentials):  # type: ignore[misc]
    """Credentials that a resolver searches when a request needs them, again for each request until it finds some."""

    def __init__(self, resolver: Any) -> None:
        super().__init__("", "", method="late")
        self._resolver, self._lock = resolver, threading.Lock()
        self._found: Any = None

    def get_frozen_credentials(self) -> Any:
        """Return the credentials for one request, refreshed if need be; raise Unavailable if there are none."""
        with self._lock:
            if self._found is None:
                self._found = self._find()
        try:
            return self._found.get_frozen_credentials()
        except Exception as error:
            raise explain(error, self._found.method) from error

    def _find(self) -> Any:
        for provider in self._resolver.providers:
            try:
                found = provider.load()
            except Exception as error:
                raise explain(error, provider.METHOD) from error
            if found is not None:
                return found
        raise explain(boto.NoCredentialsError(), "")


class Resolver:
    """A credential provider for a botocore session, which returns `Late` credentials."""

    def __init__(self, resolver: Any) -> None:
        self._resolver = resolver

    def load_credentials(self) -> Late:
        return Late(self._resolver)


def explain(error: Exception, method: str) -> Unavailable:
    """Return why a provider, by boto3's name of its method, has no credentials.

    The result leaves out the provider's output, which may contain credentials.
    """
    profile = os.environ.get("AWS_PROFILE", "default")
    if isinstance(error, boto.NoCredentialsError):
        # In a pod, this may pass: the node's metadata service, the last provider, may respond later.
        in_pod = "KUBERNETES_SERVICE_HOST" in os.environ
        return Unavailable("no credentials were found", IN_POD if in_pod else LOGIN, later=in_pod)
    if type(error).__name__ in NOT_LOGGED_IN:
        command = "aws login" if "login" in method else "aws sso login"
        return Unavailable(
            f"profile {profile} is not logged in, or its login has expired", f"{command} --profile {profile}"
        )
    if isinstance(error, boto.ClientError):
        return _refused(error)
    if isinstance(error, UNREACHABLE):
        if proxy := error.kwargs.get("proxy_url"):
            return Unavailable(f"the proxy {proxy} does not answer", "env | grep -i _proxy", later=True)
        url = error.kwargs.get("endpoint_url") or "the endpoint of STS"
        return Unavailable(f"the role's keys come from {url}, which does not answer", f"curl -I {url}", later=True)
    if method == "custom-process":
        return _process(error, profile)
    if method == "container-role":
        return _agent(error)
    if isinstance(error, OSError):
        name = error.filename or os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE", "")
        why = f"the identity's token {name} cannot be read: {error.strerror}"
        return Unavailable(why, f"ls -l {name}", later=True)
    if isinstance(error, (boto.BotoCoreError, ValueError)):
        return Unavailable(f"the credentials' settings are wrong: {error}", LISTED, wrong=True)
    return Unavailable(f"credentials could not be had: {type(error).__name__}", LISTED)


def _refused(error: Any) -> Unavailable:
    """Explain a refusal by the AWS service that issues a role's keys."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    role = os.environ.get("AWS_ROLE_ARN", "")
    name = role.rpartition("/")[2] or "NAME"
    why = f"{error.operation_name} of the role {role or 'of this profile'} is refused ({code})"
    if code in STS:
        return Unavailable(f"{why}: {STS[code]}", f"aws iam get-role --role-name {name}")
    return Unavailable(why, LISTED, later=status >= 500 or "Throttl" in code or code == "IDPCommunicationError")


def _process(error: Exception, profile: str) -> Unavailable:
    command = f"aws configure get credential_process --profile {profile}"
    if isinstance(error, OSError):
        why = f"the credential_process of profile {profile} cannot be started: {error.filename}: {error.strerror}"
        return Unavailable(why, command, wrong=True)
    if isinstance(error, boto.CredentialRetrievalError):
        return Unavailable(f"the credential_process of profile {profile} failed", command, later=True)
    return Unavailable(f"the credential_process of profile {profile} does not print credentials", command, wrong=True)


def _agent(error: Exception) -> Unavailable:
    """Explain a failure of the node's identity agent (EKS Pod Identity, ECS)."""
    url = os.environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI") or "http://169.254.170.2"
    if isinstance(error, OSError):
        why = f"the token {error.filename} for the node's identity agent cannot be read: {error.strerror}"
        return Unavailable(why, f"ls -l {error.filename}", later=True)
    if isinstance(error, ValueError):
        return Unavailable(f"AWS_CONTAINER_CREDENTIALS_FULL_URI: {error}", LISTED, wrong=True)
    return Unavailable(f"the node's identity agent at {url} gives no credentials", f"curl -I {url}", later=True)
