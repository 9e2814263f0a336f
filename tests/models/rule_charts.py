"""Builds charts for the rule tests: out of terms of a rule file, or by hand, and judges terms naively.

The naive judge reads the raw TOML and the chart with plain loops; it shares no code with the
implementation, so that the two can be compared.
"""

import re
import tomllib
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any

from fhir_adapters.chart import (
    Allergy,
    CodedValue,
    Encounter,
    Finding,
    Measurement,
    Medication,
    Order,
    PatientChart,
    Problem,
    Subject,
)
from fhir_adapters.hpo import load_ontology

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ADULT = 45 * 365
ONTOLOGY = load_ontology()
TERM = re.compile(r"(\S+) (<=|>=|<|>) (\S+) (\S+)")


def data(file: str) -> dict[str, Any]:
    """A packaged TOML file, read afresh."""
    return tomllib.loads(resources.files("models.rules").joinpath("data", file).read_text(encoding="utf-8"))


RED_FLAGS = data("red_flags.toml")
GROUPS: dict[str, dict[str, Any]] = RED_FLAGS["group"]
Item = Finding | Problem | Measurement | CodedValue | Medication | Allergy


def finding(label: str, **changes: Any) -> Finding:
    """A present finding by its HPO name."""
    hpo = changes.pop("hpo", None) or BY_LABEL[label]
    values = {"state": "present", "role": "complaint", "sources": (f"Condition/{hpo[3:]}",), **changes}
    return Finding(hpo, label, **values)


BY_LABEL = {ONTOLOGY.label(term): term for term in ONTOLOGY}


def problem(code: str, status: str = "active", **changes: Any) -> Problem:
    """A problem by its ICD-10-CM code."""
    values = {"role": "problem-list", "sources": (f"Condition/{code}",), **changes}
    return Problem(code, code, status, **values)  # type: ignore[arg-type]


def value(loinc: str, number: float, unit: str, **changes: Any) -> Measurement:
    """A measurement taken at the chart's moment."""
    values = {"time": AT, "source": f"Observation/{loinc}", **changes}
    return Measurement(loinc, number, unit, **values)


def drug(atc: str, **changes: Any) -> Medication:
    """An active drug."""
    return Medication(atc, True, (f"MedicationStatement/{atc}",), atc=(atc,), **changes)


def draft(label: str, **changes: Any) -> Order:
    """An order being drafted and selected."""
    values = {"draft": True, "selected": True, **changes}
    kind = "MedicationRequest" if "atc" in changes else "ServiceRequest"
    return Order(kind, f"{kind}/{label}", label, **values)


def chart(*items: Item, subject: Subject | None = None, **changes: Any) -> PatientChart:
    """A chart in an emergency department that holds the given items."""
    measurements: dict[str, tuple[Measurement, ...]] = {}
    coded: dict[str, tuple[CodedValue, ...]] = {}
    for item in items:
        if isinstance(item, Measurement):
            measurements[item.loinc] = (*measurements.get(item.loinc, ()), item)
        elif isinstance(item, CodedValue):
            coded[item.loinc] = (*coded.get(item.loinc, ()), item)
    values: dict[str, Any] = {
        "subject": subject or Subject("p", "male", ADULT, "day"),
        "at": AT,
        "encounter": Encounter("Encounter/1", "emergency", AT - timedelta(hours=1)),
        "findings": tuple([item for item in items if isinstance(item, Finding)]),
        "problems": tuple([item for item in items if isinstance(item, Problem)]),
        "medications": tuple([item for item in items if isinstance(item, Medication)]),
        "allergies": tuple([item for item in items if isinstance(item, Allergy)]),
        "measurements": measurements,
        "coded": coded,
        **changes,
    }
    return PatientChart(**values)


def fitting_subject(population: dict[str, Any] | None) -> Subject:
    """Somebody a rule's population is about."""
    who = population or {}
    low, high = who.get("age_min_days", 0), who.get("age_max_days")
    age = max(low, min(ADULT, high if high is not None else ADULT))
    pregnant = who.get("pregnant")
    sex = who.get("sex") or ("female" if pregnant in ("yes", "possible", "postpartum") else "male")
    return Subject(
        "p",
        sex,
        30 * 365 if pregnant and low == 0 and high is None else age,
        "day",
        pregnant={"yes": True, "possible": None, "postpartum": False, "no": False}.get(pregnant or ""),
        gestation_weeks=30.0 if who.get("gestation_min_weeks") else None,
        postpartum=True if pregnant == "postpartum" else None,
    )


def evidence(term: str) -> list[Item]:  # noqa: PLR0911 (one kind of term each)
    """Chart items that make one term true."""
    kind, _, body = term.partition(":")
    if kind == "group":
        group = GROUPS[body]
        members = group.get("any") or group["of"]
        return [item for member in members[: group.get("at_least", 1)] for item in evidence(member)]
    if kind in ("finding", "known", "absent"):
        hpo, _, label = body.partition(" ")
        state = "absent" if kind == "absent" else "present"
        return [
            finding(label, hpo=hpo, state=state, time=AT - timedelta(days=400) if kind == "known" else None)
        ]
    if kind in ("acute", "problem", "history"):
        code = body if len(body) >= 3 else {"C": "C34.90"}.get(body, f"{body}1")
        role = "encounter" if kind == "acute" else "problem-list"
        return [problem(code, "inactive" if kind == "history" else "active", role=role)]
    if kind == "medication":
        return [drug(body)]
    if kind == "allergy":
        return [Allergy(body, (f"AllergyIntolerance/{body}",), (body,))]
    if kind == "coded":
        loinc, _, key = body.partition("=")
        return [CodedValue(loinc, key, AT, f"Observation/{loinc}")]
    match = TERM.match(body)
    assert match is not None, term
    loinc, operator, limit, unit = match.groups()
    number = float(limit)
    return [
        value(loinc, number - 0.5 if operator == "<" else number + 0.5 if operator == ">" else number, unit)
    ]


def _choices(condition: dict[str, Any]) -> list[tuple[int, list[Any]]]:
    """A condition's clauses as (how many, of what)."""
    clauses: list[tuple[int, list[Any]]] = []
    for item in condition.get("all", []):
        if isinstance(item, str):
            clauses.append((1, [item]))
        elif "any" in item:
            clauses.append((1, item["any"]))
        else:
            clauses.append((item["at_least"], item["of"]))
    if "any" in condition:
        clauses.append((1, condition["any"]))
    if "of" in condition:
        clauses.append((condition["at_least"], condition["of"]))
    return clauses


def satisfying(condition: dict[str, Any]) -> list[Item]:
    """Items that meet a condition, without two values of one analyte where that can be avoided."""
    items: list[Item] = []
    for least, choices in _choices(condition):
        for choice in choices[:least]:
            terms = [choice] if isinstance(choice, str) else choice["all"]
            for term in terms:
                for item in evidence(term):
                    if item not in items:
                        items.append(item)
    return items


def holds(term: str, patient: PatientChart) -> bool:  # noqa: PLR0911 (one kind of term each)
    """Whether a chart meets a term, judged naively (every value in these charts is current)."""
    kind, _, body = term.partition(":")
    if kind == "group":
        group = GROUPS[body]
        members = group.get("any") or group["of"]
        return sum(holds(member, patient) for member in members) >= group.get("at_least", 1)
    if kind in ("finding", "known"):
        hpo = body.partition(" ")[0]
        return any(
            item.state != "absent"
            and ONTOLOGY.is_a(item.hpo, hpo)
            and (kind == "known" or item.time is None or AT - item.time < timedelta(days=7))
            for item in patient.findings
        )
    if kind == "absent":
        hpo = body.partition(" ")[0]
        return any(item.state == "absent" and ONTOLOGY.is_a(hpo, item.hpo) for item in patient.findings)
    if kind in ("acute", "problem", "history"):
        statuses = (
            ("active", "uncertain", "inactive", "resolved") if kind == "history" else ("active", "uncertain")
        )
        return any(
            p.icd10cm.startswith(body)
            and p.status in statuses
            and (kind != "acute" or p.role in ("complaint", "encounter"))
            for p in patient.problems
        )
    if kind == "medication":
        return any(code.startswith(body) for item in patient.medications if item.active for code in item.atc)
    if kind == "allergy":
        return any(code.startswith(body) for item in patient.allergies for code in item.atc)
    if kind == "coded":
        loinc, _, key = body.partition("=")
        series = patient.coded.get(loinc)
        return bool(series) and series[0].value == key
    match = TERM.match(body)
    assert match is not None
    loinc, operator, limit, _ = match.groups()
    newest = patient.latest(loinc)
    if newest is None:
        return False
    number, bound = newest.value, float(limit)
    return {"<": number < bound, "<=": number <= bound, ">": number > bound, ">=": number >= bound}[operator]


def met(condition: dict[str, Any], patient: PatientChart) -> bool:
    """Whether a chart meets a condition, judged naively."""
    for least, choices in _choices(condition):
        found = 0
        for choice in choices:
            terms = [choice] if isinstance(choice, str) else choice["all"]
            found += all(holds(term, patient) for term in terms)
        if found < least:
            return False
    return not any(holds(term, patient) for term in condition.get("none", []))
