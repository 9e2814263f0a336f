"""Whether the conformal sets keep their promise, and how large they have to be for it."""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.assessment import SEVERITIES
from training.evaluation.measures import Index, mean, rounded
from training.evaluation.predictions import Truth

SIZES = (0, 1, 2, 3, 5, 10, 20)
"""Upper ends of the shown classes of set sizes; beyond the last is the rest."""


def of_rows(in_set: NDArray[np.bool_], truth: Truth, rows: Index) -> dict[str, Any]:
    """Coverage and mean set size of some patients."""
    covered = in_set[rows, truth.disease[rows]]
    return {"coverage": mean(covered), "set_size": mean(in_set[rows].sum(axis=1))}


def figures(in_set: NDArray[np.bool_], promised: float, truth: Truth) -> dict[str, Any]:
    """Coverage and sizes overall, by severity and for dangerous diseases.

    Returns `coverage` beside `promised` with their distance `coverage_gap`, `mean_size`, `median_size`,
    `p90_size`, `empty` (share), `sizes` (count by class of size), `by_severity`, `critical_recall`
    (the true disease is in the set, among patients whose disease is dangerous to miss).
    """
    everyone = np.arange(len(truth))
    covered = in_set[everyone, truth.disease]
    size = in_set.sum(axis=1)
    edges = np.digitize(size, np.array(SIZES), right=True)
    names = ["0", *[_span(low + 1, high) for low, high in pairwise(SIZES)]]
    names.append(f"over {SIZES[-1]}")
    coverage = float(covered.mean())
    dangerous = truth.critical[truth.disease]
    return {
        "promised": promised,
        "coverage": rounded(coverage),
        "coverage_gap": rounded(abs(coverage - promised)),
        "mean_size": mean(size),
        "median_size": rounded(np.median(size)),
        "p90_size": rounded(np.percentile(size, 90)),
        "empty": mean(size == 0),
        "sizes": {name: int((edges == number).sum()) for number, name in enumerate(names)},
        "by_severity": {
            name: {"n": len(rows), **of_rows(in_set, truth, rows)}
            for name, rows in (
                (name, np.flatnonzero(truth.severity == number)) for number, name in enumerate(SEVERITIES)
            )
        },
        "critical_recall": mean(covered[dangerous]),
    }


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"
