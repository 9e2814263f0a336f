"""Who may do what: one row per path and method, and nothing else decides it.

A path is written as its route is.  A path or method without a row is refused for everybody, so a new
route is dead until somebody has said here who may use it; a test walks all routes with all roles.
`GET` includes `HEAD`.
"""

import re
from dataclasses import dataclass

from starlette.routing import compile_path

from cds_server.auth.principal import Role

ANYONE: frozenset[Role] | None = None
"""No credentials are looked at: nothing there is about a patient, or the route checks its caller itself."""

_CLINICAL = frozenset({Role.CDS_CLIENT, Role.CLINICIAN, Role.CLINICIAN_ADMIN})
_PEOPLE = frozenset({Role.CLINICIAN, Role.CLINICIAN_ADMIN})
_AGGREGATES = frozenset({Role.CLINICIAN_ADMIN, Role.DATA_SCIENTIST})
_AUDITORS = frozenset({Role.AUDITOR})

METRICS_PATH = "/metrics"


@dataclass(frozen=True, slots=True)
class Permission:
    """A row: who may use `method` on `path`; `roles` is `ANYONE` for public ones.

    `costly` ones of those write or ask other servers, and are limited by the address they are called from.
    """

    method: str
    path: str
    roles: frozenset[Role] | None
    costly: bool = False


PERMISSIONS: tuple[Permission, ...] = (
    # CDS Hooks, 2.0.1: the token comes with each call, discovery included.
    Permission("POST", "/cds-services/{service_id}", _CLINICAL),
    Permission("GET", "/cds-services", _CLINICAL | {Role.OPERATOR}),
    Permission("POST", "/cds-services/{service_id}/feedback", _CLINICAL),
    # FHIR
    Permission("POST", "/fhir/$assess", _CLINICAL),
    Permission("GET", "/fhir/metadata", ANYONE),
    Permission("GET", "/fhir/OperationDefinition/assess", ANYONE),
    Permission("GET", "/fhir/AuditEvent", _AUDITORS),
    Permission("POST", "/fhir/AuditEvent/_search", _AUDITORS),
    Permission("GET", "/fhir/AuditEvent/{event_id}", _AUDITORS),
    Permission("GET", "/fhir/RiskAssessment/{id}", _PEOPLE | _AUDITORS),
    # The simple API
    Permission("POST", "/api/v1/predict", _CLINICAL),
    Permission("GET", "/api/v1/aggregates", _AGGREGATES),
    # Pages and what they load
    # The app's page: shows a patient to a session only, and everybody else, in words, how to sign in.
    Permission("GET", "/app", ANYONE),
    Permission("GET", "/app/", ANYONE, costly=True),
    Permission("GET", "/app/style.css", ANYONE),
    Permission("GET", "/app/{rest:path}", _PEOPLE),
    Permission("POST", "/app/{rest:path}", _PEOPLE),
    Permission("GET", "/audit", _AUDITORS),
    Permission("POST", "/audit", _AUDITORS),
    Permission("GET", "/audit/event/{event_id}", _AUDITORS),
    Permission("POST", "/audit/export", _AUDITORS),
    Permission("GET", "/audit/style.css", _AUDITORS),
    Permission("GET", "/audit/export.js", _AUDITORS),
    # SMART: who is on the way in is not known yet; each of these checks its state itself.
    Permission("GET", "/smart/launch", ANYONE, costly=True),
    Permission("GET", "/smart/callback", ANYONE, costly=True),
    Permission("GET", "/smart/callback/{ehr}", ANYONE, costly=True),
    Permission("GET", "/smart/jwks.json", ANYONE),
    Permission("POST", "/smart/logout", ANYONE),
    # Operation
    Permission("GET", "/health/live", ANYONE),
    Permission("GET", "/health/ready", ANYONE),
    Permission("GET", METRICS_PATH, _AGGREGATES | {Role.OPERATOR}),
    Permission("GET", "/docs", ANYONE),
    Permission("GET", "/openapi.json", ANYONE),
)


class Table:
    """The rows, found by a request's path and method."""

    def __init__(self, permissions: tuple[Permission, ...] = PERMISSIONS) -> None:
        methods: dict[str, dict[str, Permission]] = {}
        for row in permissions:
            if row.method in methods.setdefault(row.path, {}):
                raise ValueError(f"{row.method} {row.path} has two rows")
            methods[row.path][row.method] = row
        self._plain = {path: rows for path, rows in methods.items() if "{" not in path}
        self._patterns: list[tuple[re.Pattern[str], dict[str, Permission]]] = [
            (compile_path(path)[0], rows) for path, rows in methods.items() if "{" in path
        ]

    def methods(self, path: str) -> dict[str, Permission] | None:
        """The rows of a request's path by method, a plain path before a pattern; `None` when it has none."""
        found = self._plain.get(path)
        if found is not None:
            return found
        return next((rows for pattern, rows in self._patterns if pattern.match(path)), None)


def may(roles: frozenset[Role], permission: Permission) -> bool:
    """Whether a caller with these roles may."""
    return permission.roles is None or not permission.roles.isdisjoint(roles)
