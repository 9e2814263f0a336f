"""A past decision as a FHIR R4 `RiskAssessment`, made of the parts that `$assess` answers with.

Only a change of form.  The patient is the pseudonym that AuditEvents have; the encounter, which the record
names by its real id, is left out.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from cds_server.audit import Decision
from cds_server.audit.fhir import patient_reference
from cds_server.fhir_api.parts import Part

SEVERITY = "urn:cds-server:severity"
IMMEDIATE = "urn:cds-server:immediate-attention"
ESCALATION = "urn:cds-server:escalation"
_NOBODY = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"


_AGAIN = {
    "en": (
        "Computed again by cds-server {software} from the inputs that were kept, with the model and the "
        "enrolled cases of that day; the answer made from it is the one that was given, byte for byte."
    ),
    "es": (
        "Calculado de nuevo por cds-server {software} a partir de los datos conservados, con el modelo y los "
        "casos inscritos de aquel día; la respuesta que resulta es la que se dio, byte por byte."
    ),
}


class NotAnAssessment(Exception):
    """The parts are not those of an assessment."""


def risk_assessment(
    event: Decision, software: str, parameters: Iterable[Part], *, again_by: str | None
) -> dict[str, Any]:
    """The resource; its id is that of the decision's audit event.

    Common diseases are its predictions.  Rare ones, if any, are a contained RiskAssessment that is part of
    it (`parent`), which is what FHIR asks of a contained resource that nothing refers to (R4, dom-3).

    Args:
        event: the decision.
        software: the version that decided.
        parameters: of the `Parameters` resource that `$assess` gives.
        again_by: the version that computed them again, where the assessment itself was not kept.

    Raises:
        NotAnAssessment: parts are missing or of another form.
    """
    parts = {part.get("name"): part for part in parameters}
    try:
        common, rare = parts["common"]["resource"], parts["rare"]["resource"]
        resource: dict[str, Any] = {
            "resourceType": "RiskAssessment",
            "id": event.event_id,
            "language": event.language,
            "extension": [
                {"url": SEVERITY, "valueCoding": parts["severity"]["valueCoding"]},
                {"url": IMMEDIATE, "valueBoolean": _decision(parts["immediate-attention"])},
                {"url": ESCALATION, "valueCoding": parts["escalation"]["valueCoding"]},
            ],
            **_told(event, software, common),
        }
        if again_by is not None:
            told = _AGAIN.get(event.language, _AGAIN["en"]).format(software=again_by)
            resource["note"] = [*resource.get("note", []), {"text": told}]
        if rare.get("prediction"):
            inner = {"resourceType": "RiskAssessment", "id": "rare", "parent": {"reference": "#"}}
            resource["contained"] = [inner | _told(event, software, rare)]
    except (KeyError, TypeError, AttributeError) as fault:
        raise NotAnAssessment(type(fault).__name__) from None
    return resource


def _told(event: Decision, software: str, given: Mapping[str, Any]) -> dict[str, Any]:
    nobody = {"extension": [{"url": _NOBODY, "valueCode": "unknown"}]}
    found = {
        "status": "final",
        "method": {"text": f"{event.model}; {event.knowledge}"},
        "subject": patient_reference(event.patient) if event.patient else nobody,
        "occurrenceDateTime": given["occurrenceDateTime"],
        "performer": {"type": "Device", "display": f"cds-server {software}"},
        "basis": [{"reference": f"AuditEvent/{event.event_id}", "type": "AuditEvent"}],
    }
    return found | {name: given[name] for name in ("prediction", "note") if given.get(name)}


def _decision(part: Part) -> bool:
    for inner in part["part"]:
        if inner["name"] == "decision":
            decided: bool = inner["valueBoolean"]
            return decided
    raise KeyError("decision")
