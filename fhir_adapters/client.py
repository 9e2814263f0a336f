"""Reads what the prefetch lacked from the EHR's FHIR server, within one time budget.

Concurrent searches and reads, paging, patience with a busy server (`Retry-After`), and no way for the
access token to reach any other server: no redirect is followed, a `next` link must stay under the same
base, cookies and ambient credentials are off.  The token lives for one call, in `Access`, and shows in
no representation.  Never raises for what a server does: what could not be had becomes a read issue.
"""

import asyncio
import logging
import re
import ssl
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urljoin

import httpx
import msgspec

from fhir_adapters.chart import ReadIssue
from fhir_adapters.collected import Resources
from fhir_adapters.decode import read_page
from fhir_adapters.origin import ServerBase

# httpx and httpcore log URLs, which hold patient ids.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

_JSON_TYPES = ("application/fhir+json", "application/json", "application/json+fhir", "text/json")
_RETRIED = frozenset({429, 502, 503, 504})
_FIRST_PAUSE = 0.1
_MOST_TRIES = 4
_COUNT = re.compile(r"[?&]_count=(\d{1,6})(?:&|$)")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,16384}\Z")


class Query(msgspec.Struct, frozen=True):
    """One thing to read: a relative URL (``Condition?patient=1&_count=100``) and the types it answers."""

    key: str
    url: str
    resource_types: tuple[str, ...]

    @property
    def wanted(self) -> int | None:
        """How many resources were asked for (`_count`), or `None` for all there are."""
        found = _COUNT.search(self.url)
        return int(found.group(1)) if found else None


class Access:
    """Where to read and with which token; the token is shown nowhere."""

    __slots__ = ("_token", "base")

    def __init__(self, base: ServerBase, token: str | None) -> None:
        self.base = base
        # A token with other characters could smuggle header lines; such a one is as good as none.
        self._token = token if token is not None and _TOKEN.match(token) else None

    def __repr__(self) -> str:
        return f"<Access {self.base.host} {'with' if self._token else 'without'} token>"

    def __reduce__(self) -> str:
        raise TypeError("access tokens are not pickled")

    def headers(self, url: str) -> dict[str, str]:
        """The headers for a URL; the token only for one of this server."""
        headers = {"Accept": "application/fhir+json, application/json;q=0.9"}
        if self._token is not None and self.base.holds(url):
            headers["Authorization"] = f"Bearer {self._token}"
        return headers


class FhirLimits(msgspec.Struct, frozen=True):
    """Limits of one call: seconds for everything, pages per query, bytes per answer, requests at a time."""

    budget: float = 2.0
    pages: int = 20
    response_bytes: int = 10_000_000
    concurrency: int = 8


class ReadFailed(Exception):
    """A single read was not answered; the text is one of ours (``"http-404"``, ``"timeout"``)."""


class _Failed(Exception):
    """A query could not be answered; the text is one of ours (``"http-404"``, ``"timeout"``)."""


class FhirClient:
    """Connections to FHIR servers, shared by all calls of a process; holds no token and no cookie."""

    def __init__(self, limits: FhirLimits, *, ca_file: Path | None = None) -> None:
        self._limits = limits
        refuse_all = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        self._http = httpx.AsyncClient(
            verify=ssl.create_default_context(cafile=str(ca_file) if ca_file else None),
            follow_redirects=False,
            trust_env=False,
            cookies=refuse_all,
            timeout=httpx.Timeout(limits.budget, connect=min(limits.budget, 5.0)),
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=15),
            headers={"User-Agent": "cds-server"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def fetch(self, access: Access, queries: Sequence[Query]) -> Resources:
        """Read all queries at the same time.

        Returns what came; `answered` holds the keys that were answered, and every query that was not, or
        not wholly, has a read issue (``fetch-failed``, ``truncated``) with its resource types.
        """
        return await self._all(access, dict.fromkeys(queries))

    async def follow(self, access: Access, links: Mapping[Query, tuple[str, int]]) -> Resources:
        """Read on where a prefetched Bundle stopped: query to (its `next` link, resources already there)."""
        return await self._all(access, dict(links))

    async def read(self, access: Access, url: str) -> bytes:
        """The body of one answer, for what is not chart content (a banner, a CapabilityStatement, a count).

        Args:
            url: relative to the base (``Patient/1``, ``metadata``).

        Raises:
            ReadFailed: no usable answer within the time budget.
        """
        try:
            return await self._get(access, f"{access.base.url}/{url}", time.monotonic() + self._limits.budget)
        except _Failed as failure:
            raise ReadFailed(str(failure)) from None

    async def _all(self, access: Access, queries: Mapping[Query, tuple[str, int] | None]) -> Resources:
        deadline = time.monotonic() + self._limits.budget
        gate = asyncio.Semaphore(self._limits.concurrency)
        results = await asyncio.gather(
            *(self._one(access, query, start, deadline, gate) for query, start in queries.items())
        )
        merged = Resources()
        for result in results:
            merged.merge(result)
        # Only pages carry it, and a page's moment is when it was made, not what it speaks of.
        merged.timestamp = None
        merged.next_links.clear()
        return merged

    async def _one(
        self,
        access: Access,
        query: Query,
        start: tuple[str, int] | None,
        deadline: float,
        gate: asyncio.Semaphore,
    ) -> Resources:
        found = Resources()
        here = f"{access.base.url}/{query.url}"
        url: str | None = here
        if start is not None:
            found.count = start[1]
            url = self._next(access, here, start[0])
        already, wanted, pages = found.count, query.wanted, 0
        try:
            if url is None:
                raise _Failed("next-link-elsewhere")
            while url is not None:
                async with gate:
                    body = await self._get(access, url, deadline)
                pages += 1
                page = read_page(body, query.key)
                found.merge(page)
                if query.key in page.failed:
                    raise _Failed("operation-outcome")
                link = page.next_links.get(query.key)
                if link is None or (wanted is not None and found.count >= wanted):
                    break
                url = self._next(access, url, link)
                if url is None:
                    raise _Failed("next-link-elsewhere")
                if pages >= self._limits.pages:
                    raise _Failed("too-many-pages")
        except _Failed as failure:
            # What came before the failure still counts, and is said to be part only.
            partial = pages > 0 and query.key in found.answered
            code: Literal["truncated", "fetch-failed"]
            code = "truncated" if partial or start is not None else "fetch-failed"
            found.issues.extend(ReadIssue(code, kind, "", str(failure)) for kind in query.resource_types)
            if code == "fetch-failed":
                found.failed.add(query.key)
        found.count -= already
        return found

    @staticmethod
    def _next(access: Access, current: str, link: str) -> str | None:
        try:
            url = urljoin(current, link)
        except ValueError:
            return None
        return url if access.base.holds(url) else None

    async def _get(self, access: Access, url: str, deadline: float) -> bytes:
        for attempt in range(_MOST_TRIES):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise _Failed("timeout")
            pause = _FIRST_PAUSE * 2**attempt
            try:
                async with asyncio.timeout(remaining):
                    answer = await self._attempt(access, url)
                if isinstance(answer, bytes):
                    return answer
                failure, asked = answer
                pause = pause if asked is None else asked
            except TimeoutError:
                raise _Failed("timeout") from None
            except httpx.HTTPError as error:
                failure = "unreachable" if isinstance(error, httpx.TransportError) else "http-error"
            except (httpx.InvalidURL, httpx.CookieConflict, UnicodeError):
                raise _Failed("invalid-url") from None
            if attempt + 1 == _MOST_TRIES or pause >= deadline - time.monotonic():
                raise _Failed(failure)
            await asyncio.sleep(pause)
        raise _Failed("unreachable")

    async def _attempt(self, access: Access, url: str) -> bytes | tuple[str, float | None]:
        """The body, or why to try again and after how many seconds.  Raises `_Failed` when it is no use."""
        async with self._http.stream("GET", url, headers=access.headers(url)) as response:
            status = response.status_code
            if status in _RETRIED:
                return f"http-{status}", _retry_after(response.headers.get("retry-after"))
            if 300 <= status < 400:
                raise _Failed("redirect-refused")
            if status != 200:
                raise _Failed(f"http-{status}")
            media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if media_type not in _JSON_TYPES:
                raise _Failed("not-json")
            body = bytearray()
            # Decoded bytes are counted, so a small compressed answer cannot unfold into a large one.
            async for chunk in response.aiter_bytes(65_536):
                body += chunk
                if len(body) > self._limits.response_bytes:
                    raise _Failed("too-large")
            return bytes(body)


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
