"""Recorded means stored: once, whole, in order, in the database."""

import asyncio
import json
import time
import uuid
from pathlib import Path

import pytest
from audit_helpers import NOON, decision, rows, stored_ids, trail

from cds_server.audit import AuditTrail, AuditUnavailable, CardFeedback, ShownCard, new_id
from cds_server.audit.events import decode


async def test_an_event_is_in_the_database_when_record_returns(database_url: str, tmp_path: Path) -> None:
    event = decision()
    async with trail(database_url, tmp_path / "spool") as audit:
        await audit.record(event)
        (payload,) = (await rows(database_url, "SELECT payload FROM events"))[0]
        assert decode(payload) == event
        columns = "event_id, position, uuid, key, indicator, suggestions"
        assert await rows(database_url, f"SELECT {columns} FROM shown_cards") == [
            (event.event_id, 0, event.cards[0].uuid, "news2", "critical", '["s1","s2"]')
        ]
        assert audit.state().database_up
        assert audit.state().committed == 1


async def test_searched_columns_repeat_what_the_payload_says(database_url: str, tmp_path: Path) -> None:
    event = decision()
    async with trail(database_url, tmp_path / "spool") as audit:
        await audit.record(event)
    columns = (
        "action, service, hook_instance, client, user_pseudonym, patient_pseudonym, severity, "
        "escalation, status"
    )
    assert await rows(database_url, f"SELECT {columns} FROM events") == [
        (
            event.action,
            event.service,
            event.hook_instance,
            event.client,
            event.user,
            event.patient,
            event.severity,
            event.escalation,
            200,
        )
    ]


async def test_times_are_stored_in_utc(database_url: str, tmp_path: Path) -> None:
    async with trail(database_url, tmp_path / "spool") as audit:
        await audit.record(decision())
    [(stored,)] = await rows(database_url, "SELECT recorded FROM events")
    if isinstance(stored, str):
        assert stored == "2026-03-01 12:00:00.123456"
    else:
        assert stored == NOON


async def test_the_same_event_twice_is_stored_once_with_its_cards(database_url: str, tmp_path: Path) -> None:
    event = decision(cards=(ShownCard("u1", "a", "info"), ShownCard("u2", "b", "warning")))
    async with trail(database_url, tmp_path / "spool") as audit:
        await audit.record(event)
        await audit.record_all([event, event])
        assert audit.state().committed == 1
    assert await stored_ids(database_url) == [event.event_id]
    assert await rows(database_url, "SELECT uuid FROM shown_cards ORDER BY position") == [("u1",), ("u2",)]


async def test_concurrent_callers_share_commits_and_nothing_is_lost(
    database_url: str, tmp_path: Path
) -> None:
    acknowledged: list[str] = []

    async def caller(number: int) -> None:
        for i in range(25):
            event = decision(f"{number:02d}-{i:03d}")
            await audit.record(event)
            acknowledged.append(event.event_id)

    async with trail(database_url, tmp_path / "spool") as audit:
        await asyncio.gather(*(caller(n) for n in range(32)))
        state = audit.state()
    stored = await stored_ids(database_url)
    assert sorted(stored) == sorted(acknowledged)
    assert len(stored) == 800
    assert state.commits < 800 / 4
    for number in range(32):  # each caller's own events keep their order
        mine = [event for event in stored if event.startswith(f"{number:02d}-")]
        assert mine == sorted(mine)


async def test_an_event_whose_caller_went_away_is_kept(database_url: str, tmp_path: Path) -> None:
    event = decision()
    async with trail(database_url, tmp_path / "spool") as audit:
        call = asyncio.create_task(audit.record(event))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert await stored_ids(database_url) == [event.event_id]


@pytest.mark.parametrize(
    "hostile",
    ["nul\x00inside", "\ud800 lone surrogate", "x" * 20_000, "'; DROP TABLE events; --", "\r\n\u2028"],
)
async def test_hostile_text_from_a_client_neither_stops_nor_loses_an_event(
    database_url: str, tmp_path: Path, hostile: str
) -> None:
    events = [decision(), decision(hook_instance=hostile, service=hostile, patient=hostile), decision()]
    async with trail(database_url, tmp_path / "spool") as audit:
        await asyncio.gather(*(audit.record(event) for event in events))
        assert audit.state().database_up
        assert audit.state().refused == 0
    assert await stored_ids(database_url) == [event.event_id for event in events]
    payloads = [json.loads(p) for (p,) in await rows(database_url, "SELECT payload FROM events ORDER BY seq")]
    kept = payloads[1]["hook_instance"]
    assert kept == hostile or "\ufffd" in kept


async def test_an_event_the_database_refuses_is_set_aside_and_the_others_stored(
    database_url: str, tmp_path: Path
) -> None:
    impossible = decision(status=2**70)  # fits no integer column
    events = [decision(), impossible, decision()]
    async with trail(database_url, tmp_path / "spool") as audit:
        await asyncio.gather(*(audit.record(event) for event in events))
        assert audit.state().database_up
        assert audit.state().refused == 1
    assert await stored_ids(database_url) == [events[0].event_id, events[2].event_id]
    aside = (tmp_path / "spool" / "refused.records").read_bytes().splitlines()
    assert [decode(line) for line in aside] == [impossible]


async def test_feedback_takes_the_same_way(database_url: str, tmp_path: Path) -> None:
    feedback = CardFeedback(
        feedback_id="f1",
        recorded=NOON,
        service="diagnostic-assessment",
        card="never-shown",
        outcome="accepted",
        outcome_timestamp=NOON,
        accepted_suggestions=("s1", "s2"),
    )
    async with trail(database_url, tmp_path / "spool") as audit:
        await audit.record_all([feedback, feedback, decision()])
    assert await rows(database_url, "SELECT feedback_id, card, outcome FROM feedback") == [
        ("f1", "never-shown", "accepted")
    ]
    suggestions = await rows(database_url, "SELECT suggestion FROM feedback_suggestions ORDER BY position")
    assert suggestions == [("s1",), ("s2",)]


async def test_a_closed_trail_takes_nothing(database_url: str, tmp_path: Path) -> None:
    audit = AuditTrail(database_url, tmp_path / "spool")
    with pytest.raises(AuditUnavailable):
        await audit.record(decision())
    await audit.start()
    await audit.close()
    with pytest.raises(AuditUnavailable):
        await audit.record(decision())


async def test_closing_stores_what_is_queued(database_url: str, tmp_path: Path) -> None:
    audit = AuditTrail(database_url, tmp_path / "spool")
    await audit.start()
    calls = [asyncio.create_task(audit.record(decision())) for _ in range(50)]
    await asyncio.sleep(0)
    await audit.close()
    await asyncio.gather(*calls)
    assert len(await stored_ids(database_url)) == 50


def test_new_ids_are_version_7_uuids_that_grow_with_time() -> None:
    first = new_id()
    time.sleep(0.002)
    second = new_id()
    assert first < second
    parsed = uuid.UUID(second)
    assert str(parsed) == second
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert abs(int(second.replace("-", "")[:12], 16) / 1000 - time.time()) < 60
    assert len({new_id() for _ in range(10_000)}) == 10_000
