"""What this server offers as FHIR, truthfully: the CapabilityStatement and the definition of `$assess`."""

from typing import Any

from cds_server.fhir_api.audit_parameters import SEARCHED

ASSESS_PATH = "/fhir/OperationDefinition/assess"
# Change with what is described, not with every start.
_DATE = "2026-11-26"


def capability_statement(base_url: str) -> dict[str, Any]:
    """The R4 CapabilityStatement: one system-level operation, the audit trail, and past decisions to read."""
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": _DATE,
        "kind": "instance",
        "software": {"name": "cds-server"},
        "implementation": {"description": "Clinical decision support", "url": f"{base_url}/fhir"},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json"],
        "rest": [
            {
                "mode": "server",
                "documentation": (
                    "Assesses one patient's record. CDS Hooks clients use /cds-services. No record sent "
                    "here can be read back; that it was sent, and what was decided, can: AuditEvent, "
                    "RiskAssessment."
                ),
                "resource": [
                    {"type": "OperationDefinition", "interaction": [{"code": "read"}]},
                    _AUDIT_EVENT,
                    _RISK_ASSESSMENT,
                ],
                "operation": [{"name": "assess", "definition": base_url + ASSESS_PATH}],
            }
        ],
    }


_AUDIT_EVENT: dict[str, Any] = {
    "type": "AuditEvent",
    "documentation": (
        "Read-only, in pages by _count and next links, newest first (_sort=-date) or oldest first; also "
        "_summary=count and _total. POST AuditEvent/_search keeps ids out of URLs. Patients and users are "
        "pseudonyms. Each search and read is itself an AuditEvent."
    ),
    "interaction": [{"code": "read"}, {"code": "search-type"}],
    "versioning": "no-version",
    "readHistory": False,
    "updateCreate": False,
    "conditionalCreate": False,
    "searchParam": [
        {"name": name, "type": kind, "documentation": text} for name, (kind, text) in SEARCHED.items()
    ],
}


_RISK_ASSESSMENT: dict[str, Any] = {
    "type": "RiskAssessment",
    "documentation": (
        "A past decision, read by the id of its AuditEvent: common diseases, a contained RiskAssessment of "
        "rare ones, severity and escalation as extensions (urn:cds-server:severity, "
        "urn:cds-server:immediate-attention, urn:cds-server:escalation). The patient is a pseudonym. 404: "
        "there is no such decision, or its inputs were not kept; 410: they were erased or have expired; "
        "409: it cannot be proven to be what was answered. Each read is itself an AuditEvent."
    ),
    "interaction": [{"code": "read"}],
    "versioning": "no-version",
    "readHistory": False,
    "updateCreate": False,
    "conditionalCreate": False,
}


def operation_definition(base_url: str) -> dict[str, Any]:
    """The R4 OperationDefinition of `$assess`."""
    return {
        "resourceType": "OperationDefinition",
        "id": "assess",
        "url": base_url + ASSESS_PATH,
        "name": "Assess",
        "title": "Assess one patient's record",
        "status": "active",
        "kind": "operation",
        "date": _DATE,
        "description": "Severity, need for immediate attention, escalation and their grounds.",
        "affectsState": False,
        "code": "assess",
        "system": True,
        "type": False,
        "instance": False,
        "parameter": [
            _parameter("bundle", "in", "Bundle", "1", "The record, itself the body."),
            _parameter("severity", "out", "Coding", "1", "One of five classes (urn:cds-server:severity)."),
            _parameter("immediate-attention", "out", None, "1", "Decision and calibrated probability."),
            _parameter("common", "out", "RiskAssessment", "1", "Common diseases by falling probability."),
            _parameter("rare", "out", "RiskAssessment", "1", "Rare diseases by falling probability."),
            _parameter("rare-alarm", "out", None, "1", "Decision and calibrated probability."),
            _parameter("escalation", "out", "Coding", "1", "Whether and why to escalate."),
            _parameter("explanation", "out", None, "1", "Rules, scores and the facts they rest on."),
            _parameter(
                "differential-set",
                "out",
                None,
                "1",
                "How often the set holds the true disease, its size, which of it are listed.",
                minimum=0,
            ),
            _parameter(
                "counterfactual", "out", None, "*", "What would change if a fact were otherwise.", minimum=0
            ),
            _parameter("next-step", "out", None, "*", "What to ask or test next.", minimum=0),
            _parameter(
                "rare-explanation",
                "out",
                None,
                "1",
                "Phenotype, reasons of the leading rare diseases, families, what to check, HPO release.",
                minimum=0,
            ),
            _parameter(
                "missing-information", "out", None, "1", "What the assessment did without.", minimum=0
            ),
            _parameter("unreadable", "out", None, "1", "What was sent and could not be used."),
            _parameter("model", "out", None, "1", "Versions of model and knowledge."),
        ],
    }


def _parameter(
    name: str, use: str, kind: str | None, maximum: str, documentation: str, *, minimum: int = 1
) -> dict[str, Any]:
    parameter: dict[str, Any] = {
        "name": name,
        "use": use,
        "min": minimum,
        "max": maximum,
        "documentation": documentation,
    }
    if kind is not None:
        parameter["type"] = kind
        return parameter
    # FHIR (opd-2): a parameter without a type has parts.
    part = {"name": "part", "use": use, "min": 0, "max": "*", "type": "Element"}
    parameter["part"] = [part]
    return parameter
