"""The MLflow store of a site: an embedded one in a directory, or a server.

Responsible for where runs and registered models are kept, and for keeping MLflow quiet and on this
machine: its usage statistics are turned off.  What is kept is `log` and `versions`.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Read by MLflow when it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from mlflow import MlflowClient
from mlflow.entities import RunStatus
from mlflow.exceptions import MlflowException

EXPERIMENT = "common-ensemble"
DEFAULT_DIRECTORY = Path("var/mlflow")
_EMBEDDED = "mlflow.db"


class RegistryUnavailable(RuntimeError):
    """The store cannot be used; the message says which and what to set."""


@dataclass(frozen=True)
class Store:
    """An open store: MLflow's client and the experiment that runs are logged in."""

    client: MlflowClient
    experiment: str
    uri: str

    @classmethod
    def open(cls, uri: str | None = None, directory: Path = DEFAULT_DIRECTORY) -> "Store":
        """The store at `uri` (a server, or any that MLflow knows), or the embedded one in `directory`.

        Raises `RegistryUnavailable`.
        """
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        artifacts: str | None = None
        if not uri:
            directory.mkdir(parents=True, exist_ok=True)
            uri = f"sqlite:///{(directory / _EMBEDDED).resolve()}"
            artifacts = (directory / "artifacts").resolve().as_uri()
        try:
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            found = client.get_experiment_by_name(EXPERIMENT)
            identity = (
                found.experiment_id
                if found is not None
                else client.create_experiment(EXPERIMENT, artifact_location=artifacts)
            )
        except (MlflowException, OSError) as fault:
            raise RegistryUnavailable(
                f"the MLflow store cannot be used ({type(fault).__name__}): check CDS_MLFLOW_URI, "
                f"or leave it unset for the one in {DEFAULT_DIRECTORY}"
            ) from fault
        return cls(client, identity, uri)

    @contextmanager
    def run(self, name: str, tags: dict[str, str]) -> Iterator[str]:
        """A run by its id; ends as FINISHED, FAILED when the block raises, KILLED when it is stopped."""
        started = self.client.create_run(self.experiment, run_name=name, tags=tags)
        identity: str = started.info.run_id
        status = RunStatus.FINISHED
        try:
            yield identity
        except KeyboardInterrupt:
            status = RunStatus.KILLED
            raise
        except BaseException:  # whatever ended it: the run says so, and the fault goes on
            status = RunStatus.FAILED
            raise
        finally:
            self.client.set_terminated(identity, RunStatus.to_string(status))
