"""The gate all requests pass: from which address, by whom, how often, and whether they may.

The one place that enforces `cds_server.auth.permissions`.  It stands before the body is read, and what it
lets through carries its caller in the scope (``cds.principal``).  It checks no credentials itself: it asks
the authenticators.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from cds_server.auth.addresses import Address, Networks, caller_address, holds, host_name
from cds_server.auth.authenticator import Authenticator
from cds_server.auth.permissions import ANYONE, METRICS_PATH, Permission, Table, may
from cds_server.auth.principal import ANONYMOUS, Principal, Role
from cds_server.auth.rates import Rates
from cds_server.auth.unproven import Connection, Unproven
from cds_server.errors import (
    MethodWrong,
    Misdirected,
    NotPermitted,
    PathUnknown,
    TooManyRequests,
    Unauthenticated,
)

_log = structlog.get_logger(__name__)

_OUR_TROUBLE = frozenset({"keys-unavailable"})
"""Categories of refusals that are no failures of the caller's."""

NOBODY = replace(ANONYMOUS, roles=frozenset())
"""The caller of a public path: nobody asked who it is."""
ANONYMOUS_CLINICAL = replace(ANONYMOUS, roles=frozenset({Role.CDS_CLIENT}))
"""An unauthenticated caller from the network: may have charts assessed, and read nothing that is kept."""


@dataclass(frozen=True, slots=True)
class RefusedCaller:
    """A caller that was turned away.

    `category` is one word of ours (``expired``, ``missing``, ``address``, ``host``, ``role``, ``rate``,
    ``unproven``, ``session-token``); `status` that of the answer; `path` the row's, not the request's;
    `network` the address the call came from; `principal` who it was, where that is proven.
    """

    category: str
    status: int
    method: str
    path: str
    request_id: str
    network: str | None
    principal: Principal | None


OnRefused = Callable[[RefusedCaller], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class GateRules:
    """What a site has set.

    Attributes:
        anonymous: the caller of a request without credentials, `None` where they are required.
        strict: whether an Authorization header that no authenticator recognises is refused.
        allowed: networks calls may come from; empty for all.
        trusted_proxies: whose ``X-Forwarded-For`` is believed.
        metrics_from: networks that may read the metrics without credentials.
        hosts: by which names a caller without credentials must address this server; `None` for any.  Where
            everybody on this machine may do everything, a page whose own name was made to point here (DNS
            rebinding) could otherwise read all of it through the browser of somebody who visits it.
        rate_of: calls a minute of a caller, `None` for no limit.
    """

    anonymous: Principal | None
    strict: bool
    allowed: Networks
    trusted_proxies: Networks
    metrics_from: Networks
    hosts: Callable[[str], bool] | None
    rate_of: Callable[[Principal], int | None]


class Gate:
    """An ASGI application in front of another one."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        rules: GateRules,
        authenticators: Sequence[Authenticator],
        rates: Rates,
        unproven: Unproven,
        on_refused: OnRefused,
    ) -> None:
        self._app = app
        self._rules = rules
        self._authenticators = tuple(authenticators)
        self._rates = rates
        self._unproven = unproven
        self._on_refused = on_refused
        self._table = Table()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        permission = self._row(scope)
        address = caller_address(scope, self._rules.trusted_proxies)
        scope["cds.network"] = str(address) if address is not None else None
        if self._rules.allowed and (address is None or not holds(self._rules.allowed, address)):
            await self._refuse(scope, permission, None, "address", 403)
            raise NotPermitted
        try:
            principal = await self._caller(scope, permission, address)
        except Unauthenticated as refusal:
            if refusal.category not in _OUR_TROUBLE and (
                seconds := self._unproven.failed(scope["cds.network"], _connection(scope))
            ):
                await self._refuse(scope, permission, None, "unproven", 429)
                raise TooManyRequests(seconds) from None
            await self._refuse(scope, permission, None, refusal.category, 401)
            raise
        except TooManyRequests:
            await self._refuse(scope, permission, None, "unproven", 429)
            raise
        except NotPermitted:
            # A session's cookie without the session's token: another site may have made the browser call.
            await self._refuse(scope, permission, None, "session-token", 403)
            raise
        except Misdirected:
            await self._refuse(scope, permission, None, "host", 421)
            raise
        if seconds := self._unnamed(scope, permission, principal):
            await self._refuse(scope, permission, None, "unproven", 429)
            raise TooManyRequests(seconds)
        rate = self._rules.rate_of(principal)
        if rate is not None and (seconds := self._rates.take(_name(principal), rate)):
            await self._refuse(scope, permission, principal, "rate", 429)
            raise TooManyRequests(seconds)
        if principal is not NOBODY and not may(principal.roles, permission):
            await self._refuse(scope, permission, principal, "role", 403)
            raise NotPermitted
        scope["cds.principal"] = principal
        await self._app(scope, receive, send)

    def _unnamed(self, scope: Scope, permission: Permission, principal: Principal) -> int:
        """How many seconds a caller whom nobody has asked for a name must wait for its address's sake."""
        if principal is self._rules.anonymous:
            return self._unproven.anonymous(scope["cds.network"])
        if principal is NOBODY and permission.costly:
            return self._unproven.started(permission.path, scope["cds.network"])
        return 0

    def _row(self, scope: Scope) -> Permission:
        rows = self._table.methods(scope["path"])
        if rows is None:
            raise PathUnknown("nothing here; start at /cds-services or /docs")
        method = scope["method"]
        row = rows.get("GET" if method == "HEAD" else method)
        if row is None:
            raise MethodWrong(", ".join(["GET, HEAD" if name == "GET" else name for name in rows]))
        return row

    async def _caller(self, scope: Scope, permission: Permission, address: Address | None) -> Principal:
        """Who calls; `NOBODY` where it does not matter.

        Raises: Unauthenticated, NotPermitted (a cookie without its page's token), Misdirected,
        TooManyRequests (its address has failed much, and there is no room to wait for a turn).
        """
        if permission.roles is ANYONE:
            return NOBODY
        rules = self._rules
        if permission.path == METRICS_PATH and address is not None and holds(rules.metrics_from, address):
            return NOBODY
        scope["cds.turn"] = partial(self._unproven.turn, scope["cds.network"], _connection(scope))
        for authenticator in self._authenticators:
            principal = await authenticator.authenticate(scope)
            if principal is not None:
                self._unproven.proved(_connection(scope))
                return principal
        if rules.strict and any(name == b"authorization" for name, _ in scope["headers"]):
            raise Unauthenticated("unrecognised")
        if rules.anonymous is None:
            raise Unauthenticated("missing")
        if rules.hosts is not None and (host := host_name(scope)) is not None and not rules.hosts(host):
            raise Misdirected
        return rules.anonymous

    async def _refuse(
        self,
        scope: Scope,
        permission: Permission,
        principal: Principal | None,
        category: str,
        status: int,
    ) -> None:
        await self._on_refused(
            RefusedCaller(
                category=category,
                status=status,
                method=permission.method,
                path=permission.path,
                request_id=scope.get("cds.request_id", ""),
                network=scope["cds.network"],
                principal=principal,
            )
        )


def _connection(scope: Scope) -> Connection | None:
    """The caller's own connection; `None` behind a proxy, whose connections carry many callers."""
    client: Connection | None = scope.get("client")
    return client if client is not None and client[0] == scope["cds.network"] else None


def _name(principal: Principal) -> str:
    """What tells callers apart; lengths keep ("a", "bc") and ("ab", "c") apart."""
    parts = (principal.kind, principal.issuer, principal.id, principal.tenant or "")
    return "".join([f"{len(part)}:{part}" for part in parts])
