"""Callers that are turned away are in the audit trail, and cannot fill it."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from audit_helpers import rows
from auth_helpers import Ehr, protected, published
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from server_helpers import ASSESSMENT, Running, minimal, start

from cds_server.audit import Access, AuditTrail, new_id
from cds_server.audit.refusals import MOST_OF_ALL, MOST_OF_ONE, MOST_SUMS, RefusedAccesses
from cds_server.auth.principal import Role
from cds_server.clock import utc_now
from cds_server.state import Knowledge

DISCOVERY = "/cds-services"


def refusals(url: str) -> list[dict[str, Any]]:
    """What the trail says of refused callers, oldest first."""
    query = (
        "SELECT payload FROM events WHERE action IN ('authentication-failed', 'access-denied') ORDER BY seq"
    )
    return [json.loads(row[0]) for row in asyncio.run(rows(url, query))]


@pytest.fixture
def ehr() -> Iterator[Ehr]:
    with published(Ehr()) as found:
        yield found


def test_who_is_not_let_in_is_in_the_trail_with_our_words_only(
    start_server: Any, tmp_path: Path, ehr: Ehr
) -> None:
    running: Running = start_server(**protected(ehr.file(tmp_path)))
    told = {"X-Request-Id": "callers-own-words", "User-Agent": "callers-own-agent"}
    running.client.get(DISCOVERY, headers=told)
    running.client.post("/cds-services/callers-own-path?x=callers-own-query", headers=told)
    late = ehr.token(DISCOVERY, exp=1_000, iat=900, sub="callers-own-subject")
    running.client.get(DISCOVERY, headers=told | {"Authorization": f"Bearer {late}"})
    running.client.get("/fhir/AuditEvent", headers=told | ehr.headers("/fhir/AuditEvent"))
    found = refusals(running.database_url)
    assert [(one["activity"], one.get("status"), one["reason"]) for one in found] == [
        ("authentication-failed", 401, "missing"),
        ("authentication-failed", 401, "missing"),
        ("authentication-failed", 401, "expired"),
        ("access-denied", 403, "role"),
    ]
    assert [one["detail"] for one in found] == [
        [["route", "GET /cds-services"]],
        [["route", "POST /cds-services/{service_id}"]],
        [["route", "GET /cds-services"]],
        [["route", "GET /fhir/AuditEvent"]],
    ]
    assert {one["network"] for one in found} == {"127.0.0.1"}
    # Only who is proven is named.
    assert [one.get("client") for one in found] == [None, None, None, ehr.issuer]
    assert found[3]["roles"] == ["cds-client"]
    assert "callers-own" not in json.dumps(found)


def test_the_address_is_the_caller_s_as_a_trusted_proxy_wrote_it(
    start_server: Any, tmp_path: Path, ehr: Ehr
) -> None:
    settings = protected(ehr.file(tmp_path), trusted_proxies="127.0.0.1", ip_allowlist="192.0.2.0/24")
    running: Running = start_server(**settings)
    running.client.get(DISCOVERY, headers={"X-Forwarded-For": "203.0.113.9"})
    running.client.get(DISCOVERY, headers={"X-Forwarded-For": "203.0.113.9, 192.0.2.8"})
    [outside, inside] = refusals(running.database_url)
    assert (outside["status"], outside["reason"], outside["network"]) == (403, "address", "203.0.113.9")
    assert (inside["status"], inside["reason"], inside["network"]) == (401, "missing", "192.0.2.8")


def test_a_flood_is_a_handful_of_events_and_a_sum(
    knowledge: Knowledge, tmp_path: Path, _sqlite_template: Path, ehr: Ehr
) -> None:
    settings = protected(ehr.file(tmp_path, rate_per_minute=10_000))
    with start(knowledge, tmp_path, _sqlite_template, **settings) as running:
        for _ in range(60):
            assert running.client.get(DISCOVERY).status_code == 401
            bad = {"Authorization": "Bearer a.b.c"}
            assert running.client.get(DISCOVERY, headers=bad).status_code == 401
        assert len(refusals(running.database_url)) == 2 * MOST_OF_ONE
    # The server has ended: what it had only counted is there now.
    found = refusals(running.database_url)
    assert len(found) == 2 * MOST_OF_ONE + 2
    sums = [dict(one["detail"]) for one in found if "count" in dict(one["detail"])]
    assert [one["count"] for one in sums] == [str(60 - MOST_OF_ONE)] * 2
    assert all(one["since"] <= one["until"] for one in sums)


def access(network: str | None, reason: str, status: int = 401) -> Access:
    return Access(
        event_id=new_id(),
        recorded=utc_now(),
        activity="authentication-failed",
        service="auth",
        status=status,
        reason=reason,
        network=network,
    )


async def recorded(url: str, directory: Path, accesses: list[Access]) -> list[dict[str, Any]]:
    """What is stored of them, those before them left out."""
    before = (await rows(url, "SELECT coalesce(max(seq), 0) FROM events"))[0][0]
    trail = AuditTrail(url, directory / "spool")
    await trail.start()
    refused = RefusedAccesses(trail, utc_now)
    for one in accesses:
        await refused.record(one)
    await refused.close()
    await trail.close()
    found = await rows(url, "SELECT payload FROM events WHERE seq > :seq ORDER BY seq", seq=before)
    return [json.loads(row[0]) for row in found]


def count(event: dict[str, Any]) -> int:
    return int(dict(event.get("detail", ())).get("count", 1))


async def test_many_peers_do_not_fill_the_database_either(sqlite_url: str, tmp_path: Path) -> None:
    peers = [f"198.51.{number // 250}.{number % 250}" for number in range(3_000)]
    found = await recorded(sqlite_url, tmp_path, [access(peer, "missing") for peer in peers])
    assert len(found) == MOST_OF_ALL + MOST_SUMS + 1
    assert sum(count(event) for event in found) == len(peers)
    assert found[-1].get("network") is None
    assert dict(found[-1]["detail"])["peers"] == "several"


async def test_an_ipv6_caller_cannot_be_many_by_changing_its_address(sqlite_url: str, tmp_path: Path) -> None:
    peers = [f"2001:db8:1:2::{number:x}" for number in range(1, 200)]
    found = await recorded(sqlite_url, tmp_path, [access(peer, "missing") for peer in peers])
    assert len(found) == MOST_OF_ONE + 1
    assert found[-1]["network"] == "2001:db8:1:2::/64"
    assert count(found[-1]) == len(peers) - MOST_OF_ONE


@effort(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.none() | st.ip_addresses().map(str) | st.sampled_from(["192.0.2.1", "192.0.2.2"]),
            st.sampled_from(["missing", "expired"]),
        ),
        max_size=150,
    )
)
def test_every_refusal_is_counted_once(
    sqlite_url: str, tmp_path: Path, calls: list[tuple[str | None, str]]
) -> None:
    found = asyncio.run(recorded(sqlite_url, tmp_path, [access(*call) for call in calls]))
    for reason in ("missing", "expired"):
        counted = sum(count(event) for event in found if event["reason"] == reason)
        assert counted == sum(1 for call in calls if call[1] == reason)


async def test_the_sum_is_recorded_when_the_window_ends_and_a_new_one_begins(
    sqlite_url: str, tmp_path: Path
) -> None:
    trail = AuditTrail(sqlite_url, tmp_path / "spool")
    await trail.start()
    refused = RefusedAccesses(trail, utc_now, seconds=0.2)
    stored = 0
    for expected in (MOST_OF_ONE + 1, 2 * (MOST_OF_ONE + 1)):
        for _ in range(MOST_OF_ONE + 3):
            await refused.record(access("192.0.2.1", "missing"))
        while stored < expected:
            await asyncio.sleep(0.05)
            stored = (await rows(sqlite_url, "SELECT count(*) FROM events"))[0][0]
        assert stored == expected
    await refused.close()
    await trail.close()


async def test_a_trail_that_cannot_record_changes_no_refusal(sqlite_url: str, tmp_path: Path) -> None:
    trail = AuditTrail(sqlite_url, tmp_path / "spool")  # never started: nothing can be kept
    refused = RefusedAccesses(trail, utc_now)
    for _ in range(MOST_OF_ONE + 1):
        await refused.record(access("192.0.2.1", "missing"))
    await refused.close()


# -- who was let in


def test_a_decision_says_by_whom_as_what_and_from_where_it_was_asked(
    start_server: Any, tmp_path: Path, ehr: Ehr
) -> None:
    running: Running = start_server(**protected(ehr.file(tmp_path, roles=[Role.CDS_CLIENT, Role.AUDITOR])))
    request = minimal()
    assert running.post(ASSESSMENT, request, headers=ehr.headers(ASSESSMENT)).status_code == 200
    whole = {"resourceType": "Bundle", "type": "collection"}
    whole["entry"] = [{"resource": request["prefetch"]["patient"]}]  # type: ignore[assignment]
    for path, body in (("/fhir/$assess", whole), ("/api/v1/predict", {"age": 40, "sex": "female"})):
        answer = running.post(path, body, headers=ehr.headers(path))
        assert answer.status_code == 200, answer.text
    feedback = {
        "feedback": [
            {
                "card": "0192f0c1-0000-7000-8000-000000000000",
                "outcome": "accepted",
                "outcomeTimestamp": "2026-11-20T09:40:00Z",
            }
        ]
    }
    path = f"{ASSESSMENT}/feedback"
    assert running.post(path, feedback, headers=ehr.headers(path)).status_code == 200
    search = "/fhir/AuditEvent"
    found = running.client.get(f"{search}?_count=100", headers=ehr.headers(search)).json()
    purposes = {}
    for entry in found["entry"]:
        event = entry["resource"]
        activity = event["subtype"][-1]["code"]
        if activity not in ("hook-call", "assess", "feedback"):
            continue
        [client] = [agent for agent in event["agent"] if agent["type"]["coding"][0]["code"] == "110153"]
        assert client["network"] == {"address": "127.0.0.1", "type": "2"}
        assert client["who"]["identifier"]["value"] == ehr.issuer
        assert [role["coding"][0]["code"] for role in client["role"]] == ["auditor", "cds-client"]
        purposes[event["source"]["site"], activity] = [
            purpose["coding"][0]["code"] for purpose in event.get("purposeOfEvent", ())
        ]
    assert purposes == {
        ("diagnostic-assessment", "hook-call"): ["TREAT"],
        ("diagnostic-assessment", "feedback"): ["TREAT"],
        # What a chart is assessed for outside a hook, nobody has said.
        ("$assess", "assess"): [],
        ("predict", "assess"): [],
    }
