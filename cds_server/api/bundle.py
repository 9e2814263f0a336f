"""The simple form as a FHIR Bundle, so that it goes through the one line every record goes through."""

from datetime import datetime, timedelta
from typing import Any

import msgspec

from cds_server.api.schemas import HistoryItem, PredictRequest, Symptom, Vitals

PATIENT_ID = "form"
_DAYS_PER_YEAR = 365.25
_LOINC = "http://loinc.org"
_SNOMED = "http://snomed.info/sct"
# Field, LOINC, UCUM unit.  LOINC 2.7x long common names; units as the vital-signs profile of FHIR R4.
_QUANTITIES = (
    ("temperature_c", "8310-5", "Cel"),
    ("heart_rate", "8867-4", "/min"),
    ("respiratory_rate", "9279-1", "/min"),
    ("systolic_bp", "8480-6", "mm[Hg]"),
    ("diastolic_bp", "8462-4", "mm[Hg]"),
    ("spo2", "59408-5", "%"),
    ("oxygen_flow_l_min", "3151-8", "L/min"),
    ("pain", "72514-3", "{score}"),
    ("weight_kg", "29463-7", "kg"),
)
# SNOMED CT: mentally alert, acute confusion, responds to voice, responds to pain, unresponsive.
_CONSCIOUSNESS = {
    "alert": "248234008",
    "confused": "130987000",
    "voice": "300202002",
    "pain": "450847001",
    "unresponsive": "422768004",
}
_PREGNANT, _NOT_PREGNANT = "77386006", "60001007"
_CLASSES = {"emergency": "EMER", "inpatient": "IMP", "ambulatory": "AMB", "home": "HH", "virtual": "VR"}
_VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
_CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
_CATEGORY = "http://terminology.hl7.org/CodeSystem/condition-category"

Resource = dict[str, Any]


def bundle_of(request: PredictRequest, at: datetime) -> bytes:
    """A collection Bundle of one patient at the moment `at`, as JSON."""
    patient: Resource = {"resourceType": "Patient", "id": PATIENT_ID, "gender": request.sex}
    if request.age is not None:
        born = at.date() - timedelta(days=round(request.age * _DAYS_PER_YEAR))
        patient["birthDate"] = born.isoformat()
    resources = [patient]
    stamp = at.isoformat()
    if request.setting is not None:
        resources.append(
            {
                "resourceType": "Encounter",
                "id": "form-encounter",
                "status": "in-progress",
                "class": {"code": _CLASSES[request.setting]},
                "period": {"start": stamp},
            }
        )
    resources += [_symptom(symptom, number, stamp) for number, symptom in enumerate(request.symptoms, 1)]
    resources += [_history(item, number) for number, item in enumerate(request.history, 1)]
    if request.vitals is not None:
        resources += _vitals(request.vitals, stamp)
    if request.pregnant is not None:
        code = _PREGNANT if request.pregnant else _NOT_PREGNANT
        resources.append(
            _observation("pregnancy", "82810-3", stamp, valueCodeableConcept=_concept(_SNOMED, code))
        )
    entries = [
        {
            "resource": resource
            if resource is patient
            else resource | {"subject": {"reference": f"Patient/{PATIENT_ID}"}}
        }
        for resource in resources
    ]
    bundle = {"resourceType": "Bundle", "type": "collection", "timestamp": stamp, "entry": entries}
    return msgspec.json.encode(bundle)


def _concept(system: str, code: str) -> Resource:
    return {"coding": [{"system": system, "code": code}]}


def _code(name: str | None, code: str | None) -> Resource:
    concept: Resource = {}
    if code is not None:
        if code.startswith("HP:"):
            system = "http://human-phenotype-ontology.org"
        else:
            system = _SNOMED if code.isdigit() else "http://hl7.org/fhir/sid/icd-10-cm"
        concept = _concept(system, code)
    if name is not None:
        concept["text"] = name
    return concept


def _symptom(symptom: Symptom, number: int, stamp: str) -> Resource:
    status = "refuted" if symptom.intensity == 0 else "confirmed"
    return {
        "resourceType": "Condition",
        "id": f"symptom-{number}",
        "clinicalStatus": _concept(_CLINICAL, "active"),
        "verificationStatus": _concept(_VERIFICATION, status),
        "category": [_concept(_CATEGORY, "encounter-diagnosis")],
        "code": _code(symptom.name, symptom.code),
        "recordedDate": stamp,
    }


def _history(item: HistoryItem, number: int) -> Resource:
    return {
        "resourceType": "Condition",
        "id": f"history-{number}",
        "clinicalStatus": _concept(_CLINICAL, "active" if item.active else "resolved"),
        "verificationStatus": _concept(_VERIFICATION, "confirmed"),
        "category": [_concept(_CATEGORY, "problem-list-item")],
        "code": _code(item.name, item.code),
    }


def _observation(identity: str, loinc: str, stamp: str, **value: Any) -> Resource:
    return {
        "resourceType": "Observation",
        "id": f"form-{identity}",
        "status": "final",
        "code": _concept(_LOINC, loinc),
        "effectiveDateTime": stamp,
        **value,
    }


def _vitals(vitals: Vitals, stamp: str) -> list[Resource]:
    found = []
    for name, loinc, unit in _QUANTITIES:
        value = getattr(vitals, name)
        if value is not None:
            quantity = {"value": value, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit}
            found.append(_observation(name.replace("_", "-"), loinc, stamp, valueQuantity=quantity))
    if vitals.consciousness is not None:
        concept = _concept(_SNOMED, _CONSCIOUSNESS[vitals.consciousness])
        found.append(_observation("consciousness", "67775-7", stamp, valueCodeableConcept=concept))
    return found
