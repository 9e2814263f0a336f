"""Who is calling: one value for CDS clients, people and jobs, made by whoever checked their credentials.

Nothing here checks anything; `cds_server.auth` modules make principals, the table of permissions reads them.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Role(StrEnum):
    """What a caller was let in as.  `CDS_CLIENT` is an EHR over CDS Hooks, the others are people or jobs."""

    CDS_CLIENT = "cds-client"
    CLINICIAN = "clinician"
    CLINICIAN_ADMIN = "clinician-admin"
    DATA_SCIENTIST = "data-scientist"
    AUDITOR = "auditor"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller.

    `kind` says how it proved itself: ``client`` by a CDS Hooks JWT, ``user`` by a token of the site's
    identity provider or a session of a SMART launch, ``anonymous`` not at all (loopback, or a site that
    says something in front authenticates).  `id` is unique within `issuer` (a client's is its `iss`); it
    names a person for users, so it is pseudonymised before it is stored or logged.  `fhir_user` is the
    absolute URL of the user's FHIR resource where the token or launch gave one.
    """

    kind: Literal["client", "user", "anonymous"]
    id: str
    issuer: str
    roles: frozenset[Role]
    tenant: str | None = None
    fhir_user: str | None = None

    @property
    def client(self) -> str | None:
        """What the audit trail calls a CDS client: its issuer, with its tenant where it has one."""
        if self.kind != "client":
            return None
        return f"{self.id}|{self.tenant}" if self.tenant else self.id


ANONYMOUS = Principal("anonymous", "anonymous", "", frozenset(Role))
"""The caller of a server that authenticates nobody: may do everything, as before there was a question."""
