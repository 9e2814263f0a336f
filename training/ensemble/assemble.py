"""The patients of a run: simulated ones, datasets of real ones, or both, in three parts by patient.

Responsible for bringing both to one shape.  Where a real record does not tell the severity, the usual one
of its disease is taken; where it does not tell whether attention was needed within minutes, that is drawn
by the knowledge's chance of it, so that probabilities stay what the knowledge holds them to be.  Such
patients never count in a figure about immediate attention.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.datasets.load import Dataset, load_dataset
from training.datasets.progress import Bars
from training.ensemble.cohort import Cohort, Labels, Simulator, labels_of, split
from training.ensemble.config import EnsembleConfig
from training.ensemble.rules import RulesReader
from training.ensemble.train import Data, severity_mix
from training.simulation.rows import Rows, stack_rows
from training.simulation.tables import F64, Tables

EMERGENCY = ("emergency", "inpatient")
_DRAW = 7
"""Added to the seed where labels are drawn, so that no other draw is repeated."""


class TrainingDataInvalid(ValueError):
    """There is nothing to train, calibrate or test on; the message says what to change."""


@dataclass(frozen=True)
class Assembled:
    """`data` of the run; of its test part the first `simulated_test` patients are simulated.

    `known` says of each test patient whether immediate attention is recorded [N]; `sources` describes
    every source (name, patients, digest), `digest` is the SHA-256 over all rows and labels.
    """

    data: Data
    simulated_test: int
    known: NDArray[np.bool_]
    sources: tuple[dict[str, str | int], ...]
    digest: str

    @property
    def need_is_known(self) -> bool:
        """Whether immediate attention is recorded for any real test patient."""
        return bool(self.known[self.simulated_test :].any())


@dataclass(frozen=True)
class _Part:
    cohort: Cohort
    rules: F64
    known: NDArray[np.bool_]


def assemble(
    simulator: Simulator, config: EnsembleConfig, datasets: Sequence[Path], shown: Bars
) -> Assembled:
    """Simulate `config.patients` and read the datasets.

    Raises `TrainingDataInvalid` when a part is left empty, and what `load_dataset` raises.
    """
    sources: list[dict[str, str | int]] = []
    parts: tuple[list[_Part], list[_Part], list[_Part]] = ([], [], [])
    simulated = 0
    if config.patients:
        found = _simulate(simulator, config, shown)
        simulated = len(found[2].cohort)
        for held, part in zip(parts, found, strict=True):
            held.append(part)
        sources.append({"source": "simulated", "patients": config.patients, "seed": config.seed})
    for number, path in enumerate(datasets):
        dataset = load_dataset(path, schema=simulator.schema, diseases=simulator.tables.ids)
        for held, part in zip(parts, _of_dataset(dataset, simulator.tables, config, number), strict=True):
            held.append(part)
        info = dataset.info
        sources.append(
            {"source": info.source, "patients": sum(info.patients.values()), "digest": info.digest}
        )
    joined = []
    for name, held in zip(("training", "calibration", "test"), parts, strict=True):
        if not sum(len(part.cohort) for part in held):
            raise TrainingDataInvalid(
                f"the {name} part has no patients: raise --patients, or give a larger dataset"
            )
        joined.append(_join(held))
    train, calibrate, test = joined
    data = Data(train.cohort, calibrate.cohort, test.cohort, calibrate.rules, test.rules)
    return Assembled(data, simulated, test.known, tuple(sources), digest_of(data))


def _simulate(simulator: Simulator, config: EnsembleConfig, shown: Bars) -> tuple[_Part, _Part, _Part]:
    count = config.patients
    numbers = split(count)
    asked = np.zeros(count, dtype=bool)
    reads = min(config.reads, len(numbers[1]))
    # Evenly spaced: some of every world.
    asked[numbers[1][np.linspace(0, len(numbers[1]) - 1, reads).astype(np.int64)]] = True
    asked[numbers[2]] = True
    rules = np.full(count, np.nan)
    reader = RulesReader(simulator.builder)
    bar = shown.start("Simulating", count)
    rows: list[Rows] = []
    labels: list[Labels] = []
    done = 0
    for patients, recorded in simulator.batches(count, config.seed):
        rows.append(simulator.rows(patients, recorded))
        labels.append(labels_of(patients))
        wanted = np.flatnonzero(asked[done : done + len(patients)])
        rules[done + wanted] = reader.logits(simulator.writer, patients, recorded, wanted.tolist())
        done += len(patients)
        bar.advance(len(patients))
    cohort = Cohort(stack_rows(rows), _stack_labels(labels), simulated=True)
    found = [_Part(cohort.take(part), rules[part], np.ones(len(part), dtype=bool)) for part in numbers]
    return found[0], found[1], found[2]


def _of_dataset(dataset: Dataset, tables: Tables, config: EnsembleConfig, number: int) -> list[_Part]:
    """The three parts of a dataset; the rules have read none of them."""
    usual = severity_mix(tables).argmax(axis=1)
    chance = (tables.weight.mean(axis=0) * tables.immediate).sum(axis=1)
    rng = np.random.default_rng((config.seed, _DRAW, number))
    drawn = rng.random(len(dataset)) < chance[dataset.disease]
    known = dataset.immediate >= 0
    labels = Labels(
        dataset.disease,
        np.where(dataset.severity >= 0, dataset.severity, usual[dataset.disease]).astype(np.int8),
        np.where(known, dataset.immediate == 1, drawn),
        np.isin(dataset.setting, EMERGENCY).astype(np.int8),
        dataset.age,
        dataset.rows.sex == 1,
    )
    cohort = Cohort(dataset.rows, labels)
    return [
        _Part(cohort.take(rows), np.full(len(rows), np.nan), known[rows])
        for rows in (dataset.numbers(name) for name in ("train", "valid", "test"))
    ]


def _join(parts: list[_Part]) -> _Part:
    if len(parts) == 1:
        return parts[0]  # the cohort still knows that its patients stand by worlds
    return _Part(
        Cohort(
            stack_rows([part.cohort.rows for part in parts]),
            _stack_labels([part.cohort.labels for part in parts]),
            simulated=len(parts) == 1 and parts[0].cohort.simulated,
        ),
        np.concatenate([part.rules for part in parts]),
        np.concatenate([part.known for part in parts]),
    )


def _stack_labels(parts: list[Labels]) -> Labels:
    names = Labels.__dataclass_fields__
    return Labels(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def digest_of(data: Data) -> str:
    """SHA-256 over the rows and labels of all three parts, in order."""
    total = hashlib.sha256()
    for cohort in (data.train, data.calibrate, data.test):
        rows, labels = cohort.rows, cohort.labels
        for matrix in (rows.features, rows.said, rows.denied):
            for array in (matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), matrix.data):
                total.update(np.ascontiguousarray(array).tobytes())
        for array in (labels.disease, labels.severity, labels.immediate):
            total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
