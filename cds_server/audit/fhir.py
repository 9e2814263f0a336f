"""A record of the trail as a FHIR R4 `AuditEvent`, after the patterns of IHE BALP 1.1.4.

Made when it is read, by one pure function from the stored record; what is stored and hashed is the record.
Persons are pseudonyms: a patient is a `Reference` with a logical identifier beside the pseudonymous
reference, so nothing pretends that a resource could be fetched.
"""

import base64
from typing import Any

import msgspec

from cds_server.audit.activities import ACTIVITIES, DCM, Activity, Code
from cds_server.audit.events import (
    OWN_APP,
    Access,
    CardFeedback,
    Decision,
    Record,
    Withheld,
    identity,
    to_utc,
)
from cds_server.audit.question import outcome_of

PSEUDONYM = "urn:cds-server:pseudonym"
"""The system of pseudonyms."""
CLIENT = "urn:cds-server:client"
"""The system of client ids that are no URIs."""
_BALP = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit."
_ENTITY_TYPE = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
_OBJECT_ROLE = "http://terminology.hl7.org/CodeSystem/object-role"
_SOURCE_TYPE = "http://terminology.hl7.org/CodeSystem/security-source-type"
_BALP_ENTITY = "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType"
_PURPOSE = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
_ROLE = "urn:cds-server:role"
_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_RECIPIENT = Code(_PARTICIPATION, "IRCP", "information recipient")
_SOURCE_ROLE = Code(DCM, "110153", "Source Role ID")
_DESTINATION_ROLE = Code(DCM, "110152", "Destination Role ID")


class _Seen(msgspec.Struct, kw_only=True):
    """What any record says, in one shape."""

    status: int = 200
    reason: str | None = None
    client: str | None = None
    user: str | None = None
    roles: tuple[str, ...] = ()
    purpose: str | None = None
    network: str | None = None
    trace: str | None = None
    patient: str | None = None
    query: str | None = None
    service: str = "audit"
    entities: list[dict[str, Any]] = msgspec.field(default_factory=list)


def audit_event(record: Record, *, base_url: str) -> dict[str, Any]:
    """The resource.

    Args:
        base_url: the public base of this server, its name in `source` and as an agent.
    """
    activity = activity_of(record)
    seen = _seen(record)
    resource: dict[str, Any] = {"resourceType": "AuditEvent", "id": identity(record)}
    profile = _profile(activity, seen)
    if profile:
        resource["meta"] = {"profile": [profile]}
    resource |= {
        "type": _coding(activity.type),
        "subtype": [*(_coding(code) for code in activity.subtypes), _coding(activity.own)],
        "action": activity.action,
        "recorded": to_utc(record.recorded).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "outcome": outcome_of(seen.status),
    }
    if seen.reason:
        resource["outcomeDesc"] = seen.reason
    if seen.purpose:
        resource["purposeOfEvent"] = [{"coding": [{"system": _PURPOSE, "code": seen.purpose}]}]
    resource["agent"] = _agents(seen, base_url)
    resource["source"] = {
        "site": seen.service,
        "observer": _server(base_url),
        "type": [_coding(Code(_SOURCE_TYPE, "4", "Application Server"))],
    }
    entities = _entities(seen)
    if entities:
        resource["entity"] = entities
    return resource


def activity_of(record: Record) -> Activity:
    """The row of the table of activities."""
    match record:
        case Decision():
            code = record.action
        case CardFeedback():
            code = "feedback"
        case Access():
            code = record.activity
        case _:
            code = "withheld"
    known = ACTIVITIES.get(code)
    if known is not None:
        return known
    # Written by a newer version: shown as what every version knows.
    return Activity(code[:64] or "unknown", code[:64] or "unknown", code[:64], _UNKNOWN, (), "E")


_UNKNOWN = Code("http://terminology.hl7.org/CodeSystem/audit-event-type", "rest", "RESTful Operation")


def _seen(record: Record) -> _Seen:
    match record:
        case Decision():
            return _Seen(
                status=record.status,
                client=record.client,
                user=record.user,
                roles=record.roles,
                purpose=record.purpose,
                network=record.network,
                trace=record.hook_instance,
                patient=record.patient,
                service=record.service,
                entities=_of_decision(record),
            )
        case CardFeedback():
            return _Seen(
                client=record.client,
                user=record.user,
                roles=record.roles,
                purpose=record.purpose,
                network=record.network,
                service=record.service,
                entities=_of_feedback(record),
            )
        case Access():
            return _Seen(
                status=record.status,
                reason=record.reason,
                client=record.client,
                user=record.user,
                roles=record.roles,
                purpose=record.purpose,
                network=record.network,
                trace=record.request,
                patient=record.patient,
                query=record.query,
                service=record.service,
                entities=_of_access(record),
            )
        case _:
            return _Seen(entities=_of_withheld(record))


# -- agents


def _agents(seen: _Seen, base_url: str) -> list[dict[str, Any]]:
    client: dict[str, Any] = {
        "type": _concept(_SOURCE_ROLE),
        "who": _client(seen.client) if seen.client else {"display": "not authenticated"},
        "requestor": seen.user is None,
    }
    if seen.network is not None:
        client["network"] = {"address": seen.network, "type": "2"}
    server = {
        "type": _concept(_DESTINATION_ROLE),
        "who": _server(base_url),
        "requestor": False,
        "network": {"address": base_url, "type": "5"},
    }
    agents = [client, server]
    roles = [{"coding": [{"system": _ROLE, "code": role}]} for role in seen.roles]
    if seen.user is not None:
        user: dict[str, Any] = {
            "type": _concept(_RECIPIENT),
            "who": {"identifier": {"system": PSEUDONYM, "value": seen.user}},
            "requestor": True,
        }
        agents.append(user)
    if roles:
        # A client that proved itself acts in its own roles, also for the user that its hook names.
        proven = seen.client is not None and not seen.client.startswith(OWN_APP)
        agents[0 if proven or seen.user is None else -1]["role"] = roles
    return agents


def _client(client: str) -> dict[str, Any]:
    if "://" in client or client.startswith("urn:"):
        return {"identifier": {"value": client}}
    return {"identifier": {"system": CLIENT, "value": client}}


def _server(base_url: str) -> dict[str, Any]:
    return {"identifier": {"value": base_url}, "display": "cds-server"}


def _profile(activity: Activity, seen: _Seen) -> str | None:
    """The BALP profile, claimed only when what it requires is there (it describes successes)."""
    if not activity.profile or seen.status >= 400 or seen.network is None:
        return None
    return f"{_BALP}{'Patient' if seen.patient else ''}{activity.profile}"


# -- entities


def patient_reference(pseudonym: str) -> dict[str, Any]:
    """A patient as a FHIR Reference; nobody's id, only the pseudonym."""
    return {
        "reference": f"Patient/{pseudonym}",
        "type": "Patient",
        "identifier": {"system": PSEUDONYM, "value": pseudonym},
    }


def _entities(seen: _Seen) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if seen.patient:
        found.append(
            {
                "what": patient_reference(seen.patient),
                "type": _coding(Code(_ENTITY_TYPE, "1", "Person")),
                "role": _coding(Code(_OBJECT_ROLE, "1", "Patient")),
            }
        )
    if seen.query is not None:
        found.append(
            {
                "type": _coding(Code(_ENTITY_TYPE, "2", "System Object")),
                "role": _coding(Code(_OBJECT_ROLE, "24", "Query")),
                "description": seen.query or "(everything)",
                "query": base64.b64encode((seen.query or "?").encode()).decode(),
            }
        )
    found += seen.entities
    if seen.trace:
        found.append(
            {
                "what": {"identifier": {"value": seen.trace}},
                "type": _coding(Code(_BALP_ENTITY, "XrequestId", "The X-Request-Id of the transaction")),
            }
        )
    return found


def _of_decision(record: Decision) -> list[dict[str, Any]]:
    answer = _details(
        ("output-sha256", record.output_digest),
        ("severity", record.severity),
        ("immediate", None if record.immediate is None else str(record.immediate).lower()),
        ("escalation", record.escalation),
        ("rule", record.rule),
        ("status", str(record.status)),
        ("duration-ms", f"{record.duration_ms:.2f}"),
        ("language", record.language),
        *((f"card/{card.key or 'other'}/{card.indicator}", f"urn:uuid:{card.uuid}") for card in record.cards),
    )
    return [
        _object(
            f"urn:sha256:{record.input_digest}",
            "Request",
            "4",
            "Domain Resource",
            _details(("input-sha256", record.input_digest)),
        ),
        _object(f"urn:cds-server:decision:{record.event_id}", "Answer", "3", "Report", answer),
        _object(
            f"urn:cds-server:model:{record.model}",
            "Model and knowledge",
            "13",
            "Security Resource",
            _details(("model", record.model), ("knowledge", record.knowledge)),
        ),
    ]


def _of_feedback(record: CardFeedback) -> list[dict[str, Any]]:
    details = _details(
        ("outcome", record.outcome),
        ("reason", record.reason_code),
        ("reason-system", record.reason_system),
        ("reason-in-own-words", "encrypted" if record.reason_sealed else None),
        ("comment", "encrypted" if record.comment else None),
        *(("accepted-suggestion", suggestion) for suggestion in record.accepted_suggestions),
    )
    return [_object(f"urn:uuid:{record.card}", "Card", "4", "Domain Resource", details)]


def _of_access(record: Access) -> list[dict[str, Any]]:
    found = [
        _object(entity.what, entity.name, "4", "Domain Resource", _details(*entity.detail))
        for entity in record.entities
    ]
    if record.detail:
        about_it = f"urn:cds-server:event:{record.event_id}"
        found.append(_object(about_it, "Details", "4", "Domain Resource", _details(*record.detail)))
    return found


def _of_withheld(record: Withheld) -> list[dict[str, Any]]:
    details = _details(("cause", record.cause), ("payload-sha256", record.payload_digest))
    return [_object(f"AuditEvent/{record.record_id}", "Record", "4", "Domain Resource", details)]


def _object(
    what: str, name: str | None, role: str, display: str, details: list[dict[str, Any]]
) -> dict[str, Any]:
    kind, _, rest = what.partition("/")
    # A FHIR reference to a resource has the form Type/id; everything else is an identifier.
    is_reference = bool(rest) and kind.isalnum() and kind[:1].isupper()
    entity: dict[str, Any] = {
        "what": {"reference": what} if is_reference else {"identifier": {"value": what}},
        "type": _coding(Code(_ENTITY_TYPE, "2", "System Object")),
        "role": _coding(Code(_OBJECT_ROLE, role, display)),
    }
    if name:
        entity["name"] = name
    if details:
        entity["detail"] = details
    return entity


def _details(*pairs: tuple[str, str | None]) -> list[dict[str, Any]]:
    return [{"type": name, "valueString": value} for name, value in pairs if value]


def _coding(code: Code) -> dict[str, str]:
    return {"system": code.system, "code": code.code, "display": code.display}


def _concept(code: Code) -> dict[str, Any]:
    return {"coding": [_coding(code)]}
