"""The likelihood member: log likelihood ratios of every statement against the average visitor.

Responsible for the arrays that `models.common.members.Likelihood` adds up at serving, and for the same
sum over thousands of rows.  Nothing is fitted here; the stack learns how much to trust it.
"""

import numpy as np
from scipy.sparse import csr_matrix

from fhir_adapters.features import FeatureReader
from models.common.members import COMPLAINT_PLACE, TEXTBOOK_LIMIT, against_average
from training.simulation.population import CASE_MIX, OTHER_REASON, OTHER_SPREAD, case_weights
from training.simulation.recording import VISITOR_COMPLAINT
from training.simulation.rows import Rows
from training.simulation.tables import F32, F64, VISITORS, Tables

FLOOR = 0.002
"""A finding that a disease file leaves out is not impossible: no likelihood ratio goes below this over the
average.  Grade C: set by this project."""
SILENT_LIMIT = 1.0
"""How little a laboratory value speaks against a disease whose file does not speak of it: patients have other
reasons for one.  Grade C: set by this project."""
MISTAKEN = 0.04
"""Share of denials that are wrong (the question was not understood, or not asked)."""


def likelihood_arrays(tables: Tables, case_mix: tuple[float, float] = CASE_MIX) -> dict[str, F32]:
    """The arrays of the member, under ``likelihood.*``; `tempering` is for the stack to set."""
    weight = tables.weight.mean(axis=0)  # [D, G]
    share = (case_weights(tables, 0, case_mix) + case_weights(tables, 1, case_mix)) / 2
    chance = tables.mean_chance()
    usual = chance @ share
    present = np.log(np.maximum(chance, FLOOR) / np.maximum(usual, FLOOR)[:, None])
    missed = MISTAKEN * chance
    absent = np.log((1 - chance + missed) / (1 - usual + MISTAKEN * usual)[:, None])
    result = np.einsum("dg,dgk->kd", weight, np.nan_to_num(tables.result, nan=0.01))
    usual_result = result @ share
    risk = _risk_chance(tables)
    usual_risk = risk @ share
    mean, precision, offset = _distances(tables, weight)
    arrays = {
        "present": present,
        "absent": absent,
        "risk": np.log(np.maximum(risk, 1e-4) / np.maximum(usual_risk, 1e-4)[:, None]),
        "no_risk": np.log((1 - risk + 0.02) / (1 - usual_risk + 0.02)[:, None]),
        "positive": np.log(np.maximum(result, 0.01) / np.maximum(usual_result, 0.01)[:, None]),
        "negative": np.log((1 - result + 0.03) / (1 - usual_result + 0.03)[:, None]),
        "mean": mean,
        "precision": precision,
        "offset": offset,
        "least": _least(tables),
        "usual": share,
        "attention": (weight * tables.immediate).sum(axis=1),
        "tempering": np.array(1.0),
        "prior": _prior(tables, case_mix),
        "sex": _sex(tables, share),
        "pregnant": _pregnant(tables, share),
        "complaint": _complaint(tables, share),
    }
    return {f"likelihood.{name}": array.astype(np.float32) for name, array in arrays.items()}


def _risk_chance(tables: Tables) -> F64:
    """P(risk | disease) over the ages of its patients [R, D]."""
    ages = tables.age * VISITORS
    ages = ages / ages.sum(axis=1, keepdims=True)
    group = np.array([0, 0, 0, 0, 0, 0, 1, 2, 3, 3])
    base = np.clip(tables.prevalence[:, group], 1e-5, 0.95)  # [R, 10]
    odds = (base / (1 - base))[:, None, :] * tables.odds.T[:, :, None]  # [R, D, 10]
    return np.asarray((odds / (1 + odds) * ages).sum(axis=2))


def _distances(tables: Tables, weight: F64) -> tuple[F64, F64, F64]:
    """Mean, precision and log normaliser of each analyte's distance from normal [A, D]."""
    spread = np.array([np.log(a.spread) if a.log else a.spread for a in tables.schema.analytes])
    mean_grade = tables.shift / spread  # [D, G, A]
    spread_grade = tables.spread / spread
    # What a file does not speak of is off for another reason in some of its patients.
    silent = tables.laboratory & ~tables.listed
    wider = np.sqrt(1 - OTHER_REASON + OTHER_REASON * OTHER_SPREAD**2)
    spread_grade = np.where(silent[:, None, :], wider * spread_grade, spread_grade)
    mean = np.einsum("dg,dga->ad", weight, mean_grade)
    square = np.einsum("dg,dga->ad", weight, spread_grade**2 + mean_grade**2)
    variance = np.maximum(square - mean**2, 0.8)
    return mean, 1 / variance, -0.5 * np.log(variance)


def _least(tables: Tables) -> F64:
    """The lowest log likelihood ratio of each measurement [A, D]."""
    silent = tables.laboratory[:, None] & ~tables.listed.T
    return np.where(silent, -SILENT_LIMIT, -TEXTBOOK_LIMIT)


def _prior(tables: Tables, case_mix: tuple[float, float]) -> F64:
    """Log share of each disease by setting and age band; last row: age unknown [2, 11, D]."""
    found = []
    for setting in (0, 1):
        weight = case_weights(tables, setting, case_mix)
        ages = tables.age * VISITORS
        ages = ages / ages.sum(axis=1, keepdims=True)
        joint = weight[:, None] * ages
        given = joint / joint.sum(axis=0)
        found.append(np.log(np.maximum(np.vstack([given.T, weight]), 1e-6)))
    return np.array(found)


def _sex(tables: Tables, share: F64) -> F64:
    female = np.clip(tables.female, 0.004, 0.996)
    usual = female @ share
    return np.array([np.log((1 - female) / (1 - usual)), np.zeros(len(female)), np.log(female / usual)])


def _pregnant(tables: Tables, share: F64) -> F64:
    names = [name for name, _ in tables.schema.risks]
    base = 0.05
    odds = base / (1 - base) * tables.pregnancy * tables.odds[:, names.index("pregnancy")]
    chance = np.clip(np.where(tables.pregnancy >= 20, 0.97, odds / (1 + odds)), 0.002, 0.97)
    usual = chance @ share
    return np.array([np.log((1 - chance) / (1 - usual)), np.zeros(len(chance)), np.log(chance / usual)])


def _complaint(tables: Tables, share: F64) -> F64:
    """Log ratio of naming a complaint at all [1, D]."""
    chance = np.where(tables.visitor, VISITOR_COMPLAINT, 0.97)
    return np.asarray(np.log(chance / (chance @ share))[None, :])


def likelihood_margins(arrays: dict[str, F32], rows: Rows, reader: FeatureReader) -> F32:
    """The margins [N, D] of rows: the sum that serving makes of its parts."""
    said = rows.said.copy()
    said.data = np.where(said.data >= 1, 1.0, 0.5).astype(np.float32)
    features = rows.features
    risks = features[:, reader.at_risks : reader.at_values]
    results = features[:, reader.at_results : reader.at_person]
    pregnant = features[:, reader.at_person + 2].toarray().ravel().astype(int)

    def table(name: str) -> F32:
        return arrays[f"likelihood.{name}"]

    margins = said @ table("present") + rows.denied @ table("absent")
    margins += _sign(risks, 1) @ table("risk") + _sign(risks, -1) @ table("no_risk")
    margins += _sign(results, 1) @ table("positive") + _sign(results, -1) @ table("negative")
    margins += prior_margins(arrays, rows) + table("sex")[rows.sex + 1]
    margins += table("pregnant")[pregnant + 1]
    margins += features[:, [reader.at_person + COMPLAINT_PLACE]] @ table("complaint")
    _add_distances(margins, features[:, reader.at_values : reader.at_measured].tocoo(), arrays)
    return np.asarray(margins, dtype=np.float32)


def rate_margins(arrays: dict[str, F32], rows: Rows) -> F32:
    """The part of `prior_margins` that is of how frequent each disease is, whatever the age [N, D]."""
    return np.asarray(arrays["likelihood.prior"][rows.emergency.astype(int), -1])


def prior_margins(arrays: dict[str, F32], rows: Rows) -> F32:
    """The part of `likelihood_margins` that is of age and setting alone [N, D]."""
    return np.asarray(arrays["likelihood.prior"][rows.emergency.astype(int), rows.band])


def _sign(block: csr_matrix, sign: int) -> csr_matrix:
    found = block.copy()
    found.data = (np.sign(block.data) == sign).astype(np.float32)
    return found


def _add_distances(margins: F32, values: csr_matrix, arrays: dict[str, F32]) -> None:
    names = ("mean", "precision", "offset", "least")
    usual = arrays["likelihood.usual"]
    for start in range(0, len(values.data), 20000):
        part = slice(start, start + 20000)
        index, distance = values.col[part], values.data[part][:, None]
        mean, precision, offset, least = (arrays[f"likelihood.{name}"][index] for name in names)
        np.add.at(
            margins,
            values.row[part],
            against_average(distance, mean, precision, offset, least, usual),
        )
