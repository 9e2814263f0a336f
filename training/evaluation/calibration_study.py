"""Temperature, isotonic regression or Venn-Abers: which calibrates the ensemble better?

Measured on held-out patients, one half to fit and the other to judge, for the yes/no question of immediate
attention and for the first disease of the differential; for the diseases also one isotonic regression per
class.  What the bundle uses was chosen before (one temperature); the table shows what that costs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from venn_abers import VennAbers

from training.evaluation.measures import brier, calibration_error
from training.evaluation.predictions import HeldOut

F64 = NDArray[np.float64]
FEW = 20
"""Patients of a class under which a regression of its own would fit noise; they keep their probability."""


@dataclass(frozen=True)
class Row:
    """How a method does on the judging half; `ece` in ten bins, `brier` of the yes/no outcome."""

    question: str
    method: str
    ece: float
    brier: float


def calibration_study(heldout: HeldOut, seed: int = 5) -> list[Row]:
    """Compare the methods on held-out predictions; the same seed gives the same halves."""
    truth, ensemble = heldout.truth, heldout.ensemble
    order = np.random.default_rng(seed).permutation(len(truth.disease))
    fit, judge = order[: len(order) // 2], order[len(order) // 2 :]
    immediate = np.clip(ensemble.immediate.astype(np.float64), 1e-6, 1 - 1e-6)
    rows = _binary("immediate attention", immediate, truth.immediate.astype(np.float64), fit, judge)
    disease = ensemble.disease.astype(np.float64)
    first = disease.argmax(axis=1)
    top = np.clip(disease.max(axis=1), 1e-6, 1 - 1e-6)
    rows += _binary("first disease", top, (first == truth.disease).astype(np.float64), fit, judge)
    classes = _per_class(disease, truth.disease, fit)
    best = classes[judge].argmax(axis=1)
    hit = (best == truth.disease[judge]).astype(np.float64)
    rows.append(_row("first disease", "isotonic per class", classes[judge].max(axis=1), hit))
    return rows


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| question | method | ECE | Brier |", "|---|---|---|---|"]
    lines += [f"| {row.question} | {row.method} | {row.ece:.3f} | {row.brier:.3f} |" for row in rows]
    return "\n".join(lines)


def _row(question: str, method: str, probability: F64, outcome: F64) -> Row:
    return Row(question, method, calibration_error(outcome, probability), brier(outcome, probability))


def _binary(
    question: str, probability: F64, outcome: F64, fit: NDArray[np.int64], judge: NDArray[np.int64]
) -> list[Row]:
    logit = np.log(probability / (1 - probability))[:, None]
    platt = LogisticRegression(C=1e6).fit(logit[fit], outcome[fit])
    isotonic = IsotonicRegression(out_of_bounds="clip").fit(probability[fit], outcome[fit])
    venn = VennAbers()
    both = np.column_stack([1 - probability, probability])
    venn.fit(both[fit], outcome[fit])
    return [
        _row(question, "as shipped (temperature)", probability[judge], outcome[judge]),
        _row(
            question,
            "temperature and shift, fitted again",
            platt.predict_proba(logit[judge])[:, 1],
            outcome[judge],
        ),
        _row(question, "isotonic", isotonic.predict(probability[judge]), outcome[judge]),
        _row(question, "Venn-Abers", venn.predict_proba(both[judge])[0][:, 1], outcome[judge]),
    ]


def _per_class(disease: F64, truth: NDArray[np.int32], fit: NDArray[np.int64]) -> F64:
    """One isotonic regression for each disease, then rows made to sum to 1."""
    found = disease.copy()
    for number in range(disease.shape[1]):
        own = truth[fit] == number
        if own.sum() >= FEW:
            curve = IsotonicRegression(out_of_bounds="clip").fit(disease[fit, number], own)
            found[:, number] = curve.predict(disease[:, number])
    return np.asarray(found / np.maximum(found.sum(axis=1, keepdims=True), 1e-9))
