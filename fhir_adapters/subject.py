"""Who the chart is about: the Patient, the encounter at hand, pregnancy, and the moment of assessment.

Exactly one patient is assessed.  When it cannot be told which (none sent, several and no id), there is
no assessment.  Pregnancy is read from coded statements only; nothing about it is assumed from sex or age.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from fhir_adapters import resources as r
from fhir_adapters.building import Build
from fhir_adapters.chart import CodedValue, Encounter, Measurement, Problem, ReadIssue, Sex, Subject
from fhir_adapters.collected import Resources
from fhir_adapters.terminology.errors import TerminologyInvalid
from fhir_adapters.terminology.tables import read_rows
from fhir_adapters.times import age_days, parse_datetime

PREGNANCY_STATUS = "82810-3"
GESTATION_WEEKS = "18185-9"
_SEXES: dict[str | None, Sex] = {"female": "female", "male": "male", "other": "other"}
_OPEN = ("in-progress", "triaged", "arrived", "onleave")
_NEVER = frozenset({"cancelled", "entered-in-error", "planned", "unknown"})
# https://terminology.hl7.org/CodeSystem-v3-ActCode.html, ActEncounterCode.
_SETTINGS = {
    "EMER": "emergency",
    "IMP": "inpatient",
    "ACUTE": "inpatient",
    "NONAC": "inpatient",
    "OBSENC": "inpatient",
    "SS": "inpatient",
    "AMB": "ambulatory",
    "FLD": "emergency",
    "HH": "home",
    "VR": "virtual",
}
# A pregnancy stated longer ago than this has ended (40 weeks and two of margin), if not said otherwise.
_PREGNANCY = timedelta(weeks=42)
# Postpartum as the obstetric early-warning charts use it: six weeks.
_POSTPARTUM = timedelta(weeks=6)
# Days of age below which nobody is pregnant.  Grade C: estimate of this project (eight years).
_YOUNGEST = 8 * 365


class PatientMissing(ValueError):
    """No Patient resource was sent or fetched for the patient to assess."""


class SeveralPatients(ValueError):
    """Several Patient resources were sent and nothing says which one to assess."""


def choose_patient(found: Resources, patient_id: str | None) -> tuple[str, r.Patient]:
    """The Patient to assess and its reference.

    Raises `PatientMissing` or `SeveralPatients`.  With `patient_id` only a Patient of that id will do.
    """
    pairs = found.of.get(r.Patient, [])
    if patient_id is not None:
        for reference, patient in pairs:
            if patient.id == patient_id:
                return reference, patient
        raise PatientMissing("no Patient resource has the id of the request's context")
    distinct = dict(pairs)
    if not distinct:
        raise PatientMissing("the Bundle holds no Patient resource")
    if len(distinct) > 1:
        raise SeveralPatients("the Bundle holds more than one Patient; send one patient per request")
    return pairs[0]


def choose_encounter(
    build: Build, pairs: list[tuple[str, r.Encounter]], encounter_id: str | None, *, newest: bool
) -> Encounter | None:
    """The encounter at hand: the one named, else the newest open one, else (if `newest`) the newest.

    An open encounter that started after the moment of assessment does not count.
    """
    ours = [
        (
            reference,
            encounter,
            build.time(encounter.period.start if encounter.period else None, reference, "period"),
        )
        for reference, encounter in pairs
        if encounter.status not in _NEVER and build.is_ours(reference, encounter.subject)
    ]
    named = [e for e in ours if encounter_id is not None and e[1].id == encounter_id]
    begun = [e for e in ours if e[2] is None or e[2] <= build.at + timedelta(hours=1)]
    pool = named or [e for e in begun if e[1].status in _OPEN] or (begun if newest else [])
    if not pool:
        return None
    reference, encounter, start = max(pool, key=lambda e: e[2].timestamp() if e[2] is not None else 0.0)
    end = build.time(encounter.period.end if encounter.period else None, reference, "period")
    code = encounter.class_.code if encounter.class_ is not None else None
    return Encounter(reference, _SETTINGS.get(code or "", "unknown"), start, end)  # type: ignore[arg-type]


def moment_of(found: Resources) -> datetime | None:
    """The moment a stored Bundle speaks of: its timestamp, else its open encounter, else its newest date."""
    if found.timestamp is not None:
        stated = parse_datetime(found.timestamp)
        if stated is not None:
            return stated
    encounters = [
        e for _, e in found.of.get(r.Encounter, ()) if e.status not in _NEVER and e.period is not None
    ]
    still_open = [e for e in encounters if e.status in _OPEN]
    starts = _times(e.period.start for e in still_open if e.period is not None)
    observed = _times(o.effectiveDateTime or o.issued for _, o in found.of.get(r.Observation, ()))
    ended = _times(e.period.end or e.period.start for e in encounters if e.period is not None)
    if starts:
        # Measurements of the open encounter come after its start.
        return max([*starts, *observed])
    return max([*observed, *ended], default=None)


def _times(texts: Iterable[str | None]) -> list[datetime]:
    return [t for t in (parse_datetime(text) for text in texts if text) if t is not None]


class StatusCodes:
    """Which ICD-10-CM codes say pregnant or postpartum (`subject_status.csv`)."""

    def __init__(self, pregnant: tuple[str, ...], postpartum: tuple[str, ...]) -> None:
        self.pregnant = pregnant
        self.postpartum = postpartum

    @classmethod
    def load(cls) -> "StatusCodes":
        """Read and check the table; raises `TerminologyInvalid` naming the row."""
        sets: dict[str, list[str]] = {"pregnant": [], "postpartum": []}
        name = "subject_status.csv"
        for row, fields in read_rows(name, ("icd10cm_prefix", "means", "source")):
            if fields["means"] not in sets or not fields["source"]:
                raise TerminologyInvalid(name, row, "means must be pregnant or postpartum, with a source")
            sets[fields["means"]].append(fields["icd10cm_prefix"])
        return cls(tuple(sets["pregnant"]), tuple(sets["postpartum"]))


def read_subject(  # noqa: PLR0912 one statement about the patient after the other
    build: Build,
    patient: r.Patient,
    codes: StatusCodes,
    problems: Iterable[Problem],
    measurements: Mapping[str, Sequence[Measurement]],
    coded: Mapping[str, tuple[CodedValue, ...]],
) -> Subject:
    """The subject, with pregnancy as far as coded statements tell."""
    at = build.at
    pregnant: bool | None = None
    postpartum: bool | None = None
    weeks: float | None = None
    problems = tuple(problems)
    stated_at: datetime | None = None
    delivered = max(
        (
            p.time
            for p in problems
            if p.time is not None and p.status != "absent" and p.icd10cm.startswith(codes.postpartum)
        ),
        default=None,
    )
    days, precision = age_days(patient.birthDate, at)
    if patient.birthDate and days is None:
        build.issues.append(ReadIssue("invalid-date", build.patient_reference, "birthDate"))
    # What is said of a baby's gestation or a mother's pregnancy in a child's chart is not the child's.
    child = days is not None and days < _YOUNGEST
    for problem in problems:
        if child:
            break
        fresh = problem.time is None or at - problem.time <= _PREGNANCY
        if delivered is not None and problem.time is not None and problem.time <= delivered:
            fresh = False
        if problem.status == "active" and fresh and problem.icd10cm.startswith(codes.pregnant):
            pregnant = True
            if problem.time is not None and (stated_at is None or problem.time > stated_at):
                stated_at = problem.time
            if problem.icd10cm.startswith("Z3A.") and problem.icd10cm[4:6].isdigit():
                # Z3A.20 is "20 weeks gestation" (ICD-10-CM); 00, 01 and 49 are not counts of weeks.
                stated = int(problem.icd10cm[4:6])
                passed = (at - problem.time).days / 7 if problem.time is not None else 0.0
                weeks = stated + passed if 8 <= stated <= 42 else weeks
        recent = problem.time is not None and at - problem.time <= _POSTPARTUM
        if recent and problem.status != "absent" and problem.icd10cm.startswith(codes.postpartum):
            postpartum = True
    stated_values = coded.get(PREGNANCY_STATUS)
    if stated_values and not child:
        newest = stated_values[0]
        if newest.time is None or at - newest.time <= _PREGNANCY:
            if newest.value == "pregnant":
                pregnant = True
            elif newest.value == "not-pregnant" and (
                pregnant is None
                or (newest.time is not None and stated_at is not None and newest.time > stated_at)
            ):
                pregnant, weeks = False, None
    gestation = measurements.get(GESTATION_WEEKS)
    # In a man's chart a gestational age alone is a slip; a coded statement counts (he may be trans).
    if gestation and pregnant is not False and not child and (pregnant or patient.gender != "male"):
        measured = gestation[0]
        ended = delivered is not None and measured.time is not None and measured.time <= delivered
        if not ended and (measured.time is None or at - measured.time <= _PREGNANCY):
            passed = (at - measured.time).days / 7 if measured.time is not None else 0.0
            weeks = measured.value + passed
            pregnant = True
    if weeks is not None and weeks > 44:
        # Counted on past any term: the pregnancy is over, and nothing in the chart says how.
        weeks, pregnant = None, None
    return Subject(
        patient.id or build.patient_reference,
        _SEXES.get(patient.gender, "unknown"),
        days,
        precision,
        None if postpartum else pregnant,
        weeks,
        postpartum,
        bool(patient.deceasedBoolean or patient.deceasedDateTime),
    )
