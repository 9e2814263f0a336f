"""Makes `Access` records from what is at hand: a request with its caller, or a command line.

The one place that decides what of a caller goes into the trail: a client's id in plain, a person as a
pseudonym, roles by name, the peer's address.
"""

import getpass
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from cds_server.audit.activities import ACTIVITIES
from cds_server.audit.events import Access, Entity, new_id
from cds_server.auth.principal import Principal
from cds_server.authorities import of_principal
from cds_server.clock import Clock
from cds_server.http import Call
from cds_server.privacy import Pseudonymiser


class Site(Protocol):
    """What is needed of `cds_server.state.House`."""

    @property
    def clock(self) -> Clock:
        """The one source of the time."""

    @property
    def pseudonymiser(self) -> Pseudonymiser:
        """Makes the pseudonyms."""


class Caller(msgspec.Struct, frozen=True):
    """What the trail keeps of a caller: `client` in plain, `user` as a pseudonym, `network` an IP address."""

    client: str | None = None
    user: str | None = None
    roles: tuple[str, ...] = ()
    network: str | None = None


def caller_of(site: Site, principal: Principal | None, network: str | None) -> Caller:
    """A caller as the trail keeps it; `None` for one that is not proven to be anybody."""
    if principal is None or principal.kind == "anonymous":
        # Who is not authenticated may do everything: that is no list of roles worth keeping.
        return Caller(network=network)
    user = of_principal(principal)
    return Caller(
        client=principal.client,
        user=None if user is None else site.pseudonymiser.pseudonym("user", user.value, user.authority),
        roles=tuple(sorted([role.value for role in principal.roles])),
        network=network,
    )


def caller(site: Site, call: Call) -> Caller:
    """The caller of a request."""
    return caller_of(site, call.scope.get("cds.principal"), call.network)


TREATMENT = "TREAT"
"""The purpose (HL7 v3 PurposeOfUse) of hook calls and feedback on their cards, which is known from what they
are: a hook fires while a clinician works on a patient (CDS Hooks 2.0.1, "Overview").  Of other calls it is
not known: a chart may be assessed for care, a study or a test."""


def of_call(
    site: Site,
    call: Call,
    activity: str,
    *,
    service: str,
    status: int = 200,
    reason: str | None = None,
    patient: str | None = None,
    query: str | None = None,
    entities: tuple[Entity, ...] = (),
    detail: tuple[tuple[str, str], ...] = (),
) -> Access:
    """The record of something a caller did over HTTP.

    Args:
        activity: a code of `activities.ACTIVITIES`; KeyError otherwise.
        patient: a pseudonym.
        query: a search in which patients are pseudonyms already.
    """
    who = caller(site, call)
    return Access(
        event_id=new_id(),
        recorded=site.clock(),
        activity=ACTIVITIES[activity].code,
        service=service,
        status=status,
        reason=reason,
        client=who.client,
        user=who.user,
        roles=who.roles,
        network=who.network,
        request=call.request_id or None,
        patient=patient,
        query=query,
        entities=entities,
        detail=detail,
    )


def of_operator(
    activity: str,
    *,
    service: str = "cli",
    status: int = 200,
    reason: str | None = None,
    patient: str | None = None,
    query: str | None = None,
    entities: tuple[Entity, ...] = (),
    detail: tuple[tuple[str, str], ...] = (),
) -> Access:
    """The record of something done at the command line of this machine, by whom the system says it is."""
    try:
        operator = getpass.getuser()
    except (KeyError, OSError):
        operator = "unknown"
    return Access(
        event_id=new_id(),
        recorded=datetime.now(UTC),
        activity=ACTIVITIES[activity].code,
        service=service,
        status=status,
        reason=reason,
        patient=patient,
        query=query,
        entities=entities,
        detail=(("operator", operator), *detail),
    )
