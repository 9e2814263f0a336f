"""The cohort of a run: feature rows with their labels, from simulation or from a dataset on disk.

Responsible for labels, weights and the split by patient (80 % training, 10 % calibration, 10 % test).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fhir_adapters.chart_builder import ChartBuilder
from fhir_adapters.features import FeatureReader, FeatureSchema
from models.knowledge.loader import load_knowledge
from models.knowledge.schema import Knowledge
from training.feature_schema import build_schema
from training.simulation.bundles import Writer
from training.simulation.effects import learn_effects
from training.simulation.population import Patients, case_weights, sample
from training.simulation.recording import Recorded, askness, record
from training.simulation.rows import RowMaker, Rows, stack_rows
from training.simulation.tables import Tables, build_tables
from training.simulation.worlds import another_world

BATCH = 1_000
"""Patients of one world (`training.simulation.worlds`)."""


@dataclass(frozen=True)
class Labels:
    """What is true of N patients: disease and severity numbers, and who needs attention within minutes."""

    disease: NDArray[np.int32]
    severity: NDArray[np.int8]
    immediate: NDArray[np.bool_]
    setting: NDArray[np.int8]
    age: NDArray[np.float64]
    female: NDArray[np.bool_]

    def take(self, rows: NDArray[np.int64]) -> "Labels":
        """Some of the patients."""
        return Labels(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Cohort:
    """Rows with labels; `simulated` when they stand in the order of their worlds (`world_of`)."""

    rows: Rows
    labels: Labels
    simulated: bool = False

    def __len__(self) -> int:
        return len(self.labels.disease)

    def take(self, rows: NDArray[np.int64]) -> "Cohort":
        """Some of the patients."""
        whole = len(rows) > 0 and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows)))
        in_order = self.simulated and whole and rows[0] % BATCH == 0
        return Cohort(self.rows.take(rows), self.labels.take(rows), bool(in_order))


class Simulator:
    """Simulates patients of the packaged knowledge, reproducibly."""

    def __init__(self, builder: ChartBuilder, knowledge: Knowledge) -> None:
        self.builder = builder
        self.knowledge = knowledge
        self.schema: FeatureSchema = build_schema(knowledge, builder.tables.ontology)
        self.tables: Tables = build_tables(knowledge, self.schema)
        self.reader = FeatureReader(self.schema, builder.tables.ontology)
        labels = {row.key: row.label for row in knowledge.findings}
        self._maker = RowMaker(self.tables, learn_effects(self.tables, builder, labels), self.reader)
        self._asked = askness(self.tables, (case_weights(self.tables, 0) + case_weights(self.tables, 1)) / 2)
        self.writer = Writer(self.tables, labels, {row.key: row.unit for row in knowledge.analytes})

    @classmethod
    def load(cls) -> "Simulator":
        """With the packaged terminology and knowledge; raises what their loaders raise."""
        builder = ChartBuilder.load()
        return cls(builder, load_knowledge(builder.tables.ontology))

    def batches(self, count: int, seed: int) -> Iterator[tuple[Patients, Recorded]]:
        """Patients and their charts, `BATCH` of each world; the same seed gives the same."""
        seeds = np.random.SeedSequence(seed).spawn((count + BATCH - 1) // BATCH)
        for number, child in enumerate(seeds):
            rng = np.random.default_rng(child)
            world = another_world(self.tables, rng)
            patients = sample(world, min(BATCH, count - number * BATCH), rng)
            yield patients, record(world, patients, self._asked, rng)

    def rows(self, patients: Patients, recorded: Recorded) -> Rows:
        """The feature rows of recorded patients."""
        return self._maker.rows(patients, recorded)

    def cohort(self, count: int, seed: int) -> Cohort:
        """A cohort of `count` patients."""
        rows: list[Rows] = []
        labels: list[Labels] = []
        for patients, recorded in self.batches(count, seed):
            rows.append(self.rows(patients, recorded))
            labels.append(labels_of(patients))
        names = Labels.__dataclass_fields__
        return Cohort(
            stack_rows(rows),
            Labels(*(np.concatenate([getattr(part, name) for part in labels]) for name in names)),
            simulated=True,
        )


def labels_of(patients: Patients) -> Labels:
    """The labels of simulated patients."""
    return Labels(
        patients.disease,
        patients.severity,
        patients.immediate,
        patients.setting,
        patients.age,
        patients.female,
    )


def split(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Training, calibration and test numbers (80/10/10), by worlds: no world is in two parts.

    With fewer patients than ten worlds hold, the parts are cut where they fall.
    """
    first, second = int(count * 0.8), int(count * 0.9)
    if count >= 10 * BATCH:
        first, second = first // BATCH * BATCH, second // BATCH * BATCH
    order = np.arange(count)
    return order[:first], order[first:second], order[second:]


def world_of(count: int) -> NDArray[np.int64]:
    """The number of the world of each patient of a cohort, by which folds are cut."""
    return np.arange(count) // BATCH
