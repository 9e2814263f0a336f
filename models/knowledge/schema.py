"""The values of the generative knowledge base: diseases, findings, risk factors, analytes.

Responsible for the shape of one disease file and of the three shared tables; `loader` reads and checks
them.  Nothing here samples, scores or reads a chart.  Every number names a source with an evidence
grade: A a published figure with its citation, B a qualitative frequency of a guideline or textbook
mapped by the documented scale (docs/knowledge-authoring.md), C an estimate of this project.
"""

from typing import Literal

import msgspec

from models.assessment import Severity

AGE_BANDS: tuple[tuple[str, float], ...] = (
    ("0-28d", 28 / 365.25),
    ("1-2m", 0.25),
    ("3-11m", 1.0),
    ("1-4", 5.0),
    ("5-11", 12.0),
    ("12-17", 18.0),
    ("18-39", 40.0),
    ("40-64", 65.0),
    ("65-79", 80.0),
    ("80+", 130.0),
)
"""Name and upper end (years, exclusive) of the age bands that a disease's `rate.age` follows."""

Group = Literal[
    "cardiovascular",
    "respiratory",
    "ear-nose-throat",
    "gastrointestinal",
    "hepatobiliary",
    "renal-urological",
    "gynaecological",
    "obstetric",
    "neurological",
    "psychiatric",
    "infectious",
    "endocrine-metabolic",
    "haematological",
    "oncological",
    "rheumatological",
    "musculoskeletal",
    "injury",
    "toxicological",
    "dermatological",
    "ophthalmological",
    "allergic",
    "paediatric",
    "healthy",
    "nonspecific",
]
Grade = Literal["A", "B", "C"]
Probabilities = float | tuple[float, ...]
"""One probability for all severity grades of the disease, or one for each, mildest first."""


class Name(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What people read, in both languages of the product."""

    en: str
    es: str


class Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often the disease is the main diagnosis.

    `primary_care` and `emergency` are visits per 10,000 visits of that setting; `age` multiplies the
    chance of a visitor of each of the ten `AGE_BANDS` (0 where it does not occur, 1 as on average);
    `female` is the share of women among patients; `pregnancy` multiplies it in pregnancy (0 never).
    """

    primary_care: float
    emergency: float
    age: tuple[float, float, float, float, float, float, float, float, float, float]
    female: float
    source: str
    pregnancy: float = 1.0


class SeverityGrade(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One degree in which the disease presents, mildest first in the file.

    `weight` is its share among primary-care and emergency patients together, `immediate` the chance
    that such a patient needs attention within minutes (level 1 or 2 of a five-level triage scale).
    """

    severity: Severity
    weight: float
    immediate: float


class Disease(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One disease file.  The last element of every row is a key of `sources`.

    Rows:
        findings: ``[key, label, probability or one per grade, source]``; `key` an HPO id, or
            ``ICD:<code>`` of a sign that HPO lacks.
        vitals: ``[key, shift from the age's normal, one per grade, sd, source]``.
        labs: ``[key, median, one per grade, spread, source]`` in the analyte's canonical unit; `spread`
            is a standard deviation, or a factor (geometric sd) for lognormal analytes.
        results: ``[LOINC, name, chance of a positive answer, source]`` of coded tests.
        correlations: ``[key, key, coefficient]`` between findings, vitals or labs.
        risks: ``[risk id, odds ratio, source]``.
        medications: ``[ATC prefix, chance that a patient already takes it, source]``.
        timing: ``[finding key, shortest days, longest days, source]`` where it differs from the disease's.
        tests: ``[action id or finding key, LR+, LR-, [ids it separates from], source]``.
    """

    schema: int
    id: str
    name: Name
    group: Group
    icd10: tuple[str, ...]
    icd10cm: tuple[str, ...]
    course: Literal["acute", "subacute", "chronic", "recurrent"]
    onset: Literal["sudden", "hours", "days", "weeks", "months", "years"]
    duration_days: tuple[float, float]
    sources: dict[str, str]
    rate: Rate
    grades: tuple[SeverityGrade, ...]
    findings: tuple[tuple[str, str, Probabilities, str], ...]
    vitals: tuple[tuple[str, Probabilities, float, str], ...] = ()
    labs: tuple[tuple[str, Probabilities, float, str], ...] = ()
    results: tuple[tuple[str, str, Probabilities, str], ...] = ()
    correlations: tuple[tuple[str, str, float], ...] = ()
    risks: tuple[tuple[str, float, str], ...] = ()
    medications: tuple[tuple[str, float, str], ...] = ()
    timing: tuple[tuple[str, float, float, str], ...] = ()
    tests: tuple[tuple[str, float, float, tuple[str, ...], str], ...] = ()
    red_flags: tuple[str, ...] = ()
    mimics: tuple[str, ...] = ()
    recommend: tuple[str, ...] = ()
    snomed: str | None = None
    severity_source: str = "est"


class FindingRow(msgspec.Struct, frozen=True):
    """One row of ``findings.csv``.  `background` is its frequency among visits for something else."""

    key: str
    label: str
    kind: Literal["symptom", "sign", "test"]
    parent: str
    background: float
    source: str


class Risk(msgspec.Struct, frozen=True):
    """One row of ``risks.csv``: prevalence by age (under 18, 18-39, 40-64, 65 and over) and sex share.

    `evidence` are the spellings under which a chart tells it: ``icd:E11`` (prefix), ``hp:HP:...``,
    ``coded:LOINC=key``, ``atc:A10`` (prefix), ``fam:I21`` (a relative's).  `drugs` are ``(ATC, chance)``.
    """

    id: str
    name: Name
    prevalence: tuple[float, float, float, float]
    female: float
    evidence: tuple[str, ...]
    drugs: tuple[tuple[str, float], ...]
    source: str


class Analyte(msgspec.Struct, frozen=True):
    """One row of ``analytes.csv``: a measurement of healthy adults and how often it is taken."""

    key: str
    loinc: str
    label: str
    unit: str
    kind: Literal["vital", "body", "laboratory"]
    distribution: Literal["normal", "lognormal"]
    male: float
    female: float
    spread: float
    ordered_emergency: float
    ordered_primary_care: float
    source: str


class Knowledge(msgspec.Struct, frozen=True):
    """All of it, read and checked; diseases in the order of their ids.

    `complaints`, `asked_from` and `unrelated` are those of `models.knowledge.shared_tables.SharedTables`;
    `digest` is the SHA-256 over all files, `ontology` the HPO release the ids are of.
    """

    diseases: tuple[Disease, ...]
    findings: tuple[FindingRow, ...]
    risks: tuple[Risk, ...]
    analytes: tuple[Analyte, ...]
    complaints: dict[str, float]
    asked_from: dict[str, float]
    unrelated: frozenset[tuple[str, str]]
    digest: str
    ontology: str
