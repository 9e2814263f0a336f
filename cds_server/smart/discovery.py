"""What an EHR's authorization server is: its SMART configuration, checked and cached.

SMART App Launch 2.2, "Conformance": ``[FHIR base]/.well-known/smart-configuration``.  What would make a
launch unsafe (no S256, endpoints without TLS, another issuer than the registered one) is refused here.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

from cds_server.auth.jwks import RemoteKeys
from cds_server.auth.outbound import Outbound, ServerUnreachable, check_address
from cds_server.smart.ehrs import Ehr

_FRESH_SECONDS = 300.0
_FAILURE_PAUSE = 5.0
"""Least seconds between two tries of an EHR that failed: launches cost it, and those who wait, no more."""


class ConfigurationUnsafe(ServerUnreachable):
    """The SMART configuration lacks what a safe launch needs; the text says what."""


class SmartConfiguration(msgspec.Struct, frozen=True):
    """The members of a SMART configuration that are used, all checked."""

    token_endpoint: str
    authorization_endpoint: str | None
    issuer: str | None
    jwks_uri: str | None
    revocation_endpoint: str | None
    says_issuer: bool
    """Whether authorization answers carry `iss` (RFC 9207)."""
    s256: bool
    capabilities: tuple[str, ...]


class Discovery:
    """The SMART configurations and id-token keys of the registered EHRs, per process."""

    def __init__(self, outbound: Outbound, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._outbound = outbound
        self._monotonic = monotonic
        self._known: dict[str, tuple[float, SmartConfiguration]] = {}
        self._failed: dict[str, float] = {}
        self._keys: dict[str, RemoteKeys] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def of(self, ehr: Ehr) -> SmartConfiguration:
        """The configuration of a registered EHR; nobody else is ever asked.

        Raises:
            ServerUnreachable: it cannot be had, or (`ConfigurationUnsafe`) may not be used.
        """
        async with self._locks.setdefault(ehr.name, asyncio.Lock()):
            known = self._known.get(ehr.name)
            if known is not None and self._monotonic() - known[0] < _FRESH_SECONDS:
                return known[1]
            if self._monotonic() - self._failed.get(ehr.name, float("-inf")) < _FAILURE_PAUSE:
                raise ServerUnreachable("failed a moment ago")
            try:
                document = await self._outbound.get(f"{ehr.base.url}/.well-known/smart-configuration")
                found = read_configuration(document, ehr)
            except ServerUnreachable:
                self._failed[ehr.name] = self._monotonic()
                raise
            self._known[ehr.name] = (self._monotonic(), found)
            return found

    def keys(self, ehr: Ehr) -> RemoteKeys:
        """The keys that sign the EHR's id tokens."""

        async def locate() -> str:
            return (await for_launch(self, ehr)).jwks_uri

        if ehr.name not in self._keys:
            self._keys[ehr.name] = RemoteKeys(self._outbound, locate, monotonic=self._monotonic)
        return self._keys[ehr.name]


class LaunchConfiguration(msgspec.Struct, frozen=True):
    """A configuration that has all a launch needs."""

    token_endpoint: str
    authorization_endpoint: str
    issuer: str
    jwks_uri: str
    says_issuer: bool
    revocation_endpoint: str | None


async def for_launch(discovery: Discovery, ehr: Ehr) -> LaunchConfiguration:
    """The EHR's configuration for App Launch with OpenID Connect.

    Raises:
        ConfigurationUnsafe: an endpoint or S256 is missing.
        ServerUnreachable: it cannot be had.
    """
    found = await discovery.of(ehr)
    if not found.s256:
        raise ConfigurationUnsafe("code_challenge_methods_supported lacks S256")
    if found.authorization_endpoint is None:
        raise ConfigurationUnsafe("authorization_endpoint is missing")
    if found.issuer is None or found.jwks_uri is None:
        raise ConfigurationUnsafe("issuer and jwks_uri are missing: no sso-openid-connect")
    return LaunchConfiguration(
        token_endpoint=found.token_endpoint,
        authorization_endpoint=found.authorization_endpoint,
        issuer=found.issuer,
        jwks_uri=found.jwks_uri,
        says_issuer=found.says_issuer,
        revocation_endpoint=found.revocation_endpoint,
    )


def read_configuration(document: dict[str, Any], ehr: Ehr) -> SmartConfiguration:
    """Check a SMART configuration document of an EHR.

    Raises:
        ConfigurationUnsafe: an issuer other than the registered one, or members of the wrong kind.
        AddressRefused: an endpoint that may not be asked.
    """

    def address(name: str) -> str | None:
        value = document.get(name)
        return check_address(value, origin=ehr.iss) if value is not None else None

    def texts(name: str) -> tuple[str, ...]:
        value = document.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ConfigurationUnsafe(f"{name} is not a list of texts")
        return tuple(value)

    token = address("token_endpoint")
    if token is None:
        raise ConfigurationUnsafe("token_endpoint is missing")
    issuer = address("issuer")
    if ehr.issuer is not None and issuer != ehr.issuer:
        raise ConfigurationUnsafe("issuer is not the registered one")
    return SmartConfiguration(
        token_endpoint=token,
        authorization_endpoint=address("authorization_endpoint"),
        issuer=issuer,
        jwks_uri=address("jwks_uri"),
        revocation_endpoint=address("revocation_endpoint"),
        says_issuer=document.get("authorization_response_iss_parameter_supported") is True,
        s256="S256" in texts("code_challenge_methods_supported"),
        capabilities=texts("capabilities"),
    )
