"""Checking a signed token (JWS compact form): header, algorithm, key, signature, and the claims of time.

joserfc does the cryptography.  What a token is for (issuer, audience, roles, nonce) is its caller's
business.  A refusal carries a category for logs and metrics and nothing of the token.
"""

import base64
import binascii
import math
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from joserfc import jws
from joserfc.errors import JoseError

from cds_server.auth.jwks import KeySource, KeyUnknown

LEEWAY_SECONDS = 30
"""How far two clocks may differ."""
LONGEST_TOKEN = 16_384

ALGORITHMS = frozenset({"ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
"""Asymmetric ones only: `none` and HMAC can never be allowed, whatever a setting says."""

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class TokenInvalid(Exception):
    """A token does not hold.  `category` is one short word of ours (``expired``, ``signature``, ...)."""

    def __init__(self, category: str) -> None:
        super().__init__(category)
        self.category = category


@dataclass(frozen=True, slots=True)
class SignedToken:
    """Header and claims of a token whose signature holds; shows nothing of them."""

    header: dict[str, Any]
    claims: dict[str, Any]

    def __repr__(self) -> str:
        return "<SignedToken>"

    def text(self, name: str) -> str:
        """A claim that must be a text with something in it.

        Raises:
            TokenInvalid: it is missing or of another kind.
        """
        value = self.claims.get(name)
        if not isinstance(value, str) or not value:
            raise TokenInvalid(f"{name}-missing")
        return value

    def seconds(self, name: str) -> float:
        """A claim that must be a NumericDate (RFC 7519, 2).

        Raises:
            TokenInvalid: it is missing or of another kind.
        """
        value = self.claims.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise TokenInvalid(f"{name}-missing")
        return float(value)

    def audiences(self) -> tuple[str, ...]:
        """The audience, a text or a list of texts."""
        value = self.claims.get("aud")
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(item, str) and item for item in values):
            raise TokenInvalid("aud-missing")
        return tuple(values)

    def check_times(self, now: datetime, *, longest: float) -> None:
        """`exp`, `iat` and `nbf` against the clock with `LEEWAY_SECONDS`; `longest` bounds `exp` - `iat`.

        Raises:
            TokenInvalid: expired, not valid yet, issued in the future, or valid for too long.
        """
        moment = now.timestamp()
        expires, issued = self.seconds("exp"), self.seconds("iat")
        if moment >= expires + LEEWAY_SECONDS:
            raise TokenInvalid("expired")
        if issued > moment + LEEWAY_SECONDS:
            raise TokenInvalid("issued-in-future")
        if "nbf" in self.claims and self.seconds("nbf") > moment + LEEWAY_SECONDS:
            raise TokenInvalid("not-yet-valid")
        if expires - issued > longest:
            raise TokenInvalid("valid-too-long")


async def verify(
    token: str,
    keys: KeySource,
    algorithms: Collection[str],
    *,
    turn: AbstractAsyncContextManager[None] | None = None,
) -> SignedToken:
    """A token whose signature holds under one of the issuer's keys.

    Args:
        turn: entered for the cryptography alone.

    Raises:
        TokenInvalid: malformed, of an algorithm that is not allowed, of an unknown key, or not signed by it.
        ServerUnreachable: the issuer's keys cannot be had.
    """
    header = _header(token)
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in algorithms or algorithm not in ALGORITHMS:
        raise TokenInvalid("algorithm")
    if kid is not None and not isinstance(kid, str):
        raise TokenInvalid("malformed")
    try:
        key = await keys.key(kid, algorithm)
    except KeyUnknown:
        raise TokenInvalid("key-unknown") from None
    registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    registry.max_header_length = 8192  # some issuers send a certificate chain along
    try:
        async with turn or nullcontext():
            checked = jws.deserialize_compact(token.encode(), key, registry=registry)
    except (JoseError, ValueError):
        raise TokenInvalid("signature") from None
    return SignedToken(header, _object(checked.payload))


def unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims as anybody may have written them: for choosing whose keys to ask, and for refusing.

    Raises:
        TokenInvalid: not a signed token in compact form.
    """
    return _header(token), _segment(token.split(".")[1])


def _header(token: str) -> dict[str, Any]:
    if len(token) > LONGEST_TOKEN or token.count(".") != 2 or not token.isascii():
        raise TokenInvalid("malformed")
    return _segment(token.partition(".")[0])


def _segment(text: str) -> dict[str, Any]:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise TokenInvalid("malformed") from None
    return _object(raw)


def _object(raw: bytes | None) -> dict[str, Any]:
    try:
        return _decode(raw or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise TokenInvalid("malformed") from None
