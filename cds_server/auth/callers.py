"""Who may call this server, put together from its settings: authenticators, limits, and what is noted.

The one list of authenticators is here, in the order in which they are asked.
"""

from functools import partial
from typing import Any
from urllib.parse import urlsplit

import structlog

from cds_server.audit import Access, new_id
from cds_server.audit.access import caller_of
from cds_server.auth.addresses import is_loopback, parse_networks
from cds_server.auth.authenticator import Authenticator
from cds_server.auth.client_tokens import ClientTokens
from cds_server.auth.gate import ANONYMOUS_CLINICAL, GateRules, OnRefused, RefusedCaller
from cds_server.auth.principal import ANONYMOUS, Principal
from cds_server.settings import split
from cds_server.state import House

_log = structlog.get_logger(__name__)


def authenticators(house: House) -> list[Authenticator]:
    """Those of this server's settings; the first that recognises a request's credentials decides."""
    settings = house.settings
    found: list[Authenticator] = [house.smart.caller]
    if house.users is not None:
        found.append(house.users)
    if settings.authentication != "off":
        found.append(
            ClientTokens(
                lambda: house.clients,
                base_url=settings.base_url,
                algorithms=split(settings.client_algorithms),
                lifetime=settings.client_token_seconds,
                replay=house.replay,
                clock=house.clock,
            )
        )
    return found


def gate_options(house: House) -> dict[str, Any]:
    """The arguments of `Gate` for this server."""
    settings = house.settings
    if settings.authentication == "off" and settings.on_loopback and settings.base_url.startswith("https://"):
        _log.warning(
            "auth.open", advice="callers come through a proxy and are not authenticated: CDS_CLIENT_AUTH"
        )
    return {
        "rules": GateRules(
            anonymous=_anonymous(house),
            strict=settings.authentication != "off",
            allowed=parse_networks(settings.ip_allowlist),
            trusted_proxies=parse_networks(settings.trusted_proxies),
            metrics_from=parse_networks(settings.metrics_from),
            hosts=partial(_own_name, settings.base_url) if settings.on_loopback else None,
            rate_of=lambda principal: _rate(house, principal),
        ),
        "authenticators": authenticators(house),
        "rates": house.rates,
        "unproven": house.unproven,
        "on_refused": refusals_noted(house),
    }


def refusals_noted(house: House) -> OnRefused:
    """What happens when a caller is turned away: counted, logged with nothing that names anybody, audited.

    Of a caller that is not proven to be anybody the trail keeps the peer's address and words of ours only:
    not even the request's id, which the caller may have chosen.
    """

    async def note(refused: RefusedCaller) -> None:
        house.metrics.callers_refused.labels(refused.category).inc()
        _log.warning(
            "auth.refused",
            category=refused.category,
            method=refused.method,
            path=refused.path,
            request_id=refused.request_id,
        )
        caller = caller_of(house, refused.principal, refused.network)
        await house.refusals.record(
            Access(
                event_id=new_id(),
                recorded=house.clock(),
                activity="authentication-failed" if refused.status == 401 else "access-denied",
                service="auth",
                status=refused.status,
                reason=refused.category,
                client=caller.client,
                user=caller.user,
                roles=caller.roles,
                network=caller.network,
                detail=(("route", f"{refused.method} {refused.path}"),),
            )
        )

    return note


def _anonymous(house: House) -> Principal | None:
    settings = house.settings
    if settings.authentication == "required":
        return None
    return ANONYMOUS if settings.on_loopback else ANONYMOUS_CLINICAL


def _own_name(base_url: str, host: str) -> bool:
    """Whether a host name is this machine's, or the one callers address the server by."""
    return is_loopback(host) or host == urlsplit(base_url).hostname


def _rate(house: House, principal: Principal) -> int | None:
    """Calls a minute of somebody who is told apart from others; `unproven` counts those who are not."""
    if principal.kind == "client":
        return house.clients.rate_of(principal.issuer, principal.tenant) or house.settings.client_rate
    return house.settings.user_rate if principal.kind == "user" else None
