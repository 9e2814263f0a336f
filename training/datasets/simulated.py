"""Simulated patients as a dataset, or as a bulk export that a dataset can be built from.

Responsible for nothing but the way from the simulator's arrays to the format of `format`; the patients
come from `training.simulation`.
"""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console
from scipy.sparse import csr_matrix

from models.assessment import SEVERITIES
from models.knowledge.schema import Disease
from training.datasets.export import export_ndjson
from training.datasets.format import COLUMNS, SPLITS, DatasetInfo, split_of
from training.datasets.labels import LabelMap
from training.datasets.progress import bars
from training.datasets.pseudonym import Pseudonyms
from training.datasets.writer import DatasetWriter
from training.ensemble.cohort import Simulator
from training.simulation.bundles import Resource
from training.simulation.population import Patients
from training.simulation.rows import Rows

KEY = b"simulated patients are nobody"
_SEX = np.array(["male", "unknown", "female"])


def write_simulated(
    simulator: Simulator,
    count: int,
    seed: int,
    path: Path,
    *,
    created: datetime,
    console: Console | None = None,
    replace: bool = False,
) -> DatasetInfo:
    """Write `count` simulated patients as a dataset in `path`; the same seed gives the same digest.

    Raises `DatasetExists` when `path` holds something and `replace` is not set.
    """
    pseudonyms = Pseudonyms(KEY)
    with (
        bars(console) as shown,
        DatasetWriter(path, simulator.knowledge, simulator.schema, replace=replace) as writer,
    ):
        bar = shown.start("Simulating", count)
        done = 0
        for patients, recorded in simulator.batches(count, seed):
            names = [pseudonyms.of(f"{seed}/{done + number}") for number in range(len(patients))]
            frame = _frame(simulator.tables.ids, patients, simulator.rows(patients, recorded), names)
            places = np.array([SPLITS.index(split_of(name)) for name in names])
            for number, split in enumerate(SPLITS):
                here = np.flatnonzero(places == number)
                if len(here):
                    writer.add_frame(split, frame[here])
            done += len(patients)
            bar.advance(len(patients))
        return writer.finish("simulated", created, {"count": count, "seed": seed})


def export_simulated(
    simulator: Simulator, labels: LabelMap, count: int, seed: int, folder: Path, *, compress: bool = False
) -> dict[str, int]:
    """Export `count` simulated patients as bulk NDJSON in `folder`; returns the resources by type.

    The patients are those of `write_simulated` with the same count and seed.
    """
    return export_ndjson(_visits(simulator, count, seed), folder, labels=labels, compress=compress)


def _visits(simulator: Simulator, count: int, seed: int) -> Iterator[tuple[Resource, Disease, bool | None]]:
    """Each patient's Bundle, disease and need of immediate attention, batch by batch."""
    diseases = simulator.knowledge.diseases
    start = 0
    for patients, recorded in simulator.batches(count, seed):
        bundles = simulator.writer.bundles(patients, recorded, start)
        for row, bundle in enumerate(bundles):
            yield bundle, diseases[int(patients.disease[row])], bool(patients.immediate[row])
        start += len(patients)


def _frame(ids: tuple[str, ...], patients: Patients, rows: Rows, names: list[str]) -> pl.DataFrame:
    index, value = _lists(rows.features)
    said_index, said_value = _lists(rows.said)
    denied, _ = _lists(rows.denied)
    return pl.DataFrame(
        {
            "patient": names,
            "visit": np.zeros(len(rows), dtype=np.int32),
            "index": index,
            "value": value,
            "said_index": said_index,
            "said_value": said_value,
            "denied": denied,
            "disease": np.array(ids)[patients.disease],
            "severity": np.array(SEVERITIES)[patients.severity],
            "immediate": patients.immediate,
            "setting": np.where(patients.setting == 1, "emergency", "ambulatory"),
            "age_band": rows.band,
            "sex": _SEX[rows.sex + 1],
        },
        schema=COLUMNS,
    )


def _lists(matrix: csr_matrix) -> tuple[list[NDArray[np.int32]], list[NDArray[np.float32]]]:
    """Column numbers and values of every row, rising, without explicit zeros."""
    matrix = matrix.copy()
    matrix.eliminate_zeros()
    matrix.sort_indices()
    ends = matrix.indptr[1:-1]
    return np.split(matrix.indices.astype(np.int32), ends), np.split(matrix.data.astype(np.float32), ends)
