"""Asking an authorization server: metadata, key sets and tokens, as small JSON documents within limits.

Every address comes from the site's settings or from a document found there; no redirect is followed, no
proxy, cookie or credential of the environment is used, answers are bounded in bytes and time.  Failures
name what failed in our words and never quote what a server sent.
"""

import asyncio
import logging
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from cds_server.auth.addresses import is_loopback

# httpx and httpcore log URLs.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

_LARGEST = 512_000
"""Bytes of an answer: a key set of some hundred keys with certificates stays under it."""
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class ServerUnreachable(Exception):
    """An authorization server gave no usable answer.  Says what kind of failure, never what was sent."""


class AddressRefused(ServerUnreachable):
    """An address that may not be asked: not https, or of another form than a plain URL."""


class TokenRefused(Exception):
    """A token endpoint's refusal; `code` is one of RFC 6749, 5.2, or ``other``."""

    def __init__(self, code: str) -> None:
        super().__init__(f"the token endpoint refused: {code}")
        self.code = code


_TOKEN_ERRORS = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    }
)


def on_this_machine(url: str) -> bool:
    """Whether a URL's host is this machine by name or number."""
    return is_loopback(urlsplit(url).hostname or "")


def check_address(url: object, *, origin: str) -> str:
    """A URL that may be asked (or a browser sent to) on behalf of a site's configured `origin`.

    It must be an absolute https URL without user information or fragment.  Plain http is taken only on
    loopback, and only when the origin is on loopback too: a remote server's document must not point us
    at this machine.

    Raises:
        AddressRefused: anything else.
    """
    if not isinstance(url, str) or len(url) > 2000 or not url.isascii() or not url.isprintable():
        raise AddressRefused("not a plain absolute URL")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise AddressRefused("not a plain absolute URL") from None
    odd = any(character in url for character in '\\ "<>^`{}') or "@" in parts.netloc or parts.fragment
    if odd or not parts.hostname:
        raise AddressRefused("not a plain absolute URL")
    local = on_this_machine(url)
    if local and not on_this_machine(origin):
        raise AddressRefused("a remote server's document points at this machine")
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise AddressRefused("https is required")
    return url


class Outbound:
    """Bounded HTTP to authorization servers; made at start, shared by all that ask them.

    Args:
        ca_file: PEM file of the CAs trusted for these servers, or `None` for the system's.
        seconds: for one whole exchange.
    """

    def __init__(self, *, ca_file: Path | None = None, seconds: float = 10.0) -> None:
        self._ca_file = ca_file
        self._seconds = seconds
        self._http: httpx.AsyncClient | None = None

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:  # a site that never asks never pays for TLS
            self._http = httpx.AsyncClient(
                verify=ssl.create_default_context(cafile=str(self._ca_file) if self._ca_file else None),
                follow_redirects=False,
                trust_env=False,
                timeout=httpx.Timeout(self._seconds),
                limits=httpx.Limits(max_connections=16, max_keepalive_connections=4, keepalive_expiry=15),
                headers={
                    "User-Agent": "cds-server",
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",  # a compressed answer could be small here, huge in memory
                },
            )
        return self._http

    async def close(self) -> None:
        """Close all connections."""
        if self._http is not None:
            await self._http.aclose()

    async def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The JSON object at a URL that `check_address` let through.

        Raises:
            ServerUnreachable: no answer in time, another status than 200, too large, or no JSON object.
        """
        status, body = await self._exchange("GET", url, headers=headers)
        if status != 200:
            raise ServerUnreachable(f"http-{status}")
        return _object(body)

    async def post_form(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str]
    ) -> dict[str, Any]:
        """The JSON object a token endpoint answers a form with.

        Raises:
            TokenRefused: the endpoint answered with an OAuth error (400 or 401).
            ServerUnreachable: no answer, or none that can be read.
        """
        status, body = await self._exchange("POST", url, form=form, headers=headers)
        if status in (400, 401):
            try:
                code = _object(body).get("error")
            except ServerUnreachable:
                code = None
            raise TokenRefused(code if isinstance(code, str) and code in _TOKEN_ERRORS else "other")
        if status != 200:
            raise ServerUnreachable(f"http-{status}")
        return _object(body)

    async def post_and_forget(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> None:
        """Send a form whose answer has no content (token revocation, RFC 7009, 2.2).

        Raises:
            ServerUnreachable: no answer, or another status than 200.
        """
        status, _ = await self._exchange("POST", url, form=form, headers=headers)
        if status != 200:
            raise ServerUnreachable(f"http-{status}")

    async def _exchange(
        self,
        method: str,
        url: str,
        *,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        client = self._client()
        body = bytearray()
        try:
            async with (
                asyncio.timeout(self._seconds),
                client.stream(
                    method, url, data=dict(form) if form is not None else None, headers=dict(headers or {})
                ) as response,
            ):
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise ServerUnreachable("answered compressed, which was not asked for")
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > _LARGEST:
                        raise ServerUnreachable("too-large")
                return response.status_code, bytes(body)
        except TimeoutError:
            raise ServerUnreachable("timeout") from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError):
            raise ServerUnreachable("unreachable") from None
        finally:
            client.cookies.clear()


def _object(body: bytes) -> dict[str, Any]:
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ServerUnreachable("not-a-json-object") from None
