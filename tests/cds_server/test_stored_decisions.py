"""Every decision is kept with its audit event, sealed, in the same commit, wherever that goes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audit_helpers import rows
from decisions_helpers import bundle_of_example, call, everything_on_disk
from fhir_standin import Standin, bundle
from server_helpers import ASSESSMENT, Running, example, minimal
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from cds_server.audit import digest
from cds_server.db.engine import create_engine
from cds_server.db.urls import is_sqlite, sqlite_path
from cds_server.decisions.keys import DataKeys
from cds_server.decisions.opening import Opener
from cds_server.decisions.shelf import Shelf
from cds_server.site_keys import site_keys

FORM = {"age": 44, "sex": "female", "symptoms": [{"name": "fever", "intensity": 7}]}
DECISIONS = "action IN ('hook-call', 'assess')"
DENIAL = {
    "resourceType": "Consent",
    "status": "active",
    "scope": {"coding": [{"code": "patient-privacy"}]},
    "provision": {"type": "deny"},
}


async def events(url: str) -> list[dict[str, Any]]:
    return [
        json.loads(row[0])
        for row in await rows(url, f"SELECT payload FROM events WHERE {DECISIONS} ORDER BY seq")
    ]


async def test_each_kind_of_decision_is_kept_with_its_event(
    start_server: Callable[..., Running], database_url: str
) -> None:
    server = start_server(database_url=database_url)
    call(server, "sepsis")
    call(server, "order-select-drugs")
    assert server.post("/fhir/$assess", bundle_of_example("dka")).status_code == 200
    assert server.post("/api/v1/predict", FORM).status_code == 200
    found = await events(database_url)
    kept = await rows(database_url, "SELECT event_id, subject, sealed FROM stored_decisions")
    by_id = {row[0]: row for row in kept}
    assert len(found) == len(kept) == 4
    for event in found:
        assert event["stored"] == "stored"
        _, subject, sealed = by_id[event["event_id"]]
        assert event["stored_digest"] == digest(bytes(sealed))
        assert subject == (event["patient"] or f"event:{event['event_id']}")
    subjects = await rows(database_url, "SELECT DISTINCT subject FROM patient_keys")
    assert {row[0] for row in subjects} == {row[1] for row in kept}
    assert found[3]["patient"] is None  # a form names nobody


async def test_a_patients_next_call_needs_no_new_key(start_server: Callable[..., Running]) -> None:
    server = start_server()
    for _ in range(3):
        call(server, "sepsis")
    assert await rows(server.database_url, "SELECT count(*) FROM patient_keys") == [(1,)]


async def test_nothing_is_kept_when_the_site_says_so_and_the_event_says_it(
    start_server: Callable[..., Running],
) -> None:
    server = start_server(store_decisions=False)
    call(server, "sepsis")
    server.post("/fhir/$assess", bundle_of_example("dka"))
    assert [event["stored"] for event in await events(server.database_url)] == ["off", "off"]
    assert [event["stored_digest"] for event in await events(server.database_url)] == [None, None]
    assert await rows(server.database_url, "SELECT count(*) FROM stored_decisions") == [(0,)]
    assert await rows(server.database_url, "SELECT count(*) FROM patient_keys") == [(0,)]
    assert not (server.house.settings.var_dir / "bundles").exists()


async def test_a_denial_in_the_prefetch_is_answered_all_the_same_and_not_kept(
    start_server: Callable[..., Running],
) -> None:
    server = start_server()
    request = example("sepsis")
    request["prefetch"]["consents"] = {"resourceType": "Bundle", "entry": [{"resource": DENIAL}]}
    answer = server.post(ASSESSMENT, request)
    assert answer.status_code == 200 and answer.json()["cards"]
    sent = bundle_of_example("dka")
    sent["entry"][0]["resource"]["meta"] = {"security": [{"code": "NOCOLLECT"}]}
    assert server.post("/fhir/$assess", sent).status_code == 200
    assert [event["stored"] for event in await events(server.database_url)] == ["consent", "consent"]
    assert await rows(server.database_url, "SELECT count(*) FROM stored_decisions") == [(0,)]


async def test_a_denial_among_fetched_resources_is_respected(
    start_server: Callable[..., Running], ehr: Standin
) -> None:
    async def labelled(_: Any) -> Any:
        return bundle([{"resourceType": "Condition", "id": "c", "meta": {"security": [{"code": "DELAU"}]}}])

    ehr.on("Condition", labelled)
    server = start_server()
    assert server.post(ASSESSMENT, minimal(fhirServer=f"{ehr.url}/fhir")).status_code == 200
    assert [event["stored"] for event in await events(server.database_url)] == ["consent"]


async def test_a_refused_call_keeps_nothing(start_server: Callable[..., Running]) -> None:
    server = start_server()
    request = minimal()
    del request["prefetch"]
    assert server.post(ASSESSMENT, request).status_code == 412
    [event] = await events(server.database_url)
    assert event["status"] == 412 and event["stored"] is None
    assert await rows(server.database_url, "SELECT count(*) FROM stored_decisions") == [(0,)]


async def test_what_waits_in_the_spool_is_sealed_and_arrives_whole(
    start_server: Callable[..., Running], tmp_path: Path
) -> None:
    server = start_server()
    path = sqlite_path(server.database_url)
    path.rename(path.with_name("away.db"))
    request = example("sepsis")
    request["prefetch"]["patient"]["name"] = [{"family": "Zzyzx-Marker"}]
    assert server.post(ASSESSMENT, request).status_code == 200
    spool = everything_on_disk(server.house.settings.var_dir / "spool")
    assert b"sealed-decision" in spool and b"data-key" in spool
    assert b"Zzyzx" not in spool and b"8867-4" not in spool
    path.with_name("away.db").rename(path)
    for _ in range(600):
        if server.house.trail.state().spool_depth == 0 and server.house.trail.state().database_up:
            break
        server.client.get("/health/live")
    [event] = await events(server.database_url)
    [(sealed,)] = await rows(server.database_url, "SELECT sealed FROM stored_decisions")
    assert event["stored_digest"] == digest(sealed)


@pytest.mark.parametrize("inline", [0, 10_000_000])
async def test_a_large_chart_worked_on_in_a_thread_is_kept_like_a_small_one(
    start_server: Callable[..., Running], inline: int
) -> None:
    server = start_server(inline_body_bytes=inline)
    call(server, "sepsis")
    [event] = await events(server.database_url)
    [(sealed, plain)] = await rows(server.database_url, "SELECT sealed, plain_bytes FROM stored_decisions")
    assert event["stored_digest"] == digest(sealed)
    assert plain > len(sealed) * 3  # compressed


async def _refused(url: str, command: str, match: str) -> None:
    engine = create_engine(url)
    try:
        with pytest.raises(DBAPIError, match=match):
            async with engine.begin() as connection:
                await connection.execute(text(command))
    finally:
        await engine.dispose()


async def test_the_database_lets_nothing_go_that_no_order_covers(
    start_server: Callable[..., Running], database_url: str
) -> None:
    server = start_server(database_url=database_url)
    call(server, "sepsis")
    call(server, "dka")
    for table in ("patient_keys", "stored_decisions"):
        await _refused(database_url, f"DELETE FROM {table}", "no destruction is ordered")
        if not is_sqlite(database_url):
            await _refused(database_url, f"TRUNCATE {table}", "append-only")
    await _refused(database_url, "UPDATE stored_decisions SET subject = 'x'", "never changed|append-only")
    await _refused(database_url, "UPDATE patient_keys SET subject = 'x'", "only ever wrapped anew")
    before = await rows(database_url, "SELECT * FROM patient_keys ORDER BY key_id")
    engine = create_engine(database_url)
    [(subject, created)] = await rows(
        database_url, "SELECT subject, created FROM patient_keys ORDER BY key_id LIMIT 1"
    )
    order = (
        "INSERT INTO destructions (destruction_id, recorded, reason, subject, up_to) "
        "SELECT 'd', created, 'erasure', subject, created FROM patient_keys WHERE subject = :s"
    )
    async with engine.begin() as connection:
        await connection.execute(text(order), {"s": subject})
        await connection.execute(text("DELETE FROM patient_keys WHERE subject = :s"), {"s": subject})
        # The key comes again, from the spool of a machine that was cut off.
        names = ", ".join(("key_id", "created", "subject", "wrapped", "master"))
        late = "'late', " + ("'2020-01-01 00:00:00.000000'" if is_sqlite(database_url) else "'2020-01-01+00'")
        await connection.execute(
            text(f"INSERT INTO patient_keys ({names}) VALUES ({late}, :s, 'w', 1) ON CONFLICT DO NOTHING"),
            {"s": subject},
        )
    await engine.dispose()
    assert await rows(database_url, "SELECT * FROM patient_keys ORDER BY key_id") == before[1:]
    assert created is not None
    await _refused(database_url, "UPDATE destructions SET subject = NULL", "append-only")
    await _refused(database_url, "DELETE FROM destructions", "append-only")


async def test_no_access_token_is_kept_even_sealed(start_server: Callable[..., Running]) -> None:
    server = start_server()
    request = minimal(
        fhirServer="http://127.0.0.1:9/fhir",
        fhirAuthorization={
            "access_token": "tok-ABC123",
            "token_type": "Bearer",
            "scope": "x",
            "subject": "s",
        },
    )
    assert server.post(ASSESSMENT, request).status_code == 200
    keys = site_keys(server.house.settings)
    engine = create_engine(server.database_url)
    shelf = Shelf(engine)
    [latest] = await shelf.latest(1)
    event = await shelf.decision(latest)
    assert event is not None
    stored = await Opener(shelf, DataKeys(keys.master, now=server.house.clock)).stored(event)
    await engine.dispose()
    assert b"tok-ABC123" not in stored.body and b"fhirAuthorization" not in stored.body
    assert json.loads(stored.body)["prefetch"] == request["prefetch"]
    assert not stored.circumstances.whole and stored.fetched[0].failure == "unreachable"
