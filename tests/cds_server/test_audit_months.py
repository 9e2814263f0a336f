"""PostgreSQL: the trail in months, each id stored once across all of them, audit questions by index."""

import asyncio
import json
import re
import uuid
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from audit_helpers import NOON, decision, rows, stored_ids, trail
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

from cds_server.audit import CardFeedback, Decision, new_id
from cds_server.audit.question import Cursor, Question, page, total
from cds_server.db import migrate
from cds_server.db.engine import create_engine
from cds_server.db.partitions import make_ahead, months_ahead, partitions
from cds_server.db.urls import is_sqlite
from cds_server.db.writer import UNFILED, filed


def id_of(moment: datetime) -> str:
    """A UUIDv7 of that moment."""
    milliseconds = (moment - UNFILED) // timedelta(milliseconds=1)
    head = f"{milliseconds:012x}"
    return f"{head[:8]}-{head[8:]}-7{uuid.uuid4().hex[:3]}-8{uuid.uuid4().hex[:3]}-{uuid.uuid4().hex[:12]}"


def at(moment: datetime, **changes: Any) -> Decision:
    return decision(id_of(moment), recorded=moment, **changes)


async def home(url: str, event_id: str) -> str:
    [(table,)] = await rows(
        url, "SELECT tableoid::regclass::text FROM events WHERE event_id = :id", id=event_id
    )
    return str(table)


async def test_an_event_is_filed_in_its_month_and_any_other_in_the_default(
    postgresql_url: str, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    new, odd, old = at(now), decision("no-uuid", recorded=now), at(datetime(2020, 5, 1, tzinfo=UTC))
    late = decision(id_of(now), recorded=now - timedelta(days=2))
    async with trail(postgresql_url, tmp_path / "spool") as audit:
        await audit.record_all([new, odd, old, late])
    assert await home(postgresql_url, new.event_id) == f"events_{now:%Y_%m}"
    for event in (odd, old, late):
        assert await home(postgresql_url, event.event_id) == "events_unfiled"


async def test_an_event_replayed_is_stored_once_wherever_it_is_filed(
    postgresql_url: str, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    edges = [datetime(now.year, now.month, 1, tzinfo=UTC) + timedelta(milliseconds=n) for n in (-1, 0, 1)]
    events = [at(moment) for moment in edges] + [decision("plain"), at(now)]
    async with trail(postgresql_url, tmp_path / "spool") as audit:
        await audit.record_all(events)
        await audit.record_all(events)
        assert audit.state().committed == len(events)
    assert sorted(await stored_ids(postgresql_url)) == sorted(event.event_id for event in events)


async def test_months_are_made_ahead_once_by_however_many(postgresql_url: str) -> None:
    engine = create_engine(postgresql_url)
    later = datetime.now(UTC) + timedelta(days=400)
    found = await asyncio.gather(*(make_ahead(engine, later) for _ in range(4)))
    for month in months_ahead(later):
        assert sorted(each[month] for each in found) == ["added", "present", "present", "present"]
    names = {part.name for part in await partitions(engine)}
    assert {f"events_{month:%Y_%m}" for month in months_ahead(later)} <= names
    assert "events_unfiled" in names
    await engine.dispose()


async def test_a_month_that_began_without_a_partition_stays_where_it_is(
    postgresql_url: str, tmp_path: Path
) -> None:
    later = datetime.now(UTC) + timedelta(days=800)
    async with trail(postgresql_url, tmp_path / "spool") as audit:
        await audit.record(at(later))
    engine = create_engine(postgresql_url)
    found = await make_ahead(engine, later)
    await engine.dispose()
    assert next(iter(found.values())) == "unfiled"
    assert set(list(found.values())[1:]) == {"added"}


async def test_no_month_can_be_changed_directly(postgresql_url: str, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    async with trail(postgresql_url, tmp_path / "spool") as audit:
        await audit.record_all([at(now), decision("unfiled")])
    engine = create_engine(postgresql_url)
    await make_ahead(engine, now + timedelta(days=300))
    for part in await partitions(engine):
        for command in (
            f"DELETE FROM {part.name}",
            f"TRUNCATE {part.name}",
            f"UPDATE {part.name} SET status = 1",
        ):
            with pytest.raises(DBAPIError, match="append-only"):
                async with engine.begin() as connection:
                    await connection.execute(text(command))
    with pytest.raises(DBAPIError, match="append-only"):
        async with engine.begin() as connection:
            await connection.execute(text("TRUNCATE events"))
    await engine.dispose()
    assert len(await stored_ids(postgresql_url)) == 2


def test_months_go_over_the_end_of_a_year() -> None:
    assert months_ahead(datetime(2026, 11, 30, 23, tzinfo=UTC)) == [
        date(2026, 11, 1),
        date(2026, 12, 1),
        date(2027, 1, 1),
        date(2027, 2, 1),
    ]


@given(st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))
def test_an_id_says_when_it_was_made_to_the_millisecond(moment: datetime) -> None:
    found = filed(id_of(moment), moment)
    assert timedelta(0) <= moment - found < timedelta(milliseconds=1)


@given(st.text(max_size=40))
def test_any_text_is_filed_somewhere(text_: str) -> None:
    assert filed(text_, NOON) == UNFILED or text_[14] == "7"


# -- an existing database


async def old_database(url: str, events: list[Any]) -> None:
    """Events and feedback as revision 0001 stored them (the columns that matter)."""
    from cds_server.audit.events import encode  # noqa: PLC0415

    await asyncio.to_thread(migrate.upgrade, url, "0001")
    engine = create_engine(url)
    async with engine.begin() as connection:
        for event in events:
            moment: Any = event.recorded
            if is_sqlite(url):
                moment = moment.replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
            if isinstance(event, CardFeedback):
                await connection.execute(
                    text(
                        "INSERT INTO feedback (feedback_id, recorded, service, card, outcome, payload) "
                        "VALUES (:id, :at, :service, :card, :outcome, :payload)"
                    ),
                    {
                        "id": event.feedback_id,
                        "at": moment,
                        "service": event.service,
                        "card": event.card,
                        "outcome": event.outcome,
                        "payload": encode(event).decode(),
                    },
                )
            else:
                await connection.execute(
                    text(
                        "INSERT INTO events (event_id, recorded, action, service, patient_pseudonym, status, "
                        "payload) VALUES (:id, :at, :action, :service, :patient, :status, :payload)"
                    ),
                    {
                        "id": event.event_id,
                        "at": moment,
                        "action": event.action,
                        "service": event.service,
                        "patient": event.patient,
                        "status": event.status,
                        "payload": encode(event).decode(),
                    },
                )
    await engine.dispose()


async def test_an_existing_database_keeps_every_row_up_and_down(
    empty_database_url: str, tmp_path: Path
) -> None:
    url = empty_database_url
    feedback = CardFeedback(feedback_id=new_id(), recorded=NOON, service="s", card="c", outcome="accepted")
    before = [at(datetime(2026, 9, 30, 23, 59, tzinfo=UTC)), at(datetime(2026, 10, 2, tzinfo=UTC))]
    events: list[Any] = [*before, decision("plain"), feedback]
    await old_database(url, events)
    query = "SELECT seq, event_id, payload FROM events ORDER BY seq"
    stored = await rows(url, query)
    await asyncio.to_thread(migrate.upgrade, url)
    assert (await rows(url, query))[:3] == stored
    assert await stored_ids(url) == [*(e.event_id for e in events[:3]), feedback.feedback_id]
    if not is_sqlite(url):
        assert await home(url, before[0].event_id) == "events_2026_09"
        assert await home(url, before[1].event_id) == "events_2026_10"
    async with trail(url, tmp_path / "spool") as audit:
        await audit.record_all([*events, at(datetime.now(UTC))])  # replayed: each is there already
    assert len(await stored_ids(url)) == 5
    await asyncio.to_thread(migrate.downgrade, url, "0001")
    assert (await rows(url, query))[:3] == stored
    assert len(await rows(url, query)) == 4  # the three and the new decision; feedback has its own table
    assert await rows(url, "SELECT feedback_id FROM feedback") == [(feedback.feedback_id,)]
    await asyncio.to_thread(migrate.upgrade, url)
    assert len(await stored_ids(url)) == 5


# -- indexes

START = datetime(2026, 11, 1, tzinfo=UTC)
_QUESTIONS: dict[str, tuple[Question, str]] = {
    "newest": (Question(), "recorded"),
    "oldest": (Question(newest_first=False), "recorded"),
    "day": (Question(since=START, until=START + timedelta(days=1)), "recorded"),
    "patient": (Question(patients=("p1-00007", "p2-00007")), "patient"),
    "patient in a month": (
        Question(patients=("p1-00007",), since=START, until=START + timedelta(days=30)),
        "patient",
    ),
    "user": (Question(agents=("p1-u0007",)), "user"),
    "client or user": (Question(agents=("https://rare.example", "p1-u0007")), "client|user"),
    "rare activity": (Question(activities=frozenset({"patient-erased"})), "action"),
    "failed": (Question(outcomes=frozenset({"4", "8"})), "_recorded_idx"),
    "entity or trace": (Question(entities=("AuditEvent/7", "hook-00007")), "entity|trace"),
    "id": (Question(ids=("id-00007",)), "event_id"),
}


@pytest.fixture(scope="module")
def filled(_postgres_server: Any) -> str:
    """A database with a month of 30,000 events, and statistics about it."""
    url = _postgres_server.new_database()
    name = url.partition("?")[0].rpartition("/")[2]
    _postgres_server.sql("SELECT cds_add_event_month('2026-11-01')", name)
    _postgres_server.sql(
        "INSERT INTO events (event_id, filed, recorded, action, service, hook_instance, client, "
        "user_pseudonym, patient_pseudonym, entity, status, payload) SELECT 'id-' || lpad(n::text, 5, '0'), "
        "m, m, CASE WHEN n % 5000 = 0 THEN 'patient-erased' ELSE 'hook-call' END, 's', 'hook-' || "
        "lpad(n::text, 5, '0'), CASE WHEN n % 3000 = 0 THEN 'https://rare.example' ELSE 'https://c.example' "
        "END, 'p1-u' || lpad((n % 500)::text, 4, '0'), 'p1-' || lpad((n % 2000)::text, 5, '0'), "
        "CASE WHEN n % 100 = 0 THEN 'AuditEvent/' || n END, CASE WHEN n % 1000 = 0 THEN 412 ELSE 200 END, "
        "repeat('x', 500) FROM (SELECT n, '2026-11-01 00:00Z'::timestamptz + n * interval '80 seconds' AS m "
        "FROM generate_series(1, 30000) AS n) AS made",
        name,
    )
    _postgres_server.sql("ANALYZE events", name)
    return url


async def plan_of(url: str, statement: Any) -> dict[str, Any]:
    compiled = statement.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})
    [(plan,)] = await rows(url, f"EXPLAIN (FORMAT JSON) {re.sub(':', chr(92) + ':', str(compiled))}")
    found = plan if isinstance(plan, list) else json.loads(plan)
    first: dict[str, Any] = found[0]["Plan"]
    return first


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", ()) for node in nodes(child))]


@pytest.mark.parametrize("name", sorted(_QUESTIONS))
@pytest.mark.parametrize("form", ["page", "next page", "count"])
async def test_audit_questions_are_answered_by_an_index(filled: str, name: str, form: str) -> None:
    question, index = _QUESTIONS[name]
    if form == "count" and name in ("newest", "oldest"):
        pytest.skip("counting everything reads everything")
    after = Cursor(START + timedelta(days=7), "id-07000") if form == "next page" else None
    plan = await plan_of(filled, total(question) if form == "count" else page(question, 50, after))
    found = nodes(plan)
    month = [node for node in found if node.get("Relation Name") == "events_2026_11"]
    assert not [node for node in month if node["Node Type"] == "Seq Scan"], json.dumps(plan, indent=1)
    used = {str(node["Index Name"]) for node in found if "Index Name" in node}
    in_month = {name for name in used if "2026_11" in name}
    assert in_month, json.dumps(plan, indent=1)
    # Whatever else narrows the page: the column the question is about, or the order it is shown in.
    assert any(re.search(f"({index}|recorded|event_id)", name) for name in in_month), in_month
    if form == "count":
        assert any(re.search(index, name) for name in in_month), in_month


@pytest.mark.parametrize("newest_first", [True, False])
async def test_a_page_begins_at_its_cursor_and_reads_nothing_before_it(
    filled: str, newest_first: bool
) -> None:
    whole = Question(since=START, until=START + timedelta(days=30), newest_first=newest_first)
    middle = Cursor(START + timedelta(days=14), "id-15120")
    statement = page(whole, 50, middle).compile(
        dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True}
    )
    await rows(filled, "SELECT count(*) FROM events")  # whatever is set when a page is first touched
    escaped = re.sub(":", chr(92) + ":", str(statement))
    [(plan,)] = await rows(filled, f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {escaped}")
    found = plan if isinstance(plan, list) else json.loads(plan)
    assert found[0]["Plan"]["Actual Rows"] == 50
    [month] = [n for n in nodes(found[0]["Plan"]) if n.get("Relation Name") == "events_2026_11"]
    # 50 rows lie on some 5 pages of the table and 1 of the index; half the month on 150 of the index alone.
    assert month["Shared Hit Blocks"] + month["Shared Read Blocks"] < 30, json.dumps(month, indent=1)


async def test_months_in_which_nothing_can_be_are_not_looked_at(filled: str) -> None:
    question = Question(since=START + timedelta(days=3), until=START + timedelta(days=5))
    plan = await plan_of(filled, page(question, 50, None))
    tables = {node["Relation Name"] for node in nodes(plan) if "Relation Name" in node}
    assert tables == {"events_2026_11", "events_unfiled"}


async def test_a_large_batch_that_holds_what_is_stored_already_stores_the_rest(
    database_url: str, tmp_path: Path
) -> None:
    """Large batches are copied on PostgreSQL; COPY knows no ON CONFLICT."""
    now = datetime.now(UTC)
    events = [at(now) for _ in range(60)]
    async with trail(database_url, tmp_path / "spool") as audit:
        await audit.record_all(events[:40])
        await audit.record_all(events[20:])
        state = audit.state()
        assert state.database_up
        assert state.spooled == 0
    assert sorted(await stored_ids(database_url)) == sorted(event.event_id for event in events)
    # Twenty places of the second batch are kept by placeholders, none is missing.
    [(held,)] = await rows(database_url, "SELECT count(*) FROM events WHERE action = 'withheld'")
    assert held == 20
    assert await rows(database_url, "SELECT count(DISTINCT place) FROM events") == [(80,)]


async def test_a_large_batch_with_one_record_that_cannot_be_stored_keeps_the_others(
    database_url: str, tmp_path: Path
) -> None:
    events = [at(datetime.now(UTC)) for _ in range(40)]
    events[17] = decision(new_id(), status=2**80)
    async with trail(database_url, tmp_path / "spool") as audit:
        await audit.record_all(events)
        assert audit.state().refused == 1
        assert audit.state().database_up
    kept = [event.event_id for n, event in enumerate(events) if n != 17]
    assert sorted(await stored_ids(database_url)) == sorted(kept)
