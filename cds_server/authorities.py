"""Whose id an id is: the assigning authority of the ids of patients and users (IHE PIX; HL7 v2 CX.4).

Two EHRs may give the same id to different people.  So a pseudonym, and every data key, hold and erasure that
hangs on it, is of an id *and* of who gave it: the base URL of the FHIR server that the person's resource is
on, or the client that called where no server was named.  `UNNAMED` is where neither is known: a site with
one EHR that authenticates nobody, and everything from before authorities were kept.

Which authority a call speaks of is decided here and nowhere else.  How names of authorities are kept, so that
a search by a bare id can look under each, is `cds_server.people`'s business.
"""

from collections.abc import Iterable
from typing import Protocol

import msgspec

from cds_server.auth.principal import Principal
from fhir_adapters.origin import ServerBase, ServerNotAllowed

UNNAMED = ""
"""The authority of ids that nobody says the origin of."""


class Identity(msgspec.Struct, frozen=True):
    """An id (``123``, ``Practitioner/123``) and the authority that gave it."""

    authority: str
    value: str


class Authority(msgspec.Struct, frozen=True):
    """The authority of a call's ids.  `theirs` is false when the caller named a server that its entry in the
    file of trusted clients does not list; `name` is then the caller's own."""

    name: str
    theirs: bool = True


class Clients(Protocol):
    """What is needed of `cds_server.auth.clients.TrustedClients`."""

    def servers_of(self, issuer: str, tenant: str | None) -> tuple[str, ...]:
        """The FHIR servers of a client, as its entry lists them; none: it may name any."""


def of_call(principal: Principal, clients: Clients, server: str | None) -> Authority:
    """The authority of the patient's and user's ids in a call.

    Args:
        server: the base URL of the FHIR server the call names (`fhirServer`, or where the Patient's
            `fullUrl` is); what is no such URL counts as none.
    """
    named = base_of(server)
    if principal.kind == "client":
        listed = clients.servers_of(principal.issuer, principal.tenant)
        own = listed[0] if listed else principal.client or UNNAMED
        if named is None or not listed:
            return Authority(named or own)
        return Authority(named) if named in listed else Authority(own, theirs=False)
    if named is not None:
        return Authority(named)
    if principal.fhir_user is not None:
        return Authority(of_reference(principal.fhir_user).authority)
    return Authority(UNNAMED)


def base_of(url: str | None) -> str | None:
    """A FHIR server's base URL in the one form it is kept in; `None` for what is none."""
    if not url:
        return None
    try:
        return ServerBase.parse(url).url
    except ServerNotAllowed:
        return None


def of_reference(reference: str) -> Identity:
    """A reference taken apart: ``https://ehr/fhir/Practitioner/1`` is ``Practitioner/1`` of its server.

    A relative reference, or what is none, is of `UNNAMED`.
    """
    base, slash, tail = reference.rpartition("/")
    base, second, kind = base.rpartition("/")
    server = base_of(base) if slash and second and kind and tail else None
    return Identity(UNNAMED, reference) if server is None else Identity(server, f"{kind}/{tail}")


def of_user(user: str, whose: Authority) -> Identity:
    """Who a hook's `userId` names: of the server in it, or else of the call's authority."""
    found = of_reference(user)
    return found if found.authority else Identity(whose.name, user)


def of_principal(principal: Principal) -> Identity | None:
    """Who a user is: the FHIR resource, or else the id with its issuer; `None` for who is no person."""
    if principal.kind != "user":
        return None
    if principal.fhir_user is not None:
        return of_reference(principal.fhir_user)
    return Identity(principal.issuer, principal.id)


def shown(authority: str) -> str:
    """An authority as people read and write it at the command line."""
    return authority or "unnamed"


def read(texts: Iterable[str]) -> tuple[str, ...]:
    """The inverse of `shown`; a FHIR server in any form of its URL."""
    return tuple(UNNAMED if text == "unnamed" else base_of(text) or text for text in texts)
