"""Logs a run to MLflow, to the server and the experiment that MLflow's own variables name.

    MLFLOW_TRACKING_URI=http://host:5000 MLFLOW_EXPERIMENT_NAME=gear python -m ... --track mlflow

Each figure of an epoch is a metric of its name, and the epoch is its step; MLflow keeps doubles, so
all are those of history.csv to the bit. The config becomes parameters, figures become artifacts.
"""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from jaxgear.files import write_json
from jaxgear.tracking.figures import figures, plots
from jaxgear.training.history import Row

FILE = "mlflow.json"  # in the run folder: the id of its run in MLflow


class Tracker:
    """Logs what MLflow's run lacks.

    MLflow only adds to a metric. If its run has an epoch that the history has no more (training was
    killed after it, before its checkpoint was whole), that run is deleted and a new one begun.
    """

    def __init__(self) -> None:
        self._client = MlflowClient()
        self._run: str | None = None  # id in MLflow
        self._logged: dict[tuple[str, int], float] = {}  # by name and step

    def __call__(self, run: Path, rows: Sequence[Row], test: dict[str, Any] | None) -> None:
        """Logs the epochs that are not logged yet, and the test with its figures."""
        found = figures(rows, test)
        if self._run is None:
            self._run = self._earlier(run, found) or self._new(run)
        new = {key: value for key, value in found.items() if key not in self._logged}
        now = round(1000 * time.time())
        metrics = [Metric(name, value, now, step) for (name, step), value in new.items()]
        for first in range(0, len(metrics), 1000):  # MLflow takes no more at once
            self._client.log_batch(self._run, metrics=metrics[first : first + 1000])
        self._logged |= new
        if test is not None:
            for path in plots(run):
                self._client.log_artifact(self._run, str(path))
            self._client.set_terminated(self._run)

    def _earlier(self, run: Path, found: dict[tuple[str, int], float]) -> str | None:
        """The id of the run that an earlier process began, if all that it has is in `found`."""
        if not (run / FILE).exists():
            return None
        number = json.loads((run / FILE).read_text(encoding="utf-8"))["run"]
        try:
            earlier = self._client.get_run(number)
        except MlflowException:  # on another server, or deleted for good
            return None
        if earlier.info.lifecycle_stage != "active":
            return None
        logged = [
            ((metric.key, metric.step), metric.value)
            for name in earlier.data.metrics
            for metric in self._client.get_metric_history(number, name)
        ]
        epochs = {key: value for key, value in logged if not key[0].startswith("test_")}
        if len(dict(logged)) < len(logged) or not epochs.items() <= found.items():
            self._client.delete_run(number)
            return None
        self._logged = dict(logged)
        return number

    def _new(self, run: Path) -> str:
        """The id of a new run with the config as parameters."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "jaxgear")
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            number = self._client.create_experiment(name)
        else:
            number = experiment.experiment_id
        made = self._client.create_run(number, run_name=run.name).info.run_id
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
        self._client.log_batch(
            made,
            params=[Param(name, str(value)) for name, value in config.items()],
            tags=[RunTag("run", str(run.resolve()))],
        )
        write_json(run / FILE, {"run": made})
        return made
