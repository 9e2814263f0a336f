"""CDS clients, recognised by the JWT that CDS Hooks has them send with every call.

CDS Hooks 2.0.1, "Trusting CDS Clients": `iss`, `jku` and `tenant` are held against the site's list before
anything is fetched, and the other claims before the signature is computed: what cannot hold costs nothing.
Then the signature, again the claims, now as they were signed, and at last the `jti`, which is remembered
for valid tokens only.
"""

from collections.abc import Callable, Iterable
from typing import Any

from starlette.types import Scope

from cds_server.auth.authenticator import bearer_token, turn_of
from cds_server.auth.clients import TrustedClient, TrustedClients
from cds_server.auth.outbound import ServerUnreachable
from cds_server.auth.principal import Principal
from cds_server.auth.replay import ReplayGuard
from cds_server.auth.signed_tokens import LEEWAY_SECONDS, SignedToken, TokenInvalid, unverified, verify
from cds_server.clock import Clock
from cds_server.errors import Unauthenticated

ALWAYS = frozenset({"ES384", "RS384"})
"""The algorithms CDS Hooks 2.0.1 recommends."""
_LONGEST_JTI = 512
_NOT_UNDERSTOOD = frozenset({"crit", "b64"})
"""Header members that would change how a token is read (RFC 7515, 4.1.11; RFC 7797)."""


class ClientTokens:
    """The authenticator of CDS clients.

    Args:
        clients: gives those the site trusts at that moment; the list may be replaced while a call waits.
        base_url: how callers address this server; with the path it is the audience a token must have.
        algorithms: allowed beside `ALWAYS`.
        lifetime: most seconds from `iat` to `exp`.
        replay: remembers used tokens.
    """

    def __init__(
        self,
        clients: Callable[[], TrustedClients],
        *,
        base_url: str,
        algorithms: Iterable[str],
        lifetime: int,
        replay: ReplayGuard,
        clock: Clock,
    ) -> None:
        self._clients = clients
        self._base_url = base_url
        self._algorithms = ALWAYS.union(algorithms)
        self._lifetime = lifetime
        self._replay = replay
        self._clock = clock

    async def authenticate(self, scope: Scope) -> Principal | None:
        """See `Authenticator.authenticate`; a token of an issuer the site does not list is not ours."""
        token = bearer_token(scope)
        if token is None:
            return None
        try:
            header, claimed = unverified(token)
        except TokenInvalid:
            return None
        issuer = claimed.get("iss")
        if not isinstance(issuer, str) or not self._clients().knows(issuer):
            return None
        try:
            client = self._listed(header, claimed, issuer)
            audience = self._base_url + scope["path"]
            self._hold(SignedToken(header, claimed), client, audience)
            while True:
                signed = await verify(token, client.keys, self._algorithms, turn=turn_of(scope))
                # The list may have been replaced meanwhile: who is not on it any more is refused at once.
                now_listed = self._listed(header, claimed, issuer)
                if now_listed == client:
                    break
                client = now_listed
            return await self._principal(signed, client, audience)
        except TokenInvalid as fault:
            raise Unauthenticated(fault.category) from None
        except ServerUnreachable:
            raise Unauthenticated("keys-unavailable") from None

    def _listed(self, header: dict[str, Any], claimed: dict[str, Any], issuer: str) -> TrustedClient:
        """The client a token says it is of, if the site's list agrees; before anything is fetched."""
        if str(header.get("typ", "")).upper() != "JWT" or not header.get("kid"):
            raise TokenInvalid("header")
        if not _NOT_UNDERSTOOD.isdisjoint(header):
            raise TokenInvalid("header")
        client = self._clients().find(issuer, claimed.get("tenant"))
        if client is None:
            raise TokenInvalid("tenant")
        if "jku" in header and header["jku"] != client.jku:
            raise TokenInvalid("jku")
        return client

    async def _principal(self, signed: SignedToken, client: TrustedClient, audience: str) -> Principal:
        """The caller, once the claims hold and the token was not used before.  Raises: TokenInvalid."""
        self._hold(signed, client, audience)
        issuer, tenant = client.issuer, signed.claims.get("tenant")
        expires = int(signed.seconds("exp")) + LEEWAY_SECONDS + 1
        if not await self._replay.first_use(issuer, signed.text("jti"), expires):
            raise TokenInvalid("replayed")
        return Principal("client", issuer, issuer, client.roles, tenant=tenant)

    def _hold(self, signed: SignedToken, client: TrustedClient, audience: str) -> None:
        """Raises `TokenInvalid` unless the claims are those of a client's token for an endpoint, now."""
        issuer, jti = signed.text("iss"), signed.text("jti")
        tenant = signed.claims.get("tenant")
        if issuer != client.issuer or not client.admits(tenant) or len(jti) > _LONGEST_JTI:
            raise TokenInvalid("claims")
        if audience not in signed.audiences():
            raise TokenInvalid("audience")
        signed.check_times(self._clock(), longest=self._lifetime)
