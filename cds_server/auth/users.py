"""People and apps with an access token of the site's identity provider (OAuth 2.0 bearer, RFC 6750, 9068).

The provider's metadata and keys are found through OpenID Connect Discovery; its issuer must be exactly
the configured one.  A token must be signed with an asymmetric algorithm the site allows, be for this
server (`aud`), and be current.  Its scopes and claims give roles (`users_roles`).  What a role may do is
`cds_server.auth.permissions`' business.
"""

import re
import time
from collections.abc import Callable
from datetime import datetime

import msgspec
import structlog
from starlette.types import Scope

from cds_server.auth.authenticator import bearer_token, turn_of
from cds_server.auth.jwks import RemoteKeys
from cds_server.auth.outbound import Outbound, ServerUnreachable, check_address
from cds_server.auth.principal import Principal
from cds_server.auth.signed_tokens import SignedToken, TokenInvalid, unverified, verify
from cds_server.auth.users_roles import RoleRules
from cds_server.clock import Clock
from cds_server.errors import Unauthenticated, Unavailable
from cds_server.settings import Settings

_log = structlog.get_logger(__name__)
CHALLENGE = 'Bearer error="invalid_token"'
"""RFC 6750, 3.1, without a description: what is wrong with a token helps whoever forges one."""
LONGEST_VALIDITY = 86_400.0
"""Seconds between `iat` and `exp`; an access token that lives longer than a day is refused."""
_ACCESS_TOKEN_TYPES = frozenset({"at+jwt", "application/at+jwt"})  # RFC 9068, 2.1 and 4
_FHIR_USER = re.compile(r"https?://\S{1,1000}/[A-Z][A-Za-z]{1,63}/[A-Za-z0-9.-]{1,64}\Z")


class UserTokenRules(msgspec.Struct, frozen=True):
    """What the site's tokens must be.

    `any_type` also takes tokens that do not declare themselves access tokens, for identity providers
    that cannot; an ID token of the same audience could then pass for one.
    """

    issuer: str
    audience: str
    algorithms: frozenset[str]
    roles: RoleRules
    any_type: bool = False


class UserTokens:
    """Authenticates bearer tokens of the identity provider; those of other issuers are not its business."""

    def __init__(
        self,
        rules: UserTokenRules,
        outbound: Outbound,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules = rules
        self._outbound = outbound
        self._now = now
        self._keys = RemoteKeys(outbound, self._key_address, monotonic=monotonic)

    async def close(self) -> None:
        """Close all connections."""
        await self._outbound.close()

    async def authenticate(self, scope: Scope) -> Principal | None:
        """See `cds_server.auth.authenticator.Authenticator`.

        Raises:
            Unauthenticated: the token claims to be of this issuer and does not hold.
            Unavailable: the identity provider's keys cannot be had.
        """
        token = bearer_token(scope)
        if token is None or not self._is_ours(token):
            return None
        try:
            self._hold(SignedToken(*unverified(token)))  # what cannot hold costs no signature
            signed = await verify(token, self._keys, self._rules.algorithms, turn=turn_of(scope))
            self._hold(signed)
            return self._principal(signed)
        except TokenInvalid as fault:
            raise Unauthenticated(fault.category, challenge=CHALLENGE) from None
        except ServerUnreachable as fault:
            _log.warning("users.provider_unreachable", failure=str(fault))
            raise Unavailable("the identity provider cannot be reached now; try again") from None

    def _is_ours(self, token: str) -> bool:
        try:
            return bool(unverified(token)[1].get("iss") == self._rules.issuer)
        except TokenInvalid:
            return False

    def _hold(self, checked: SignedToken) -> None:
        """Raises `TokenInvalid` unless these are an access token's for this server, now."""
        rules = self._rules
        kind = checked.header.get("typ")
        if not rules.any_type and not (isinstance(kind, str) and kind.lower() in _ACCESS_TOKEN_TYPES):
            raise TokenInvalid("type")
        if checked.text("iss") != rules.issuer:
            raise TokenInvalid("issuer")
        if rules.audience not in checked.audiences():
            raise TokenInvalid("audience")
        checked.check_times(self._now(), longest=LONGEST_VALIDITY)

    def _principal(self, token: SignedToken) -> Principal:
        fhir_user = token.claims.get("fhirUser")
        known = isinstance(fhir_user, str) and _FHIR_USER.match(fhir_user) is not None
        return Principal(
            "user",
            token.text("sub"),
            self._rules.issuer,
            self._rules.roles.roles(token.claims),
            fhir_user=fhir_user if known else None,
        )

    async def _key_address(self) -> str:
        """The provider's `jwks_uri`; its document must name our issuer (OpenID Connect Discovery, 4.3)."""
        issuer = self._rules.issuer
        found = await self._outbound.get(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != issuer:
            raise ServerUnreachable("issuer-mismatch")
        return check_address(found.get("jwks_uri"), origin=issuer)


def user_tokens(settings: Settings, clock: Clock) -> UserTokens | None:
    """The authenticator of the site's identity provider, `None` when it has none.

    Raises:
        RolesInvalid: the table of roles does not hold.
    """
    if settings.oidc_issuer is None or settings.oidc_roles is None:
        return None
    rules = UserTokenRules(
        issuer=settings.oidc_issuer,
        audience=settings.oidc_audience or settings.base_url,
        algorithms=frozenset(part.strip() for part in settings.oidc_algorithms.split(",")),
        roles=RoleRules.load(settings.oidc_roles),
        any_type=settings.oidc_any_token_type,
    )
    return UserTokens(rules, Outbound(ca_file=settings.oidc_ca_file), now=clock)
