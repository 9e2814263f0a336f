"""What a finished run says of its test patients, in the form that `training.evaluation` judges.

Responsible for predictions of the ensemble, of the ensemble without each member (pool fitted again on the
calibration part) and of the likelihood alone.  Decisions here are those of the learned engine: red flags
and scores, which can only escalate, are measured with the whole product by `cds-server evaluate`.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fhir_adapters.features import FeatureReader
from models.common.disease import DiseaseInfo
from models.policy import PolicySettings
from training.ensemble.assemble import Assembled
from training.ensemble.cohort import Cohort, Labels
from training.ensemble.members import Margins, weights_of
from training.ensemble.stacking import Pool, doubted, fit_logistic, fit_pool, fit_temperature, softmax
from training.ensemble.train import MEMBERS, Data, Trained, member_margins
from training.evaluation.predictions import HeldOut, Predictions, Truth, truth_of
from training.simulation.rows import Rows
from training.simulation.tables import F64

ENSEMBLE = "ensemble, before the escalation policy"
Everyone = dict[str, Margins]


def held_out(
    trained: Trained,
    assembled: Assembled,
    reader: FeatureReader,
    diseases: Sequence[DiseaseInfo],
    coverage: float,
    critical_weight: float,
) -> tuple[HeldOut | None, HeldOut | None]:
    """The test part's simulated and real patients, each `None` when there are none.

    Args:
        reader: the `FeatureReader` of the rows.
        coverage: what the conformal sets promise.
        critical_weight: of the run, for the pools of the ablations.
    """
    data = assembled.data

    def margins(cohort: Cohort) -> Everyone:
        return member_margins(
            trained.likelihood,
            trained.boosted,
            trained.network,
            trained.forest,
            cohort,
            reader,
        )

    test = margins(data.test)
    rules = without_gaps(data.rules_test, data.rules_calibrate)
    ensemble = _predictions(ENSEMBLE, trained, test, rules, coverage)
    others = _ablations(trained, margins(data.calibrate), test, data, rules, critical_weight)
    truth = _truth(diseases, data.test.labels, data.test.rows)
    everyone = HeldOut(truth, ensemble, None, others)
    simulated = np.arange(assembled.simulated_test)
    real = np.arange(assembled.simulated_test, len(truth))
    known = real[assembled.known[real]]
    about_real = "visits of the datasets' test part"
    if len(known):
        real = known
        about_real += " in which a triage level or the like tells whether attention was needed at once"
    return (
        _some(everyone, simulated, "simulated patients, from the same simulator as the training part"),
        _some(everyone, real, about_real),
    )


def without_gaps(rules: F64, calibration: F64) -> F64:
    """The rules' logits with the calibration patients' mean where the rules were not asked (0 if never)."""
    asked = calibration[~np.isnan(calibration)]
    return np.asarray(np.where(np.isnan(rules), asked.mean() if len(asked) else 0.0, rules))


def _some(heldout: HeldOut, rows: NDArray[np.int64], about: str) -> HeldOut | None:
    if not len(rows):
        return None
    truth = heldout.truth
    taken = replace(
        truth,
        **{
            name: getattr(truth, name)[rows]
            for name in ("disease", "severity", "immediate", "setting", "age_band", "sex")
        },
    )

    def take(model: Predictions) -> Predictions:
        names = ("disease", "severity", "severity_decision", "immediate", "immediate_decision")
        held = None if model.in_set is None else model.in_set[rows]
        return replace(model, in_set=held, **{name: getattr(model, name)[rows] for name in names})

    return HeldOut(
        taken,
        take(heldout.ensemble),
        None,
        tuple(take(model) for model in heldout.ablations),
        (("patients", f"{len(rows)} {about}"), ("decisions", "of the ensemble before the escalation policy")),
    )


def _truth(diseases: Sequence[DiseaseInfo], labels: Labels, rows: Rows) -> Truth:
    truth = truth_of(diseases, **{name: getattr(labels, name) for name in Labels.__dataclass_fields__})
    band = np.where(np.isnan(labels.age), -1, truth.age_band).astype(np.int8)
    return replace(truth, age_band=band, sex=rows.sex.astype(np.int8))


def _predictions(name: str, trained: Trained, members: Everyone, rules: F64, coverage: float) -> Predictions:
    _, disease, severity, immediate = trained.pooled(members, rules)
    in_set = disease >= trained.set_threshold
    return _as_predictions(name, disease, severity, immediate, in_set, coverage)


def _as_predictions(
    name: str,
    disease: F64,
    severity: F64,
    immediate: F64,
    in_set: NDArray[np.bool_] | None = None,
    coverage: float = 0.9,
) -> Predictions:
    return Predictions(
        name,
        disease.astype(np.float32),
        severity.astype(np.float32),
        severity.argmax(axis=1).astype(np.int8),
        immediate.astype(np.float32),
        immediate > PolicySettings().immediate_threshold,
        in_set,
        coverage,
    )


def _ablations(
    trained: Trained, fitting: Everyone, test: Everyone, data: Data, rules: F64, critical_weight: float
) -> tuple[Predictions, ...]:
    """Pools of fewer members, fitted on the calibration part (which favours them a little)."""
    labels = data.calibrate.labels
    weight = weights_of(labels, critical_weight)
    fitted_rules = without_gaps(data.rules_calibrate, data.rules_calibrate)
    found = []
    kept_sets = [tuple(name for name in MEMBERS if name != left_out) for left_out in MEMBERS]
    for kept in (*kept_sets, (MEMBERS[0],)):
        left = [name for name in MEMBERS if name not in kept]
        name = f"without the {left[0]}" if len(left) == 1 else f"the {kept[0]} alone"
        pool = fit_pool([fitting[m].disease for m in kept], labels.disease.astype(np.int64), weight)
        if kept[0] == MEMBERS[0]:
            pool = doubted(pool)
        margins = pool.margins([fitting[m].disease for m in kept])
        temperature = fit_temperature(margins, labels.disease.astype(np.int64))
        disease = softmax(pool.margins([test[m].disease for m in kept]) / temperature)
        learned = [member for member in kept if member != MEMBERS[0]]
        severity = _severity(
            trained, softmax(margins / temperature), disease, learned, fitting, test, labels, weight
        )
        urgent = fit_logistic(
            [fitted_rules.astype(np.float32), *[fitting[m].immediate for m in kept]], labels.immediate
        )
        logit = urgent.margins([rules.astype(np.float32), *[test[m].immediate for m in kept]])
        found.append(_as_predictions(name, disease, severity, 1 / (1 + np.exp(-logit))))
    return tuple(found)


def _severity(
    trained: Trained,
    fitting_disease: F64,
    disease: F64,
    learned: Sequence[str],
    fitting: Everyone,
    test: Everyone,
    labels: Labels,
    weight: NDArray[np.float32],
) -> F64:
    def inputs(probability: F64, members: Everyone) -> list[NDArray[np.float32]]:
        implied = np.log(probability @ trained.mix + 1e-4).astype(np.float32)
        return [implied, *[members[name].severity for name in learned]]

    target = labels.severity.astype(np.int64)
    pool: Pool = fit_pool(inputs(fitting_disease, fitting), target, weight)
    temperature = fit_temperature(pool.margins(inputs(fitting_disease, fitting)), target)
    return softmax(pool.margins(inputs(disease, test)) / temperature)
