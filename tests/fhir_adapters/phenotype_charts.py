"""FHIR resources for the phenotype tests, and the way from them to a profile."""

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from fhir_adapters.chart import PatientChart
from fhir_adapters.chart_builder import ChartBuilder
from fhir_adapters.decode import read_bundle
from fhir_adapters.phenotype import PhenotypeProfile, PhenotypeReader

AT = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
LOINC, SNOMED = "http://loinc.org", "http://snomed.info/sct"
ICD, HPO = "http://hl7.org/fhir/sid/icd-10-cm", "http://human-phenotype-ontology.org"
VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
ME = {"reference": "Patient/p"}
EXAMPLES = Path(__file__).parents[2] / "examples"


@cache
def builder() -> ChartBuilder:
    return ChartBuilder.load()


@cache
def reader() -> PhenotypeReader:
    tables = builder().tables
    return PhenotypeReader.load(tables.ontology, tables.analytes)


def patient(birth_date: str | None = "1986-11-20", gender: str = "male") -> dict[str, Any]:
    born = {"birthDate": birth_date} if birth_date else {}
    return {"resourceType": "Patient", "id": "p", "gender": gender, **born}


def concept(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}


def condition(
    system: str,
    code: str,
    *,
    number: str = "c",
    verification: str = "confirmed",
    clinical: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    status = {"clinicalStatus": concept(CLINICAL, clinical)} if clinical else {}
    return {
        "resourceType": "Condition",
        "id": number,
        "subject": ME,
        "verificationStatus": concept(VERIFICATION, verification),
        "code": concept(system, code),
        **status,
        **more,
    }


def value(
    loinc: str, number: float, unit: str, *, days: float = 0.1, name: str | None = None, **more: Any
) -> dict[str, Any]:
    interpretation = more.pop("interpretation", None)
    said = {"interpretation": [concept(INTERPRETATION, interpretation)]} if interpretation else {}
    comparator = more.pop("comparator", None)
    compared = {"comparator": comparator} if comparator else {}
    return {
        "resourceType": "Observation",
        "id": name or f"o{loinc}-{days:g}",
        "status": "final",
        "subject": ME,
        "code": concept(LOINC, loinc),
        "effectiveDateTime": (AT - timedelta(days=days)).isoformat(),
        "valueQuantity": {"value": number, "unit": unit, "code": unit, **compared},
        **said,
        **more,
    }


def chart_of(*resources: dict[str, Any], who: dict[str, Any] | None = None) -> PatientChart:
    entries = [{"resource": resource} for resource in (who or patient(), *resources)]
    sent = json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}).encode()
    return builder().build(read_bundle(sent), at=AT, patient_id=None)


def profile_of(*resources: dict[str, Any], who: dict[str, Any] | None = None) -> PhenotypeProfile:
    return reader().read(chart_of(*resources, who=who))


def example(name: str) -> PhenotypeProfile:
    """The profile of one of the examples, at the moment the examples are written for."""
    request = json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    resources: list[dict[str, Any]] = []
    for sent in request["prefetch"].values():
        inner = sent.get("entry", []) if sent["resourceType"] == "Bundle" else [{"resource": sent}]
        resources.extend(entry["resource"] for entry in inner)
    entries = [{"resource": resource} for resource in resources]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    found = read_bundle(json.dumps(bundle).encode())
    return reader().read(builder().build(found, at=AT, patient_id=None))
