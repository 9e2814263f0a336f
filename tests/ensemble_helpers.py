"""A tiny trained ensemble that the tests of training and serving share: every disease, 1,000 patients.

Its figures mean little; its parts are those of the shipped bundle.  It is trained once in a test run:
the workers of pytest-xdist find it in a file.
"""

import contextlib
import fcntl
import functools
import os
import pickle
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from bundle_helpers import tiny_bundle

from fhir_adapters.chart import PatientChart
from fhir_adapters.decode import read_bundle
from fhir_adapters.features import FeatureSchema
from fhir_adapters.hpo import Ontology
from models.bundle import Bundle
from models.common.disease import DiseaseInfo
from models.common.engine import CommonEngine
from models.common.ensemble import Stack
from models.common.members import Arrays
from models.rules.analytes import load_analytes
from training.ensemble.cohort import Cohort, Simulator, labels_of, split
from training.ensemble.config import BoostedConfig, EnsembleConfig, ForestConfig, NetworkConfig
from training.ensemble.parts import bundle_parts
from training.ensemble.rules import RulesReader
from training.ensemble.train import Data, Trained, train
from training.simulation.bundles import AT
from training.simulation.population import Patients
from training.simulation.recording import Recorded

CONFIG = EnsembleConfig(
    patients=1000,
    folds=2,
    threads=1,
    boosted=BoostedConfig(rounds=1, depth=3, severity_rounds=3, immediate_rounds=4),
    forest=ForestConfig(trees=6, leaves=60, depth=6),
    network=NetworkConfig(hidden=16, epochs=1),
)


@dataclass(frozen=True)
class Tiny:
    """The run: its three parts, what was trained, and the parts of its bundle."""

    data: Data
    trained: Trained
    schema: FeatureSchema
    diseases: tuple[DiseaseInfo, ...]
    stack: Stack
    arrays: Arrays

    def common_engine(self, ontology: Ontology) -> CommonEngine:
        """The engine that a server makes of these parts."""
        return CommonEngine(
            schema=self.schema,
            ontology=ontology,
            diseases=self.diseases,
            arrays=self.arrays,
            stack=msgspec.to_builtins(self.stack),
            analytes=load_analytes(),
        )


@functools.cache
def simulator() -> Simulator:
    """The simulator of the packaged knowledge."""
    return Simulator.load()


@functools.cache
def tiny() -> Tiny:
    """The ensemble, trained by the first process of the test run that asks for it."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if run is None:
        return _train()
    path = Path(tempfile.gettempdir()) / f"cds-tests-ensemble-{run}.pickle"
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _tidy(path.parent)
            path.write_bytes(pickle.dumps(_train()))
        found = pickle.loads(path.read_bytes())
    assert isinstance(found, Tiny)
    return found


def _tidy(directory: Path) -> None:
    """Remove what earlier test runs left; no run lasts an hour."""
    for old in directory.glob("cds-tests-ensemble-*"):
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > 3600:
                old.unlink()


def _train() -> Tiny:
    world = simulator()
    ((patients, recorded),) = world.batches(CONFIG.patients, CONFIG.seed)
    cohort = Cohort(world.rows(patients, recorded), labels_of(patients), simulated=True)
    first, second, third = split(CONFIG.patients)
    rules = RulesReader(world.builder).logits(world.writer, patients, recorded, second.tolist())
    data = Data(
        cohort.take(first), cohort.take(second), cohort.take(third), rules, np.full(len(third), np.nan)
    )
    with warnings.catch_warnings():
        # With 334 diseases and so few patients some disease has one patient only.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        trained = train(world.tables, world.reader, data, CONFIG, lambda _: None)
    diseases, stack, arrays = bundle_parts(world.knowledge, world.tables, trained, CONFIG.coverage)
    return Tiny(data, trained, world.schema, diseases, stack, arrays)


def chart_of(patients: Patients, recorded: Recorded, row: int) -> PatientChart:
    """The chart that serving reads from the FHIR Bundle of a simulated patient."""
    world = simulator()
    bundle = world.writer.bundle(patients, recorded, row, f"sim-{row}")
    read = read_bundle(msgspec.json.encode(bundle))
    return world.builder.build(read, at=AT, patient_id=None, retrospective=True)


@functools.cache
def charts(count: int = 60, seed: int = 77) -> tuple[PatientChart, ...]:
    """The charts of patients that the ensemble has not seen."""
    ((patients, recorded),) = simulator().batches(count, seed)
    return tuple(chart_of(patients, recorded, row) for row in range(count))


def tiny_run_bundle(directory: Path) -> Bundle:
    """The run as a signed bundle on disk."""
    found = tiny()
    return tiny_bundle(
        directory,
        schema=found.schema,
        diseases=found.diseases,
        stack=msgspec.to_builtins(found.stack),
        arrays=found.arrays,
    )
