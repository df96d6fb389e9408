import api
import pytest
from api import HOST, Api, away, status
from urllib3.exceptions import ProtocolError, SSLError

from worldmodels.errors import ClusterError
from worldmodels.executors import kubernetes
from worldmodels.executors.kubernetes import Expired


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
    assert [words.split(" (")[0] for words in server.said] == [
        f"{HOST} does not answer",
        f"{HOST} answers again after 0 s",
    ]


def test_but_not_forever(server):
    cluster = server.cluster(away_seconds=0.2)
    cluster.job("a")
    server.faults = [away()] * 1000
    with pytest.raises(ClusterError, match="no cluster answers"):
        cluster.job("a")


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


KUBECONFIG = """
{apiVersion: v1, kind: Config, current-context: lab,
 clusters: [{name: lab, cluster: {server: "https://lab:6443"}}], users: [{name: me, user: {token: secret}}],
 contexts: [{name: lab, context: {cluster: lab, user: me}}]}
"""


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
