"""Simulated charts as FHIR R4 Bundles, as an EHR would send them: the proof that reader and rows agree.

Responsible for the resources of one patient; which codes a statement carries comes from the knowledge
(HPO, ICD-10-CM, LOINC, ATC).  Everything is dated before the moment `AT`.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from training.simulation.population import Patients
from training.simulation.recording import (
    COMPLAINT,
    CONSCIOUSNESS,
    DENIED_CODE,
    UNSURE_CODE,
    Recorded,
    drug_list,
)
from training.simulation.tables import Tables

AT = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
LOINC, HPO, ICD = (
    "http://loinc.org",
    "http://human-phenotype-ontology.org",
    "http://hl7.org/fhir/sid/icd-10-cm",
)
ATC, SNOMED = "http://www.whocc.no/atc", "http://snomed.info/sct"
_CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
_VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
_CATEGORY = "http://terminology.hl7.org/CodeSystem/condition-category"
_AVPU = {
    "alert": "248234008", "confusion": "40917007", "voice": "300202002", "pain": "450847001",
    "unresponsive": "422768004",
}  # fmt: skip
_ANSWER = {1: ("LA6576-8", "Positive"), -1: ("LA6577-6", "Negative")}
_SMOKING = {"current": ("LA18976-3", "Current every day smoker"), "former": ("LA15920-4", "Former smoker")}
_PREGNANT = {1: "77386006", -1: "60001007"}
Resource = dict[str, Any]


def concept(key: str, label: str) -> Resource:
    """A CodeableConcept of a finding key (an HPO id or ``ICD:<code>``)."""
    system, code = (HPO, key) if key.startswith("HP:") else (ICD, key.removeprefix("ICD:"))
    return {"coding": [{"system": system, "code": code, "display": label}], "text": label}


def condition(
    code: Resource, status: str = "confirmed", category: str = "encounter-diagnosis", onset: str | None = None
) -> Resource:
    """A Condition with a verificationStatus; refuted ones carry no clinicalStatus."""
    resource: Resource = {
        "resourceType": "Condition",
        "verificationStatus": {"coding": [{"system": _VERIFICATION, "code": status}]},
        "category": [{"coding": [{"system": _CATEGORY, "code": category}]}],
        "code": code,
    }
    if status != "refuted":
        resource["clinicalStatus"] = {"coding": [{"system": _CLINICAL, "code": "active"}]}
    if onset is not None:
        resource["onsetDateTime"] = onset
    return resource


def observation(loinc: str, at: datetime, **value: Any) -> Resource:
    """A final Observation of a LOINC code."""
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": LOINC, "code": loinc}]},
        "effectiveDateTime": at.isoformat(),
        **value,
    }


def risk_resources(evidence: tuple[str, ...], name: str, value: int) -> list[Resource]:
    """How a chart tells a risk factor: by its first spelling (denied: only what a Condition can refute)."""
    kind, _, code = evidence[0].partition(":")
    if kind == "icd":
        status = "confirmed" if value > 0 else "refuted"
        return [condition(concept("ICD:" + code, name), status, "problem-list-item")]
    if value < 0:
        return []
    if kind == "coded":
        loinc, _, answer = code.partition("=")
        found, display = _SMOKING[answer]
        coding = {"system": LOINC, "code": found, "display": display}
        return [observation(loinc, AT - timedelta(hours=1), valueCodeableConcept={"coding": [coding]})]
    if kind == "atc":
        return [medication(code)]
    if kind == "fam":
        return [
            {
                "resourceType": "FamilyMemberHistory",
                "status": "completed",
                "relationship": {"coding": [{"code": "FAMMEMB"}]},
                "condition": [{"code": concept("ICD:" + code, name)}],
            }
        ]
    return [condition(concept(code, name), category="problem-list-item")]


def medication(atc: str) -> Resource:
    """A drug that the patient takes, by ATC code."""
    return {
        "resourceType": "MedicationStatement",
        "status": "active",
        "medicationCodeableConcept": {"coding": [{"system": ATC, "code": atc}]},
    }


def consciousness(level: str) -> Resource:
    """The ACVPU statement."""
    coding = {"system": SNOMED, "code": _AVPU[level]}
    return observation("67775-7", AT, valueCodeableConcept={"coding": [coding]})


def result(loinc: str, value: int) -> Resource:
    """A test answered positive (1) or negative (-1)."""
    code, display = _ANSWER[value]
    coding = {"system": LOINC, "code": code, "display": display}
    return observation(loinc, AT, valueCodeableConcept={"coding": [coding], "text": display})


class Writer:
    """Writes Bundles; holds labels and units of the knowledge."""

    def __init__(self, tables: Tables, labels: dict[str, str], units: dict[str, str]) -> None:
        self._tables = tables
        self._labels = labels
        self._units = units
        self._drugs = drug_list(tables)

    def bundles(self, patients: Patients, recorded: Recorded, start: int = 0) -> Iterator[Resource]:
        """One Bundle (type collection) for each patient; ids count from `start`."""
        for row in range(len(patients)):
            yield self.bundle(patients, recorded, row, f"sim-{start + row:06d}")

    def bundle(self, patients: Patients, recorded: Recorded, row: int, name: str) -> Resource:
        """The Bundle of one patient."""
        patient: Resource = {"resourceType": "Patient", "id": name}
        if recorded.sex_known[row]:
            patient["gender"] = "female" if patients.female[row] else "male"
        if recorded.age_known[row]:
            born = AT - timedelta(days=int(patients.age[row] * 365.25))
            patient["birthDate"] = born.date().isoformat()
        encounter: Resource = {
            "resourceType": "Encounter",
            "id": name + "-visit",
            "status": "in-progress",
            "class": {
                "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode",
                "code": "EMER" if patients.setting[row] else "AMB",
            },
            "period": {"start": AT.isoformat()},
        }
        resources = [
            *self._findings(recorded, row, encounter),
            *self._measurements(patients, recorded, row),
            *self._history(recorded, row),
        ]
        for number, resource in enumerate(resources):
            resource["id"] = f"{name}-{number}"
            subject = "patient" if resource["resourceType"] == "FamilyMemberHistory" else "subject"
            resource[subject] = {"reference": f"Patient/{name}"}
        encounter["subject"] = {"reference": f"Patient/{name}"}
        return {
            "resourceType": "Bundle",
            "id": name,
            "type": "collection",
            "timestamp": AT.isoformat(),
            "entry": [{"resource": resource} for resource in (patient, encounter, *resources)],
        }

    def _findings(self, recorded: Recorded, row: int, encounter: Resource) -> Iterator[Resource]:
        stated = recorded.stated[row]
        days = int(recorded.duration[row])
        for number in np.flatnonzero(stated):
            key = self._tables.schema.findings[number]
            code = concept(key, self._labels[key])
            value = stated[number]
            status = {DENIED_CODE: "refuted", UNSURE_CODE: "unconfirmed"}.get(int(value), "confirmed")
            onset = None
            if value == COMPLAINT:
                encounter.setdefault("reasonCode", []).append(code)
                if days >= 0:
                    onset = (AT - timedelta(days=days)).isoformat()
            yield condition(code, status, onset=onset)

    def _measurements(self, patients: Patients, recorded: Recorded, row: int) -> Iterator[Resource]:
        schema = self._tables.schema
        column = {place: number for number, place in enumerate(schema.trends)}
        for place in np.flatnonzero(recorded.measured[row]).tolist():
            analyte = schema.analytes[place]
            times = [(AT, patients.values[row, place])]
            if place in column:
                times.append((AT - timedelta(hours=12), recorded.day_old[row, column[place]]))
                times.append((AT - timedelta(days=3), recorded.week_old[row, column[place]]))
            for at, value in times:
                if not np.isnan(value):
                    yield observation(
                        analyte.loinc,
                        at,
                        valueQuantity={
                            "value": float(value),
                            "unit": self._units[analyte.key],
                            "system": "http://unitsofmeasure.org",
                            "code": self._units[analyte.key],
                        },
                    )

    def _history(self, recorded: Recorded, row: int) -> Iterator[Resource]:
        schema = self._tables.schema
        for number in np.flatnonzero(recorded.risks[row]):
            name, evidence = schema.risks[number]
            yield from risk_resources(evidence, name, int(recorded.risks[row, number]))
        for place in np.flatnonzero(recorded.drugs[row]):
            yield medication(self._drugs[place][1])
        for place in np.flatnonzero(recorded.results[row]):
            yield result(schema.results[place], int(recorded.results[row, place]))
        level = int(recorded.consciousness[row])
        if level >= 0:
            yield consciousness(CONSCIOUSNESS[level])
        pregnant = int(recorded.pregnant[row])
        if pregnant:
            coding = {"system": SNOMED, "code": _PREGNANT[pregnant]}
            yield observation("82810-3", AT, valueCodeableConcept={"coding": [coding]})
