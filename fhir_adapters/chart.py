"""The values that travel: `PatientChart` and what it holds.

A chart is everything we could read about one patient at one moment, in the pivot vocabularies of
ARCHITECTURE.md: HPO for findings, LOINC with a canonical UCUM unit for measurements, ICD-10-CM for
problems, RxNorm/ATC classes for drugs.  It is immutable, holds no clinical judgement, and says
what could not be read (`issues`, `unmapped`) beside what could.  It is built by
`fhir_adapters.chart_builder`; nothing here reads FHIR.

Every value carries `sources`: relative FHIR references (``"Observation/abc"``) of the resources it
rests on, so that an explanation can point back to the record.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

import msgspec

State = Literal["present", "absent", "uncertain"]
Sex = Literal["female", "male", "other", "unknown"]
ProblemStatus = Literal["active", "inactive", "resolved", "absent", "uncertain"]
Role = Literal["complaint", "encounter", "problem-list", "derived"]


class Subject(msgspec.Struct, frozen=True, gc=False):
    """Who the chart is about, without a name.

    `age_days` is the age in whole days at the chart's moment (`None` when no birth date is known).
    `birth_date_precision` says how far the age may be trusted: FHIR allows ``"1980"``; the age is
    then counted from the middle of the year (or month), and rules for infants must not rely on it.
    `pregnant` is `None` when nothing in the chart says so; `gestation_weeks` likewise.
    """

    patient_id: str
    sex: Sex
    age_days: int | None
    birth_date_precision: Literal["day", "month", "year", "unknown"] = "unknown"
    pregnant: bool | None = None
    gestation_weeks: float | None = None
    postpartum: bool | None = None
    deceased: bool = False

    @property
    def age_years(self) -> float | None:
        """Age in years (365.25 days each), or `None`."""
        return None if self.age_days is None else self.age_days / 365.25


class Finding(msgspec.Struct, frozen=True, gc=False):
    """A sign or symptom as an HPO term.

    `role` says where it was said: the presenting `complaint`, this `encounter`, the `problem-list`,
    or `derived` (from a measurement or a coded value).  `from_text` marks a dictionary match in free
    text.  `time` is its onset or recording, `onset_age_days` the age at onset when the chart gives it.
    """

    hpo: str
    label: str
    state: State
    role: Role
    sources: tuple[str, ...]
    from_text: bool = False
    time: datetime | None = None
    onset_age_days: int | None = None


class Problem(msgspec.Struct, frozen=True, gc=False):
    """A disease, injury, situation or risk factor as an ICD-10-CM code (with dot: ``"E11.9"``).

    A Condition whose concept also has an HPO term appears as a `Finding` too, except when it is
    history (`inactive`, `resolved`), which is never a present finding.
    """

    icd10cm: str
    label: str
    status: ProblemStatus
    role: Role
    sources: tuple[str, ...]
    from_text: bool = False
    time: datetime | None = None
    onset_age_days: int | None = None


class Measurement(msgspec.Struct, frozen=True, gc=False):
    """One numeric value of one analyte.

    `loinc` is the canonical LOINC code of the analyte (synonym codes are folded into it), `value` is
    in `unit`, the analyte's canonical UCUM unit.  `low`/`high` is the reference range sent with the
    value, in the same unit.  `interpretation` is the HL7 code sent (``H``, ``LL`` ...).  `comparator`
    is FHIR's ``<``, ``<=``, ``>=``, ``>`` or `None`.  `time` is aware (UTC) or `None` if not stated.
    `also` holds further sources of the very same value at the same time (merged duplicates).
    """

    loinc: str
    value: float
    unit: str
    time: datetime | None
    source: str
    interpretation: str | None = None
    low: float | None = None
    high: float | None = None
    comparator: str | None = None
    also: tuple[str, ...] = ()


class CodedValue(msgspec.Struct, frozen=True, gc=False):
    """An Observation whose value is a code: consciousness, pregnancy status, smoking, oxygen therapy.

    `value` is the canonical key of the answer in the terminology table (for example ``"alert"``,
    ``"voice"``, ``"pain"``, ``"unresponsive"``, ``"confused"`` for consciousness), not the raw code.
    """

    loinc: str
    value: str
    time: datetime | None
    source: str


class Medication(msgspec.Struct, frozen=True, gc=False):
    """A drug the patient takes (`active`) or took.  `atc` holds ATC codes or class prefixes known for it."""

    label: str
    active: bool
    sources: tuple[str, ...]
    rxnorm: str | None = None
    atc: tuple[str, ...] = ()
    time: datetime | None = None


class Allergy(msgspec.Struct, frozen=True, gc=False):
    """A recorded allergy or intolerance; `atc` as for `Medication` when the substance is a drug."""

    label: str
    sources: tuple[str, ...]
    atc: tuple[str, ...] = ()
    criticality: Literal["low", "high", "unable-to-assess", "unknown"] = "unknown"
    absent: bool = False


class FamilyCondition(msgspec.Struct, frozen=True, gc=False):
    """A condition of a relative (`relationship` is the v3-RoleCode, e.g. ``FTH``, or ``FAMMEMB``).

    `text` is what the record calls it, `codes` its codings as sent (``"system|code"``): a rare disease is
    often coded where our tables do not look, or only written.
    """

    relationship: str
    label: str
    sources: tuple[str, ...]
    hpo: str | None = None
    icd10cm: str | None = None
    text: str = ""
    codes: tuple[str, ...] = ()


class Order(msgspec.Struct, frozen=True, gc=False):
    """A ServiceRequest or MedicationRequest, drafted now (`draft`) or placed before.

    `codes` are ``"system|code"`` pairs as sent; `loinc` the canonical LOINC if the order is a known
    test; `atc` the drug classes if it is a drug.
    """

    resource_type: str
    reference: str
    label: str
    draft: bool
    codes: tuple[str, ...] = ()
    loinc: str | None = None
    atc: tuple[str, ...] = ()
    time: datetime | None = None
    selected: bool = False


class Procedure(msgspec.Struct, frozen=True, gc=False):
    """A procedure that was done, or a study reported; `codes` are ``"system|code"`` pairs as sent."""

    label: str
    codes: tuple[str, ...]
    sources: tuple[str, ...]
    time: datetime | None = None


class Immunization(msgspec.Struct, frozen=True, gc=False):
    """A vaccine that was given (`cvx` code when sent)."""

    cvx: str | None
    label: str
    sources: tuple[str, ...]
    time: datetime | None = None


class Encounter(msgspec.Struct, frozen=True, gc=False):
    """The encounter the assessment is made in.  `setting` folds v3-ActCode classes."""

    reference: str
    setting: Literal["emergency", "inpatient", "ambulatory", "home", "virtual", "unknown"]
    start: datetime | None = None
    end: datetime | None = None


class ReadIssue(msgspec.Struct, frozen=True, gc=False):
    """Something that was sent and could not be used; the rest of the chart still counts.

    `code` is a stable key (texts for people live in `hooks`), `path` the FHIR element, `reference`
    the resource (``"Observation/abc"``, or ``"entry[3]"`` when it has no id).  `detail` names codes
    and units only, never a clinical value or patient text.
    """

    code: Literal[
        "unreadable-resource",
        "unknown-unit",
        "impossible-value",
        "invalid-date",
        "other-patient",
        "operation-outcome",
        "missing-value",
        "missing-code",
        "fetch-failed",
        "truncated",
    ]
    reference: str
    path: str = ""
    detail: str = ""


class Unmapped(msgspec.Struct, frozen=True, gc=False):
    """A coded or textual element that no table knows: kept, counted and shown, never dropped."""

    reference: str
    system: str
    code: str


class PatientChart(msgspec.Struct, frozen=True):
    """All that was read about one patient at the moment `at` (aware, UTC).

    `measurements` and `coded` map a canonical LOINC code to its values, **newest first** (values
    without a time last).  `findings` holds one entry per (HPO term, state), with all its sources;
    when the newest evidence says absent, only that state stands.  `sections_missing` names the FHIR
    resource types that were neither sent nor fetched (so "none recorded" and "not asked" differ).
    `past_findings` are findings whose Condition is over (inactive, resolved): history, which says
    nothing of today and still belongs to the phenotype for life.
    """

    subject: Subject
    at: datetime
    encounter: Encounter | None
    findings: tuple[Finding, ...]
    problems: tuple[Problem, ...]
    measurements: Mapping[str, Sequence[Measurement]]
    coded: Mapping[str, tuple[CodedValue, ...]]
    medications: tuple[Medication, ...] = ()
    allergies: tuple[Allergy, ...] = ()
    family_history: tuple[FamilyCondition, ...] = ()
    procedures: tuple[Procedure, ...] = ()
    orders: tuple[Order, ...] = ()
    immunizations: tuple[Immunization, ...] = ()
    issues: tuple[ReadIssue, ...] = ()
    unmapped: tuple[Unmapped, ...] = ()
    sections_missing: tuple[str, ...] = ()
    resources_read: int = 0
    coded_total: int = 0
    exclude_evidence: tuple[str, ...] = ()
    past_findings: tuple[Finding, ...] = ()

    def latest(self, loinc: str) -> Measurement | None:
        """The newest valid measurement of an analyte (canonical LOINC), or `None`."""
        series = self.measurements.get(loinc)
        return series[0] if series else None

    def latest_coded(self, loinc: str) -> CodedValue | None:
        """The newest coded value of a canonical LOINC, or `None`."""
        series = self.coded.get(loinc)
        return series[0] if series else None
