"""Runs of an MLflow server, database or folder, one for each iteration of a run.

The run's tags tell which iteration it is, and its metrics which points it has, so a follower can stop at any time and
start again.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from time import time
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # `wm` reports to no other place than it was given

from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from ..errors import StoreError
from .following import Curve, Picture, missing

EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"
DEFAULT_EXPERIMENT = "worldmodels"
AT_ONCE = 500  # of 1,000 metrics in one request; a request takes 100 parameters
PARAMS_AT_ONCE = 100


@dataclass
class Tracked:
    """A run of MLflow's with the points and the settings that it has."""

    id: str
    settings: dict[str, str]
    curves: dict[str, Curve]
    status: str


class MlflowRuns:
    """Writes pictures to the experiment that MLFLOW_EXPERIMENT_NAME names, by default `worldmodels`."""

    def __init__(self, uri: str, store_uri: str) -> None:
        self._store_uri = store_uri
        self._runs: dict[str, Tracked] = {}
        with _explained():
            self._client = MlflowClient(tracking_uri=uri)
            name = os.environ.get(EXPERIMENT, DEFAULT_EXPERIMENT)
            found = self._client.get_experiment_by_name(name)
            self._experiment = found.experiment_id if found else self._client.create_experiment(name)

    def write(self, picture: Picture) -> int:
        with _explained():
            settings = {key: str(value) for key, value in picture.settings.items()}
            run = self._runs.get(picture.name) or self._find(picture) or self._begin(picture, settings)
            more = missing(run.curves, picture.curves)
            if more is None or any(settings.get(key) != value for key, value in run.settings.items()):
                self._client.set_tag(run.id, "wm.replaced", "true")
                run, more = self._begin(picture, settings), dict(picture.curves)
            self._runs[picture.name] = run
            self._settings(run, settings)
            count = self._append(run, more)
            self._status(run, "FINISHED" if picture.ended else "RUNNING")
        return count

    def close(self) -> None:
        """Do nothing: every write is a request of its own."""

    def _find(self, picture: Picture) -> Tracked | None:
        """Return the iteration's newest run that was not replaced."""
        tags = " and ".join(f"tags.`{key}` = '{value}'" for key, value in self._tags(picture).items())
        for found in self._client.search_runs([self._experiment], tags, order_by=["attributes.start_time DESC"]):
            if "wm.replaced" not in found.data.tags:
                id = found.info.run_id
                curves = {
                    name: {metric.step: metric.value for metric in self._client.get_metric_history(id, name)}
                    for name in found.data.metrics
                }
                return Tracked(id, dict(found.data.params), curves, found.info.status)
        return None

    def _begin(self, picture: Picture, settings: Mapping[str, str]) -> Tracked:
        made = self._client.create_run(self._experiment, run_name=picture.name, tags=self._tags(picture))
        return Tracked(made.info.run_id, {}, {}, made.info.status)

    def _tags(self, picture: Picture) -> dict[str, str]:
        return {
            "wm.store": self._store_uri.replace("'", "%27"), "wm.run": picture.run,
            "wm.iteration": str(picture.iteration),
        }  # fmt: skip

    def _settings(self, run: Tracked, settings: Mapping[str, str]) -> None:
        new = iter([Param(key, value) for key, value in settings.items() if key not in run.settings])
        while some := list(islice(new, PARAMS_AT_ONCE)):
            self._client.log_batch(run.id, params=some)
            run.settings |= {each.key: each.value for each in some}

    def _append(self, run: Tracked, curves: Mapping[str, Curve]) -> int:
        points = sorted((step, name, value) for name, curve in curves.items() for step, value in curve.items())
        now = int(time() * 1000)
        left = iter(points)
        while some := list(islice(left, AT_ONCE)):
            self._client.log_batch(run.id, metrics=[Metric(name, value, now, step) for step, name, value in some])
            for step, name, value in some:
                run.curves.setdefault(name, {})[step] = value
        return len(points)

    def _status(self, run: Tracked, status: str) -> None:
        if run.status != status:
            self._client.update_run(run.id, status=status)
            run.status = status


@contextmanager
def _explained() -> Iterator[None]:
    """Raise MLflow's errors as StoreError."""
    try:
        yield
    except MlflowException as error:
        first: Any = str(error).strip().splitlines() or [type(error).__name__]
        raise StoreError(f"MLflow: {first[0][:500]}", next="wm track --mlflow …") from error
