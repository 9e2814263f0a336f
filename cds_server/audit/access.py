"""Makes `Access` records from what is at hand: a request with its caller, or a command line.

The one place that decides what of a caller goes into the trail: a client's id in plain, a person as a
pseudonym, roles by name, the peer's address.
"""

import getpass
from datetime import UTC, datetime
from typing import Protocol

from cds_server.audit.activities import ACTIVITIES
from cds_server.audit.events import Access, Entity, new_id
from cds_server.auth.principal import ANONYMOUS, Principal
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
    principal: Principal = call.scope.get("cds.principal", ANONYMOUS)
    peer = call.scope.get("client")
    return Access(
        event_id=new_id(),
        recorded=site.clock(),
        activity=ACTIVITIES[activity].code,
        service=service,
        status=status,
        reason=reason,
        client=principal.id if principal.kind == "client" else None,
        user=site.pseudonymiser.pseudonym("user", principal.id) if principal.kind == "user" else None,
        # Who is not authenticated may do everything: that is no list of roles worth keeping.
        roles=() if principal.kind == "anonymous" else tuple(sorted(principal.roles)),
        network=peer[0] if peer else None,
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
