"""Reading from a FHIR server: what is gathered, what a difficult server costs, where the token may go."""

import gzip
import logging
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from fhir_standin import Standin, bundle, busy, condition, endless, pages, redirecting, serving, slow, status
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from fhir_adapters import resources as r
from fhir_adapters.client import Access, FhirClient, FhirLimits, Query
from fhir_adapters.collected import Resources
from fhir_adapters.origin import ServerBase

TOKEN = "secret-token-0123456789"
CONDITIONS = Query("conditions", "Condition?patient=p&_count=100", ("Condition",))


@pytest.fixture
def ehr() -> Iterator[Standin]:
    standin = Standin()
    with serving(standin.app) as url:
        standin.url = url
        yield standin


@pytest.fixture
def elsewhere() -> Iterator[Standin]:
    """Another origin; it must never be asked anything with a token, and is never asked at all."""
    standin = Standin()
    with serving(standin.app) as url:
        standin.url = url
        yield standin
    assert standin.requests == []


@pytest.fixture
async def client() -> AsyncIterator[FhirClient]:
    limits = FhirLimits(budget=1.5, pages=4, response_bytes=200_000)
    async with FhirClient(limits) as running:
        yield running


def access(ehr: Standin, token: str | None = TOKEN) -> Access:
    return Access(ServerBase.parse(f"{ehr.url}/fhir"), token)


def ids(found: Resources) -> list[str]:
    return [condition.id for _, condition in found.of.get(r.Condition, [])]


def issues(found: Resources) -> list[tuple[str, str, str]]:
    return [(issue.code, issue.reference, issue.detail) for issue in found.issues]


async def test_every_request_carries_the_token_and_asks_for_fhir_json(
    client: FhirClient, ehr: Standin
) -> None:
    ehr.on("Condition", pages([2], lambda: ehr.url))
    found = await client.fetch(access(ehr), [CONDITIONS])
    assert ids(found) == ["c-0-0", "c-0-1"]
    assert found.answered == {"conditions"}
    assert ehr.requests == [(f"{ehr.url}/fhir/Condition?patient=p&_count=100", f"Bearer {TOKEN}")]


async def test_without_a_token_no_authorization_is_sent(client: FhirClient, ehr: Standin) -> None:
    await client.fetch(access(ehr, None), [CONDITIONS])
    assert [header for _, header in ehr.requests] == [None]


async def test_queries_run_at_the_same_time(client: FhirClient, ehr: Standin) -> None:
    for kind in ("Condition", "Procedure", "Observation", "Immunization"):
        ehr.on(kind, slow(0.4))
    queries = [
        Query(k, f"{k}?patient=p", (k,)) for k in ("Condition", "Procedure", "Observation", "Immunization")
    ]
    began = time.monotonic()
    found = await client.fetch(access(ehr), queries)
    assert time.monotonic() - began < 1.2
    assert found.answered == {"Condition", "Procedure", "Observation", "Immunization"}


async def test_pages_are_followed_until_enough_resources_came(client: FhirClient, ehr: Standin) -> None:
    ehr.on("Condition", pages([3, 3, 3], lambda: ehr.url))
    everything = await client.fetch(access(ehr), [Query("all", "Condition?patient=p", ("Condition",))])
    assert len(ids(everything)) == 9
    five = await client.fetch(access(ehr), [Query("five", "Condition?patient=p&_count=5", ("Condition",))])
    assert len(ids(five)) == 6
    assert five.issues == []


async def test_relative_next_links_are_resolved_on_the_same_server(client: FhirClient, ehr: Standin) -> None:
    ehr.on("Condition", pages([1, 1], lambda: ""))
    assert ids(await client.fetch(access(ehr), [CONDITIONS])) == ["c-0-0", "c-1-0"]


async def test_too_many_pages_keep_what_came_and_say_truncated(client: FhirClient, ehr: Standin) -> None:
    ehr.on("Condition", pages([1] * 9, lambda: ehr.url))
    found = await client.fetch(access(ehr), [CONDITIONS])
    assert len(ids(found)) == 4
    assert issues(found) == [("truncated", "Condition", "too-many-pages")]
    assert found.answered == {"conditions"}


async def test_a_next_link_to_another_origin_is_not_followed(
    client: FhirClient, ehr: Standin, elsewhere: Standin
) -> None:
    ehr.on("Condition", pages([1, 1], lambda: elsewhere.url))
    found = await client.fetch(access(ehr), [CONDITIONS])
    assert ids(found) == ["c-0-0"]
    assert issues(found) == [("truncated", "Condition", "next-link-elsewhere")]


async def test_a_next_link_outside_the_base_path_is_not_followed(client: FhirClient, ehr: Standin) -> None:
    async def leaving(_: Request) -> Response:
        return bundle([condition("c")], f"{ehr.url}/admin?page=2")

    ehr.on("Condition", leaving)
    found = await client.fetch(access(ehr), [CONDITIONS])
    assert issues(found) == [("truncated", "Condition", "next-link-elsewhere")]
    assert len(ehr.requests) == 1


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(
    client: FhirClient, ehr: Standin, elsewhere: Standin, code: int
) -> None:
    ehr.on("Condition", redirecting(lambda: elsewhere.url, code))
    found = await client.fetch(access(ehr), [CONDITIONS])
    assert issues(found) == [("fetch-failed", "Condition", "redirect-refused")]
    assert found.failed == {"conditions"}


async def test_a_prefetched_bundle_is_read_on_from_its_next_link(client: FhirClient, ehr: Standin) -> None:
    ehr.on("Condition", pages([2, 2], lambda: ehr.url))
    found = await client.follow(access(ehr), {CONDITIONS: (f"{ehr.url}/fhir/Condition?page=1", 2)})
    assert ids(found) == ["c-1-0", "c-1-1"]
    assert found.count == 2


async def test_a_prefetched_next_link_elsewhere_is_not_followed(
    client: FhirClient, ehr: Standin, elsewhere: Standin
) -> None:
    found = await client.follow(access(ehr), {CONDITIONS: (f"{elsewhere.url}/fhir/Condition?page=1", 2)})
    assert issues(found) == [("truncated", "Condition", "next-link-elsewhere")]
    assert found.count == 0


@pytest.mark.parametrize("code", [429, 503])
async def test_a_busy_server_is_asked_again_after_the_time_it_names(
    client: FhirClient, ehr: Standin, code: int
) -> None:
    ehr.on("Condition", busy(1, code, {"Retry-After": "1"}))
    began = time.monotonic()
    found = await client.fetch(access(ehr), [CONDITIONS])
    assert ids(found) == ["at-last"]
    assert time.monotonic() - began >= 1.0


async def test_retry_after_may_be_a_date(client: FhirClient, ehr: Standin) -> None:
    moment = format_datetime(datetime.now(UTC) - timedelta(seconds=5), usegmt=True)
    ehr.on("Condition", busy(2, 503, {"Retry-After": moment}))
    assert ids(await client.fetch(access(ehr), [CONDITIONS])) == ["at-last"]


@pytest.mark.parametrize(
    "hostile", [f"Mon, 01 Jan {'9' * 20} 00:00:00 GMT", f"Mon, 01 Jan 2026 00:00:00 +{'9' * 17}", "soon"]
)
async def test_a_retry_after_of_nonsense_harms_nothing(
    client: FhirClient, ehr: Standin, hostile: str
) -> None:
    ehr.on("Condition", busy(1, 503, {"Retry-After": hostile}))
    assert ids(await client.fetch(access(ehr), [CONDITIONS])) == ["at-last"]


async def test_a_wait_beyond_the_budget_is_not_waited(client: FhirClient, ehr: Standin) -> None:
    ehr.on("Condition", busy(1, 429, {"Retry-After": "3600"}))
    began = time.monotonic()
    found = await client.fetch(access(ehr), [CONDITIONS])
    assert time.monotonic() - began < 0.5
    assert issues(found) == [("fetch-failed", "Condition", "http-429")]


async def test_a_slow_search_costs_the_budget_and_not_the_others(client: FhirClient, ehr: Standin) -> None:
    ehr.on("Condition", slow(5))
    began = time.monotonic()
    found = await client.fetch(
        access(ehr), [CONDITIONS, Query("procedures", "Procedure?patient=p", ("Procedure",))]
    )
    assert time.monotonic() - began < 2.5
    assert found.answered == {"procedures"}
    assert issues(found) == [("fetch-failed", "Condition", "timeout")]


async def test_a_failing_second_page_keeps_the_first(client: FhirClient, ehr: Standin) -> None:
    first = pages([2, 2], lambda: ehr.url)

    async def half(request: Request) -> Response:
        return await first(request) if "page" not in request.query_params else Response(status_code=500)

    ehr.on("Condition", half)
    found = await client.fetch(access(ehr), [CONDITIONS])
    assert len(ids(found)) == 2
    assert issues(found) == [("truncated", "Condition", "http-500")]


async def test_a_body_without_end_is_cut_off(client: FhirClient, ehr: Standin) -> None:
    ehr.on("Condition", endless())
    assert issues(await client.fetch(access(ehr), [CONDITIONS])) == [
        ("fetch-failed", "Condition", "too-large")
    ]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_compressed_answer_is_read(client: FhirClient, ehr: Standin, coding: str) -> None:
    async def page(request: Request) -> Response:
        assert "br" not in request.headers["accept-encoding"]
        body = bytes(bundle([condition("c")]).body)
        packed = gzip.compress(body) if coding == "gzip" else zlib.compress(body)
        return Response(packed, media_type="application/fhir+json", headers={"Content-Encoding": coding})

    ehr.on("Condition", page)
    found = await client.fetch(access(ehr), [CONDITIONS])
    assert issues(found) == []


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_small_answer_does_not_unfold_into_a_large_one(
    client: FhirClient, ehr: Standin, coding: str
) -> None:
    """Not even for a moment: the memory that is taken stays near the limit."""
    bomb = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16 if coding == "gzip" else zlib.MAX_WBITS)
    packed = b"".join(bomb.compress(b" " * 1_000_000) for _ in range(60)) + bomb.flush()

    async def page(_: Request) -> Response:
        return Response(packed, media_type="application/fhir+json", headers={"Content-Encoding": coding})

    ehr.on("Condition", page)
    tracemalloc.start()
    try:
        found = await client.fetch(access(ehr), [CONDITIONS])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert issues(found) == [("fetch-failed", "Condition", "too-large")]
    assert most < 20_000_000


@pytest.mark.parametrize(
    ("coding", "data"), [("br", b"x"), ("gzip, gzip", b"x"), ("gzip", b"no"), ("gzip", b"")]
)
async def test_what_does_not_unpack_is_no_answer(
    client: FhirClient, ehr: Standin, coding: str, data: bytes
) -> None:
    async def page(_: Request) -> Response:
        return Response(data, media_type="application/fhir+json", headers={"Content-Encoding": coding})

    ehr.on("Condition", page)
    assert issues(await client.fetch(access(ehr), [CONDITIONS])) == [
        ("fetch-failed", "Condition", "http-error")
    ]


async def test_an_answer_that_is_not_json_is_not_read(client: FhirClient, ehr: Standin) -> None:
    async def page(_: Request) -> Response:
        return PlainTextResponse("<html>log in</html>", media_type="text/html")

    ehr.on("Condition", page)
    assert issues(await client.fetch(access(ehr), [CONDITIONS])) == [
        ("fetch-failed", "Condition", "not-json")
    ]


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 500])
async def test_a_refusal_is_reported_with_its_status(client: FhirClient, ehr: Standin, code: int) -> None:
    ehr.on("Condition", status(code))
    found = await client.fetch(access(ehr), [CONDITIONS])
    assert issues(found) == [("fetch-failed", "Condition", f"http-{code}")]


async def test_an_operation_outcome_with_200_is_no_answer(client: FhirClient, ehr: Standin) -> None:
    outcome: dict[str, Any] = {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": "error", "code": "x"}],
    }
    ehr.on("Condition", status(200, outcome))
    found = await client.fetch(access(ehr), [CONDITIONS])
    assert found.answered == set()
    assert ("fetch-failed", "Condition", "operation-outcome") in issues(found)


async def test_nobody_listening_is_a_failed_fetch(client: FhirClient) -> None:
    nowhere = Access(ServerBase.parse("http://127.0.0.1:9/fhir"), TOKEN)
    found = await client.fetch(nowhere, [CONDITIONS])
    assert issues(found) == [("fetch-failed", "Condition", "unreachable")]


async def test_cookies_of_one_call_do_not_reach_the_next(client: FhirClient, ehr: Standin) -> None:
    seen: list[str | None] = []

    async def with_cookie(request: Request) -> Response:
        seen.append(request.headers.get("cookie"))
        answer = bundle([])
        answer.set_cookie("session", "of-the-first-patient")
        return answer

    ehr.on("Condition", with_cookie)
    await client.fetch(access(ehr), [CONDITIONS])
    await client.fetch(access(ehr), [CONDITIONS])
    assert seen == [None, None]


async def test_the_token_and_the_patient_show_in_no_log_line_and_no_text(
    client: FhirClient, ehr: Standin, caplog: pytest.LogCaptureFixture
) -> None:
    given = access(ehr)
    with caplog.at_level(logging.DEBUG):
        ehr.on("Condition", status(500))
        found = await client.fetch(given, [Query("c", "Condition?patient=patient-4711", ("Condition",))])
    assert TOKEN not in caplog.text + repr(given) + str(given) + repr(found.issues)
    assert "patient-4711" not in "".join(
        record.getMessage() for record in caplog.records if record.name.startswith(("httpx", "httpcore"))
    )


def test_a_token_that_would_smuggle_header_lines_is_not_sent() -> None:
    base = ServerBase.parse("https://ehr.example/fhir")
    assert "Authorization" not in Access(base, "abc\r\nX-Evil: 1").headers(
        "https://ehr.example/fhir/Condition"
    )


def test_the_token_is_given_for_no_other_server() -> None:
    given = Access(ServerBase.parse("https://ehr.example/fhir"), TOKEN)
    assert "Authorization" in given.headers("https://ehr.example/fhir/Condition?x=1")
    assert "Authorization" not in given.headers("https://ehr.example.evil.com/fhir/Condition")
