"""Who logged in: the id token of a launch, checked as OpenID Connect Core 1.0 (3.1.3.7) and SMART say."""

import base64
import hashlib
import re
from datetime import datetime

import msgspec

from cds_server.auth.jwks import RemoteKeys
from cds_server.auth.signed_tokens import ALGORITHMS, SignedToken, TokenInvalid, verify
from cds_server.smart.ehrs import Ehr

_LONGEST_VALIDITY = 86_400.0
_FHIR_USER = re.compile(
    r"(?:https?://[^\s\"<>]{1,1000}/)?(?P<reference>(?P<type>[A-Z][A-Za-z]{1,63})/[A-Za-z0-9.-]{1,64})\Z"
)
_PRACTITIONERS = frozenset({"Practitioner", "PractitionerRole"})


class NotAPractitioner(Exception):
    """The user is known, and is no practitioner: this app is for those who treat."""


class Person(msgspec.Struct, frozen=True):
    """Who logged in.  `fhir_user` is absolute, `reference` relative (``Practitioner/123``)."""

    subject: str
    issuer: str
    fhir_user: str
    reference: str
    name: str | None

    def __repr__(self) -> str:
        return "<Person>"


async def identify(
    id_token: str | None,
    keys: RemoteKeys,
    *,
    ehr: Ehr,
    issuer: str,
    nonce: str,
    access_token: str,
    now: datetime,
) -> Person:
    """The person an id token names, once every check holds.

    Raises:
        TokenInvalid: there is none, or it does not hold.
        NotAPractitioner: its `fhirUser` is of another kind.
        ServerUnreachable: the issuer's keys cannot be had.
    """
    if id_token is None:
        raise TokenInvalid("id-token-missing")
    token = await verify(id_token, keys, ALGORITHMS)
    if token.text("iss") != issuer:
        raise TokenInvalid("issuer")
    audiences = token.audiences()
    party = token.claims.get("azp")
    if ehr.client_id not in audiences or (party is None and len(audiences) > 1):
        raise TokenInvalid("audience")
    if party is not None and party != ehr.client_id:
        raise TokenInvalid("authorized-party")
    token.check_times(now, longest=_LONGEST_VALIDITY)
    if token.text("nonce") != nonce:
        raise TokenInvalid("nonce")
    _check_access_token(token, access_token)
    return _person(token, ehr)


def _check_access_token(token: SignedToken, access_token: str) -> None:
    """`at_hash`, where it is given, ties the access token to this id token (OpenID Connect Core, 3.1.3.6)."""
    stated = token.claims.get("at_hash")
    if stated is None:
        return
    bits = str(token.header.get("alg"))[-3:]
    digest = hashlib.new(f"sha{bits}", access_token.encode("ascii")).digest()
    expected = base64.urlsafe_b64encode(digest[: len(digest) // 2]).decode().rstrip("=")
    if stated != expected:
        raise TokenInvalid("access-token-hash")


def _person(token: SignedToken, ehr: Ehr) -> Person:
    value = token.text("fhirUser")
    found = _FHIR_USER.match(value)
    if found is None:
        raise TokenInvalid("fhirUser")
    if found["type"] not in _PRACTITIONERS:
        raise NotAPractitioner
    reference = found["reference"]
    name = token.claims.get("name")
    return Person(
        subject=token.text("sub"),
        issuer=token.text("iss"),
        fhir_user=value if value != reference else f"{ehr.base.url}/{reference}",
        reference=reference,
        name=name.strip()[:200] or None if isinstance(name, str) and name.isprintable() else None,
    )
