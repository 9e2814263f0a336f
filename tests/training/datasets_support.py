"""Small records for the dataset tests: one patient, one emergency visit, what was said before and after."""

import functools
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from training.datasets.attention import AttentionCodes
from training.datasets.context import DatasetContext
from training.datasets.fhir import VisitRows
from training.datasets.format import Row
from training.datasets.ndjson import Shared
from training.datasets.options import CohortOptions
from training.datasets.visits import read_record
from training.ensemble.cohort import Simulator

Resource = dict[str, Any]
START = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)
CREATED = datetime(2026, 7, 1, tzinfo=UTC)
KEY = b"a key of the tests, long enough"
ICD, SNOMED, LOINC = "http://hl7.org/fhir/sid/icd-10-cm", "http://snomed.info/sct", "http://loinc.org"
HPO = "http://human-phenotype-ontology.org"


@functools.cache
def context() -> DatasetContext:
    """The packaged terminology and knowledge, read once."""
    return DatasetContext.load()


@functools.cache
def simulator() -> Simulator:
    """The simulator over the same terminology and knowledge."""
    return Simulator(context().builder, context().knowledge)


def at(hours: float) -> str:
    """A moment so many hours after the start of the visit."""
    return (START + timedelta(hours=hours)).isoformat()


def patient(**more: Any) -> Resource:
    """The patient, a woman of 34."""
    return {"resourceType": "Patient", "id": "p", "gender": "female", "birthDate": "1991-05-20", **more}


def encounter(identity: str = "v", hours: float = 0, **more: Any) -> Resource:
    """A finished emergency visit that starts `hours` after the first one."""
    return {
        "resourceType": "Encounter",
        "id": identity,
        "status": "finished",
        "class": {"code": "EMER"},
        "subject": {"reference": "Patient/p"},
        "period": {"start": at(hours), "end": at(hours + 9)},
        "reasonCode": [{"coding": [{"system": SNOMED, "code": "21522001", "display": "Abdominal pain"}]}],
        **more,
    }


def condition(
    identity: str, code: str, system: str = ICD, status: str = "confirmed", **more: Any
) -> Resource:
    """A Condition of the category encounter-diagnosis."""
    return {
        "resourceType": "Condition",
        "id": identity,
        "verificationStatus": {"coding": [{"code": status}]},
        "clinicalStatus": {"coding": [{"code": "active"}]},
        "category": [{"coding": [{"code": "encounter-diagnosis"}]}],
        "code": {"coding": [{"system": system, "code": code}]},
        "subject": {"reference": "Patient/p"},
        **more,
    }


def problem(identity: str, code: str, **more: Any) -> Resource:
    """A Condition of the problem list."""
    return condition(identity, code, category=[{"coding": [{"code": "problem-list-item"}]}], **more)


def observation(identity: str, loinc: str, value: float, unit: str, hours: float, **more: Any) -> Resource:
    """A measured value."""
    return {
        "resourceType": "Observation",
        "id": identity,
        "status": "final",
        "code": {"coding": [{"system": LOINC, "code": loinc}]},
        "subject": {"reference": "Patient/p"},
        "effectiveDateTime": at(hours),
        "valueQuantity": {"value": value, "unit": unit, "code": unit},
        **more,
    }


def diagnosis(code: str = "K35.80", hours: float = 8, **more: Any) -> Resource:
    """The diagnosis of the visit, made after the decision."""
    visit = {"reference": "Encounter/v"}
    return condition("dx", code, **{"encounter": visit, "recordedDate": at(hours), **more})


def appendicitis() -> list[Resource]:
    """A visit with a complaint, vital signs, history and a diagnosis."""
    return [
        patient(),
        encounter(),
        condition("s1", "HP:0002013", HPO, recordedDate=at(1)),
        problem("h1", "J45.909", recordedDate=at(-24 * 400)),
        observation("o1", "8310-5", 38.1, "Cel", 0.5),
        observation("o2", "8867-4", 104, "/min", 0.5),
        diagnosis(),
    ]


def outcomes(resources: Iterable[Resource], **options: Any) -> dict[str, Row | str]:
    """By Encounter reference the row of a visit, or the reason why it has none."""
    chosen = CohortOptions(**options)
    record = read_record([msgspec.json.encode(resource) for resource in resources], chosen)
    assert record is not None
    maker = VisitRows(context(), chosen, AttentionCodes.load(), Shared())
    return dict(maker.rows(record, "0" * 32))


def row(resources: Sequence[Resource], **options: Any) -> Row:
    """The row of the visit ``v``."""
    found = outcomes(resources, **options)["Encounter/v"]
    assert isinstance(found, Row), found
    return found


def evidence(found: Row) -> tuple[object, ...]:
    """What of a row rests on the chart: everything but the labels."""
    return (
        found.index,
        found.value,
        found.said_index,
        found.said_value,
        found.denied,
        found.setting,
        found.age_band,
        found.sex,
    )


def named(found: Row) -> dict[str, float]:
    """The features of a row by name."""
    names = context().schema.names()
    return {names[place]: value for place, value in zip(found.index, found.value, strict=True)}


def write_export(folder: Path, resources: Iterable[Resource]) -> Path:
    """The resources as NDJSON files by type."""
    folder.mkdir(parents=True, exist_ok=True)
    by_type: dict[str, list[bytes]] = {}
    for resource in resources:
        by_type.setdefault(resource["resourceType"], []).append(msgspec.json.encode(resource))
    for kind, lines in by_type.items():
        (folder / f"{kind}.ndjson").write_bytes(b"\n".join(lines) + b"\n")
    return folder
