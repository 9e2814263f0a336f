"""Reading queries from a FHIR server page by page, wherever the pages come from.

What is asked (`Query`), with which token (`Access`), and `FhirReader`, which follows pages and turns what
could not be had into read issues.  The pages come over the network (`fhir_adapters.client`) or from the
record of an earlier call (`RecordedFhir`), so that a replay reads exactly as the call did.
"""

import asyncio
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal
from urllib.parse import urljoin

import msgspec

from fhir_adapters.chart import ReadIssue
from fhir_adapters.collected import Resources
from fhir_adapters.decode import read_page
from fhir_adapters.origin import ServerBase

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


class Fetched(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One answer of a FHIR server to one query, or why there was none (``failure``), for replays."""

    key: str
    url: str
    body: bytes | None
    failure: str | None


class FetchFailed(Exception):
    """A query could not be answered; the text is one of ours (``"http-404"``, ``"timeout"``)."""


class FhirReader(ABC):
    """Reads queries page by page, whatever the pages come from: a server, or the record of an earlier call.

    Deterministic but for `_get`: the same pages give the same `Resources`.
    """

    def __init__(self, limits: FhirLimits) -> None:
        self._limits = limits

    @abstractmethod
    async def _get(self, access: Access, query: Query, url: str, deadline: float) -> bytes:
        """One page.  Raises `FetchFailed`."""

    async def fetch(
        self, access: Access, queries: Sequence[Query], log: list[Fetched] | None = None
    ) -> Resources:
        """Read all queries at the same time.

        Returns what came; `answered` holds the keys that were answered, and every query that was not, or
        not wholly, has a read issue (``fetch-failed``, ``truncated``) with its resource types.  `log` is
        given every page that was read.
        """
        return await self._all(access, dict.fromkeys(queries), log)

    async def follow(
        self, access: Access, links: Mapping[Query, tuple[str, int]], log: list[Fetched] | None = None
    ) -> Resources:
        """Read on where a prefetched Bundle stopped: query to (its `next` link, resources already there)."""
        return await self._all(access, dict(links), log)

    async def _all(
        self,
        access: Access,
        queries: Mapping[Query, tuple[str, int] | None],
        log: list[Fetched] | None,
    ) -> Resources:
        deadline = time.monotonic() + self._limits.budget
        gate = asyncio.Semaphore(self._limits.concurrency)
        results = await asyncio.gather(
            *(self._one(access, query, start, deadline, gate, log) for query, start in queries.items())
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
        log: list[Fetched] | None,
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
                raise FetchFailed("next-link-elsewhere")
            while url is not None:
                async with gate:
                    body = await self._page(access, query, url, deadline, log)
                pages += 1
                page = read_page(body, query.key)
                found.merge(page)
                if query.key in page.failed:
                    raise FetchFailed("operation-outcome")
                link = page.next_links.get(query.key)
                if link is None or (wanted is not None and found.count >= wanted):
                    break
                url = self._next(access, url, link)
                if url is None:
                    raise FetchFailed("next-link-elsewhere")
                if pages >= self._limits.pages:
                    raise FetchFailed("too-many-pages")
        except FetchFailed as failure:
            # What came before the failure still counts, and is said to be part only.
            partial = pages > 0 and query.key in found.answered
            code: Literal["truncated", "fetch-failed"]
            code = "truncated" if partial or start is not None else "fetch-failed"
            found.issues.extend(ReadIssue(code, kind, "", str(failure)) for kind in query.resource_types)
            if code == "fetch-failed":
                found.failed.add(query.key)
        found.count -= already
        return found

    async def _page(
        self, access: Access, query: Query, url: str, deadline: float, log: list[Fetched] | None
    ) -> bytes:
        try:
            body = await self._get(access, query, url, deadline)
        except FetchFailed as failure:
            if log is not None:
                log.append(Fetched(query.key, url, None, str(failure)))
            raise
        if log is not None:
            log.append(Fetched(query.key, url, body, None))
        return body

    @staticmethod
    def _next(access: Access, current: str, link: str) -> str | None:
        try:
            url = urljoin(current, link)
        except ValueError:
            return None
        return url if access.base.holds(url) else None


class RecordedFhir(FhirReader):
    """Reads the pages of an earlier call again, from its record; asks nobody."""

    def __init__(self, limits: FhirLimits, record: Sequence[Fetched]) -> None:
        super().__init__(limits)
        self._pages = {(page.key, page.url): page for page in record}

    async def _get(self, access: Access, query: Query, url: str, deadline: float) -> bytes:
        page = self._pages.get((query.key, url))
        if page is None:
            raise FetchFailed("not-recorded")
        if page.body is None:
            raise FetchFailed(page.failure or "unreachable")
        return page.body
