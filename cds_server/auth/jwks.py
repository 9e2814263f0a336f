"""The public keys of one token issuer, fetched from its JWKS address, cached and renewed within limits.

A key is found by the token's `kid` and algorithm.  An unknown `kid` may mean that the issuer has rotated
its keys, so the set is fetched again, but not more often than every `UNKNOWN_KEY_PAUSE` seconds: tokens
with invented ids cannot make us flood the issuer.  Concurrent callers share one fetch.  While the issuer
cannot be reached, keys fetched before stay good for `STALE_SECONDS`.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from cds_server.auth.outbound import Outbound, ServerUnreachable

FRESH_SECONDS = 600.0
"""How long a fetched set is used without asking again."""
STALE_SECONDS = 86_400.0
"""How long it is used when the issuer cannot be reached."""
UNKNOWN_KEY_PAUSE = 30.0
"""Least time between two fetches that an unknown key id caused."""
FAILURE_PAUSE = 5.0
"""Least time between two tries of an issuer that does not answer."""
_log = structlog.get_logger(__name__)
_MOST_KEYS = 100
_LEAST_RSA_BITS = 2048  # NIST SP 800-131A

_CURVE_OF = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_RSA_ALGORITHM = re.compile(r"[RP]S(256|384|512)\Z")

PublicKey = ECKey | RSAKey


class KeyUnknown(Exception):
    """The issuer has no such key for that algorithm."""


class KeySource(Protocol):
    """Where the keys of one issuer come from."""

    async def key(self, kid: str | None, algorithm: str) -> PublicKey:
        """The key for a token's header.

        Raises:
            KeyUnknown: there is none, or (without a `kid`) not exactly one.
            ServerUnreachable: no keys are at hand and the issuer gives none.
        """


def only_one(keys: list[PublicKey], kid: str | None, algorithm: str) -> PublicKey | None:
    """The key of that id for that algorithm, `None` when there is none or more than one."""
    matching = [key for key in keys if fits(key, algorithm) and (kid is None or key.get("kid") == kid)]
    return matching[0] if len(matching) == 1 else None


def fits(key: PublicKey, algorithm: str) -> bool:
    """Whether a key is made for an algorithm: type, curve or length, and the `alg` it declares, if any."""
    declared = key.get("alg")
    if declared is not None and declared != algorithm:
        return False
    if isinstance(key, ECKey):
        return _CURVE_OF.get(algorithm) == key.curve_name
    return _RSA_ALGORITHM.match(algorithm) is not None


def public_keys(document: dict[str, Any]) -> list[PublicKey]:
    """The verification keys of a JWK set (RFC 7517); entries of other kinds or uses are passed over.

    Symmetric keys, keys that are not for signatures, RSA keys under 2048 bits and malformed entries are
    not keys here, nor is one that is published with its private half: whoever reads the set could sign.

    Raises:
        ServerUnreachable: not a JWK set at all.
    """
    entries = document.get("keys")
    if not isinstance(entries, list) or len(entries) > _MOST_KEYS:
        raise ServerUnreachable("not-a-key-set")
    found: list[PublicKey] = []
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
            continue
        operations = entry.get("key_ops")
        if operations is not None and not (isinstance(operations, list) and "verify" in operations):
            continue
        if not _PRIVATE.isdisjoint(entry):
            _log.warning("auth.private_key_published")
            continue
        try:
            if entry.get("kty") == "EC":
                found.append(ECKey.import_key(entry))
            elif entry.get("kty") == "RSA":
                key = RSAKey.import_key(entry)
                if key.public_key.key_size >= _LEAST_RSA_BITS:
                    found.append(key)
        except (JoseError, ValueError, TypeError, KeyError):
            continue
    return found


_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class RemoteKeys:
    """The keys of one issuer.

    Args:
        locate: gives the address of the set, already checked; may itself ask the issuer's metadata.
        monotonic: seconds, for the cache's ages.
    """

    def __init__(
        self,
        outbound: Outbound,
        locate: Callable[[], Awaitable[str]],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outbound = outbound
        self._locate = locate
        self._monotonic = monotonic
        self._keys: list[PublicKey] = []
        self._fetched: float | None = None
        self._tried: float | None = None
        self._lock = asyncio.Lock()

    async def key(self, kid: str | None, algorithm: str) -> PublicKey:
        """The key for a token's header.

        Raises:
            KeyUnknown: there is none, or (without a `kid`) not exactly one.
            ServerUnreachable: no keys are at hand and the issuer gives none.
        """
        await self._renew(FRESH_SECONDS)
        found = only_one(self._keys, kid, algorithm)
        if found is None:
            await self._renew(UNKNOWN_KEY_PAUSE)
            found = only_one(self._keys, kid, algorithm)
        if found is None:
            raise KeyUnknown("no such key")
        return found

    def _age(self, moment: float | None) -> float:
        return float("inf") if moment is None else self._monotonic() - moment

    async def _renew(self, oldest: float) -> None:
        """Fetch unless the set is younger than `oldest` seconds; callers at the same time share one fetch."""
        if self._age(self._fetched) < oldest:
            return
        async with self._lock:
            if self._age(self._fetched) < oldest:
                return
            # With keys at hand nobody has to wait for an issuer that is away more often than that.
            pause = FAILURE_PAUSE if self._age(self._fetched) >= STALE_SECONDS else UNKNOWN_KEY_PAUSE
            if self._age(self._tried) >= pause:
                self._tried = self._monotonic()
                try:
                    self._keys = public_keys(await self._outbound.get(await self._locate()))
                except ServerUnreachable:
                    if self._age(self._fetched) >= STALE_SECONDS:
                        raise
                else:
                    self._fetched = self._monotonic()
                    self._tried = None
            elif self._age(self._fetched) >= STALE_SECONDS:
                raise ServerUnreachable("tried a moment ago")
