"""MLflow: a run a cell in one experiment, in results/trackers/mlflow.db unless MLFLOW_TRACKING_URI names a store."""

from __future__ import annotations

import os
import time
from pathlib import Path

from harness.trackers.base import Ended, Tracker

EXPERIMENT = "sampler-sweep"  # MLFLOW_EXPERIMENT_NAME says otherwise


class MLflow(Tracker):
    requires = ("mlflow", "sqlalchemy", "alembic")
    extra = "mlflow"

    def __init__(self, folder: Path, sweep: str) -> None:
        from mlflow import MlflowClient

        folder.mkdir(parents=True, exist_ok=True)
        own = f"sqlite:///{(folder / 'mlflow.db').resolve()}"
        self.sweep, self.uri = sweep, os.environ.get("MLFLOW_TRACKING_URI") or own
        self.client = MlflowClient(tracking_uri=self.uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        known = self.client.get_experiment_by_name(name)
        kept = (folder / "mlflow-artifacts").resolve().as_uri() if self.uri == own else None
        self.experiment = known.experiment_id if known else self.client.create_experiment(name, artifact_location=kept)

    def write(self, cell: Ended) -> None:
        from mlflow.entities import Metric, Param, RunTag

        now = round(1000 * time.time())
        tags = {"cell_id": cell.cell_id, "sweep": self.sweep, "status": cell.status, "error": cell.error}
        tags |= {name: str(value) for name, value in cell.where.items()}
        run_id = self.client.create_run(self.experiment, run_name=cell.name).info.run_id
        self.client.log_batch(
            run_id,
            metrics=[Metric(name, value, now, 0) for name, value in cell.metrics.items()],
            params=[Param(name, str(value)) for name, value in cell.config.items()],
            tags=[RunTag(name, value) for name, value in tags.items() if value],
        )
        if cell.picture is not None:
            self.client.log_image(run_id, cell.picture, artifact_file="images.png")
        self.client.set_terminated(run_id, "FINISHED" if cell.ok else "FAILED")

    def close(self) -> str:
        return f"mlflow: mlflow ui --backend-store-uri {self.uri}"


TRACKER = MLflow
