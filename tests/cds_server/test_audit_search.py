"""The compliance officer's questions, over HTTP, against a server whose trail holds known events."""

import asyncio
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from audit_helpers import NOON, decision, rows
from fhir.resources.R4B import get_fhir_model_class
from server_helpers import ASSESSMENT, Running, empty_members, minimal, outcome

from cds_server.audit import Access, CardFeedback, Entity, new_id
from cds_server.audit.activities import ACTIVITIES
from cds_server.audit.events import Withheld
from cds_server.audit.fhir import audit_event
from cds_server.audit.question import Cursor

Start = Callable[..., Running]
EHR = "https://ehr.example/fhir"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
def asked(start_server: Start) -> Running:
    """A server with twenty decisions a minute apart, of five patients, and a few other events."""
    running = start_server()
    name = running.house.pseudonymiser.pseudonym
    named = running.house.authority_names.keep(EHR)
    records: list[Any] = [
        decision(
            new_id(),
            recorded=NOON + timedelta(minutes=number),
            patient=name("patient", f"patient-{number % 5}", EHR),
            user=name("user", f"Practitioner/{number % 2}", EHR),
            client="https://ehr.example/client",
            hook_instance=f"hook-{number:02d}-instance",
            status=412 if number == 7 else 200,
            action="hook-call",
        )
        for number in range(20)
    ]
    records += [
        CardFeedback(
            feedback_id=new_id(),
            recorded=NOON + timedelta(minutes=21),
            service="diagnostic-assessment",
            client="https://other.example",
            card="7a6b0f86-33f2-4b6f-8a52-0d6c2a5b9f11",
            outcome="overridden",
            comment="c1.sealed",
        ),
        Access(
            event_id=new_id(),
            recorded=NOON + timedelta(minutes=22),
            activity="login",
            service="auth",
            user=name("user", "Practitioner/0", EHR),
            roles=("auditor",),
            network="10.0.0.7",
        ),
        Access(
            event_id=new_id(),
            recorded=NOON + timedelta(minutes=23),
            activity="authentication-failed",
            service="auth",
            status=401,
            reason="token expired",
            network="10.0.0.8",
        ),
        Access(
            event_id=new_id(),
            recorded=NOON + timedelta(minutes=24),
            activity="patient-erased",
            service="privacy",
            patient=name("patient", "patient-3", EHR),
            entities=(Entity("AuditEvent/some-other"),),
        ),
        *named.records,
    ]
    record_all(running, records)
    return running


def record_all(running: Running, records: list[Any]) -> None:
    """Through the running trail, on its own loop."""
    trail = running.house.trail
    loop = trail._tasks[0].get_loop()
    asyncio.run_coroutine_threadsafe(trail.record_all(records), loop).result(30)


DAY = "2026-03-01"


def bundle(running: Running, query: str) -> dict[str, Any]:
    answer = running.client.get(f"/fhir/AuditEvent?{query}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/fhir+json"
    found: dict[str, Any] = answer.json()
    assert found["type"] == "searchset"
    return found


def resources(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry["resource"] for entry in found.get("entry", [])]


def minutes(found: dict[str, Any]) -> list[int]:
    return [int(resource["recorded"][14:16]) for resource in resources(found)]


def test_every_event_is_a_valid_audit_event_and_holds_nothing_empty(asked: Running) -> None:
    found = bundle(asked, f"date={DAY}&_count=100")
    get_fhir_model_class("Bundle").model_validate(found)
    assert empty_members(found) == []
    assert len(resources(found)) == 24
    for resource in resources(found):
        get_fhir_model_class("AuditEvent").model_validate(resource)


def test_newest_first_unless_asked_otherwise(asked: Running) -> None:
    assert minutes(bundle(asked, f"date={DAY}&_count=3")) == [24, 23, 22]
    assert minutes(bundle(asked, f"date={DAY}&_count=3&_sort=-date")) == [24, 23, 22]
    assert minutes(bundle(asked, f"date={DAY}&_count=3&_sort=date")) == [0, 1, 2]


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        ("date=2026-03-01T12:05:00Z", [5]),
        ("date=2026-03-01T12:05:01Z", []),
        ("date=2026-03-01T12:05Z", [5]),
        ("date=2026-03-01T12:05", [5]),
        ("date=2026-03-01T14:05%2B02:00", [5]),
        ("date=2026-03-01T14:05+02:00", [5]),
        ("date=ge2026-03-01T12:23Z", [24, 23]),
        ("date=gt2026-03-01T12:23Z", [24]),
        ("date=lt2026-03-01T12:02Z", [1, 0]),
        ("date=le2026-03-01T12:02Z", [2, 1, 0]),
        ("date=ge2026-03-01T12:03Z&date=lt2026-03-01T12:05Z", [4, 3]),
        ("date=eq2026-03-01T12:05:00.123456Z", [5]),
        ("date=2026-02", []),
        ("date=lt2026-03-01", []),
    ],
)
def test_dates_have_the_precision_they_are_written_with(
    asked: Running, dates: str, expected: list[int]
) -> None:
    assert minutes(bundle(asked, f"{dates}&date=lt2026-04")) == expected


@pytest.mark.parametrize("date", ["2026-03", "2026", "ge2026-03-01"])
def test_coarse_dates_mean_the_whole_of_them(asked: Running, date: str) -> None:
    assert len(resources(bundle(asked, f"date={date}&date=lt2026-04&_count=100"))) == 24


def test_a_patient_is_found_by_id_reference_and_pseudonym_and_none_gets_into_a_link(asked: Running) -> None:
    pseudonym = asked.house.pseudonymiser.pseudonym("patient", "patient-3", EHR)
    for value in (
        "patient-3",
        "Patient/patient-3",
        f"{EHR}/Patient/patient-3",
        "HTTPS://EHR.example:443/fhir/Patient/patient-3",
        f"{EHR}|patient-3",
        pseudonym,
    ):
        found = bundle(asked, f"patient={value}&date={DAY}&_count=3")
        assert minutes(found) == [24, 18, 13]
        assert "patient-3" not in json.dumps(found)
        assert pseudonym in found["link"][0]["url"]
    posted = asked.client.post(
        "/fhir/AuditEvent/_search", content=f"patient=patient-3&date={DAY}&_count=3", headers=FORM
    )
    assert minutes(posted.json()) == [24, 18, 13]
    assert "patient-3" not in posted.text


async def test_a_patient_id_asked_for_is_nowhere_in_the_trail(asked: Running) -> None:
    asked.client.get("/fhir/AuditEvent?patient=patient-4711-secret")
    asked.client.get(
        "/fhir/AuditEvent?agent=Practitioner/house-secret&type=odd-secret&entity=Patient/x-secret"
    )
    asked.client.get("/fhir/AuditEvent?patient=a-secret&nonsense=b-secret")
    asked.client.post("/audit", content="patient=c-secret", headers=FORM)
    asked.client.post("/audit/export", content="patient=d-secret&format=csv", headers=FORM)
    assert "secret" not in json.dumps(await rows(asked.database_url, "SELECT * FROM events"), default=str)


def test_pages_follow_each_other_without_gap_or_repetition_while_events_arrive(asked: Running) -> None:
    seen: list[str] = []
    found = bundle(asked, f"date={DAY}&_count=5")
    for page in range(10):
        seen += [resource["id"] for resource in resources(found)]
        following = [link["url"] for link in found["link"] if link["relation"] == "next"]
        if not following:
            break
        assert len(resources(found)) == 5
        record_all(asked, [decision(new_id(), recorded=NOON + timedelta(minutes=30 + page))])
        assert urlsplit(following[0]).path == "/fhir/AuditEvent"
        found = bundle(asked, urlsplit(following[0]).query)
    assert len(seen) == len(set(seen)) == 24


def test_a_page_that_ends_exactly_has_no_next(asked: Running) -> None:
    assert [link["relation"] for link in bundle(asked, f"date={DAY}&_count=24")["link"]] == ["self"]
    assert [link["relation"] for link in bundle(asked, f"date={DAY}&_count=23")["link"]] == ["self", "next"]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("action=E", 22),
        ("action=C", 1),
        ("action=http://hl7.org/fhir/audit-event-action%7CD", 1),
        ("action=C,D", 2),
        ("action=R", 0),
        ("outcome=0", 22),
        ("outcome=4", 2),
        ("outcome=8", 0),
        ("outcome=12", 0),
        ("type=rest", 22),
        ("type=http://dicom.nema.org/resources/ontology/DCM%7C110114", 2),
        ("type=110114", 2),
        ("subtype=110122", 2),
        ("subtype=urn:cds-server:activity%7Clogin", 1),
        ("subtype=login,feedback", 2),
        ("subtype=110122&outcome=4", 1),
        ("type=nothing-has-it", 0),
        ("agent=https://ehr.example/client", 20),
        ("agent=urn:cds-server:client%7Chttps://other.example", 1),
        ("agent=Practitioner/1", 10),
        ("agent=Practitioner/0", 11),
        ("agent=Practitioner/0,Practitioner/1", 21),
        ("agent=https://ehr.example/fhir/Practitioner/1", 10),
        ("agent=https://ehr.example/fhir%7CPractitioner/1", 10),
        ("agent=https://other.example/fhir/Practitioner/1", 0),
        ("patient=https://other.example/fhir/Patient/patient-3", 0),
        ("patient=https://other.example/fhir%7Cpatient-3", 0),
        ("agent=Practitioner/0&agent=Practitioner/1", 0),
        ("patient=patient-3&outcome=0", 5),
        ("patient=patient-3&patient=patient-2", 0),
        ("patient=patient-3,patient-2", 9),
        ("entity=Patient/patient-3", 5),
        ("entity=AuditEvent/some-other", 1),
        ("entity=hook-04-instance", 1),
        ("entity=urn:uuid:7a6b0f86-33f2-4b6f-8a52-0d6c2a5b9f11", 1),
        ("entity=urn:uuid:nobody", 0),
        ("_format=json", 24),
        ("_format=application/fhir%2Bjson", 24),
        ("patient=", 24),
        ("", 24),
    ],
)
def test_conditions_count_and_list_the_same(asked: Running, query: str, count: int) -> None:
    listed = bundle(asked, f"{query}&date={DAY}&_count=100&_total=accurate")
    assert (len(resources(listed)), listed["total"]) == (count, count)
    counted = bundle(asked, f"{query}&date={DAY}&_summary=count")
    assert counted["total"] == count
    assert "entry" not in counted
    assert bundle(asked, f"{query}&date={DAY}&_count=0")["total"] == count


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("date=yesterday", "date"),
        ("date=2026-13", "date"),
        ("date=2026-02-30", "date"),
        ("date=ap2026", "date"),
        ("date=9999-12-31", "date"),
        ("date=9999", "date"),
        ("_count=-1", "_count"),
        ("_count=many", "_count"),
        ("_sort=patient", "_sort"),
        ("_summary=text", "_summary"),
        ("_format=xml", "_format"),
        ("_after=AAAA", "_after"),
        ("_after=%F0%9F%98%80", "_after"),
        ("patient:missing=true", "patient"),
        ("name=4711", "name"),
        ("entity=Patient/a,AuditEvent/b", "entity"),
        ("_id=%27%3B--", "_id"),
    ],
)
def test_a_fault_names_the_parameter_and_not_its_value(asked: Running, query: str, name: str) -> None:
    answer = asked.client.get(f"/fhir/AuditEvent?{query}")
    issue = outcome(answer, 400)
    assert issue["expression"] == [name]
    assert "4711" not in answer.text
    assert "yesterday" not in answer.text


def test_hostile_values_find_nothing_and_break_nothing(asked: Running) -> None:
    for value in ("' OR 1=1 --", "p1-' OR 1=1", "x" * 600, "a\x00b", "\ud7ff", "%", "_"):
        for name in ("patient", "agent", "entity"):
            answer = asked.client.get("/fhir/AuditEvent", params={name: value})
            assert answer.status_code in (200, 400), answer.text
            assert resources(answer.json()) == []
    outcome(asked.client.get("/fhir/AuditEvent?patient=%FF"), 400)
    outcome(asked.client.get("/fhir/AuditEvent?" + "&".join(f"date={y}" for y in range(1900, 2020))), 400)


def test_one_event_is_read_and_an_unknown_one_is_404(asked: Running) -> None:
    [first] = resources(bundle(asked, f"date={DAY}&_count=1"))
    answer = asked.client.get(f"/fhir/AuditEvent/{first['id']}")
    assert answer.json() == first
    outcome(asked.client.get("/fhir/AuditEvent/unknown"), 404)
    outcome(asked.client.post("/fhir/AuditEvent", json={}), 405)
    outcome(asked.client.delete(f"/fhir/AuditEvent/{first['id']}"), 405)
    outcome(asked.client.post("/fhir/AuditEvent/_search", json={}), 415)


def test_a_search_by_id_is_a_search(asked: Running) -> None:
    [first, second] = resources(bundle(asked, f"date={DAY}&_count=2"))
    ids = f"{first['id']},{second['id']}"
    assert len(resources(bundle(asked, f"_id={ids}"))) == 2


def newest(running: Running) -> dict[str, Any]:
    """The newest event, past the server's own reading."""
    found = asyncio.run(rows(running.database_url, "SELECT payload FROM events ORDER BY seq DESC LIMIT 1"))
    decoded: dict[str, Any] = json.loads(found[0][0])
    return decoded


def test_every_use_of_the_trail_is_itself_in_it(asked: Running) -> None:
    name = asked.house.pseudonymiser.pseudonym
    pseudonym, unnamed = name("patient", "patient-3", EHR), name("patient", "patient-3", "")
    asked.client.get("/fhir/AuditEvent?patient=patient-3", headers={"X-Request-Id": "request-0001"})
    found = newest(asked)
    assert (found["activity"], found["patient"], found["request"]) == (
        "audit-searched",
        pseudonym,
        "request-0001",
    )
    assert parse_qs(found["query"])["patient"] == [f"Patient/{unnamed},Patient/{pseudonym}"]
    [event] = resources(bundle(asked, f"patient=patient-3&date={DAY}&_count=1"))
    asked.client.get(f"/fhir/AuditEvent/{event['id']}")
    found = newest(asked)
    assert (found["activity"], found["patient"]) == ("audit-read", pseudonym)
    assert found["entities"][0]["what"] == f"AuditEvent/{event['id']}"
    asked.client.get("/fhir/AuditEvent?date=yesterday")
    assert (newest(asked)["activity"], newest(asked)["status"]) == ("audit-searched", 400)
    asked.client.get("/fhir/AuditEvent/unknown")
    assert (newest(asked)["activity"], newest(asked)["status"]) == ("audit-read", 404)
    asked.client.get("/audit")
    assert newest(asked)["activity"] == "audit-searched"
    asked.client.post("/audit/export", content="format=csv", headers=FORM)
    assert newest(asked)["activity"] == "audit-exported"
    [searched] = resources(bundle(asked, "subtype=audit-exported"))
    query = [entity for entity in searched["entity"] if "query" in entity]
    assert len(query) == 1


def test_a_real_decision_says_what_was_decided_without_saying_who(start_server: Start) -> None:
    running = start_server()
    request = minimal(context={"userId": "Practitioner/dr-house-42", "patientId": "patient-4711"})
    request["prefetch"]["patient"]["id"] = "patient-4711"
    assert running.post(ASSESSMENT, request).status_code == 200
    [found] = resources(bundle(running, "patient=patient-4711&subtype=hook-call"))
    text = json.dumps(found)
    assert "4711" not in text
    assert "house" not in text
    details = {
        detail["type"]: detail["valueString"]
        for entity in found["entity"]
        for detail in entity.get("detail", ())
    }
    assert re.fullmatch("[0-9a-f]{64}", details["input-sha256"])
    assert re.fullmatch("[0-9a-f]{64}", details["output-sha256"])
    assert {"severity", "escalation", "rule", "model", "knowledge", "duration-ms"} <= set(details)
    traces = [entity["what"]["identifier"]["value"] for entity in found["entity"] if "role" not in entity]
    assert traces == [request["hookInstance"]]
    assert found["purposeOfEvent"][0]["coding"][0]["code"] == "TREAT"


@pytest.mark.parametrize("activity", sorted(ACTIVITIES))
def test_every_activity_has_a_valid_fhir_form(activity: str) -> None:
    for changes in ({}, {"status": 403, "reason": "not permitted"}, {"network": "10.0.0.1"}):
        record = Access(
            event_id=new_id(),
            recorded=datetime.now(UTC),
            activity=activity,
            service="test",
            client="plain-client",
            user="p1-user",
            roles=("auditor", "operator"),
            purpose="HOPERAT",
            patient="p1-patient",
            query="date=ge2026",
            request="request-0001",
            entities=(Entity("AuditEvent/x", "name", (("a", "b"),)), Entity("urn:x")),
            detail=(("count", "3"),),
            **changes,
        )
        resource = audit_event(record, base_url="https://cds.example")
        get_fhir_model_class("AuditEvent").model_validate(resource)
        assert empty_members(resource) == []
        assert resource["subtype"][-1]["code"] == activity
        if ACTIVITIES[activity].profile and changes == {"network": "10.0.0.1"}:
            [profile] = resource["meta"]["profile"]
            assert "IHE.BasicAudit.Patient" in profile


def test_a_search_follows_the_balp_pattern() -> None:
    """IHE BALP 1.1.4, Query: client, server and user by type, one query entity, the request id."""
    record = Access(
        event_id=new_id(),
        recorded=NOON,
        activity="audit-searched",
        service="audit",
        client="https://ehr.example",
        user="p1-user",
        network="10.0.0.1",
        request="request-0001",
        query="date=ge2026",
    )
    found = audit_event(record, base_url="https://cds.example")
    assert found["meta"]["profile"] == [
        "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit.Query"
    ]
    types = [agent["type"]["coding"][0]["code"] for agent in found["agent"]]
    assert types == ["110153", "110152", "IRCP"]
    assert all("network" in agent for agent in found["agent"][:2])
    assert "network" not in found["agent"][2]
    assert [agent["requestor"] for agent in found["agent"]] == [False, False, True]
    [query] = [entity for entity in found["entity"] if "query" in entity]
    assert query["type"]["code"] == "2"
    assert query["role"]["code"] == "24"
    assert "what" not in query
    assert "detail" not in query
    [trace] = [entity for entity in found["entity"] if entity["type"]["code"] == "XrequestId"]
    assert trace["what"]["identifier"]["value"] == "request-0001"


def test_a_withheld_record_has_a_valid_fhir_form() -> None:
    record = Withheld(
        event_id="0123-4", recorded=NOON, record_id="x", payload_digest="0" * 64, cause="refused"
    )
    get_fhir_model_class("AuditEvent").model_validate(audit_event(record, base_url="https://cds.example"))


def test_the_capability_statement_says_what_can_be_searched(asked: Running) -> None:
    body = asked.client.get("/fhir/metadata").json()
    get_fhir_model_class("CapabilityStatement").model_validate(body)
    [resource] = [r for r in body["rest"][0]["resource"] if r["type"] == "AuditEvent"]
    assert {interaction["code"] for interaction in resource["interaction"]} == {"read", "search-type"}
    for parameter in resource["searchParam"]:
        assert asked.client.get(f"/fhir/AuditEvent?{parameter['name']}=2026").status_code == 200


def test_a_database_that_is_away_is_503(asked: Running) -> None:
    path = asked.house.settings.var_dir / "cds.db"
    asyncio.run_coroutine_threadsafe(
        asked.house.engine.dispose(),
        asked.house.trail._tasks[0].get_loop(),
    ).result(30)
    moved = path.rename(path.with_name("moved.db"))
    try:
        path.mkdir()
        outcome(asked.client.get("/fhir/AuditEvent"), 503)
    finally:
        path.rmdir()
        moved.rename(path)


def test_cursors_are_what_they_were() -> None:
    cursor = Cursor(NOON, new_id())
    assert Cursor.decoded(cursor.encoded()) == cursor
