import re
from functools import partial

import api
import pytest
from api import HOST, Api, away, status
from urllib3.exceptions import ProtocolError, SSLError

from worldmodels.errors import ClusterError
from worldmodels.executors.kubernetes import client as kubernetes
from worldmodels.executors.kubernetes.client import Expired, KubernetesClient


@pytest.fixture
def server():
    return Api()


def test_a_cluster_that_never_answers_is_given_up_soon(server):
    server.faults = [away()] * 1000
    with pytest.raises(ClusterError, match=f"no cluster answers at {HOST}: Connection refused") as caught:
        server.cluster(first_seconds=0.2).job("a")
    assert caught.value.next == "kubectl cluster-info"
    assert not server.said


@pytest.mark.parametrize("fault", [away(), ProtocolError("Connection broken"), status(503), status(429)])
def test_a_cluster_that_answered_before_is_waited_for_and_said_to_be_away_once(server, fault):
    cluster = server.cluster()
    cluster.job("a")
    server.faults = [fault] * 4
    assert cluster.job("a") is None
    first, last = server.said
    assert re.match(f"{HOST} (does not answer|says (503|429); asking again)", first)
    assert last == f"{HOST} answers again after 0 s"


def test_but_not_forever(server):
    cluster = server.cluster(away_seconds=0.2)
    cluster.job("a")
    server.faults = [away()] * 1000
    with pytest.raises(ClusterError, match="no cluster answers"):
        cluster.job("a")


WEBHOOK = 'Internal error occurred: failed calling webhook "policy.test": Post "https://policy.test": timeout'


def test_what_a_server_says_that_cannot_is_shown_complete(server):
    server.faults = [status(500, WEBHOOK)] * 1000
    with pytest.raises(ClusterError) as caught:
        server.cluster(first_seconds=0.2).create(api.job())
    assert f"cannot do POST /apis/batch/v1/namespaces/wm/jobs: 500: {WEBHOOK}" in caught.value.message
    assert "validatingwebhookconfigurations" in caught.value.next
    server.faults.clear()
    again = server.cluster()
    again.job("a")
    server.faults = [status(500, WEBHOOK)]
    again.create(api.job())
    assert f"says 500: {WEBHOOK}; asking again" in server.said[-2]


@pytest.mark.parametrize("text", ["<html>Sign in</html>", '["a list"]', ""])
def test_a_page_instead_of_the_api_is_told_as_one(server, text):
    server.faults = [(200, text)]
    with pytest.raises(ClusterError, match="answers 200, and not as Kubernetes does") as caught:
        server.cluster().job("a")
    assert text[:10] in caught.value.message


def test_a_dead_proxy_is_not_a_dead_cluster(tmp_path, monkeypatch):
    (tmp_path / "config").write_text(KUBECONFIG)
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hush@127.0.0.1:1")
    connect = partial(kubernetes.connect, "lab", str(tmp_path / "config"))
    with pytest.raises(ClusterError, match=r"the proxy http://127\.0\.0\.1:1 does not serve: .*refused") as caught:
        KubernetesClient(connect, "wm", first_seconds=0.2).job("a")
    assert "hush" not in caught.value.message
    assert caught.value.next.startswith("env | grep -i _proxy")


KUBECONFIG = """
{apiVersion: v1, kind: Config, current-context: lab,
 clusters: [{name: lab, cluster: {server: "https://lab:6443"}}], users: [{name: me, user: {token: secret}}],
 contexts: [{name: lab, context: {cluster: lab, user: me}}]}
"""

PROXIED = KUBECONFIG.replace('"https://lab:6443"', '"https://lab:6443", proxy-url: "http://own:3128"')


@pytest.mark.parametrize(
    ("text", "environment", "proxy"),
    [
        ("plain", {}, ""),
        ("plain", {"HTTPS_PROXY": "http://everybody:1"}, "http://everybody:1"),
        ("plain", {"HTTP_PROXY": "http://not-for-tls:1"}, ""),
        ("plain", {"HTTPS_PROXY": "http://everybody:1", "NO_PROXY": "elsewhere,lab"}, ""),
        ("plain", {"HTTPS_PROXY": "http://everybody:1", "NO_PROXY": "*"}, ""),
        ("address", {"HTTPS_PROXY": "http://everybody:1", "NO_PROXY": "10.0.0.0/8"}, ""),
        ("proxied", {}, "http://own:3128"),
        ("proxied", {"HTTPS_PROXY": "http://everybody:1", "NO_PROXY": "lab"}, "http://own:3128"),
    ],
)
def test_the_proxy_is_the_one_that_kubectl_takes(tmp_path, monkeypatch, text, environment, proxy):
    kinds = {"plain": KUBECONFIG, "address": KUBECONFIG.replace("//lab", "//10.1.2.3"), "proxied": PROXIED}
    (tmp_path / "config").write_text(kinds[text])
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    connection = kubernetes.connect("", str(tmp_path / "config"))
    assert connection.proxy == proxy
    taken = getattr(connection.pool, "proxy", None)
    assert (taken.url if taken else "") == proxy


def test_a_proxy_that_the_client_cannot_speak_to_is_named(tmp_path):
    (tmp_path / "config").write_text(PROXIED.replace("http://own", "ftp://me:hush@own"))
    with pytest.raises(ClusterError, match="the proxy ftp://own:3128 cannot be used"):
        kubernetes.connect("", str(tmp_path / "config"))


KUEUE = {
    "/apis": {"groups": [
        {"name": "kueue.x-k8s.io", "preferredVersion": {"version": "v1beta1"}},
        {"name": "visibility.kueue.x-k8s.io", "preferredVersion": {"version": "v1beta1"}},
    ]},
    "/apis/kueue.x-k8s.io/v1beta1/namespaces/wm/workloads": {"items": [
        {"metadata": {"name": "job-a"}, "status": {"conditions": [
            {"type": "QuotaReserved", "status": "False", "message": "couldn't assign flavors"},
        ]}},
    ]},
    "/apis/visibility.kueue.x-k8s.io/v1beta1/namespaces/wm/localqueues/research/pendingworkloads": {"items": [
        {"metadata": {"name": "other"}, "positionInClusterQueue": 0, "positionInLocalQueue": 0},
        {"metadata": {"name": "job-a"}, "positionInClusterQueue": 4, "positionInLocalQueue": 1},
    ]},
}  # fmt: skip


def test_a_queue_says_why_and_where_in_it_a_job_is(server):
    server.answers = {path: (200, answer) for path, answer in KUEUE.items()}
    (event,) = server.cluster().queued("uid", "research")
    assert event["message"] == "couldn't assign flavors; number 2 of 2 in this queue, 5 in the cluster's"
    server.answers[list(KUEUE)[2]] = status(503, "the aggregated API is not there")
    (event,) = server.cluster().queued("uid", "research")
    assert event["message"] == "couldn't assign flavors"


def test_a_certificate_does_not_become_right_by_waiting(server):
    server.faults = [SSLError("CERTIFICATE_VERIFY_FAILED")]
    with pytest.raises(ClusterError, match="certificate is not trusted"):
        server.cluster().job("a")
    assert len(server.requests) == 1


def test_an_expired_login_is_renewed_once(server):
    cluster = server.cluster()
    server.faults = [status(401, "Unauthorized")]
    assert cluster.job("a") is None
    assert server.logins == 2
    server.faults = [status(401, "Unauthorized")] * 2
    with pytest.raises(ClusterError, match="have they expired"):
        cluster.job("a")
    assert server.logins == 3


FORBIDDEN = 'x is forbidden: User "eve" cannot create resource "jobs" in API group "batch" in the namespace "wm"'
QUOTA = 'jobs.batch "a" is forbidden: exceeded quota: q, requested: count/jobs.batch=1, used: 3, limited: 3'
CAUSES = {"details": {"causes": [{"field": "spec.completions", "message": "must be positive"}]}}


@pytest.mark.parametrize(
    ("answer", "words", "command"),
    [
        (
            status(403, FORBIDDEN),
            "does not let eve create jobs.batch in namespace wm",
            "kubectl auth can-i create",
        ),
        (
            status(403, QUOTA),
            "quota q of namespace wm is used up: requested: count/jobs",
            "kubectl -n wm describe quota q",
        ),
        (status(403, "denied by webhook"), "refuses: denied by webhook", "kubectl -n wm get events"),
        (status(403, 'User "system:anonymous" cannot'), "was given no credentials", "kubectl auth whoami"),
        (status(404, 'namespaces "wm" not found'), "has no namespace 'wm'", "kubectl apply -k k8s/base"),
        (status(422, "invalid", **CAUSES), "spec.completions: must be positive", "wm config"),
        (status(400, 'strict decoding error: unknown field "spec.x"'), 'unknown field "spec.x"', "wm config"),
        (status(410, "gone"), "gone (410)", "kubectl cluster-info"),
        ((404, "<html>"), "answers 404, and not as Kubernetes does", "kubectl cluster-info"),
    ],
)
def test_refusals_are_told_in_words(server, answer, words, command):
    server.faults = [answer]
    with pytest.raises(ClusterError) as caught:
        server.cluster().create(api.job())
    assert words in caught.value.message
    assert caught.value.next.startswith(command)


def test_what_is_not_kubernetes_is_not_taken_for_an_absent_job(server):
    server.faults = [(404, "404 page not found")]
    with pytest.raises(ClusterError, match="not as Kubernetes does"):
        server.cluster().job("a")


def page(*names, more=""):
    return 200, {"metadata": {"resourceVersion": "7", "continue": more}, "items": [{"name": name} for name in names]}


def test_pages_are_turned_and_begun_anew_when_they_expired(server):
    server.faults = [page("a", more="x"), page("b")]
    assert server.cluster().objects("/api/v1/namespaces/wm/pods", {}) == ([{"name": "a"}, {"name": "b"}], "7")
    server.faults = [page("a", more="x"), status(410, "expired"), page("a", "b")]
    found, _ = server.cluster().objects("/api/v1/namespaces/wm/pods", {})
    assert [each["name"] for each in found] == ["a", "b"]


def watch(server):
    return server.cluster().watch("/api/v1/namespaces/wm/pods", {"a": "b"}, "7", 3)


def test_a_watch_tells_what_changes(server):
    server.streams = [[{"type": "ADDED", "object": {}}, {"type": "DELETED", "object": {}}]]
    assert [event["type"] for event in watch(server)] == ["ADDED", "DELETED"]
    assert "labelSelector=a%3Db&watch=true&resourceVersion=7&timeoutSeconds=3" in server.requests[0][1]


@pytest.mark.parametrize("fault", [away(), (200, '{"type": "ADD')])
def test_a_watch_that_breaks_off_is_at_its_end(server, fault):
    server.faults = [fault]
    assert list(watch(server)) == []


def test_a_watch_from_a_forgotten_version_says_so(server):
    server.faults = [status(410, "too old resource version")]
    with pytest.raises(Expired):
        list(watch(server))
    server.streams = [[{"type": "ERROR", "object": {"code": 410}}]]
    with pytest.raises(Expired):
        list(watch(server))


def test_a_log_goes_on_where_it_was_left(server):
    server.logs["p"] = "2026-01-01T00:00:01.000000000Z one\n2026-01-01T00:00:02.000000000Z \n"
    cluster = server.cluster()
    assert [line for _, line in cluster.log("p", "worker")] == ["one", ""]
    assert cluster.log("p", "worker", since="2026-01-01T00:00:01.000000000Z") == [
        ("2026-01-01T00:00:02.000000000Z", "")
    ]
    server.faults = [status(400, 'container "worker" is waiting to start')]
    assert cluster.log("p", "worker") == []


def test_a_dry_run_makes_nothing_and_deleting_names_its_policy(server):
    cluster = server.cluster()
    assert cluster.create(api.job("a"), dry_run=True)[0]
    assert not server.jobs
    cluster.delete(api.job("a"))
    options = {"propagationPolicy": "Foreground", "preconditions": {"uid": "1"}}
    assert server.requests[-1] == ("DELETE", "/apis/batch/v1/namespaces/wm/jobs/a", options)


@pytest.mark.parametrize(
    ("text", "context", "words"),
    [
        (None, "", "there is no kubeconfig"),
        (KUBECONFIG, "prod", "has no such context; it has lab"),
        ("{", "", "cannot be used: while parsing"),
        ("", "", "file is empty"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used(tmp_path, text, context, words):
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ClusterError, match=words):
        kubernetes.connect(context, str(path))


def test_a_kubeconfig_names_the_server_and_its_login(tmp_path):
    (tmp_path / "config").write_text(KUBECONFIG)
    connection = kubernetes.connect("lab", str(tmp_path / "config"))
    assert connection.host == "https://lab:6443"
    assert connection.headers() == {"authorization": "Bearer secret"}
