"""What the OpenAPI description says is what the server does; and whatever is sent, it never fails (5xx).

schemathesis asks the running server what its description allows, and what it does not.  The routes that
speak FHIR and CDS Hooks are described by their standards (CapabilityStatement, discovery), not by OpenAPI:
those are asked with hypothesis.  Everything is asked twice: of a server that asks nobody who they are, and
of one where callers must authenticate, which tells a stranger nothing but 401.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import schemathesis
from auth_helpers import Ehr, protected, published
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig
from server_helpers import Running, minimal, start

from cds_server.auth.permissions import ANYONE, Table
from cds_server.state import Knowledge

EXAMPLES = 60
bounded = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def open_server(
    knowledge: Knowledge, tmp_path_factory: pytest.TempPathFactory, _sqlite_template: Path
) -> Iterator[Running]:
    """A server on loopback that asks nobody who they are."""
    with start(knowledge, tmp_path_factory.mktemp("open"), _sqlite_template) as running:
        yield running


@pytest.fixture(scope="module")
def closed_server(
    knowledge: Knowledge, tmp_path_factory: pytest.TempPathFactory, _sqlite_template: Path
) -> Iterator[Running]:
    """A server where callers must authenticate."""
    directory = tmp_path_factory.mktemp("closed")
    with (
        published(Ehr()) as ehr,
        start(knowledge, directory, _sqlite_template, **protected(ehr.file(directory))) as running,
    ):
        yield running


def described(running: Running) -> list[Any]:
    """The operations of the description that the server gives out."""
    answer = running.client.get("/openapi.json")
    assert answer.status_code == 200
    config = SchemathesisConfig.from_dict({"generation": {"deterministic": True, "database": "none"}})
    schema = schemathesis.openapi.from_dict(answer.json(), config=config)
    found = [result.ok() for result in schema.get_all_operations()]
    assert found
    return found


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_answers_are_those_described(open_server: Running, mode: GenerationMode) -> None:
    for operation in described(open_server):

        @bounded
        @given(operation.as_strategy(generation_mode=mode))
        def check(case: Any) -> None:
            case.call_and_validate(base_url=open_server.url)

        check()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_a_stranger_is_told_401_and_nothing_else(closed_server: Running, mode: GenerationMode) -> None:
    for operation in described(closed_server):
        permission = (Table().methods(operation.path) or {})[operation.method.upper()]
        assert permission.roles is not ANYONE

        @bounded
        @given(operation.as_strategy(generation_mode=mode))
        def check(case: Any) -> None:
            answer = case.call(base_url=closed_server.url)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == ["Bearer"]

        check()


ODD = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            "\x00",
            "0001-01-01T00:00:00+14:00",
            "9999-12-31T23:59:59-14:00",
            "ge9999",
            "lt0001",
            "-1",
            "99999999999999999999",
            "p1-",
            "Patient/",
            "urn:uuid:",
            "=1+1",
            "../../etc/passwd",
            "%00",
            "a" * 3000,
            "\r\nX-Injected: 1",
            "\ud800",
            "' OR 1=1 --",
        ]
    ),
)
"""Values that break what was not made for them: NUL, the calendar's ends, numbers no column holds."""
SEARCHES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "date",
                "patient",
                "agent",
                "entity",
                "type",
                "subtype",
                "action",
                "outcome",
                "_id",
                "_count",
                "_sort",
                "_summary",
                "_total",
                "_format",
                "_after",
                "unknown",
            ]
        ),
        ODD,
    ),
    min_size=1,
    max_size=4,
)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers()
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)


def encoded(pairs: list[tuple[str, str]]) -> str:
    """A query string, values percent-encoded byte for byte (a lone surrogate as its three bytes)."""
    return "&".join(f"{name}={quote(value.encode('utf-8', 'surrogatepass'))}" for name, value in pairs)


def raw(running: Running, method: str, target: str, **options: Any) -> httpx.Response:
    """A request whose address goes out as it is written."""
    return running.client.request(method, httpx.URL(running.url + target), **options)


def answered(response: httpx.Response) -> None:
    """An answer or a refusal, never a failure; a refusal is an OperationOutcome or a page."""
    assert response.status_code < 500, (response.status_code, response.text[:300])
    assert "x-injected" not in response.headers
    if response.status_code >= 400 and not response.headers["content-type"].startswith("text/html"):
        assert response.json()["resourceType"] == "OperationOutcome"


@bounded
@given(SEARCHES)
def test_no_search_makes_the_server_fail(open_server: Running, pairs: list[tuple[str, str]]) -> None:
    query = encoded(pairs)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answered(raw(open_server, "GET", f"/fhir/AuditEvent?{query}"))
    answered(raw(open_server, "POST", "/fhir/AuditEvent/_search", content=query, headers=form))


@bounded
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["from", "to", "patient", "agent", "entity", "activity", "outcome", "after", "x"]
            ),
            ODD,
        ),
        max_size=4,
    )
)
def test_no_form_of_the_console_makes_the_server_fail(
    open_server: Running, pairs: list[tuple[str, str]]
) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for path in ("/audit", "/audit/export"):
        answered(raw(open_server, "POST", path, content=encoded(pairs), headers=form))


@bounded
@given(
    st.sampled_from(
        [
            "/fhir/AuditEvent/",
            "/fhir/RiskAssessment/",
            "/audit/event/",
            "/cds-services/",
            "/smart/callback/",
            "/app/",
            "/",
        ]
    ),
    ODD,
)
def test_no_path_makes_the_server_fail(open_server: Running, prefix: str, odd: str) -> None:
    tail = quote(odd.encode("utf-8", "surrogatepass"), safe="")
    answered(raw(open_server, "GET", prefix + tail))
    answered(open_server.client.post(prefix + tail, json=minimal()))


@bounded
@given(st.lists(st.tuples(st.sampled_from(["by", "from", "to", "epsilon"]), ODD), max_size=4))
def test_no_question_for_aggregates_makes_the_server_fail(
    open_server: Running, pairs: list[tuple[str, str]]
) -> None:
    answered(raw(open_server, "GET", f"/api/v1/aggregates?{encoded(pairs)}"))


@bounded
@given(
    st.sampled_from(
        [
            "/fhir/$assess",
            "/cds-services/diagnostic-assessment",
            "/cds-services/order-review",
            "/cds-services/diagnostic-assessment/feedback",
            "/api/v1/predict",
        ]
    ),
    JSON_VALUES,
    st.sampled_from(
        ["hook", "prefetch", "context", "feedback", "entry", "resourceType", "fhirAuthorization"]
    ),
)
def test_no_body_makes_the_server_fail(open_server: Running, path: str, value: Any, member: str) -> None:
    for body in (
        value,
        minimal(**{member: value}),
        {"resourceType": "Bundle", "type": "collection", member: value},
    ):
        answered(
            open_server.client.post(
                path, content=json.dumps(body), headers={"Content-Type": "application/json"}
            )
        )


@bounded
@given(
    st.sampled_from(["/smart/launch", "/smart/callback", "/app/"]),
    st.lists(
        st.tuples(st.sampled_from(["iss", "launch", "state", "code", "error", "lang", "out"]), ODD),
        max_size=4,
    ),
)
def test_nothing_at_the_door_makes_the_server_fail(
    open_server: Running, path: str, pairs: list[tuple[str, str]]
) -> None:
    response = raw(open_server, "GET", f"{path}?{encoded(pairs)}")
    answered(response)
    assert "location" not in response.headers  # no EHR is registered: nobody is sent anywhere


def test_a_stranger_learns_nothing_from_what_openapi_does_not_describe(closed_server: Running) -> None:
    for path, method in (
        ("/fhir/AuditEvent", "GET"),
        ("/fhir/AuditEvent/_search", "POST"),
        ("/fhir/AuditEvent/1", "GET"),
        ("/fhir/RiskAssessment/1", "GET"),
        ("/fhir/$assess", "POST"),
        ("/cds-services", "GET"),
        ("/cds-services/diagnostic-assessment", "POST"),
        ("/cds-services/diagnostic-assessment/feedback", "POST"),
        ("/api/v1/aggregates", "GET"),
        ("/audit", "GET"),
        ("/audit/export", "POST"),
        ("/metrics", "GET"),
    ):
        response = raw(closed_server, method, path)
        assert response.status_code == 401, path
        assert response.json()["issue"][0]["diagnostics"] == "authentication is required"
