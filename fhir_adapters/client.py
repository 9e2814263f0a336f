"""Reads what the prefetch lacked from the EHR's FHIR server, within one time budget.

Concurrent searches and reads, patience with a busy server (`Retry-After`), and no way for the
access token to reach any other server: no redirect is followed, a `next` link must stay under the same
base, cookies and ambient credentials are off.  The token lives for one call, in `Access`, and shows in
no representation.  Never raises for what a server does: what could not be had becomes a read issue.
"""

import asyncio
import logging
import ssl
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Self

import httpx

from fhir_adapters.reading import Access, FetchFailed, FhirLimits, FhirReader, Query
from fhir_adapters.unpacking import ACCEPTED, Unpacking, UnpackingFailed

__all__ = ["Access", "FhirClient", "FhirLimits", "Query"]

# httpx and httpcore log URLs, which hold patient ids.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

_JSON_TYPES = ("application/fhir+json", "application/json", "application/json+fhir", "text/json")
_RETRIED = frozenset({429, 502, 503, 504})
_FIRST_PAUSE = 0.1
_MOST_TRIES = 4


class ReadFailed(Exception):
    """A single read was not answered; the text is one of ours (``"http-404"``, ``"timeout"``)."""


class FhirClient(FhirReader):
    """Connections to FHIR servers, shared by all calls of a process; holds no token and no cookie."""

    def __init__(self, limits: FhirLimits, *, ca_file: Path | None = None) -> None:
        super().__init__(limits)
        refuse_all = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        self._http = httpx.AsyncClient(
            verify=ssl.create_default_context(cafile=str(ca_file) if ca_file else None),
            follow_redirects=False,
            trust_env=False,
            cookies=refuse_all,
            timeout=httpx.Timeout(limits.budget, connect=min(limits.budget, 5.0)),
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=15),
            headers={"User-Agent": "cds-server", "Accept-Encoding": ACCEPTED},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def read(self, access: Access, url: str) -> bytes:
        """The body of one answer, for what is not chart content (a banner, a CapabilityStatement, a count).

        Args:
            url: relative to the base (``Patient/1``, ``metadata``).

        Raises:
            ReadFailed: no usable answer within the time budget.
        """
        deadline = time.monotonic() + self._limits.budget
        try:
            return await self._get(access, Query("", url, ()), f"{access.base.url}/{url}", deadline)
        except FetchFailed as failure:
            raise ReadFailed(str(failure)) from None

    async def _get(self, access: Access, query: Query, url: str, deadline: float) -> bytes:
        for attempt in range(_MOST_TRIES):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise FetchFailed("timeout")
            pause = _FIRST_PAUSE * 2**attempt
            try:
                async with asyncio.timeout(remaining):
                    answer = await self._attempt(access, url)
                if isinstance(answer, bytes):
                    return answer
                failure, asked = answer
                pause = pause if asked is None else asked
            except TimeoutError:
                raise FetchFailed("timeout") from None
            except httpx.HTTPError as error:
                failure = "unreachable" if isinstance(error, httpx.TransportError) else "http-error"
            except (httpx.InvalidURL, httpx.CookieConflict, UnicodeError):
                raise FetchFailed("invalid-url") from None
            if attempt + 1 == _MOST_TRIES or pause >= deadline - time.monotonic():
                raise FetchFailed(failure)
            await asyncio.sleep(pause)
        raise FetchFailed("unreachable")

    async def _attempt(self, access: Access, url: str) -> bytes | tuple[str, float | None]:
        """The body, or why to try again and after how many seconds.  Raises `FetchFailed` when no use."""
        async with self._http.stream("GET", url, headers=access.headers(url)) as response:
            status = response.status_code
            if status in _RETRIED:
                return f"http-{status}", _retry_after(response.headers.get("retry-after"))
            if 300 <= status < 400:
                raise FetchFailed("redirect-refused")
            if status != 200:
                raise FetchFailed(f"http-{status}")
            media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if media_type not in _JSON_TYPES:
                raise FetchFailed("not-json")
            try:
                body = Unpacking(response.headers.get("content-encoding", ""), self._limits.response_bytes)
                async for piece in response.aiter_raw(65_536):
                    body.add(piece)
                return body.whole()
            except UnpackingFailed as fault:
                raise FetchFailed("too-large" if str(fault) == "too-large" else "http-error") from None


def _retry_after(value: str | None) -> float | None:
    """Seconds a server asks to wait (RFC 9110, 10.2.3: a number or a date), `None` if it does not say."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):  # numbers past any calendar overflow
        return None
