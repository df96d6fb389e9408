"""Last log lines of pods, for commands that wait for a Job."""

import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

from .client import KubernetesClient
from .job_spec import CONTAINER
from .job_status import phase

HEAD = re.compile(r"\S+ \S+ [A-Z] ")  # date, time and level, as workers write them


class Listener:
    """The last log line of one of a Job's running pods, read every `seconds`."""

    def __init__(self, cluster: KubernetesClient, seconds: float) -> None:
        self.line = ""
        self._cluster, self._seconds, self._asked = cluster, seconds, time.monotonic()

    def news(self, pods: Iterable[Mapping[str, Any]]) -> str:
        """Return that line if it was read now and differs from the one before, else an empty text."""
        running = [pod for pod in pods if phase(pod) == "Running"]
        if not running or time.monotonic() - self._asked < self._seconds:
            return ""
        self._asked = time.monotonic()
        lines = self._cluster.log(running[0]["metadata"]["name"], CONTAINER, tail=1)
        before, self.line = self.line, HEAD.sub("", lines[-1][1]) if lines else ""
        return self.line if self.line != before else ""
