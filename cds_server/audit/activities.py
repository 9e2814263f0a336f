"""What can happen, as a table: each activity of the trail with its FHIR type, subtypes and action.

One row is one activity; the code is what `events.action` holds in the database, so a search for a FHIR
type, subtype or action is a search for a few codes.  Sources: DICOM PS3.16 CID 400-403 (system
DCM), FHIR R4 value sets audit-event-type and restful-interaction, ISO 21089 lifecycle events, and the
profiles of IHE BALP 1.1.4, whose `type` and `subtype` patterns are used where one fits.
"""

from typing import Literal

import msgspec

DCM = "http://dicom.nema.org/resources/ontology/DCM"
EVENT_TYPE = "http://terminology.hl7.org/CodeSystem/audit-event-type"
INTERACTION = "http://hl7.org/fhir/restful-interaction"
LIFECYCLE = "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle"
OWN = "urn:cds-server:activity"
"""The system of our own activity codes, always the last `subtype` of an event."""

Action = Literal["C", "R", "U", "D", "E"]


class Code(msgspec.Struct, frozen=True):
    """A FHIR Coding."""

    system: str
    code: str
    display: str


class Activity(msgspec.Struct, frozen=True):
    """One row: `code` and `english` are ours, the rest is FHIR.

    `profile` is the BALP profile an event of it follows (the part after ``IHE.BasicAudit.``, with
    ``Patient`` before it when a patient is known), or empty.
    """

    code: str
    english: str
    spanish: str
    type: Code
    subtypes: tuple[Code, ...]
    action: Action
    profile: str = ""

    @property
    def own(self) -> Code:
        """Our own code as a Coding."""
        return Code(OWN, self.code, self.english)


_REST = Code(EVENT_TYPE, "rest", "RESTful Operation")
_ACTIVITY = Code(DCM, "110100", "Application Activity")
_EXPORT = Code(DCM, "110106", "Export")
_SECURITY = Code(DCM, "110113", "Security Alert")
_AUTHENTICATION = Code(DCM, "110114", "User Authentication")
_LOGIN = Code(DCM, "110122", "Login")
_RECORDING = Code(DCM, "110134", "Audit Recording Started")
_SOFTWARE = Code(DCM, "110131", "Software Configuration")
_SECURITY_SET = Code(DCM, "110129", "Security Configuration")
_RESTRICTED = Code(DCM, "110132", "Use of Restricted Function")
_OPERATION = Code(INTERACTION, "operation", "operation")
_SEARCH = Code(INTERACTION, "search", "search")
_READ = Code(INTERACTION, "read", "read")
_CREATE = Code(INTERACTION, "create", "create")
_DESTROY = Code(LIFECYCLE, "destroy", "Destroy/Delete Record Lifecycle Event")
_HOLD = Code(LIFECYCLE, "hold", "Add Legal Hold Record Lifecycle Event")
_UNHOLD = Code(LIFECYCLE, "unhold", "Remove Legal Hold Record Lifecycle Event")

_ROWS: tuple[Activity, ...] = (
    # decisions and what clinicians said of them
    Activity("hook-call", "CDS Hooks call", "Llamada de CDS Hooks", _REST, (_OPERATION,), "E"),
    Activity("assess", "Assessment", "Evaluación", _REST, (_OPERATION,), "E"),
    Activity("feedback", "Feedback on a card", "Opinión sobre una tarjeta", _REST, (_CREATE,), "C", "Create"),
    Activity("decision-read", "Past decision read", "Decisión pasada leída", _REST, (_READ,), "R", "Read"),
    Activity(
        "decision-replayed", "Past decision replayed", "Decisión pasada repetida", _REST, (_OPERATION,), "E"
    ),
    # the audit trail itself
    Activity(
        "audit-started", "Audit recording started", "Inicio del registro", _ACTIVITY, (_RECORDING,), "E"
    ),
    Activity(
        "audit-searched", "Audit trail searched", "Registro consultado", _REST, (_SEARCH,), "E", "Query"
    ),
    Activity("audit-read", "Audit event read", "Evento del registro leído", _REST, (_READ,), "R", "Read"),
    Activity("audit-exported", "Audit trail exported", "Registro exportado", _EXPORT, (), "R"),
    Activity("audit-verified", "Audit trail verified", "Registro verificado", _REST, (_OPERATION,), "E"),
    Activity("withheld", "Record kept elsewhere", "Anotación guardada aparte", _ACTIVITY, (), "E"),
    # who came in, and who was kept out
    Activity("login", "Login", "Inicio de sesión", _AUTHENTICATION, (_LOGIN,), "E"),
    Activity("logout", "Logout", "Fin de sesión", _AUTHENTICATION, (Code(DCM, "110123", "Logout"),), "E"),
    Activity(
        "authentication-failed",
        "Authentication failed",
        "Autenticación fallida",
        _AUTHENTICATION,
        (_LOGIN,),
        "E",
    ),
    Activity("access-denied", "Access denied", "Acceso denegado", _SECURITY, (_RESTRICTED,), "E"),
    # reading and giving out data
    Activity("data-read", "Data read", "Datos leídos", _REST, (_READ,), "R", "Read"),
    Activity("data-searched", "Data searched", "Datos consultados", _REST, (_SEARCH,), "E", "Query"),
    Activity("ehr-read", "Data fetched from an EHR", "Datos obtenidos de un HCE", _REST, (_READ,), "R"),
    Activity(
        "patient-exported", "Patient's data exported", "Datos de un paciente exportados", _EXPORT, (), "R"
    ),
    Activity("aggregates-read", "Aggregates read", "Agregados leídos", _REST, (_OPERATION,), "E"),
    # the life of stored data
    Activity(
        "patient-erased", "Patient's data erased", "Datos de un paciente borrados", _REST, (_DESTROY,), "D"
    ),
    Activity("case-enrolled", "Case enrolled", "Caso inscrito", _REST, (_CREATE,), "C"),
    Activity(
        "case-undone", "Enrolled case undone", "Inscripción de caso retirada", _REST, (_OPERATION,), "U"
    ),
    Activity("case-erased", "Enrolled case erased", "Caso inscrito borrado", _REST, (_DESTROY,), "D"),
    Activity(
        "retention-purged", "Expired data destroyed", "Datos vencidos destruidos", _REST, (_DESTROY,), "D"
    ),
    Activity("hold-placed", "Legal hold placed", "Retención legal puesta", _REST, (_HOLD,), "U"),
    Activity("hold-lifted", "Legal hold lifted", "Retención legal retirada", _REST, (_UNHOLD,), "U"),
    # the server
    Activity("model-promoted", "Model taken in use", "Modelo puesto en uso", _SECURITY, (_SOFTWARE,), "U"),
    Activity("model-refused", "Model refused", "Modelo rechazado", _SECURITY, (_SOFTWARE,), "U"),
    Activity("setting-changed", "Setting changed", "Ajuste cambiado", _SECURITY, (_SOFTWARE,), "U"),
    Activity(
        "keys-changed", "Keys made or rotated", "Claves creadas o rotadas", _SECURITY, (_SECURITY_SET,), "U"
    ),
    Activity(
        "client-changed",
        "Client registration changed",
        "Registro de cliente cambiado",
        _SECURITY,
        (_SECURITY_SET,),
        "U",
    ),
)

ACTIVITIES: dict[str, Activity] = {row.code: row for row in _ROWS}
"""All activities by code."""
