"""Where a bucket's credentials come from, and what is said while they do not: real files, processes, servers."""

import subprocess
import sys

import buckets
import pytest
from faults import Clock
from identity import given, refuses, server, sts

from worldmodels.errors import ConfigError, StoreError
from worldmodels.store.s3.retry import DEADLINE_SECONDS
from worldmodels.store.s3.store import S3Store, make_client

ROLE = "arn:aws:iam::123456789012:role/wm"


@pytest.fixture
def bucket(endpoint, monkeypatch, tmp_path):
    """A store as a process with only this environment, and these lines of ~/.aws/config, opens it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    clock = Clock()

    def open_with(config="", **environment):
        (tmp_path / "config").write_text(config)
        plain = {
            "AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL_S3": endpoint, "AWS_REGION": "us-east-1",
            "HOME": str(tmp_path),
        }  # fmt: skip
        for name, value in (plain | environment).items():
            monkeypatch.setenv(name, value)
        return S3Store(make_client(), buckets.BUCKET, buckets.fresh_prefix(), clock=clock, sleep=clock.sleep)

    open_with.clock = clock
    return open_with


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """botocore's own second between two questions to an agent."""
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.RETRY_ATTEMPTS", 1)


def web_identity(path, url):
    return {"AWS_ROLE_ARN": ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE": str(path), "AWS_ENDPOINT_URL_STS": url}


def test_an_agent_that_is_ill_is_asked_again(bucket):
    with server((500, "not yet"), (404, ""), given()) as url:
        store = bucket(AWS_CONTAINER_CREDENTIALS_FULL_URI=f"{url}/v1/credentials")
        store.put("key", b"data")
        assert store.get("key") == b"data"
    assert len(bucket.clock.slept) == 2


def test_an_agent_that_does_not_listen_yet_is_asked_again(bucket, monkeypatch):
    (port,) = buckets.free_ports(1)
    store = bucket(AWS_CONTAINER_CREDENTIALS_FULL_URI=f"http://127.0.0.1:{port}/v1/credentials")
    with pytest.raises(StoreError, match=f"agent at http://127.0.0.1:{port}/v1/credentials gives no cred") as caught:
        store.get("key")
    assert DEADLINE_SECONDS - 15 < sum(bucket.clock.slept) <= DEADLINE_SECONDS
    assert caught.value.exit_code == 13
    with server(given()) as url:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/v1/credentials")
        assert store.get("key") is None  # the same client, once the agent is there


def test_a_token_that_is_mounted_late_is_waited_for(bucket, tmp_path):
    token = tmp_path / "token"
    with server(sts()) as url:
        store = bucket(**web_identity(token, url))
        with pytest.raises(StoreError, match=f"token {token} cannot be read: No such file") as caught:
            store.get("key")
        assert sum(bucket.clock.slept) > DEADLINE_SECONDS - 15
        assert caught.value.next == f"ls -l {token}"
        token.write_text("token")
        assert store.get("key") is None


def test_sts_that_is_down_for_a_while_is_asked_again(bucket, tmp_path):
    (tmp_path / "token").write_text("token")
    with server(refuses(503, "ServiceUnavailable"), refuses(400, "Throttling"), sts()) as url:
        assert bucket(**web_identity(tmp_path / "token", url)).get("key") is None
    assert len(bucket.clock.slept) == 2


def test_sts_that_is_not_reached_is_named(bucket, tmp_path):
    (tmp_path / "token").write_text("token")
    with pytest.raises(StoreError, match=r"keys come from http://127\.0\.0\.1:1/?, which does not answer") as caught:
        bucket(**web_identity(tmp_path / "token", "http://127.0.0.1:1")).get("key")
    assert caught.value.next.startswith("curl -I http://127.0.0.1:1")
    assert bucket.clock.slept


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("AccessDenied", "trust policy does not let this identity"),
        ("InvalidIdentityToken", "is there an OIDC provider of this cluster"),
        ("ExpiredTokenException", "token has expired"),
    ],
)
def test_a_role_that_may_not_be_assumed_is_told_at_once(bucket, tmp_path, code, words):
    (tmp_path / "token").write_text("token")
    with server(refuses(400, code)) as url, pytest.raises(StoreError, match=f"{ROLE} is refused .*{words}") as caught:
        bucket(**web_identity(tmp_path / "token", url)).get("key")
    assert bucket.clock.slept == []
    assert caught.value.next == "aws iam get-role --role-name wm"


SSO = """
[profile me]
sso_session = my
sso_account_id = 123456789012
sso_role_name = wm
[sso-session my]
sso_region = us-east-1
sso_start_url = https://me.awsapps.test/start
"""


@pytest.mark.parametrize(
    ("config", "environment", "kind", "words", "command"),
    [
        ("", {}, StoreError, "no credentials were found", "export AWS_ACCESS_KEY_ID="),
        (SSO, {"AWS_PROFILE": "me"}, StoreError, "profile me is not logged in", "aws sso login --profile me"),
        (
            "[profile me]\ncredential_process = /none/login",
            {"AWS_PROFILE": "me"},
            ConfigError,
            "cannot be started: /none/login: No such file",
            "aws configure get credential_process --profile me",
        ),
        (
            "[profile me]\ncredential_process = echo {}",
            {"AWS_PROFILE": "me"},
            StoreError,
            "the credential_process of profile me failed",
            "aws configure get credential_process --profile me",
        ),
        (
            "[profile me]\nrole_arn = arn:a\nsource_profile = gone",
            {"AWS_PROFILE": "me"},
            ConfigError,
            'source_profile "gone"',
            "aws configure list",
        ),
        ("", {"AWS_ACCESS_KEY_ID": "half"}, ConfigError, "missing: AWS_SECRET_ACCESS_KEY", "aws configure list"),
        (
            "",
            {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://elsewhere.test/"},
            ConfigError,
            "Unsupported host",
            "aws configure list",
        ),
    ],
)
def test_each_cause_has_its_own_remedy(bucket, config, environment, kind, words, command):
    with pytest.raises(kind, match=words) as caught:
        bucket(config, **environment).get("key")
    assert caught.value.next.startswith(command)
    assert type(caught.value) is kind


def test_in_a_pod_credentials_that_no_setting_names_may_still_come(bucket):
    store = bucket(KUBERNETES_SERVICE_HOST="10.0.0.1")
    with pytest.raises(StoreError, match="no credentials were found; gave up after") as caught:
        store.get("key")
    assert sum(bucket.clock.slept) > DEADLINE_SECONDS - 15
    assert "kubernetes.s3_secret" in caught.value.next


def test_what_a_process_says_is_never_shown(bucket):
    with pytest.raises(StoreError) as caught:
        bucket('[profile me]\ncredential_process = sh -c "echo hush >&2; false"', AWS_PROFILE="me").get("key")
    assert "hush" not in caught.value.message + caught.value.next


def test_a_worker_without_credentials_is_worth_another_try(bucket, endpoint, tmp_path):
    """As a pod runs it: exit 13, which does not fail its Job, and not 43, which would."""
    bucket()
    code = (
        "import os, sys\n"
        "import worldmodels.store.s3.store as s3; s3.S3Store.__init__.__kwdefaults__['deadline'] = 1\n"
        "from worldmodels.config import Config; from worldmodels.executors import pod\n"
        "from worldmodels.planning import Task\n"
        "task = Task('demo', 1, 'rollouts', Config(execution={'workers': 1})).to_json()\n"
        "sys.exit(pod.main(dict(os.environ, WM_TASK=task, WM_STORE='s3://bucket/x')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/", "AWS_ENDPOINT_URL_S3": endpoint,
            "AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path), "PATH": "/usr/bin:/bin",
        },
    )  # fmt: skip
    assert done.returncode == 13, done.stdout + done.stderr
    assert "identity agent at http://127.0.0.1:1/ gives no credentials" in done.stdout


# The region.


@pytest.mark.parametrize(
    ("config", "environment", "region"),
    [
        ("", {"AWS_REGION": "eu-west-1"}, "eu-west-1"),
        ("", {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "us-west-2"}, "eu-west-1"),
        ("", {"AWS_REGION": "", "AWS_DEFAULT_REGION": "us-west-2"}, "us-west-2"),
        ("[default]\nregion = ap-south-1", {"AWS_REGION": ""}, "ap-south-1"),
    ],
)
def test_the_region_is_that_of_the_signature(bucket, config, environment, region):
    store = bucket(config, AWS_ACCESS_KEY_ID=buckets.KEY, AWS_SECRET_ACCESS_KEY=buckets.SECRET, **environment)
    signed = []
    store._client.meta.events.register("before-send.s3", lambda request, **_: signed.append(request.headers))
    store.get("key")
    assert f"/{region}/s3/aws4_request" in str(signed[0]["Authorization"])


def test_sts_is_asked_in_that_region_too_and_a_dead_proxy_is_named(bucket, tmp_path):
    (tmp_path / "token").write_text("token")
    role = {"AWS_ROLE_ARN": ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token")}
    with server((502, "")) as proxy, pytest.raises(StoreError, match=f"the proxy {proxy} does not answer") as caught:
        bucket(**role, AWS_REGION="eu-west-1", HTTPS_PROXY=proxy).get("key")
    assert caught.value.next == "env | grep -i _proxy"
    assert server.asked[-1] == "sts.eu-west-1.amazonaws.com:443"
