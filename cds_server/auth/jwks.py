"""Public keys of those who sign tokens: a JWK Set, read from a file or fetched from one fixed URL.

Fetches only the URL it was made with, which the site configured: nothing a caller sends chooses where a
request goes, and how often one goes is bounded whatever is sent.  Verifies nothing (see
`cds_server.auth.tokens`).  Private and symmetric keys in a set are never used.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
import msgspec
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from cds_server.auth.addresses import is_loopback

_log = structlog.get_logger(__name__)

KEY_OF_ALGORITHM: Mapping[str, tuple[str, str | None]] = {
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "RS256": ("RSA", None),
    "RS384": ("RSA", None),
}
"""Signature algorithms that are known here, with the kind of key each takes (RFC 7518, 3.1)."""

FRESH_SECONDS = 600.0
"""A key that its owner took out of the set is refused after this time at the latest."""
STALE_SECONDS = 12 * 3600.0
"""Keys are used this long when their URL does not answer: an EHR's outage is not to end its patients' CDS."""
LEAST_SECONDS_BETWEEN_FETCHES = 30.0
FETCH_SECONDS = 5.0
LARGEST_SET = 262_144
MOST_KEYS = 200
_LEAST_RSA_BITS = 2048  # RFC 7518, 3.3

Key = ECKey | RSAKey


class KeySetInvalid(Exception):
    """A document is not a JWK Set; quotes nothing of it."""


class KeysUnavailable(Exception):
    """There is no key set: it could not be read, or it has not been for too long."""


class _Jwk(msgspec.Struct, gc=False):
    kty: str
    kid: str | None = None
    use: str | None = None
    alg: str | None = None
    key_ops: list[str] | None = None
    crv: str | None = None
    x: str | None = None
    y: str | None = None
    n: str | None = None
    e: str | None = None
    d: str | None = None


class _Set(msgspec.Struct, gc=False):
    keys: list[msgspec.Raw]


_decode_set = msgspec.json.Decoder(_Set).decode
_decode_key = msgspec.json.Decoder(_Jwk).decode


class KeySet:
    """The usable keys of a JWK Set (RFC 7517, 5); `unusable` counts those that were passed over."""

    __slots__ = ("_keys", "unusable")

    def __init__(self, keys: Mapping[tuple[str, str], Key], declared: Mapping[tuple[str, str], str], unusable: int) -> None:
        self._keys = {place: (key, declared.get(place)) for place, key in keys.items()}
        self.unusable = unusable

    def __len__(self) -> int:
        return len(self._keys)

    @classmethod
    def parse(cls, document: bytes) -> "KeySet":
        """Read a JWK Set.

        A key is usable when it has a `kid`, is a public EC key on P-256 or P-384 or a public RSA key of
        at least 2,048 bits, is not for encryption, and is the only one of its kind with that `kid`.  A
        set that publishes a private key is taken without that key: whoever reads the set could sign.

        Raises:
            KeySetInvalid: not a JSON object with an array `keys` of at most 200 members.
        """
        try:
            members = _decode_set(document).keys
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise KeySetInvalid("not a JWK Set (a JSON object with an array 'keys')") from None
        if len(members) > MOST_KEYS:
            raise KeySetInvalid(f"a JWK Set of more than {MOST_KEYS} keys")
        keys: dict[tuple[str, str], Key] = {}
        declared: dict[tuple[str, str], str] = {}
        twice: set[tuple[str, str]] = set()
        for member in members:
            found = _usable(member)
            if found is None:
                continue
            place, key, algorithm = found
            if place in keys:
                twice.add(place)  # which of the two is meant cannot be told
            keys[place] = key
            if algorithm:
                declared[place] = algorithm
        for place in twice:
            del keys[place]
        return cls(keys, declared, len(members) - len(keys))

    def find(self, kid: str, algorithm: str) -> Key | None:
        """The key of that id for that algorithm; `None` also when the set says it is for another one."""
        kind, curve = KEY_OF_ALGORITHM[algorithm]
        found = self._keys.get((kid, kind))
        if found is None:
            return None
        key, declared = found
        if declared is not None and declared != algorithm:
            return None
        if curve is not None and key.curve_name != curve:  # type: ignore[union-attr]  # EC by its place
            return None
        return key


def _usable(member: msgspec.Raw) -> tuple[tuple[str, str], Key, str | None] | None:
    try:
        jwk = _decode_key(member)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not jwk.kid or jwk.use not in (None, "sig") or "verify" not in (jwk.key_ops or ["verify"]):
        return None
    if jwk.d is not None:
        _log.warning("auth.private_key_published")
        return None
    try:
        key = _imported(jwk)
    except (JoseError, ValueError, TypeError, KeyError, OverflowError):
        return None
    return ((jwk.kid, jwk.kty), key, jwk.alg) if key is not None else None


def _imported(jwk: _Jwk) -> Key | None:
    parts: dict[str, Any]
    if jwk.kty == "EC" and jwk.crv in ("P-256", "P-384") and jwk.x and jwk.y:
        parts = {"kty": "EC", "crv": jwk.crv, "x": jwk.x, "y": jwk.y}
        ec = ECKey.import_key(parts)
        _ = ec.public_key  # a point that is not on the curve is found out here, not at the first token
        return ec
    if jwk.kty == "RSA" and jwk.n and jwk.e:
        rsa = RSAKey.import_key({"kty": "RSA", "n": jwk.n, "e": jwk.e})
        return rsa if rsa.public_key.key_size >= _LEAST_RSA_BITS else None
    return None


class KeySource(Protocol):
    """Where the keys of one signer come from."""

    async def find(self, kid: str, algorithm: str) -> Key | None:
        """The key of that id for that algorithm, `None` when the signer has none.

        Raises:
            KeysUnavailable: nobody can say.
        """

    async def load(self) -> KeySet:
        """The whole set as it is now, for a person to look at.  Raises: KeysUnavailable."""


class FileKeys:
    """Keys exchanged out of band; the file is read again when it was replaced.

    Raises:
        KeysUnavailable: (when made) the file cannot be read or is no JWK Set.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] = (0, 0, 0)
        self._keys = self._read()

    async def find(self, kid: str, algorithm: str) -> Key | None:
        """See `KeySource.find`.  While a replaced file does not hold, the former keys go on."""
        try:
            if self._fingerprint() != self._seen:
                self._keys = self._read()
        except (KeysUnavailable, OSError) as fault:
            _log.warning("auth.keys_unavailable", source="file", error=type(fault).__name__)
        return self._keys.find(kid, algorithm)

    async def load(self) -> KeySet:
        """See `KeySource.load`."""
        return self._read()

    def _fingerprint(self) -> tuple[int, int, int]:
        found = self._path.stat()
        return (found.st_ino, found.st_mtime_ns, found.st_size)

    def _read(self) -> KeySet:
        try:
            self._seen = self._fingerprint()  # first: a file replaced meanwhile is read once more
            if self._seen[2] > LARGEST_SET:
                raise KeysUnavailable(f"{self._path.name} is larger than {LARGEST_SET} bytes")
            return KeySet.parse(self._path.read_bytes())
        except OSError as fault:
            raise KeysUnavailable(f"{self._path.name}: {fault.strerror}") from None
        except KeySetInvalid as fault:
            raise KeysUnavailable(f"{self._path.name}: {fault}") from None


class RemoteKeys:
    """Keys published at a URL, cached; one request at a time, whoever asks.

    A `kid` that is not in the cached set is looked for again at the URL, because keys rotate, but no two
    requests begin within `LEAST_SECONDS_BETWEEN_FETCHES`: made-up ids cost the signer nothing more.

    Args:
        url: https, or http of this machine; see `check_key_url`.
        ca_file: PEM file of the authorities that may have signed its certificate, beside none of others.
        now: a clock that never goes back, in seconds.
    """

    def __init__(
        self, url: str, *, ca_file: Path | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        check_key_url(url)
        self.url = url
        self._ca_file = ca_file
        self._tls: ssl.SSLContext | None = None
        self._now = now
        self._keys: KeySet | None = None
        self._fetched = self._tried = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str, algorithm: str) -> Key | None:
        """See `KeySource.find`."""
        if self._now() - self._fetched > FRESH_SECONDS:
            await self._refresh()
        key = self._current().find(kid, algorithm)
        if key is None and await self._refresh():
            key = self._current().find(kid, algorithm)
        return key

    async def load(self) -> KeySet:
        """See `KeySource.load`; always asks the URL."""
        await self._fetch()
        return self._current()

    def _current(self) -> KeySet:
        if self._keys is None or self._now() - self._fetched > STALE_SECONDS:
            raise KeysUnavailable("the key set could not be fetched")
        return self._keys

    async def _refresh(self) -> bool:
        """Fetches, unless that was tried just now; returns whether anything was asked."""
        if self._fetching is None:
            if self._now() - self._tried < LEAST_SECONDS_BETWEEN_FETCHES:
                return False
            self._tried = self._now()
            self._fetching = asyncio.create_task(self._fetch_quietly())
            self._fetching.add_done_callback(self._done)
        # A caller that goes away must not take the request from the others.
        await asyncio.shield(self._fetching)
        return True

    def _done(self, _: "asyncio.Task[None]") -> None:
        self._fetching = None

    async def _fetch_quietly(self) -> None:
        try:
            await self._fetch()
        except KeysUnavailable as fault:
            _log.warning("auth.keys_unavailable", source="url", error=str(fault))

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                document = await self._get()
            self._keys = KeySet.parse(document)
        except (TimeoutError, httpx.HTTPError, ssl.SSLError, OSError) as fault:
            raise KeysUnavailable(f"no answer ({type(fault).__name__})") from None
        except KeySetInvalid as fault:
            raise KeysUnavailable(str(fault)) from None
        self._fetched = self._now()
        _log.info("auth.keys_fetched", keys=len(self._keys), unusable=self._keys.unusable)

    async def _get(self) -> bytes:
        if self._tls is None:
            self._tls = ssl.create_default_context(cafile=str(self._ca_file) if self._ca_file else None)
        headers = {
            "Accept": "application/jwk-set+json, application/json",
            "Accept-Encoding": "identity",  # a compressed answer could be small here and huge in memory
            "User-Agent": "cds-server",
        }
        async with (
            httpx.AsyncClient(
                verify=self._tls, follow_redirects=False, trust_env=False, timeout=FETCH_SECONDS
            ) as http,
            http.stream("GET", self.url, headers=headers) as answer,
        ):
            if answer.status_code != 200:
                raise KeysUnavailable(f"answered with status {answer.status_code}")
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise KeysUnavailable("answered compressed, which was not asked for")
            document = b""
            async for chunk in answer.aiter_raw():
                document += chunk
                if len(document) > LARGEST_SET:
                    raise KeysUnavailable(f"more than {LARGEST_SET} bytes")
            return document


def check_key_url(url: str) -> None:
    """Raises `ValueError`, saying what to write, unless keys may be fetched from `url`."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("expected a URL such as https://ehr.example/jwks.json") from None
    del port  # read only because reading a wrong one raises
    if not host or not url.isascii() or not url.isprintable() or " " in url or "@" in parts.netloc or parts.fragment:
        raise ValueError("expected a URL such as https://ehr.example/jwks.json")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ValueError("must begin with https:// (http:// only for this machine itself)")
