"""The statistics that every part of the report shares: discrimination, calibration, intervals, rounding.

Pure functions over arrays; figures come rounded to four decimals, and `None` stands for what cannot be
computed (an area without cases), never 0.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_curve,
)

BINS = 10
CURVE_POINTS = 51
Index = NDArray[np.int64]


def rounded(value: Any) -> float | None:
    """Four decimals; `None` for what is not a number."""
    if value is None or math.isnan(float(value)):
        return None
    return round(float(value), 4)


def share(part: Any, whole: Any) -> float | None:
    """`part / whole`, or `None` of nothing."""
    return rounded(part / whole) if whole else None


def mean(values: ArrayLike) -> float | None:
    """The mean, or `None` of nothing."""
    held = np.asarray(values, dtype=np.float64)
    return rounded(held.mean()) if held.size else None


def mean_ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Ranks from 1, ties sharing their mean."""
    held = np.asarray(values, dtype=np.float64)
    order = np.sort(held)
    return (np.searchsorted(order, held) + np.searchsorted(order, held, side="right") + 1) / 2


def auroc(truth: ArrayLike, score: ArrayLike) -> float:
    """Area under the ROC curve, ties counted half; nan when one class is empty."""
    held = np.asarray(truth, dtype=bool)
    positives = int(held.sum())
    if not 0 < positives < len(held):
        return math.nan
    # The Mann-Whitney statistic: the area by trapezia, and fast enough for hundreds of bootstrap samples.
    above = float(mean_ranks(score)[held].sum()) - positives * (positives + 1) / 2
    return above / (positives * (len(held) - positives))


def auprc(truth: ArrayLike, score: ArrayLike) -> float:
    """Average precision; nan without positive cases."""
    held = np.asarray(truth, dtype=bool)
    if not held.any():
        return math.nan
    return float(average_precision_score(held, np.asarray(score, dtype=np.float64)))


def reliability(truth: ArrayLike, probability: ArrayLike) -> list[dict[str, float | int]]:
    """The reliability curve: per bin of equal width its count, mean probability and observed rate."""
    held = np.asarray(truth, dtype=np.float64)
    said = np.asarray(probability, dtype=np.float64)
    bins = np.minimum((said * BINS).astype(np.int64), BINS - 1)
    return [
        {
            "n": int((bins == number).sum()),
            "said": float(said[bins == number].mean()),
            "seen": float(held[bins == number].mean()),
        }
        for number in range(BINS)
        if (bins == number).any()
    ]


def calibration_error(truth: ArrayLike, probability: ArrayLike) -> float:
    """Expected calibration error over ten bins of equal width, weighted by their counts."""
    curve = reliability(truth, probability)
    total = sum(row["n"] for row in curve)
    return sum(row["n"] * abs(row["seen"] - row["said"]) for row in curve) / total if total else math.nan


def brier(truth: ArrayLike, probability: ArrayLike) -> float:
    """Mean squared difference of probability and outcome."""
    difference = np.asarray(probability, dtype=np.float64) - np.asarray(truth, dtype=np.float64)
    return float(np.mean(difference**2)) if difference.size else math.nan


def macro_f1(truth: NDArray[Any], decision: NDArray[Any]) -> float:
    """F1 averaged over the classes present in `truth`; classes are numbers from 0."""
    if not len(truth):
        return math.nan
    width = int(max(truth.max(), decision.max())) + 1
    true, called = np.bincount(truth, minlength=width), np.bincount(decision, minlength=width)
    hits = np.bincount(truth[truth == decision], minlength=width)
    present = true > 0
    return float((2 * hits[present] / (true + called)[present]).mean())


def bootstrap(
    figure: Callable[[Index], float], count: int, times: int = 400, seed: int = 1
) -> list[float | None] | None:
    """95 % percentile interval of `figure(rows)` over patients drawn with replacement; seeded."""
    rng = np.random.default_rng(seed)
    found = [figure(rng.integers(0, count, count)) for _ in range(times)] if count else []
    kept = [value for value in found if not math.isnan(value)]
    if not kept:
        return None
    return [rounded(np.percentile(kept, 2.5)), rounded(np.percentile(kept, 97.5))]


def binary(
    truth: ArrayLike, decision: ArrayLike, probability: ArrayLike, *, interval: bool = True
) -> dict[str, Any]:
    """Everything about one yes-or-no question: the decision's rates and the probability's quality."""
    held, said = np.asarray(truth, dtype=bool), np.asarray(decision, dtype=bool)
    chance = np.clip(np.asarray(probability, dtype=np.float64), 0.0, 1.0)
    hit, false = int((held & said).sum()), int((~held & said).sum())
    missed, right = int((held & ~said).sum()), int((~held & ~said).sum())
    found: dict[str, Any] = {
        "n": len(held),
        "positives": hit + missed,
        "alert_rate": share(hit + false, len(held)),
        "sensitivity": share(hit, hit + missed),
        "specificity": share(right, right + false),
        "ppv": share(hit, hit + false),
        "npv": share(right, right + missed),
        "auroc": rounded(auroc(held, chance)),
        "auprc": rounded(auprc(held, chance)),
        "brier": rounded(brier(held, chance)),
        "ece": rounded(calibration_error(held, chance)),
    }
    if interval:
        found["auroc_ci95"] = bootstrap(lambda rows: auroc(held[rows], chance[rows]), len(held))
    return found


def curves(truth: ArrayLike, probability: ArrayLike) -> dict[str, Any]:
    """ROC and precision-recall curves at evenly spaced points, and the reliability curve, for plotting."""
    held = np.asarray(truth, dtype=bool)
    chance = np.asarray(probability, dtype=np.float64)
    found: dict[str, Any] = {"reliability": _shown(reliability(held, chance))}
    if not 0 < held.sum() < len(held):
        return found
    grid = np.linspace(0.0, 1.0, CURVE_POINTS)
    false, true, _ = roc_curve(held, chance)
    precision, recall, _ = precision_recall_curve(held, chance)
    found["roc"] = [rounded(value) for value in np.interp(grid, false, true)]
    found["pr"] = [rounded(value) for value in np.interp(grid, recall[::-1], precision[::-1])]
    return found


def _shown(curve: list[dict[str, float | int]]) -> list[dict[str, Any]]:
    return [{"n": row["n"], "said": rounded(row["said"]), "seen": rounded(row["seen"])} for row in curve]
