"""The cells of one CSV row as FHIR resources: findings, history, drugs, measurements, answers.

Responsible for the resources only; what they mean is decided where charts are built.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from training.datasets.mapping import SYSTEMS, Codes, Mapping
from training.datasets.moments import Resource

Cells = dict[str, str]
LONG_BEFORE = timedelta(days=60)
"""History is dated so long before the visit that no chart takes it for the present illness."""
_VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
_CATEGORY = "http://terminology.hl7.org/CodeSystem/condition-category"
_LOINC = "http://loinc.org"
_UCUM = "http://unitsofmeasure.org"


@dataclass
class Statements:
    """What a row states: reasons of the visit, and everything else."""

    reasons: list[Resource] = field(default_factory=list)
    resources: list[Resource] = field(default_factory=list)


def statements(mapping: Mapping, cells: Cells, at: datetime, left_out: Counter[str]) -> Statements:
    """The statements of one row at the visit's start `at`; cells that cannot be read are counted."""
    found = Statements()
    for entry in mapping.finding:
        for concept, held in _concepts(entry, cells):
            if entry.role == "complaint" and held:
                found.reasons.append(concept)
            onset = _onset(entry, cells, at, left_out) if held else None
            if entry.role != "complaint" or onset is not None or not held:
                found.resources.append(_condition(concept, held, "encounter-diagnosis", at, onset))
    for entry in mapping.history:
        for concept, held in _concepts(entry, cells):
            found.resources.append(_condition(concept, held, "problem-list-item", at - LONG_BEFORE))
    for entry in mapping.medication:
        found.resources += [
            {"resourceType": "MedicationStatement", "status": "active", "medicationCodeableConcept": concept}
            for concept, held in _concepts(entry, cells)
            if held
        ]
    found.resources += _measurements(mapping, cells, at, left_out)
    for answer in mapping.answer:
        cell = cells[answer.column].strip()
        text = answer.values.get(cell, "" if answer.values else cell)
        if text:
            found.resources.append(_observation(answer.loinc, at, "valueCodeableConcept", {"text": text}))
    return found


def _concepts(entry: Codes, cells: Cells) -> Iterator[tuple[Resource, bool]]:
    """The concepts that a cell states, each with whether it holds (or is denied)."""
    cell = cells[entry.column].strip()
    if entry.code is not None:
        if cell.lower() in {text.lower() for text in entry.present}:
            yield _concept(entry, entry.code), True
        elif cell.lower() in {text.lower() for text in entry.absent}:
            yield _concept(entry, entry.code), False
        return
    for part in cell.split(entry.separator) if entry.separator else (cell,):
        said = part.strip()
        said = entry.values.get(said, said)
        if said:
            yield _concept(entry, said), True


def _concept(entry: Codes, said: str) -> Resource:
    if entry.system == "text":
        return {"text": said}
    return {"coding": [{"system": SYSTEMS[entry.system], "code": said}]}


def _onset(entry: Codes, cells: Cells, at: datetime, left_out: Counter[str]) -> str | None:
    if entry.days is None or not (cell := cells[entry.days].strip()):
        return None
    days = number_of(cell)
    if days is None or not 0 <= days <= 36525:
        left_out["unreadable-duration"] += 1
        return None
    return (at - timedelta(days=days)).isoformat()


def _condition(
    concept: Resource, held: bool, category: str, recorded: datetime, onset: str | None = None
) -> Resource:
    status = "confirmed" if held else "refuted"
    condition: Resource = {
        "resourceType": "Condition",
        "verificationStatus": {"coding": [{"system": _VERIFICATION, "code": status}]},
        "category": [{"coding": [{"system": _CATEGORY, "code": category}]}],
        "code": concept,
        "recordedDate": recorded.isoformat(),
    }
    if onset is not None:
        condition["onsetDateTime"] = onset
    return condition


def _measurements(mapping: Mapping, cells: Cells, at: datetime, left_out: Counter[str]) -> Iterator[Resource]:
    for entry in mapping.measurement:
        cell = cells[entry.column].strip()
        if not cell:
            continue
        value = number_of(cell.replace(",", ".") if entry.decimal == "," else cell)
        if value is None:
            left_out["unreadable-number"] += 1
            continue
        quantity = {"value": value, "unit": entry.unit, "system": _UCUM, "code": entry.unit}
        yield _observation(entry.loinc, at, "valueQuantity", quantity)


def _observation(loinc: str, at: datetime, element: str, value: Resource) -> Resource:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": _LOINC, "code": loinc}]},
        "effectiveDateTime": at.isoformat(),
        element: value,
    }


def number_of(cell: str) -> float | None:
    """The number in a cell, `None` when it is none."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
