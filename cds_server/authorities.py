"""Whose id an id is: the assigning authority of the ids of patients and users (IHE PIX; HL7 v2 CX.4).

Two EHRs may give the same id to different people.  So a pseudonym, and every data key, hold and erasure that
hangs on it, is of an id *and* of who gave it: the base URL of the FHIR server that the person's resource is
on, or the client that called where no server was named.  `UNNAMED` is where neither is known: a site with
one EHR that authenticates nobody, and everything from before pseudonyms told authorities apart.

Which authority a call speaks of is decided here and nowhere else.
"""

from collections.abc import Callable
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
    """The authority of a call's ids.

    `theirs` is false when the caller may not speak of that server's people: the file of trusted clients gives
    it to others, or lists the caller's own servers without it.
    """

    name: str
    theirs: bool = True


class Clients(Protocol):
    """What is needed of `cds_server.auth.clients.TrustedClients`."""

    def servers_of(self, issuer: str, tenant: str | None) -> tuple[str, ...] | None:
        """The FHIR servers of a client, as its entry lists them; none: it may name any that nobody lists.

        `None` for who is no client (any more).
        """

    def listed(self, server: str) -> bool:
        """Whether any entry lists the server."""


def of_call(principal: Principal, clients: Clients, server: str | None) -> Authority:
    """The authority of the patient's and user's ids in a call.

    Args:
        server: the base URL of the FHIR server the call names (`fhirServer`, or where the Patient's
            `fullUrl` is).  What is no such URL is an authority of its own all the same: nobody's ids get
            mixed with those of a call that names none.
    """
    # What is no URL gets a name that no server and no client can have.
    named = base_of(server) or (f"other:{server.strip()}" if server and server.strip() else "")
    if principal.kind == "client":
        servers = clients.servers_of(principal.issuer, principal.tenant)
        if servers is None:
            return Authority(client_name(principal.client or ""), theirs=False)
        if not named:
            # Of several servers none may be guessed.
            return Authority(servers[0] if len(servers) == 1 else client_name(principal.client or ""))
        return Authority(named, theirs=named in servers if servers else not clients.listed(named))
    if named:
        # People come from the site's own identity provider, or from the very EHR that they were launched in.
        return Authority(named, theirs=principal.kind == "user" or not clients.listed(named))
    if principal.fhir_user is not None:
        return Authority(of_reference(principal.fhir_user).authority)
    return Authority(UNNAMED)


def may_read(principal: Principal, decided_by: str | None, systems: Callable[[str], bool]) -> bool:
    """Whether a caller who is no auditor may read what was decided of a patient.

    An EHR reads what it asked itself; a person what is of the FHIR server of the person's own `fhirUser`.
    Whoever has none is of the site's own identity provider, or of a machine that asks nobody who they are.

    Args:
        decided_by: the client that asked, as the trail keeps it.
        systems: whether the patient is of an authority, or of none that is known.
    """
    if principal.kind == "client":
        return decided_by is not None and decided_by == principal.client
    return principal.fhir_user is None or systems(of_reference(principal.fhir_user).authority)


def client_name(client: str) -> str:
    """The authority of a client that names no server; apart from the servers' names."""
    return f"client:{client}"


def user_of(user: str, whose: Authority) -> str:
    """The id in a hook's `userId`, of the call's authority, whatever server stands in it."""
    found = of_reference(user)
    return found.value if found.authority == whose.name else user


def of_principal(principal: Principal) -> Identity | None:
    """Who a user is: the FHIR resource, or else the id with its issuer; `None` for who is no person."""
    if principal.kind != "user":
        return None
    if principal.fhir_user is not None:
        return of_reference(principal.fhir_user)
    return Identity(principal.issuer, principal.id)


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
