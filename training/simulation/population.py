"""Who comes, with what: patients sampled from the knowledge base, as they are (not as a chart tells it).

Severity first, then physiology, then findings; risk factors shift who gets what and leave traces of
their own.  Vectorised over patients.  What of this is asked, measured and written down is `recording`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from models.knowledge.schema import AGE_BANDS
from training.simulation.tables import F32, F64, VISITORS, Tables, band_edges

CASE_MIX = (0.5, 0.6)
"""Exponents on the visit rates of primary care and emergency.  A cohort by the plain rates would hold 40
colds and no dissection; a power keeps the order and lets rare critical diseases be learned.  What comes to
an emergency department is known better than what "ambulatory" means, which covers primary care and every
specialist clinic: so its mix stays nearer to the rates.  Set a priori; grade C."""
EXCLUSION = 0.4
"""Share of the patients with a diagnosis of exclusion (group ``nonspecific``) that are simulated.  They are
many, and what remains when nothing else was found; at first contact a list is for what may be found.  Their
probabilities come out lower than their share of final diagnoses.  Set a priori; grade C."""
TOGETHER = 0.35
"""How strongly the findings of one patient go together (loading of a factor "how ill it feels")."""
ATYPICAL = 0.06
"""Share of patients in whom findings are drawn towards what any visitor has (atypical presentation)."""
OBSTETRIC = 20.0
"""Multiplier in pregnancy from which a disease is one of pregnancy."""
FERTILE_BAND = 7
SECOND = 0.04
"""Share of patients who have a second disease of their own at the same time."""
STRAY = 0.25
"""Mean number of findings that have nothing to do with the disease, beyond the backgrounds."""
TAILS = 6.0
"""Degrees of freedom of how patients deviate from their disease's usual values (multivariate t): charts hold
more extreme readings than a normal distribution does.  Grade C: set by this project."""
OTHER_REASON, OTHER_SPREAD = 0.12, 3.0
"""Share of laboratory values that a disease's file does not speak of and that are off for another reason (a
chronic disease, a drug), and how many times further they then lie from normal.  Grade C."""
VITALS = ("temperature", "heart-rate", "respiratory-rate", "systolic", "diastolic", "spo2")
_VITAL_CORRELATION = np.array(
    [
        [1.0, 0.35, 0.25, -0.05, -0.05, -0.10],
        [0.35, 1.0, 0.40, -0.20, 0.0, -0.25],
        [0.25, 0.40, 1.0, -0.05, 0.0, -0.45],
        [-0.05, -0.20, -0.05, 1.0, 0.65, 0.05],
        [-0.05, 0.0, 0.0, 0.65, 1.0, 0.0],
        [-0.10, -0.25, -0.45, 0.05, 0.0, 1.0],
    ]
)
"""Correlation of the deviations within one disease and grade.  Grade C: estimate of this project."""
BOUNDS = {
    "temperature": (30.0, 42.5, 1), "heart-rate": (20, 240, 0), "respiratory-rate": (4, 90, 0),
    "systolic": (40, 260, 0), "diastolic": (20, 160, 0), "spo2": (50, 100, 0), "pain": (0, 10, 0),
    "weight": (1.5, 220, 1), "bmi": (10, 65, 1), "ph": (6.8, 7.8, 2), "capillary-refill": (0.5, 9, 0),
    "sodium": (105, 175, 0), "potassium": (1.8, 8.5, 1), "albumin": (0.8, 6, 1), "haemoglobin": (3, 24, 1),
    "fev1-fvc": (20, 98, 0), "po2": (25, 140, 0), "pco2": (12, 120, 0), "hba1c": (3.5, 17, 1),
}  # fmt: skip
"""Lowest and highest value, and decimals; other analytes keep three significant digits."""


@dataclass(frozen=True)
class Patients:
    """N patients.  `setting` is 0 for primary care and 1 for emergency; `values` raw, all analytes."""

    setting: NDArray[np.int8]
    disease: NDArray[np.int32]
    grade: NDArray[np.int8]
    age: F64  # years
    female: NDArray[np.bool_]
    risks: NDArray[np.bool_]  # [N, R]
    present: NDArray[np.bool_]  # [N, V]
    values: F64  # [N, A]
    results: NDArray[np.int8]  # [N, K]: 1 positive, 0 negative
    duration: F64  # days
    severity: NDArray[np.int8]
    immediate: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.disease)


def sample(
    tables: Tables, count: int, rng: np.random.Generator, case_mix: tuple[float, float] = CASE_MIX
) -> Patients:
    """Sample `count` patients, half of them in each setting."""
    setting = (rng.random(count) < 0.5).astype(np.int8)
    disease = _diseases(tables, setting, rng, case_mix)
    grade = _choose(tables.weight[setting, disease], rng).astype(np.int8)
    age, female = _people(tables, disease, rng)
    risks = _risks(tables, disease, age, female, rng)
    deviation = _deviations(tables, count, rng)
    values = _values(tables, disease, grade, age, female, risks, deviation, rng)
    present = _findings(tables, disease, grade, risks, rng)
    _fever(tables, present, values, rng)
    chance = tables.result[disease, grade]
    results = (rng.random(chance.shape) < np.nan_to_num(chance, nan=0.01)).astype(np.int8)
    low, high = np.log(np.maximum(tables.duration[disease], 0.02)).T
    duration = np.exp(low + (high - low) * rng.beta(1.6, 1.8, count))
    return Patients(
        setting=setting,
        disease=disease,
        grade=grade,
        age=age,
        female=female,
        risks=risks,
        present=present,
        values=values,
        results=results,
        duration=duration,
        severity=tables.severity[disease, grade].astype(np.int8),
        immediate=_immediate(tables, disease, grade, deviation, rng),
    )


def _choose(weights: F64, rng: np.random.Generator) -> NDArray[np.int64]:
    """One column of each row, by the row's weights."""
    edges = np.cumsum(weights, axis=1)
    return np.asarray((rng.random(len(weights))[:, None] * edges[:, -1:] < edges).argmax(axis=1))


def _diseases(
    tables: Tables, setting: NDArray[np.int8], rng: np.random.Generator, case_mix: tuple[float, float]
) -> NDArray[np.int32]:
    disease = np.zeros(len(setting), dtype=np.int32)
    for place in (0, 1):
        weight = case_weights(tables, place, case_mix)
        here = np.flatnonzero(setting == place)
        disease[here] = rng.choice(len(weight), size=len(here), p=weight)
    return disease


def case_weights(tables: Tables, setting: int, case_mix: tuple[float, float] = CASE_MIX) -> F64:
    """The share of each disease among simulated patients of a setting."""
    weight = np.maximum(tables.rate[setting], 0.02) ** case_mix[setting]
    weight[tables.rate[setting] <= 0] = 0.0
    weight[tables.exclusion] *= EXCLUSION
    return np.asarray(weight / weight.sum())


def _people(
    tables: Tables, disease: NDArray[np.int32], rng: np.random.Generator
) -> tuple[F64, NDArray[np.bool_]]:
    band = _choose(tables.age[disease] * VISITORS, rng)
    edges = np.array(band_edges())[band]
    age = edges[:, 0] + (edges[:, 1] - edges[:, 0]) * rng.random(len(disease)) ** np.where(
        band == len(VISITORS) - 1, 1.8, 1.0
    )
    # The band from 40 on holds few fertile years: obstetric patients come from its beginning.
    obstetric = (tables.pregnancy[disease] >= OBSTETRIC) & (band == FERTILE_BAND)
    age = np.where(obstetric, 40.0 + (age - 40.0) * 11.0 / 25.0, age)
    return age, rng.random(len(disease)) < tables.female[disease]


def _risks(
    tables: Tables, disease: NDArray[np.int32], age: F64, female: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.bool_]:
    group = np.digitize(age, (18.0, 40.0, 65.0))
    base = np.clip(tables.prevalence[:, group].T, 1e-5, 0.95)
    sex = np.where(female[:, None], 2 * tables.risk_female, 2 * (1 - tables.risk_female))
    odds = base / (1 - base) * tables.odds[disease] * sex
    names = [name for name, _ in tables.schema.risks]
    pregnant = names.index("pregnancy")
    fertile = female & (age >= 12) & (age < 51)
    odds[:, pregnant] *= tables.pregnancy[disease]
    # An obstetric disease makes the patient pregnant (or just delivered), whatever the prevalence.
    odds[:, pregnant] = np.where(tables.pregnancy[disease] >= OBSTETRIC, 200.0, odds[:, pregnant])
    odds[~fertile, pregnant] = 0.0
    odds[~fertile, names.index("postpartum")] = 0.0
    risks = rng.random(odds.shape) < odds / (1 + odds)
    # Who smokes is no former smoker.
    risks[risks[:, names.index("smoking-current")], names.index("smoking-former")] = False
    delivered = risks[:, names.index("postpartum")] & (tables.odds[disease, names.index("postpartum")] > 1)
    risks[delivered, pregnant] = False
    return np.asarray(risks)


def _deviations(tables: Tables, count: int, rng: np.random.Generator) -> F32:
    """Deviations of every analyte in standard deviations, with heavy tails, the vital signs correlated."""
    deviation = rng.standard_normal((count, len(tables.schema.analytes)), dtype=np.float32)
    keys = [analyte.key for analyte in tables.schema.analytes]
    places = [keys.index(key) for key in VITALS]
    deviation[:, places] = deviation[:, places] @ np.linalg.cholesky(_VITAL_CORRELATION).T.astype(np.float32)
    return deviation * np.sqrt(TAILS / rng.chisquare(TAILS, (count, 1))).astype(np.float32)


def _values(
    tables: Tables,
    disease: NDArray[np.int32],
    grade: NDArray[np.int8],
    age: F64,
    female: NDArray[np.bool_],
    risks: NDArray[np.bool_],
    deviation: F32,
    rng: np.random.Generator,
) -> F64:
    """Raw values: the age's normal, the disease's shift, the traces of risk factors, the patient's own."""
    shift = tables.shift[disease, grade] + risks.astype(np.float32) @ tables.risk_shift.astype(np.float32)
    spread = tables.spread[disease, grade]
    other = ~tables.listed[disease] & tables.laboratory & (rng.random(spread.shape) < OTHER_REASON)
    spread = np.where(other, OTHER_SPREAD * spread, spread)
    moved = (shift + spread * deviation).astype(np.float64)
    values = np.empty_like(moved)
    for place, analyte in enumerate(tables.schema.analytes):
        normal = normals(tables, place, age, female)[0]
        raw = normal * np.exp(moved[:, place]) if analyte.log else normal + moved[:, place]
        values[:, place] = rounded(analyte.key, np.clip(raw, *tables.plausible[place]))
    return values


def rounded(key: str, raw: F64) -> F64:
    """Values as a device or laboratory reports them."""
    if key in BOUNDS:
        low, high, digits = BOUNDS[key]
        return np.asarray(np.round(np.clip(raw, low, high), digits))
    size = 10.0 ** (np.floor(np.log10(np.maximum(np.abs(raw), 1e-9))) - 2)
    return np.asarray(np.maximum(np.round(raw / size) * size, 1e-6))


def normals(tables: Tables, place: int, age: F64, female: NDArray[np.bool_]) -> tuple[F64, F64]:
    """Normal value and spread of an analyte for each patient."""
    analyte = tables.schema.analytes[place]
    normal = np.where(female, analyte.female, analyte.male)
    spread = np.full(len(age), analyte.spread)
    for below, middle, width in reversed(analyte.ages):
        normal[age < below], spread[age < below] = middle, width
    return normal, spread


def _findings(
    tables: Tables,
    disease: NDArray[np.int32],
    grade: NDArray[np.int8],
    risks: NDArray[np.bool_],
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    count, width = len(disease), len(tables.schema.findings)
    own = tables.own[disease, grade]
    atypical = rng.random(count) < ATYPICAL
    own[atypical] = 0.5 * own[atypical] + 0.5 * np.minimum(own[atypical], 3 * tables.background)
    noise = rng.standard_normal((count, width), dtype=np.float32)
    feeling = rng.standard_normal((count, 1), dtype=np.float32)
    noise *= np.float32(np.sqrt(1 - TOGETHER**2))
    noise += np.float32(TOGETHER) * feeling
    for d, pairs in tables.finding_pairs.items():
        here = np.flatnonzero(disease == d)
        for one, also, rho in pairs:
            noise[here, also] = rho * noise[here, one] + np.sqrt(1 - rho**2) * noise[here, also]
    present = noise < ndtri(np.clip(own, 1e-6, 1 - 1e-6)).astype(np.float32)
    present |= rng.random((count, width), dtype=np.float32) < risks.astype(
        np.float32
    ) @ tables.risk_chance.astype(np.float32)
    second = np.flatnonzero(rng.random(count) < SECOND)
    other = rng.permutation(disease)[second]
    present[second] |= rng.random((len(second), width)) < 0.7 * tables.own[other, 0]
    strays = rng.poisson(STRAY, count)
    symptoms = np.flatnonzero(np.array([kind == "symptom" for kind in tables.kinds]))
    where = np.repeat(np.arange(count), strays)
    weight = np.sqrt(tables.background[symptoms].astype(np.float64))
    present[where, rng.choice(symptoms, size=len(where), p=weight / weight.sum())] = True
    names = [name for name, _ in tables.schema.risks]
    expecting = risks[:, names.index("pregnancy")] | risks[:, names.index("postpartum")]
    for number, key in enumerate(tables.schema.findings):
        if key.startswith("ICD:O"):
            present[:, number] &= expecting
    for level in tables.depth[1:]:
        for number in level:
            present[:, number] |= present[:, list(tables.children[number])].any(axis=1)
    return np.asarray(present)


def _fever(tables: Tables, present: NDArray[np.bool_], values: F64, rng: np.random.Generator) -> None:
    """A high temperature is a fever, in nearly all charts."""
    if "HP:0001945" in tables.schema.findings:
        keys = [analyte.key for analyte in tables.schema.analytes]
        hot = values[:, keys.index("temperature")] >= 38.2
        present[hot & (rng.random(len(hot)) < 0.9), tables.schema.findings.index("HP:0001945")] = True


def _immediate(
    tables: Tables,
    disease: NDArray[np.int32],
    grade: NDArray[np.int8],
    deviation: F32,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Who needs attention within minutes: by disease and grade, the more so the worse the vital signs."""
    keys = [analyte.key for analyte in tables.schema.analytes]
    worse = (
        deviation[:, keys.index("heart-rate")]
        + deviation[:, keys.index("respiratory-rate")]
        - deviation[:, keys.index("spo2")]
        - deviation[:, keys.index("systolic")]
    ) / 2
    chance = np.clip(tables.immediate[disease, grade], 0.001, 0.995)
    logit = np.log(chance / (1 - chance)) + 0.6 * worse
    return np.asarray(rng.random(len(disease)) < 1 / (1 + np.exp(-logit)))


AGE_ENDS = np.array([end for _, end in AGE_BANDS])
