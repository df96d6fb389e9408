"""Retries of an operation on a bucket, body included: until it succeeds, cannot succeed, or its time is up.

botocore's own retries are off: they do not cover bodies, and a longer outage of the server uses up their quota.
"""

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential
from urllib3.exceptions import HTTPError

from ...errors import ConfigError, StoreError, WmError
from ..address import redacted
from .credentials import LOGIN, Unavailable

T = TypeVar("T")
log = logging.getLogger("wm.store")
logging.getLogger("urllib3").setLevel(logging.ERROR)  # it logs each fault; `Retry` logs once per operation

# A worker without progress is given up after `execution.stall_seconds` (300), so the store must give up before.
DEADLINE_SECONDS = 120.0
# An endpoint that never responded is more likely misspelt than down.
FIRST_ANSWER_SECONDS = 30.0
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
# After so long, `Retry` logs that the store causes the wait.
REPORT_SECONDS = 10.0

CUT = (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError, HTTPError, ResponseParserError)
DAMAGED = (boto.FlexibleChecksumError, boto.ChecksumError)
FAILURES = (boto.BotoCoreError, boto.ClientError, *CUT, *DAMAGED)
TRANSIENT_STATUSES = frozenset({408, 409, 429, 500, 502, 503, 504})
TRANSIENT_CODES = frozenset({
    "BadDigest", "IncompleteBody", "InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable",
    "SlowDown", "Throttling", "ThrottlingException", "XAmzContentSHA256Mismatch",
})  # fmt: skip

REASONS = {
    "AccessDenied": ("access is denied", "cat k8s/s3-policy.json"),
    "403": ("access is denied", "cat k8s/s3-policy.json"),
    "NoSuchBucket": ("there is no such bucket", "aws s3 mb s3://{bucket}"),
    "InvalidAccessKeyId": ("the server does not know the access key", LOGIN),
    "SignatureDoesNotMatch": ("the secret key is not the access key's", LOGIN),
    "ExpiredToken": ("the credentials have expired", "aws sso login"),
    "InvalidToken": ("the session token is not valid", "aws sso login"),
    "RequestTimeTooSkewed": ("this machine's clock is wrong", "timedatectl"),
    "PermanentRedirect": ("the bucket is in another region", "export AWS_REGION=…"),
    "AuthorizationHeaderMalformed": ("the bucket is in another region", "export AWS_REGION=…"),
    "EndpointConnectionError": ("nothing answers there", "curl -I {endpoint}, or export AWS_ENDPOINT_URL_S3=…"),
    "ConnectTimeoutError": ("nothing answers there", "curl -I {endpoint}, or export AWS_ENDPOINT_URL_S3=…"),
    "ProxyConnectionError": ("the proxy does not answer", "env | grep -i _proxy"),
    "SSLError": (
        "it speaks no TLS, or its certificate is not trusted",
        "export AWS_ENDPOINT_URL_S3=http://…, or AWS_CA_BUNDLE=FILE",
    ),
}
# Without the right to list, the server gives the same response for an absent key.
ABSENT_OR_DENIED = " (a bucket without s3:ListBucket also says so of a key that is not there)"


def code(error: BaseException | None) -> str:
    """Return the server's name of the error, or the exception's."""
    if isinstance(error, boto.ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return type(error).__name__


def status(error: BaseException | None) -> int:
    """Return the HTTP status of the server's refusal; 0 if it did not answer."""
    if isinstance(error, boto.ClientError):
        return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return 0


def transient(error: BaseException) -> bool:
    """Return whether the same request may succeed later."""
    if isinstance(error, Unavailable):
        return error.later
    if isinstance(error, boto.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return False
    if isinstance(error, boto.ClientError):
        return status(error) in TRANSIENT_STATUSES or code(error) in TRANSIENT_CODES
    return isinstance(error, (*CUT, *DAMAGED))


class Retry:
    """Repeats an operation, after pauses with full jitter, for at most `deadline` seconds without progress.

    It logs one line when a repeated operation ends, and one before if that takes longer than REPORT_SECONDS.
    """

    def __init__(
        self,
        uri: str,
        endpoint: str,
        *,
        deadline: float,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self.answered = False
        self._uri, self._endpoint = uri, redacted(endpoint)
        self._deadline, self._clock, self._sleep = deadline, clock, sleep

    def __call__(self, verb: str, key: str, operation: Callable[[], T], gained: Callable[[], int] = lambda: 0) -> T:
        """Return the result of `operation`. Time without growth of `gained` counts against the deadline.

        Raise StoreError, which names the store, the endpoint, the key and the next command; ConfigError if a setting
        of the credentials is wrong.
        """
        began = since = tried = self._clock()
        seen, reported = gained(), False
        faults: Counter[str] = Counter()

        def count(state: RetryCallState) -> None:
            nonlocal reported
            error = state.outcome.exception() if state.outcome else None
            faults[error.why if isinstance(error, Unavailable) else f"{status(error) or ''} {code(error)}".strip()] += 1
            if not reported and self._clock() - began > REPORT_SECONDS:
                reported = True
                log.warning("store %s at %s: cannot %s %s yet: %s; trying on",
                            self._uri, self._endpoint, verb, key or "it", _listed(faults))  # fmt: skip

        def over(state: RetryCallState) -> bool:
            nonlocal since, seen, tried
            suspended = self._clock() - tried > self._deadline  # a try takes less, so the process was suspended
            if gained() != seen or suspended:
                since, seen = self._clock(), gained()
            tried = self._clock()
            error = state.outcome.exception() if state.outcome else None
            patient = self.answered or isinstance(error, Unavailable)
            limit = self._deadline if patient else min(self._deadline, FIRST_ANSWER_SECONDS)
            return self._clock() - since + state.upcoming_sleep > limit

        again = Retrying(
            retry=retry_if_exception(transient),
            wait=wait_random_exponential(multiplier=FIRST_PAUSE_SECONDS, max=LONGEST_PAUSE_SECONDS),
            stop=over,
            after=count,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            result = again(operation)
        except FAILURES as error:
            raise self._failure(verb, key, error, faults.total(), self._clock() - began) from error
        if faults:
            tries, seconds = faults.total() + 1, self._clock() - began
            log.warning("store %s: to %s %s took %d tries in %.1f s: %s",
                        self._uri, verb, key, tries, seconds, _listed(faults))  # fmt: skip
        return result

    def _failure(self, verb: str, key: str, error: Any, tries: int, seconds: float) -> WmError:
        """Return the error in words: its name and the server's sentence, which contain no credentials."""
        if isinstance(error, Unavailable):
            after = f"; gave up after {tries} tries in {seconds:.0f} s" if tries else ""
            kind = ConfigError if error.wrong else StoreError
            return kind(
                f"store {self._uri}: cannot {verb} {key or 'it'}: {redacted(error.why)}{after}", next=error.next
            )
        bucket = self._uri.removeprefix("s3://").partition("/")[0]
        message = error.response.get("Error", {}).get("Message", "") if isinstance(error, boto.ClientError) else ""
        name = f"{code(error)}: {message}" if message else code(error)
        reason, command = REASONS.get(code(error), (redacted(name), "curl -I {endpoint}"))
        if code(error) in REASONS:
            reason += f" ({name if code(error) == 'AccessDenied' else code(error)})"
        if verb == "read" and status(error) == 403 and code(error) in ("AccessDenied", "403"):
            reason += ABSENT_OR_DENIED
        if tries:
            reason += f"; gave up after {tries} tries in {seconds:.0f} s"
        return StoreError(
            f"store {self._uri} at {self._endpoint}: cannot {verb} {key or 'it'}: {reason}",
            next=command.format(bucket=bucket, endpoint=self._endpoint),
        )


def _listed(faults: Counter[str]) -> str:
    return ", ".join(f"{name} × {count}" if count > 1 else name for name, count in faults.items())
