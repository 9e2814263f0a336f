"""Writes parameters, metrics and files of a run into the store.

Responsible for MLflow's limits (sizes of batches, names, values that are numbers); what is worth keeping
is decided by the pipeline.
"""

import math
import time
from collections.abc import Mapping
from pathlib import Path

from mlflow.entities import Metric, Param

from training.registry.store import Store

_BATCH = 100
_LONGEST = 500


def log_params(store: Store, run: str, params: Mapping[str, object]) -> None:
    """Parameters by name; long values are cut (MLflow's limit)."""
    rows = [Param(name, str(value)[:_LONGEST]) for name, value in params.items()]
    for start in range(0, len(rows), _BATCH):
        store.client.log_batch(run, params=rows[start : start + _BATCH])


def log_metrics(store: Store, run: str, metrics: Mapping[str, float], step: int = 0) -> None:
    """Figures by name; what is not a finite number is left out."""
    now = int(time.time() * 1000)
    rows = [Metric(name, float(v), now, step) for name, v in metrics.items() if math.isfinite(v)]
    for start in range(0, len(rows), _BATCH):
        store.client.log_batch(run, metrics=rows[start : start + _BATCH])


def log_files(store: Store, run: str, directory: Path, place: str | None = None) -> None:
    """Every file below `directory`, below `place` among the run's artifacts."""
    store.client.log_artifacts(run, str(directory), place)
