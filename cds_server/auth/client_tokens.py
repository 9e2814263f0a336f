"""CDS clients, recognised by the JWT that CDS Hooks has them send with every call.

CDS Hooks 2.0.1, "Trusting CDS Clients": `iss`, `jku` and `tenant` are held against the site's list before
anything is fetched, then the signature, then the claims, and at last the `jti`, which is remembered for
valid tokens only.
"""

from collections.abc import Callable, Iterable

import msgspec
import structlog
from starlette.types import Scope

from cds_server.auth.authenticator import bearer_token
from cds_server.auth.clients import TrustedClient, TrustedClients
from cds_server.auth.jwks import KeysUnavailable
from cds_server.auth.principal import Principal
from cds_server.auth.replay import ReplayGuard
from cds_server.auth.tokens import TokenInvalid, Unverified, check_header, peek, verify
from cds_server.clock import Clock
from cds_server.errors import Unauthenticated

_log = structlog.get_logger(__name__)

ALWAYS = frozenset({"ES384", "RS384"})
"""The algorithms CDS Hooks 2.0.1 recommends."""
LEEWAY_SECONDS = 30
"""How far the clocks of an EHR and of this server may be apart."""
_LONGEST_JTI = 512


class _Claims(msgspec.Struct, frozen=True):
    iss: str
    aud: str | list[str]
    exp: int | float
    iat: int | float
    jti: str
    tenant: str | None = None
    nbf: int | float | None = None


_decode_claims = msgspec.json.Decoder(_Claims).decode


class ClientTokens:
    """The authenticator of CDS clients.

    Args:
        clients: those the site trusts.
        base_url: how callers address this server; with the path it is the audience a token must have.
        algorithms: allowed beside `ALWAYS`.
        lifetime: most seconds from `iat` to `exp`.
        replay: remembers used tokens.
    """

    def __init__(
        self,
        clients: TrustedClients,
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
        self._now: Callable[[], float] = lambda: clock().timestamp()

    async def authenticate(self, scope: Scope) -> Principal | None:
        """See `Authenticator.authenticate`; a token of an issuer the site does not list is not ours."""
        token = bearer_token(scope)
        seen = peek(token) if token else None
        if token is None or seen is None or seen.issuer is None or not self._clients.knows(seen.issuer):
            return None
        try:
            return await self._checked(token, seen, self._base_url + scope["path"])
        except TokenInvalid as fault:
            raise Unauthenticated(fault.category) from None

    async def _checked(self, token: str, seen: Unverified, audience: str) -> Principal:
        header = seen.header
        kid = check_header(header, self._algorithms)
        client = self._client(seen)
        if header.jku is not None and header.jku != client.jku:
            raise TokenInvalid("jku")
        try:
            key = await client.keys.find(kid, header.alg)
        except KeysUnavailable:
            raise TokenInvalid("keys-unavailable") from None
        if key is None:
            raise TokenInvalid("unknown-key")
        try:
            claims = _decode_claims(verify(token, key, header.alg))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise TokenInvalid("claims") from None
        if (claims.iss, claims.tenant) != (seen.issuer, seen.tenant):
            raise TokenInvalid("claims")
        expires = self._check_claims(claims, audience)
        if not await self._replay.first_use(claims.iss, claims.jti, expires):
            raise TokenInvalid("replayed")
        return Principal("client", claims.iss, claims.iss, client.roles, tenant=claims.tenant)

    def _client(self, seen: Unverified) -> TrustedClient:
        client = self._clients.find(seen.issuer or "", seen.tenant)
        if client is None:
            raise TokenInvalid("tenant")
        return client

    def _check_claims(self, claims: _Claims, audience: str) -> int:
        """The second after which the token is refused anyway.  Raises: TokenInvalid."""
        now = self._now()
        if audience not in ([claims.aud] if isinstance(claims.aud, str) else claims.aud):
            raise TokenInvalid("audience")
        if claims.exp <= now - LEEWAY_SECONDS:
            raise TokenInvalid("expired")
        if max(claims.iat, claims.nbf or claims.iat) > now + LEEWAY_SECONDS:
            raise TokenInvalid("not-yet-valid")
        if not 0 < claims.exp - claims.iat <= self._lifetime:
            raise TokenInvalid("lifetime")
        if not 0 < len(claims.jti) <= _LONGEST_JTI:
            raise TokenInvalid("claims")
        return int(claims.exp) + LEEWAY_SECONDS + 1
