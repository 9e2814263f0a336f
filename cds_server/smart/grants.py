"""Getting tokens from an EHR's token endpoint: code, refresh and client credentials, as confidential client.

SMART App Launch 2.2: the client proves itself by a signed assertion (``private_key_jwt``, RFC 7523) or by
its secret (``client_secret_basic``, RFC 6749, 2.3.1).  Tokens live in `Tokens`, which shows none of them.
"""

import base64
import re
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote_plus

import msgspec
from joserfc import jwt

from cds_server.auth.outbound import Outbound, ServerUnreachable, TokenRefused
from cds_server.privacy import KeyMaterialInvalid
from cds_server.smart.ehrs import Algorithm, Ehr, EhrsInvalid
from cds_server.smart.keys import ClientKeys

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_SECONDS = 120
"""SMART allows 300 at most; an assertion is used at once."""
DEFAULT_EXPIRES_IN = 300
"""Seconds, when the server does not say: the lifetime SMART recommends for backend tokens."""
RENEW_BEFORE = timedelta(seconds=60)
"""An access token is renewed this long before it expires."""
_LONGEST_EXPIRES_IN = 86_400
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,16384}\Z")
_FHIR_ID = re.compile(r"[A-Za-z0-9.-]{1,64}\Z")


class TokenAnswerInvalid(ServerUnreachable):
    """A token endpoint's answer is not one we can use; says which member."""


class Tokens(msgspec.Struct, frozen=True):
    """What a token endpoint granted.

    `expires` is when the access token ends and `due` when it is to be renewed, both aware UTC; `scope` is
    what was granted.
    """

    access_token: str
    expires: datetime
    due: datetime
    scope: str
    refresh_token: str | None = None
    id_token: str | None = None
    patient: str | None = None
    encounter: str | None = None

    def __repr__(self) -> str:
        return "<Tokens>"


class ClientProof:
    """How this site proves to one authorization server that it is the registered client."""

    def __init__(self, keys: ClientKeys) -> None:
        self._keys = keys

    def for_app(self, ehr: Ehr, audience: str, now: datetime) -> tuple[dict[str, str], dict[str, str]]:
        """Form members and headers that authenticate the app of an EHR at its token endpoint."""
        if ehr.client_auth == "client_secret_basic":
            pair = f"{quote_plus(ehr.client_id)}:{quote_plus(ehr.secret())}".encode()
            return {}, {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
        return self.by_key(ehr.client_id, ehr.algorithm, audience, now), {}

    def by_key(self, client_id: str, algorithm: Algorithm, audience: str, now: datetime) -> dict[str, str]:
        """A fresh client assertion as form members.

        Raises:
            KeyMaterialInvalid: the site has no key of the algorithm.
        """
        key = self._keys.signing(algorithm)
        issued = int(now.timestamp())
        assertion = jwt.encode(
            {"alg": algorithm, "kid": key.kid, "typ": "JWT"},
            {
                "iss": client_id,
                "sub": client_id,
                "aud": audience,
                "iat": issued,
                "exp": issued + ASSERTION_SECONDS,
                "jti": secrets.token_urlsafe(24),
            },
            key.private,
            algorithms=[algorithm],
        )
        return {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}


class Grants:
    """Asks token endpoints."""

    def __init__(self, outbound: Outbound, proof: ClientProof) -> None:
        self._outbound = outbound
        self._proof = proof

    async def by_code(
        self, ehr: Ehr, endpoint: str, *, code: str, verifier: str, redirect_uri: str, now: datetime
    ) -> Tokens:
        """Trade an authorization code (SMART App Launch 2.2, "Obtain access token").

        Raises:
            TokenRefused: the EHR said no.
            ServerUnreachable: no usable answer.
        """
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        return await self._app(ehr, endpoint, form, now)

    async def by_refresh(self, ehr: Ehr, endpoint: str, tokens: Tokens, now: datetime) -> Tokens:
        """Renew an access token; what the answer leaves out stays as it was granted.

        Raises:
            TokenRefused: the EHR said no, or there is no refresh token.
            ServerUnreachable: no usable answer.
        """
        if tokens.refresh_token is None:
            raise TokenRefused("invalid_grant")
        form = {"grant_type": "refresh_token", "refresh_token": tokens.refresh_token}
        renewed = await self._app(ehr, endpoint, form, now, granted=tokens.scope)
        return msgspec.structs.replace(
            tokens,
            access_token=renewed.access_token,
            expires=renewed.expires,
            due=renewed.due,
            scope=renewed.scope,
            refresh_token=renewed.refresh_token or tokens.refresh_token,
        )

    async def by_credentials(self, ehr: Ehr, endpoint: str, now: datetime) -> Tokens:
        """A token for a job (SMART Backend Services: client credentials with a signed assertion).

        Raises:
            TokenRefused: the EHR said no.
            ServerUnreachable: no usable answer.
        """
        backend = ehr.backend
        if backend is None:
            raise TokenRefused("unauthorized_client")
        form = {
            "grant_type": "client_credentials",
            "scope": backend.scope,
            **self._proof.by_key(backend.client_id, backend.algorithm, endpoint, now),
        }
        return read_tokens(await self._outbound.post_form(endpoint, form, {}), now, granted=backend.scope)

    async def revoke(self, ehr: Ehr, endpoint: str, token: str, now: datetime) -> None:
        """Tell the EHR that a token is no longer needed (RFC 7009).

        Raises:
            ServerUnreachable: it was not told.
        """
        form, headers = self._prove(ehr, endpoint, now)
        await self._outbound.post_and_forget(endpoint, {"token": token, **form}, headers)

    def _prove(self, ehr: Ehr, endpoint: str, now: datetime) -> tuple[dict[str, str], dict[str, str]]:
        try:
            return self._proof.for_app(ehr, endpoint, now)
        except (EhrsInvalid, KeyMaterialInvalid, OSError) as fault:
            # Checked at the start; since then a secret or key file went away.
            raise ServerUnreachable(f"no proof of ours: {type(fault).__name__}") from None

    async def _app(
        self, ehr: Ehr, endpoint: str, form: Mapping[str, str], now: datetime, *, granted: str | None = None
    ) -> Tokens:
        proof, headers = self._prove(ehr, endpoint, now)
        answer = await self._outbound.post_form(endpoint, {**form, **proof}, headers)
        return read_tokens(answer, now, granted=granted)


def read_tokens(answer: Mapping[str, Any], now: datetime, *, granted: str | None = None) -> Tokens:
    """Check a token endpoint's answer.

    Args:
        granted: the scope that holds when the answer names none (RFC 6749, 5.1 and 6); a launch's first
            answer must name it.

    Raises:
        TokenAnswerInvalid: a member is missing or of another kind.
    """

    def text(name: str, *, required: bool = False) -> str | None:
        value = answer.get(name)
        if value is None and not required:
            return None
        if not isinstance(value, str) or not value:
            raise TokenAnswerInvalid(f"{name} is not a text")
        return value

    token = text("access_token", required=True) or ""
    kind = text("token_type", required=True) or ""
    if kind.lower() != "bearer":
        raise TokenAnswerInvalid("token_type is not Bearer")
    if not _TOKEN.match(token):
        raise TokenAnswerInvalid("access_token has characters no token has")
    scope = text("scope") or granted
    if scope is None:
        raise TokenAnswerInvalid("scope is missing")
    context: dict[str, str | None] = {}
    for name in ("patient", "encounter"):
        value = text(name)
        if value is not None and not _FHIR_ID.match(value):
            raise TokenAnswerInvalid(f"{name} is not the id of a resource")
        context[name] = value
    lifetime = timedelta(seconds=_seconds(answer.get("expires_in")))
    return Tokens(
        access_token=token,
        expires=now + lifetime,
        # A token that lives for a minute or so is used for half of its life at least.
        due=now + max(lifetime - RENEW_BEFORE, lifetime / 2),
        scope=scope,
        refresh_token=text("refresh_token"),
        id_token=text("id_token"),
        **context,
    )


def _seconds(value: object) -> int:
    if value is None:
        return DEFAULT_EXPIRES_IN
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:9])  # some servers send the number as a text
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise TokenAnswerInvalid("expires_in is not a number of seconds")
    return int(min(value, _LONGEST_EXPIRES_IN))
