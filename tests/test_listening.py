"""Pods' output, for commands that wait for them."""

import api
from api import Api

from worldmodels.executors.kubernetes.log_tail import Listener

LINE = "2026-01-01T00:00:00Z 2026-01-01 00:00:00 I 5 of 25 generations  800/s\n"


def test_the_last_line_is_news_once_and_without_its_date():
    server, pod = Api(), api.pod(phase="Running")
    server.logs[pod["metadata"]["name"]] = LINE
    listener = Listener(server.cluster(), 0.0)
    assert [listener.news([pod]) for _ in range(2)] == ["5 of 25 generations  800/s", ""]
    assert listener.line == "5 of 25 generations  800/s"


def test_pods_that_do_not_run_and_short_pauses_cost_no_request():
    server = Api()
    assert Listener(server.cluster(), 0.0).news([api.pod(phase="Pending")]) == ""
    assert Listener(server.cluster(), 60.0).news([api.pod(phase="Running")]) == ""
    assert not server.requests
