"""The figures on held-out simulated patients: every model's headline, and the ensemble in full.

Patients and truth come from the simulator that the ensemble was trained on, so these figures say how
well it learned the simulator; the reference model (the simulator's own likelihood) stands beside it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.assessment import SEVERITIES
from training.evaluation import conformal
from training.evaluation.groups import compare
from training.evaluation.measures import (
    Index,
    auprc,
    auroc,
    binary,
    bootstrap,
    brier,
    calibration_error,
    curves,
    macro_f1,
    mean,
    reliability,
    rounded,
    share,
)
from training.evaluation.predictions import BANDS, HeldOut, Predictions, Truth

TOPS = (1, 3, 5, 10)
FEWEST = 20
"""Patients in need a group must have to be compared with others; with fewer, chance is most of it."""
_NONE, _MILD = SEVERITIES.index("no-disease"), SEVERITIES.index("mild-disease")
_MILD_ANY = (SEVERITIES.index("mild-discomfort"), _MILD)
_FLOOR = 1e-6
"""Smallest probability in a log loss: one disease called impossible must not decide everything."""


@dataclass(frozen=True)
class Scored:
    """Per patient, what figures are averaged from."""

    model: Predictions
    truth: Truth
    top: NDArray[np.int64]
    confidence: NDArray[np.float64]
    rank: NDArray[np.int64]
    loss: NDArray[np.float64]
    severity_top: NDArray[np.int64]
    severity_confidence: NDArray[np.float64]

    @classmethod
    def of(cls, model: Predictions, truth: Truth) -> "Scored":
        """Score one model; ties rank by column, as a stable sort would."""
        rows = np.arange(len(truth))
        own = model.disease[rows, truth.disease]
        before = np.arange(model.disease.shape[1])[None, :] < truth.disease[:, None]
        ahead = (model.disease > own[:, None]) | ((model.disease == own[:, None]) & before)
        top = model.disease.argmax(axis=1)
        severity = model.severity.argmax(axis=1)
        return cls(
            model,
            truth,
            top,
            model.disease[rows, top].astype(np.float64),
            ahead.sum(axis=1) + 1,
            -np.log(np.maximum(own.astype(np.float64), _FLOOR)),
            severity,
            model.severity[rows, severity].astype(np.float64),
        )


def headline(scored: Scored) -> dict[str, Callable[[Index], float]]:
    """The figures that models are compared by, each as a function of the patients taken."""
    model, truth = scored.model, scored.truth
    right = scored.top == truth.disease
    severity_right = scored.severity_top == truth.severity
    dangerous = truth.critical[truth.disease]
    decided, true = model.severity_decision.astype(np.int64), truth.severity.astype(np.int64)
    called = model.immediate_decision

    def rate(hit: NDArray[np.bool_], among: NDArray[np.bool_]) -> Callable[[Index], float]:
        def figure(rows: Index) -> float:
            kept = among[rows]
            return float(hit[rows][kept].mean()) if kept.any() else math.nan

        return figure

    everyone = np.ones(len(truth), dtype=bool)
    return {
        "disease_macro_f1": lambda rows: macro_f1(truth.disease[rows], scored.top[rows]),
        "severity_macro_f1": lambda rows: macro_f1(true[rows], decided[rows]),
        **{f"top{k}": rate(scored.rank <= k, everyone) for k in TOPS},
        "critical_patient_recall": rate(called, truth.immediate),
        "critical_disease_top5": rate(scored.rank <= 5, dangerous),
        "no_disease_npv": rate(true == _NONE, decided == _NONE),
        "mild_disease_precision": rate(true == _MILD, decided == _MILD),
        "mild_disease_specificity": rate(decided != _MILD, true != _MILD),
        "mild_any_precision": rate(np.isin(true, _MILD_ANY), np.isin(decided, _MILD_ANY)),
        "mild_any_specificity": rate(~np.isin(decided, _MILD_ANY), ~np.isin(true, _MILD_ANY)),
        "immediate_specificity": rate(~called, ~truth.immediate),
        "immediate_auroc": lambda rows: auroc(truth.immediate[rows], model.immediate[rows]),
        "immediate_auprc": lambda rows: auprc(truth.immediate[rows], model.immediate[rows]),
        "immediate_brier": lambda rows: brier(truth.immediate[rows], model.immediate[rows]),
        "immediate_ece": lambda rows: calibration_error(truth.immediate[rows], model.immediate[rows]),
        "disease_top1_ece": lambda rows: calibration_error(right[rows], scored.confidence[rows]),
        "disease_top1_brier": lambda rows: brier(right[rows], scored.confidence[rows]),
        "severity_ece": lambda rows: calibration_error(
            severity_right[rows], scored.severity_confidence[rows]
        ),
        "severity_brier": lambda rows: _severity_brier(model, true, rows),
        "disease_log_loss": lambda rows: float(scored.loss[rows].mean()),
    }


def _severity_brier(model: Predictions, true: NDArray[np.int64], rows: Index) -> float:
    """The multi-class Brier score: squared differences summed over the five classes (0 to 2)."""
    wanted = np.eye(len(SEVERITIES))[true[rows]]
    return float(((model.severity[rows] - wanted) ** 2).sum(axis=1).mean())


def evaluate_internal(heldout: HeldOut, *, times: int = 200, seed: int = 1) -> dict[str, Any]:
    """The internal part of the report.

    Args:
        times: bootstrap samples of the intervals; seed: of their random draws.

    Returns:
        Plain data: `figures` and `intervals` of the ensemble, `severity`, `immediate`, `conformal`,
        `subgroups`, `per_disease`, `models` (the headline of every model) and `ablations`.
    """
    truth = heldout.truth
    everyone = np.arange(len(truth))
    scored = [Scored.of(model, truth) for model in heldout.models()]
    own = scored[0]
    figures = {name: rounded(figure(everyone)) for name, figure in headline(own).items()}
    intervals = {
        name: bootstrap(figure, len(truth), times, seed)
        for name, figure in headline(own).items()
        if not name.endswith("_ece")  # resampling inflates a binned error: its interval misleads
    }
    models = {
        other.model.name: {name: rounded(figure(everyone)) for name, figure in headline(other).items()}
        for other in scored
    }
    found: dict[str, Any] = {
        "about": dict(heldout.about),
        "n": len(truth),
        "diseases": len(truth.diseases),
        "diseases_present": len(np.unique(truth.disease)),
        "figures": figures,
        "intervals": intervals,
        "disease_reliability": _top_reliability(own),
        "severity": _severity(own),
        "immediate": binary(
            truth.immediate, own.model.immediate_decision, own.model.immediate, interval=False
        )
        | {"curves": curves(truth.immediate, own.model.immediate)},
        "no_disease": _no_disease(own),
        "subgroups": _subgroups(own),
        "per_disease": _per_disease(own),
        "models": models,
        "reference": None if heldout.reference is None else heldout.reference.name,
        "ablations": [_ablation(own, other, times, seed) for other in scored[-len(heldout.ablations) :]]
        if heldout.ablations
        else [],
    }
    if own.model.in_set is not None:
        found["conformal"] = conformal.figures(own.model.in_set, own.model.coverage, truth)
    return found


def _top_reliability(scored: Scored) -> list[dict[str, Any]]:
    curve = reliability(scored.top == scored.truth.disease, scored.confidence)
    return [{"n": row["n"], "said": rounded(row["said"]), "seen": rounded(row["seen"])} for row in curve]


def _severity(scored: Scored) -> dict[str, Any]:
    model, true = scored.model, scored.truth.severity
    decided = model.severity_decision
    by_class = {}
    for number, name in enumerate(SEVERITIES):
        row = binary(true == number, decided == number, model.severity[:, number], interval=False)
        by_class[name] = row | {"curves": curves(true == number, model.severity[:, number])}
    areas = [row["auroc"] for row in by_class.values() if row["auroc"] is not None]
    precisions = [row["auprc"] for row in by_class.values() if row["auprc"] is not None]
    confusion = np.zeros((len(SEVERITIES), len(SEVERITIES)), dtype=np.int64)
    np.add.at(confusion, (true, decided), 1)
    return {
        "classes": by_class,
        "accuracy": mean(true == decided),
        "macro_auroc": mean(areas),
        "macro_auprc": mean(precisions),
        "classwise_ece": mean([row["ece"] for row in by_class.values()]),
        "confusion": confusion.tolist(),
    }


def _no_disease(scored: Scored) -> dict[str, Any]:
    """Who is called healthy: how many of them needed immediate attention."""
    called = scored.model.severity_decision == _NONE
    missed = called & scored.truth.immediate
    return {
        "called": int(called.sum()),
        "in_need": int(missed.sum()),
        "in_need_share": share(missed.sum(), called.sum()),
    }


def _subgroups(scored: Scored) -> dict[str, Any]:
    model, truth = scored.model, scored.truth
    found = {}
    for kind, member in truth.groups().items():
        table = compare(truth.immediate, model.immediate_decision, model.immediate, member, FEWEST)
        for name, row in table["groups"].items():
            rows = np.flatnonzero(member == name)
            row.update(
                top1=mean(scored.rank[rows] == 1),
                top5=mean(scored.rank[rows] <= 5),
                disease_macro_f1=rounded(macro_f1(truth.disease[rows], scored.top[rows])),
                severity_macro_f1=rounded(macro_f1(truth.severity[rows], model.severity_decision[rows])),
                immediate_ece=rounded(calibration_error(truth.immediate[rows], model.immediate[rows])),
            )
            if model.in_set is not None:
                row.update(conformal.of_rows(model.in_set, truth, rows))
        order = {name: place for place, name in enumerate(BANDS)}
        by_order = sorted(table["groups"].items(), key=lambda item: order.get(item[0], len(order)))
        found[kind] = table | {"groups": dict(by_order)}
    return found


def _per_disease(scored: Scored) -> dict[str, Any]:
    truth = scored.truth
    found = {}
    for number in np.unique(truth.disease):
        own = truth.disease == number
        hits = int((scored.top[own] == number).sum())
        called = int((scored.top == number).sum())
        taken_for, often = np.unique(scored.top[own & (scored.top != number)], return_counts=True)
        found[truth.diseases[number]] = {
            "n": int(own.sum()),
            "critical": bool(truth.critical[number]),
            "f1": rounded(2 * hits / (int(own.sum()) + called)),
            "top5": mean(scored.rank[own] <= 5),
            "taken_for": truth.diseases[taken_for[often.argmax()]] if len(often) else None,
        }
    return found


def _ablation(own: Scored, other: Scored, times: int, seed: int) -> dict[str, Any]:
    """How the ensemble differs from one ablation, on the same patients (paired intervals)."""
    rows = len(own.truth)

    def apart(mine: NDArray[Any], theirs: NDArray[Any]) -> dict[str, Any]:
        difference = np.asarray(mine, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
        interval = bootstrap(lambda taken: float(difference[taken].mean()), rows, times, seed)
        return {"difference": mean(difference), "ci95": interval}

    truth = own.truth
    loss = apart(own.loss, other.loss)
    called = (own.model.immediate - truth.immediate) ** 2, (other.model.immediate - truth.immediate) ** 2
    return {
        "name": other.model.name,
        "disease_log_loss": loss,
        "top1": apart(own.rank == 1, other.rank == 1),
        "top5": apart(own.rank <= 5, other.rank <= 5),
        "immediate_brier": apart(*called),
        # A proper score decides: the ensemble is better when its loss is lower beyond chance.
        "ensemble_better": loss["ci95"] is not None and loss["ci95"][1] < 0,
    }
