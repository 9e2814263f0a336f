"""What a chart tells of a patient: what is asked, measured and written down, and how imprecisely.

What is asked depends on the complaint, what is measured on the setting and the suspicion, and how much
of it is written on who writes: some visits are a complaint and vital signs, some a full history.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.simulation.population import Patients, normals, rounded
from training.simulation.tables import F32, F64, Tables

STYLE_SHARE = np.array([[0.20, 0.45, 0.35], [0.40, 0.35, 0.25]])
"""Share of the styles (triage note, ordinary, thorough) in primary care and emergency.  All shares of this
module are grade C."""
WRITTEN = {"symptom": (0.06, 0.5, 0.88), "sign": (0.04, 0.35, 0.6), "test": (0.01, 0.12, 0.3)}
"""Chance that something present is written down, by kind and style."""
DENIED = (0.04, 0.18, 0.45)
"""Chance that something absent that the complaint asks for is written down as denied, by style."""
COMPLETENESS = 0.7
"""Standard deviation, in logits, of how much of what is present one visit writes down, around its style."""
MORE_COMPLAINTS = (0.3, 0.35)
"""Chance of a second reason for the visit, and of a third given a second."""
ALL_REASONS = 0.1
"""Share of visits whose every symptom is written as a reason for coming (one field for all of it)."""
NAMED_FIRST = 2.0
"""Exponent on P(finding | disease, grade) in what is named as the reason: the leading symptom comes first."""
FORM = (0.05, 0.45)
"""Share of visits with a triage form that asks everybody for injury and pain, by setting."""
FORM_ASKS = ("ICD:T14.90", "HP:0012531")
RISK_WRITTEN = (0.25, 0.7, 0.9)
VISITOR_COMPLAINT = 0.1
VAGUE = 0.07
WRONG = 0.01
UNSURE = 0.03
COMPLAINT, PRESENT, UNSURE_CODE, DENIED_CODE = 2, 1, 3, -1
CONSCIOUSNESS = ("alert", "confusion", "voice", "pain", "unresponsive")


@dataclass(frozen=True)
class Recorded:
    """N charts.  `stated` is 2 complaint, 1 present, 3 uncertain, -1 denied, 0 not mentioned."""

    stated: NDArray[np.int8]  # [N, V]
    measured: NDArray[np.bool_]  # [N, A]
    day_old: F64  # [N, T] an earlier value of the last 24 h, nan where there is none
    week_old: F64  # [N, T] one of the week before
    risks: NDArray[np.int8]  # [N, R] 1 said, -1 denied, 0 not mentioned
    drugs: NDArray[np.bool_]  # [N, M] by `drug_list`
    results: NDArray[np.int8]  # [N, K] 1, -1, 0 not done
    consciousness: NDArray[np.int8]  # index into CONSCIOUSNESS, -1 not recorded
    pregnant: NDArray[np.int8]
    duration: NDArray[np.int32]  # days, -1 not recorded
    age_known: NDArray[np.bool_]
    sex_known: NDArray[np.bool_]


def drug_list(tables: Tables) -> tuple[tuple[int, str, float], ...]:
    """Every drug that a risk factor brings: (risk number, ATC, chance)."""
    return tuple((risk, atc, share) for risk, drugs in enumerate(tables.drugs) for atc, share in drugs)


def askness(tables: Tables, weight: F64) -> F32:
    """How much each finding is asked for, by complaint: [V, V], 0 to 1.

    Among the diseases that may cause the complaint, the findings asked for are those that differ
    between them: the variance of P(finding | disease) relative to its largest value.
    """
    chance = (tables.chance * (tables.weight.mean(axis=0)[:, :, None])).sum(axis=1).astype(np.float64)
    joint = chance * weight[:, None]
    given = joint / joint.sum(axis=0, keepdims=True)  # P(disease | complaint) [D, V]
    mean = given.T @ chance
    spread = given.T @ chance**2 - mean**2
    asked = np.sqrt(np.maximum(spread, 0))
    top = np.sort(asked, axis=1)[:, -12:-11]
    return np.asarray(np.clip(asked / np.maximum(top, 1e-6), 0, 1), dtype=np.float32)


def record(tables: Tables, patients: Patients, asked: F32, rng: np.random.Generator) -> Recorded:
    """Write the charts of the patients."""
    count = len(patients)
    style = (rng.random(count)[:, None] > np.cumsum(STYLE_SHARE, axis=1)[patients.setting]).sum(axis=1)
    stated, complaint = _findings(tables, patients, asked, style, rng)
    measured = _measured(tables, patients, style, rng)
    day_old, week_old = _earlier(tables, patients, measured, rng)
    risks, drugs = _risks(tables, patients, style, rng)
    done = rng.random(patients.results.shape) < np.where(
        np.isnan(tables.result[patients.disease, patients.grade]), 0.015, 0.35
    )
    results = np.where(done, np.where(patients.results > 0, 1, -1), 0).astype(np.int8)
    pregnant = _pregnant(tables, patients, rng)
    onset = rng.random(count) < 0.4
    # An onset of over 30 days ago makes a complaint background when a chart is read; those stay undated.
    onset &= (patients.duration < 28) & (complaint >= 0)
    duration = np.where(onset, np.floor(patients.duration), -1).astype(np.int32)
    return Recorded(
        stated=stated,
        measured=measured,
        day_old=day_old,
        week_old=week_old,
        risks=risks,
        drugs=drugs,
        results=results,
        consciousness=_consciousness(tables, patients, stated, rng),
        pregnant=pregnant,
        duration=duration,
        age_known=rng.random(count) > 0.01,
        sex_known=rng.random(count) > 0.01,
    )


def _findings(
    tables: Tables, patients: Patients, asked: F32, style: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    count, width = patients.present.shape
    kinds = np.array(tables.kinds)
    stated = np.zeros((count, width), dtype=np.int8)
    # The complaint is what is present, typical of the disease, and such as people name.
    chance = tables.chance[patients.disease, patients.grade]
    weight = np.where(patients.present, chance**NAMED_FIRST * tables.complaint, 0).astype(np.float32)
    key = np.log(np.maximum(weight, 1e-12)) + rng.gumbel(size=weight.shape).astype(np.float32)
    key[weight <= 0] = -np.inf
    first = key.argmax(axis=1)
    # Who comes for a check-up or a vaccination seldom names a complaint.
    quiet = tables.visitor[patients.disease] & (rng.random(count) > VISITOR_COMPLAINT)
    some = patients.present.any(axis=1) & ~quiet
    rows = np.arange(count)
    complaint = np.where(some, first, -1)
    written = np.zeros((count, width), dtype=np.float32)
    for name in ("symptom", "sign", "test"):
        written[:, kinds == name] = np.array(WRITTEN[name], dtype=np.float32)[style][:, None]
    odds = written / (1 - written) * np.exp(COMPLETENESS * rng.standard_normal((count, 1), dtype=np.float32))
    written = odds / (1 + odds)
    told = patients.present & (rng.random((count, width), dtype=np.float32) < written)
    # Whoever writes the specific does not write the general beside it.
    for level_numbers in tables.depth[1:]:
        for general in level_numbers:
            below = told[:, list(tables.children[general])].any(axis=1)
            told[:, general] &= ~(below & (rng.random(count) < 0.8))
    stated[told] = PRESENT
    stated[told & (rng.random((count, width), dtype=np.float32) < UNSURE)] = UNSURE_CODE
    _imprecise(tables, stated, rng)
    stated[rows[some], complaint[some]] = COMPLAINT
    also = some
    related = _related(tables)
    for share in MORE_COMPLAINTS:
        # Nobody names the same twice, in general and in particular.
        key[related[key.argmax(axis=1)]] = -np.inf
        also = also & np.isfinite(key.max(axis=1)) & (rng.random(count) < share)
        stated[rows[also], key.argmax(axis=1)[also]] = COMPLAINT
    every = some & (rng.random(count) < ALL_REASONS)
    stated[(stated == PRESENT) & every[:, None] & (kinds == "symptom")] = COMPLAINT
    denial = rng.choice(np.array([0.0, 0.4, 1.0]), size=count, p=[0.35, 0.3, 0.35])
    asks = asked[np.maximum(complaint, 0)] * (np.array(DENIED)[style] * denial)[:, None].astype(np.float32)
    asks *= np.where(kinds == "test", 0.3, 1.0).astype(np.float32)
    denied = ~patients.present & (stated == 0) & (rng.random((count, width), dtype=np.float32) < asks)
    stated[denied] = DENIED_CODE
    _form(tables, patients, stated, rng)
    return stated, complaint


def _related(tables: Tables) -> NDArray[np.bool_]:
    """Which findings are the same, a kind of one another, or above [V, V]."""
    width = len(tables.schema.findings)
    related = np.eye(width, dtype=bool)
    for number, above in enumerate(tables.schema.above):
        related[number, list(above)] = True
    return related | related.T


def _form(tables: Tables, patients: Patients, stated: NDArray[np.int8], rng: np.random.Generator) -> None:
    """The answers of a triage form: they are there whatever else is written, so they tell no style."""
    form = rng.random(len(patients)) < np.array(FORM)[patients.setting]
    for key in FORM_ASKS:
        number = tables.schema.findings.index(key)
        free = form & (stated[:, number] == 0)
        stated[free, number] = np.where(patients.present[free, number], PRESENT, DENIED_CODE)


def _imprecise(tables: Tables, stated: NDArray[np.int8], rng: np.random.Generator) -> None:
    """Some findings are written as what they are a kind of, a few as something else."""
    rows, columns = np.nonzero(stated > 0)
    vague = np.flatnonzero(rng.random(len(rows)) < VAGUE)
    direct: dict[int, list[int]] = {}
    for parent, kinds in enumerate(tables.children):
        for kind in kinds:
            direct.setdefault(kind, []).append(parent)
    for place in vague:
        row, column = rows[place], columns[place]
        value = stated[row, column]
        stated[row, column] = 0
        parents = direct.get(int(column))
        if parents:
            parent = parents[int(rng.integers(len(parents)))]
            stated[row, parent] = max(stated[row, parent], value)
    wrong = np.flatnonzero(rng.random(len(rows)) < WRONG)
    stated[rows[wrong], rng.integers(stated.shape[1], size=len(wrong))] = PRESENT


def _measured(
    tables: Tables, patients: Patients, style: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.bool_]:
    order = tables.ordered[patients.setting].copy()
    vital = np.array([analyte.window_hours <= 24 for analyte in tables.schema.analytes])
    listed = tables.listed[patients.disease]
    order = np.where(listed & ~vital, np.minimum(0.85, 1.7 * order + 0.12), order)
    # One decision for the blood: laboratory values come together or not at all.
    blood = rng.random((len(patients), 1)) < np.array([0.30, 0.6, 0.75])[style][:, None] * np.where(
        patients.setting[:, None] == 1, 1.0, 0.6
    )
    measured = rng.random(order.shape) < order
    measured &= blood | vital
    # Some triage notes hold no saturation, some visits no vital signs at all.
    keys = [analyte.key for analyte in tables.schema.analytes]
    none = rng.random(len(patients)) < np.where(patients.setting == 1, 0.12, 0.35)
    measured[np.ix_(none, vital)] = False
    measured[rng.random(len(patients)) < 0.25, keys.index("spo2")] = False
    measured[patients.age < 0.02, keys.index("weight")] = False
    return np.asarray(measured)


def _earlier(
    tables: Tables, patients: Patients, measured: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[F64, F64]:
    """Earlier values: part of the way back to normal, the more the faster the disease."""
    places = list(tables.schema.trends)
    fast = patients.duration[:, None] < 4
    found = []
    for share, back in ((0.12, 0.35), (0.10, 0.8)):
        old = np.full((len(patients), len(places)), np.nan)
        for column, place in enumerate(places):
            analyte = tables.schema.analytes[place]
            normal, spread = normals(tables, place, patients.age, patients.female)
            part = 1 - back * np.where(fast[:, 0], 1.0, 0.3) * rng.random(len(patients))
            now = patients.values[:, place]
            noise = 0.4 * rng.standard_normal(len(patients))
            if analyte.log:
                raw = normal * np.exp(np.log(now / normal) * part + noise * np.log(spread))
            else:
                raw = normal + (now - normal) * part + noise * spread
            here = measured[:, place] & (rng.random(len(patients)) < share)
            old[here, column] = rounded(analyte.key, np.clip(raw, *tables.plausible[place]))[here]
        found.append(old)
    return found[0], found[1]


def _risks(
    tables: Tables, patients: Patients, style: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    chance = np.array(RISK_WRITTEN)[style][:, None]
    said = patients.risks & (rng.random(patients.risks.shape) < chance)
    denied = ~patients.risks & (
        rng.random(patients.risks.shape) < np.array([0.0, 0.01, 0.03])[style][:, None]
    )
    risks = np.where(said, 1, np.where(denied, -1, 0)).astype(np.int8)
    names = [name for name, _ in tables.schema.risks]
    # Pregnancy has a statement of its own.
    risks[:, names.index("pregnancy")] = 0
    listed = drug_list(tables)
    drugs = np.zeros((len(patients), len(listed)), dtype=bool)
    for place, (risk, _, share) in enumerate(listed):
        drugs[:, place] = patients.risks[:, risk] & (rng.random(len(patients)) < share * chance[:, 0])
    return risks, drugs


def _pregnant(tables: Tables, patients: Patients, rng: np.random.Generator) -> NDArray[np.int8]:
    names = [name for name, _ in tables.schema.risks]
    truly = patients.risks[:, names.index("pregnancy")]
    fertile = patients.female & (patients.age >= 12) & (patients.age < 51)
    said = truly & (rng.random(len(truly)) < 0.9)
    denied = fertile & ~truly & (rng.random(len(truly)) < 0.15)
    return np.where(said, 1, np.where(denied, -1, 0)).astype(np.int8)


def _consciousness(
    tables: Tables, patients: Patients, stated: NDArray[np.int8], rng: np.random.Generator
) -> NDArray[np.int8]:
    """The ACVPU statement of an emergency department, from the patient's true state."""
    number = {key: place for place, key in enumerate(tables.schema.findings)}
    reduced = patients.present[:, number["HP:0004372"]]
    confused = patients.present[:, number["HP:0001289"]]
    coma = patients.present[:, number["HP:0001259"]]
    level = np.where(
        coma, 4, np.where(reduced, 2 + (rng.random(len(reduced)) < 0.4), np.where(confused, 1, 0))
    )
    done = (patients.setting == 1) & (rng.random(len(reduced)) < 0.7)
    return np.where(done, level, -1).astype(np.int8)
