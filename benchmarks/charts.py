"""Charts of any size for load tests: one patient, the mix of resources an EHR's prefetch brings.

About 800 bytes a resource, deterministic for a seed.  The newest vital signs are those of a septic
patient, so that the whole line has work to do: scores, a red flag, cards and draft orders.
"""

import json
import random
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

# (LOINC, display, UCUM unit, mean, spread), values of an ill adult.
VITALS = [
    ("8867-4", "Heart rate", "/min", 104, 10),
    ("9279-1", "Respiratory rate", "/min", 22, 2),
    ("8310-5", "Body temperature", "Cel", 38.6, 0.5),
    ("59408-5", "Oxygen saturation in Arterial blood by Pulse oximetry", "%", 93, 1.5),
    ("29463-7", "Body weight", "kg", 78, 1),
    ("8302-2", "Body height", "cm", 171, 0.1),
]
LABS = [
    ("2823-3", "Potassium [Moles/volume] in Serum or Plasma", "mmol/L", 4.2, 0.3),
    ("2951-2", "Sodium [Moles/volume] in Serum or Plasma", "mmol/L", 139, 3),
    ("2160-0", "Creatinine [Mass/volume] in Serum or Plasma", "mg/dL", 1.1, 0.2),
    ("2345-7", "Glucose [Mass/volume] in Serum or Plasma", "mg/dL", 118, 20),
    ("718-7", "Hemoglobin [Mass/volume] in Blood", "g/dL", 13.2, 0.8),
    ("777-3", "Platelets [#/volume] in Blood by Automated count", "10*3/uL", 230, 30),
    ("6690-2", "Leukocytes [#/volume] in Blood by Automated count", "10*3/uL", 11.5, 2),
    ("1988-5", "C reactive protein [Mass/volume] in Serum or Plasma", "mg/L", 60, 20),
    ("2524-7", "Lactate [Moles/volume] in Serum or Plasma", "mmol/L", 2.1, 0.4),
    ("1742-6", "Alanine aminotransferase [Enzymatic activity/volume] in Serum or Plasma", "U/L", 32, 6),
    ("1975-2", "Bilirubin.total [Mass/volume] in Serum or Plasma", "mg/dL", 0.8, 0.2),
    ("4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood", "%", 6.4, 0.3),
]
CONDITIONS = [
    ("38341003", "Hypertensive disorder", "I10"),
    ("44054006", "Diabetes mellitus type 2", "E11.9"),
    ("195967001", "Asthma", "J45.909"),
    ("386661006", "Fever", "R50.9"),
    ("49727002", "Cough", "R05.9"),
    ("267036007", "Dyspnea", "R06.02"),
]
DRUGS = [
    ("860975", "Metformin hydrochloride 500 MG Oral Tablet"),
    ("314076", "Lisinopril 10 MG Oral Tablet"),
    ("617314", "Atorvastatin 20 MG Oral Tablet"),
]
_PATIENT = "bench-patient"


def _concept(system: str, code: str, display: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code, "display": display}], "text": display}


def _common(kind: str, number: int) -> dict[str, Any]:
    stamp = "2026-11-20T08:00:00.000+00:00"
    return {
        "resourceType": kind,
        "id": f"{kind.lower()}-{number:06d}",
        "meta": {"versionId": "1", "lastUpdated": stamp, "source": "urn:bench:ehr"},
        "subject": {"reference": f"Patient/{_PATIENT}"},
        "encounter": {"reference": f"Encounter/encounter-{number // 20:05d}"},
    }


def _observation(number: int, when: datetime, rng: random.Random) -> dict[str, Any]:
    vital = number % 3 == 0
    loinc, display, unit, mean, spread = rng.choice(VITALS if vital else LABS)
    category = ("vital-signs", "Vital Signs") if vital else ("laboratory", "Laboratory")
    return _common("Observation", number) | {
        "status": "final",
        "category": [_concept("http://terminology.hl7.org/CodeSystem/observation-category", *category)],
        "code": _concept("http://loinc.org", loinc, display),
        "effectiveDateTime": when.isoformat(),
        "valueQuantity": {
            "value": round(rng.gauss(mean, spread), 1),
            "unit": unit,
            "system": "http://unitsofmeasure.org",
            "code": unit,
        },
    }


def _condition(number: int, when: datetime, rng: random.Random) -> dict[str, Any]:
    snomed, display, icd = rng.choice(CONDITIONS)
    code = _concept("http://snomed.info/sct", snomed, display)
    code["coding"].append({"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": icd})
    base = "http://terminology.hl7.org/CodeSystem/condition-"
    return _common("Condition", number) | {
        "clinicalStatus": {"coding": [{"system": base + "clinical", "code": "active"}]},
        "verificationStatus": {"coding": [{"system": base + "ver-status", "code": "confirmed"}]},
        "category": [{"coding": [{"system": base + "category", "code": "encounter-diagnosis"}]}],
        "code": code,
        "onsetDateTime": when.isoformat(),
        "recordedDate": when.isoformat(),
    }


def _prescription(number: int, when: datetime, rng: random.Random) -> dict[str, Any]:
    rxnorm, display = rng.choice(DRUGS)
    return _common("MedicationRequest", number) | {
        "status": "active",
        "intent": "order",
        "medicationCodeableConcept": _concept("http://www.nlm.nih.gov/research/umls/rxnorm", rxnorm, display),
        "authoredOn": when.isoformat(),
        "dosageInstruction": [
            {"sequence": 1, "text": "1 tablet by mouth daily", "timing": {"repeat": {"frequency": 1}}}
        ],
    }


def hook_request(resources: int, *, now: datetime | None = None, seed: int = 7) -> bytes:
    """A patient-view request whose prefetch holds exactly `resources` resources, as JSON bytes."""
    rng = random.Random(seed)
    now = (now or datetime.now(UTC)).replace(microsecond=0)
    patient = {"resourceType": "Patient", "id": _PATIENT, "gender": "female", "birthDate": "1958-04-12"}
    encounter = {
        "resourceType": "Encounter",
        "id": "encounter-00000",
        "status": "in-progress",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "EMER"},
        "subject": {"reference": f"Patient/{_PATIENT}"},
        "period": {"start": (now - timedelta(hours=3)).isoformat()},
        "reasonCode": [_concept("http://snomed.info/sct", "386661006", "Fever")],
    }
    sections: dict[str, list[dict[str, Any]]] = {"observations": [], "conditions": [], "medications": []}
    for number in range(resources - 2):
        when = now - timedelta(minutes=10) - timedelta(hours=3 * (number // 12))
        draw = number % 10
        if draw < 7:
            sections["observations"].append(_observation(number, when, rng))
        elif draw < 9:
            sections["conditions"].append(_condition(number, when, rng))
        else:
            sections["medications"].append(_prescription(number, when, rng))

    def searchset(items: list[dict[str, Any]]) -> dict[str, Any]:
        base = "https://ehr.example.org/fhir"
        entries = [
            {"fullUrl": f"{base}/{i['resourceType']}/{i['id']}", "resource": i, "search": {"mode": "match"}}
            for i in items
        ]
        return {"resourceType": "Bundle", "type": "searchset", "total": len(items), "entry": entries}

    prefetch = {
        "patient": patient,
        "encounter": searchset([encounter]),
        "observations": searchset(sections["observations"]),
        "conditions": searchset(sections["conditions"]),
        "medications": searchset(sections["medications"]),
    }
    return json.dumps(
        {
            "hook": "patient-view",
            "hookInstance": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
            "context": {
                "userId": "Practitioner/bench",
                "patientId": _PATIENT,
                "encounterId": "encounter-00000",
            },
            "prefetch": prefetch,
        },
        separators=(",", ":"),
    ).encode()
