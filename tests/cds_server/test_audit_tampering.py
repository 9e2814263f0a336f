"""Somebody with all rights in the database changes the trail: a verification finds it and names it.

Each test takes the triggers away, changes what they guard, and puts them back, as a database
administrator could; the signing key is out of reach for them.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from audit_helpers import NOON, decision, rows, sealed, trail
from sqlalchemy import text

from cds_server.audit import AuditTrail, CardFeedback, new_id
from cds_server.audit.chain import link_value, strand_name
from cds_server.audit.checkpoints import Checkpoint, read_file
from cds_server.audit.sealing import FILE
from cds_server.audit.signing import PublicKeys, Signer
from cds_server.audit.strand_check import digest_of
from cds_server.audit.verify import Report, Verifier
from cds_server.db import migrate
from cds_server.db.engine import create_engine
from cds_server.db.urls import is_sqlite

COUNT = 12


@dataclass
class Site:
    """A database with a trail of `COUNT` events, and what belongs to it."""

    url: str
    directory: Path
    ids: list[str]

    async def tamper(self, *commands: str, **values: Any) -> None:
        """Runs commands with the triggers away, then puts them back."""
        engine = create_engine(self.url)
        async with engine.begin() as connection:
            if is_sqlite(self.url):
                query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
                triggers = (await connection.execute(text(query))).all()
                for name, _ in triggers:
                    await connection.execute(text(f"DROP TRIGGER {name}"))
                for command in commands:
                    await connection.execute(text(command), values)
                for _, sql in triggers:
                    await connection.exec_driver_sql(sql)
            else:
                await connection.execute(text("SET LOCAL session_replication_role = replica"))
                for command in commands:
                    await connection.execute(text(command), values)
        await engine.dispose()

    async def verify(self, **options: Any) -> Report:
        engine = create_engine(self.url)
        try:
            keys = options.pop("keys", None) or PublicKeys.of_directory(self.directory / "keys")
            return await Verifier(engine, keys, **options).run()
        finally:
            await engine.dispose()

    async def found(self, **options: Any) -> list[str]:
        return [str(finding) for finding in (await self.verify(**options)).findings]

    def signer(self) -> Signer:
        return Signer.open(self.directory / "keys")

    def carried(self) -> list[Checkpoint]:
        return read_file(self.directory / FILE)


@asynccontextmanager
async def running(url: str, directory: Path) -> AsyncIterator[AuditTrail]:
    async with trail(url, directory / "spool", signer=Signer.open(directory / "keys")) as audit:
        yield audit


@pytest.fixture
async def site(database_url: str, tmp_path: Path) -> Site:
    """Two checkpoints: one in the middle, one at the end (the writer has ended)."""
    ids = [new_id() for _ in range(COUNT)]
    async with running(database_url, tmp_path) as audit:
        await audit.record_all([event(number, ids[number]) for number in range(COUNT // 2)])
        await sealed(database_url, tmp_path, audit)
        await audit.record_all([event(number, ids[number]) for number in range(COUNT // 2, COUNT)])
        await audit.record(feedback())
        await sealed(database_url, tmp_path, audit, closed=True)
    return Site(database_url, tmp_path, ids)


def event(number: int, event_id: str) -> Any:
    return decision(event_id, recorded=datetime.now(UTC), patient=f"p1-{number}")


def feedback() -> CardFeedback:
    return CardFeedback(
        feedback_id=new_id(),
        recorded=NOON,
        service="s",
        card="c",
        outcome="accepted",
        accepted_suggestions=("x",),
    )


async def test_an_untouched_trail_holds(site: Site) -> None:
    report = await site.verify(carried=site.carried())
    assert report.findings == []
    assert report.holds
    assert (report.events, report.strands, report.checkpoints) == (COUNT + 2, 1, 2)
    assert report.sealed_events == COUNT + 2
    assert report.notices == []


async def test_a_changed_event_is_named(site: Site) -> None:
    event_id = site.ids[4]
    await site.tamper(
        "UPDATE events SET payload = replace(payload, 'red-flag', 'none') WHERE event_id = :id", id=event_id
    )
    found = await site.found()
    assert any(line.startswith(f"changed: event {event_id}:") for line in found)
    assert any(line.startswith(f"search column changed: event {event_id}: escalation") for line in found)
    assert all(event_id in line for line in found)


async def test_a_changed_search_column_is_named(site: Site) -> None:
    """The payload holds, so the chain does; but the event would no longer be found by its patient."""
    event_id = site.ids[3]
    await site.tamper("UPDATE events SET patient_pseudonym = 'p1-other' WHERE event_id = :id", id=event_id)
    assert await site.found() == [
        f"search column changed: event {event_id}: patient_pseudonym: not what the record says"
    ]


@pytest.mark.parametrize("table", ["shown_cards", "feedback", "feedback_suggestions"])
async def test_changed_rows_beside_the_events_are_named(site: Site, table: str) -> None:
    column = {"shown_cards": "indicator", "feedback": "outcome", "feedback_suggestions": "suggestion"}[table]
    await site.tamper(f"UPDATE {table} SET {column} = 'other'")
    found = await site.found()
    assert found
    assert all(line.startswith("search column changed: event ") and table in line for line in found)
    await site.tamper(f"DELETE FROM {table}")
    assert len(await site.found()) == len(found)


async def test_rows_beside_the_events_that_belong_to_none_are_named(site: Site) -> None:
    await site.tamper("INSERT INTO shown_cards VALUES ('forged', 0, 'u', 'k', 'info', '[]')")
    assert await site.found() == ["inserted: event forged: rows in shown_cards of an event that is not there"]


async def test_a_changed_event_with_all_links_after_it_rewritten_is_found_by_the_checkpoint(
    site: Site,
) -> None:
    await rewrite_from(site, 8)
    found = await site.found()
    assert len(found) == 1
    assert found[0].startswith("changed: event ")
    assert "checkpoint 2 sealed something else" in found[0]
    assert site.ids[COUNT // 2] in found[0]  # the first event after the checkpoint that still holds


async def rewrite_from(site: Site, place: int) -> None:
    """What a forger without the key can do: a new payload, and the chain computed anew behind it."""
    query = "SELECT event_id, strand, place, link, payload FROM events ORDER BY place"
    stored = await rows(site.url, query)
    link = stored[place - 2][3]
    for event_id, strand, number, _, payload in stored[place - 1 :]:
        if number == place:
            # What is only in the payload, so that nothing beside it gives the forger away.
            payload = json.dumps(json.loads(payload) | {"model": "forged"}, separators=(",", ":"))  # noqa: PLW2901
        link = link_value(link, strand, number, digest_of(payload))
        await site.tamper(
            "UPDATE events SET payload = :payload, link = :link WHERE event_id = :id",
            payload=payload,
            link=link,
            id=event_id,
        )


@pytest.mark.parametrize("number", [0, 4, COUNT - 1])
async def test_a_removed_event_is_named_by_its_neighbours(site: Site, number: int) -> None:
    await site.tamper(
        "DELETE FROM events WHERE event_id = :id",
        "DELETE FROM shown_cards WHERE event_id = :id",
        id=site.ids[number],
    )
    [line] = await site.found()
    assert line.startswith("removed: strand ")
    assert f"place {number + 2} is missing between events" in line
    if 0 < number < COUNT - 1:
        assert site.ids[number - 1] in line
        assert site.ids[number + 1] in line


async def test_a_removed_event_whose_followers_were_renumbered_is_found(site: Site) -> None:
    [(place,)] = await rows(site.url, "SELECT place FROM events WHERE event_id = :id", id=site.ids[3])
    await site.tamper(
        "DELETE FROM events WHERE event_id = :id",
        "DELETE FROM shown_cards WHERE event_id = :id",
        "UPDATE events SET place = place - 1 WHERE place > :place",
        id=site.ids[3],
        place=place,
    )
    found = await site.found()
    assert any(line.startswith("removed:") and site.ids[4] in line for line in found)


async def test_a_removed_tail_is_found_by_the_checkpoint(site: Site) -> None:
    ids = site.ids[-2:]
    await site.tamper("DELETE FROM events WHERE place > :place", place=COUNT - 1)
    await site.tamper(
        "DELETE FROM shown_cards WHERE event_id NOT IN (SELECT event_id FROM events)",
        "DELETE FROM feedback",
        "DELETE FROM feedback_suggestions",
    )
    [line] = await site.found()
    assert line.startswith("tail removed: strand ")
    assert f"places {COUNT} to {COUNT + 2} are gone; checkpoint 2 had sealed" in line
    assert site.ids[-3] in line
    assert not any(event_id in line for event_id in ids)


async def test_a_removed_tail_together_with_its_checkpoint_is_found_by_one_carried_away(site: Site) -> None:
    await site.tamper(
        "DELETE FROM events WHERE place > :place",
        "DELETE FROM shown_cards WHERE event_id NOT IN (SELECT event_id FROM events)",
        "DELETE FROM feedback",
        "DELETE FROM feedback_suggestions",
        "DELETE FROM audit_checkpoints WHERE number = 2",
        place=COUNT // 2 + 1,
    )
    assert (await site.verify()).holds  # the database alone cannot know; that is what the file is for
    found = await site.found(carried=site.carried())
    assert any(line.startswith("checkpoint removed: checkpoint 2:") for line in found)
    assert any(line.startswith("tail removed:") for line in found)


async def test_a_removed_strand_is_found(site: Site) -> None:
    await site.tamper(
        "DELETE FROM events",
        "DELETE FROM shown_cards",
        "DELETE FROM feedback",
        "DELETE FROM feedback_suggestions",
    )
    [line] = await site.found()
    assert line.startswith("tail removed: strand ")


def copy_of(columns: str = "") -> str:
    names = (
        "filed, recorded, action, service, hook_instance, client, user_pseudonym, patient_pseudonym, "
        "entity, severity, escalation, status"
    )
    return (
        f"INSERT INTO events (event_id, {names}, strand, place, link, payload) SELECT :new, {names}, "
        f"{columns}, replace(payload, :id, :new) FROM events WHERE event_id = :id"
    )


def beside(event_id: str) -> str:
    """An id of the same instant: the forger thinks of everything."""
    return event_id[:24] + new_id()[24:]


async def test_an_inserted_event_is_named(site: Site) -> None:
    original = site.ids[5]
    new = beside(original)
    await site.tamper(copy_of("strand, place, link"), new=new, id=original)
    [line, *others] = [found for found in await site.found() if "shown_cards" not in found]
    assert line.startswith(f"inserted: event {new}:")
    assert original in line
    assert others == []


async def test_an_inserted_event_with_a_computed_link_is_named(site: Site) -> None:
    original = site.ids[5]
    new = beside(original)
    [(strand, place, payload)] = await rows(
        site.url, "SELECT strand, place, payload FROM events WHERE event_id = :id", id=original
    )
    [(before,)] = await rows(site.url, "SELECT link FROM events WHERE place = :place", place=place - 1)
    link = link_value(before, strand, place, digest_of(payload.replace(original, new)))
    await site.tamper(copy_of("strand, place, :link"), new=new, id=original, link=link)
    found = [line for line in await site.found() if "shown_cards" not in line]
    assert found == [
        f"inserted: event {new}: stands at place {place} beside another event (strand {strand_name(strand)})"
    ]


async def test_an_event_inserted_between_with_the_others_moved_up_is_named(site: Site) -> None:
    original = site.ids[5]
    new = beside(original)
    [(place,)] = await rows(site.url, "SELECT place FROM events WHERE event_id = :id", id=original)
    await site.tamper(
        "UPDATE events SET place = place + 1 WHERE place >= :place",
        copy_of("strand, place - 1, link"),
        new=new,
        id=original,
        place=place,
    )
    found = await site.found()
    assert any(line.startswith(f"inserted: event {new}:") for line in found)
    assert not any(line.startswith("changed: event") for line in found)


async def test_an_event_appended_after_its_writer_ended_is_found(site: Site) -> None:
    [(strand, place, link, event_id, payload)] = await rows(
        site.url,
        "SELECT strand, place, link, event_id, payload FROM events WHERE action = 'assess' "
        "ORDER BY place DESC LIMIT 1",
    )
    [(last,)] = await rows(site.url, "SELECT link FROM events ORDER BY place DESC LIMIT 1")
    new = beside(event_id)
    link = link_value(last, strand, place + 2, digest_of(payload.replace(event_id, new)))
    await site.tamper(copy_of("strand, place + 2, :link"), new=new, id=event_id, link=link)
    found = [line for line in await site.found() if "shown_cards" not in line]
    assert len(found) == 1
    assert found[0].startswith("inserted: strand ")
    assert new in found[0]


async def test_events_of_a_strand_that_no_writer_opened_are_found(site: Site) -> None:
    """A forger begins a strand of his own, with links that all hold."""
    elsewhere = site.directory / "forger"
    async with running(site.url, elsewhere) as audit:
        forged = decision(new_id(), recorded=datetime.now(UTC))
        await audit.record(forged)
    found = await site.found()
    assert len(found) == 1
    assert found[0].startswith("not vouched for: strand ")


async def test_an_event_without_a_place_is_found(site: Site) -> None:
    new = beside(site.ids[5])
    await site.tamper(copy_of("NULL, NULL, NULL"), new=new, id=site.ids[5])
    found = [line for line in await site.found() if "shown_cards" not in line]
    assert found == [f"inserted: event {new}: has no place in the chain"]


async def test_reordered_events_are_named(site: Site) -> None:
    one, other = site.ids[2], site.ids[3]
    content = (
        "event_id",
        "filed",
        "recorded",
        "action",
        "service",
        "hook_instance",
        "patient_pseudonym",
        "payload",
    )
    stored = {
        row[0]: row
        for row in await rows(
            site.url, f"SELECT {', '.join(content)}, seq FROM events WHERE action = 'assess'"
        )
    }
    assert one in stored
    assert other in stored
    # Their places, links and numbers are exchanged: each stands where the other was recorded.
    seqs = stored[one][-1], stored[other][-1]
    columns = "strand, place, link"
    places = {
        row[0]: row[1:]
        for row in await rows(
            site.url, f"SELECT event_id, {columns}, seq FROM events WHERE action = 'assess'"
        )
    }
    assert seqs == (places[one][-1], places[other][-1])
    for event_id, seq in ((one, -1), (other, -2)):
        await site.tamper("UPDATE events SET seq = :seq WHERE event_id = :id", seq=seq, id=event_id)
    for event_id, (_, place, link, seq) in ((one, places[other]), (other, places[one])):
        await site.tamper(
            "UPDATE events SET place = :place, link = :link, seq = :seq WHERE event_id = :id",
            place=place,
            link=link,
            seq=seq,
            id=event_id,
        )
    found = await site.found()
    assert len(found) == 2
    assert all(line.startswith("reordered: event ") for line in found)
    assert one in "".join(found)
    assert other in "".join(found)


async def test_reordered_numbers_of_storage_are_named(site: Site) -> None:
    one, other = site.ids[2], site.ids[3]
    [(first,)] = await rows(site.url, "SELECT seq FROM events WHERE event_id = :id", id=one)
    [(second,)] = await rows(site.url, "SELECT seq FROM events WHERE event_id = :id", id=other)
    for event_id, seq in ((one, -1), (other, first), (one, second)):
        await site.tamper("UPDATE events SET seq = :seq WHERE event_id = :id", seq=seq, id=event_id)
    [line] = await site.found()
    assert line.startswith(f"reordered: event {other}:")


async def test_a_forged_checkpoint_is_named(site: Site) -> None:
    """The tail goes, and the checkpoint is made to say so: its signature does not hold any more."""
    [(body,)] = await rows(site.url, "SELECT body FROM audit_checkpoints WHERE number = 2")
    forged = json.loads(body)
    forged["strands"][0]["count"] -= 1
    await site.tamper(
        "UPDATE audit_checkpoints SET body = :body WHERE number = 2",
        body=json.dumps(forged, separators=(",", ":")),
    )
    assert await site.found() == ["checkpoint forged: checkpoint 2: the signature does not hold"]
    assert "checkpoint changed: checkpoint 2: is not the one that was carried away" in await site.found(
        carried=site.carried()
    )


async def test_a_checkpoint_signed_with_another_key_is_named(site: Site, tmp_path: Path) -> None:
    [(body,)] = await rows(site.url, "SELECT body FROM audit_checkpoints WHERE number = 2")
    other = Signer.open(tmp_path / "other-keys")
    changed = json.dumps(json.loads(body) | {"key": other.key_id}, separators=(",", ":"))
    await site.tamper(
        "UPDATE audit_checkpoints SET body = :body, signature = :signature WHERE number = 2",
        body=changed,
        signature=other.sign(changed.encode()),
    )
    assert await site.found() == ["checkpoint forged: checkpoint 2: signed by a key that is not known"]


async def test_a_removed_checkpoint_is_named(site: Site) -> None:
    await site.tamper("DELETE FROM audit_checkpoints WHERE number = 1")
    assert await site.found() == ["checkpoint removed: checkpoint 1: the next one follows it"]


async def test_an_old_checkpoint_put_in_the_place_of_another_is_named(site: Site) -> None:
    await site.tamper(
        "UPDATE audit_checkpoints SET body = (SELECT body FROM audit_checkpoints WHERE number = 1), "
        "signature = (SELECT signature FROM audit_checkpoints WHERE number = 1) WHERE number = 2"
    )
    assert "checkpoint changed: checkpoint 2: its columns are not what was signed" in await site.found()


async def test_with_a_foreign_key_nothing_holds(site: Site, tmp_path: Path) -> None:
    found = await site.found(keys=Signer.open(tmp_path / "foreign").public)
    assert {line.partition(":")[0] for line in found} == {"checkpoint forged", "not vouched for"}


async def test_since_a_moment_only_what_came_after_its_checkpoints_is_read(site: Site) -> None:
    """The first six events and the opening were sealed before; a change there is not looked for."""
    [_, second] = [checkpoint.read() for checkpoint in site.carried()]
    report = await site.verify(since=second.made)
    assert report.holds
    assert report.events == COUNT + 2 - (COUNT // 2 + 1)
    await site.tamper("UPDATE events SET payload = '{}' WHERE event_id = :id", id=site.ids[COUNT - 2])
    assert any(site.ids[COUNT - 2] in line for line in await site.found(since=second.made))
    later = await site.verify(since=second.made + timedelta(hours=1))
    assert later.events == 0


async def test_several_processes_and_a_spool_replayed_later_verify(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, tmp_path) as one, running(database_url, tmp_path) as other:
        await asyncio.gather(*(audit.record(event(n, new_id())) for n in range(40) for audit in (one, other)))
        assert one.strand.number != other.strand.number
        await sealed(database_url, tmp_path, one)
        await sealed(database_url, tmp_path, other)
    # One that had no database, and ended before there was one again.
    missing = f"sqlite+aiosqlite:///{tmp_path}/missing.db"
    async with running(missing, tmp_path) as away:
        await away.record_all([event(n, new_id()) for n in range(5)])
        assert not away.state().database_up
    async with running(database_url, tmp_path) as next_one:
        for _ in range(500):
            if not next_one.state().spool_depth:
                break
            await asyncio.sleep(0.02)
    site = Site(database_url, tmp_path, [])
    report = await site.verify(carried=site.carried())
    assert [str(finding) for finding in report.findings] == []
    assert report.events == 2 * 41 + 6 + 1
    assert len(report.notices) == 2  # the spooled strand and the last one are not sealed yet


async def test_a_strand_whose_writer_died_is_sealed_as_it_is_found(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, tmp_path) as gone:
        await gone.record_all([decision(new_id()) for _ in range(4)])  # recorded long ago
    await rows(database_url, "SELECT 1")
    async with running(database_url, tmp_path) as other:
        await aged_opening(database_url, tmp_path)
        await sealed(database_url, tmp_path, other)
    site = Site(database_url, tmp_path, [])
    [body] = [checkpoint.read() for checkpoint in site.carried()]
    found = {head.strand: head for head in body.strands}
    assert found[strand_name(gone.strand.number)].by == "found"
    assert found[strand_name(gone.strand.number)].count == 5
    assert found[strand_name(other.strand.number)].by == "writer"


async def aged_opening(url: str, directory: Path) -> None:
    """Time passes: the strand's last event was recorded longer ago than two intervals."""
    site = Site(url, directory, [])
    long_ago = "2026-03-01 12:00:00.000000" if is_sqlite(url) else NOON
    await site.tamper("UPDATE events SET recorded = :at WHERE action = 'audit-started'", at=long_ago)


async def test_an_event_refused_by_the_database_must_be_in_the_file_of_refused_records(
    database_url: str, tmp_path: Path
) -> None:
    impossible = decision(new_id(), status=2**70)
    async with running(database_url, tmp_path) as audit:
        await audit.record_all([event(0, new_id()), impossible, event(1, new_id())])
        await sealed(database_url, tmp_path, audit, closed=True)
    site = Site(database_url, tmp_path, [])
    [line] = await site.found()
    assert line.startswith(f"removed: event {impossible.event_id}: was refused by the database")
    payloads = (tmp_path / "spool" / "refused.records").read_text().splitlines()
    assert (await site.verify(refused=[digest_of(payload).hex() for payload in payloads])).holds


async def test_an_event_recorded_twice_leaves_no_gap_and_must_be_the_same(
    database_url: str, tmp_path: Path
) -> None:
    event_id = new_id()
    once = event(0, event_id)
    async with running(database_url, tmp_path) as audit:
        await audit.record(once)
        await audit.record_all([once, event(1, new_id())])
    site = Site(database_url, tmp_path, [])
    assert (await site.verify()).holds
    async with running(database_url, tmp_path) as audit:
        await audit.record(decision(event_id, recorded=once.recorded, model="another"))
    found = await site.found()
    assert found == [
        f"changed: event {event_id}: was recorded twice, and what is stored is not what was recorded then"
    ]


async def test_events_from_before_the_chain_are_covered_by_the_first_checkpoint(
    empty_database_url: str, tmp_path: Path
) -> None:
    await asyncio.to_thread(migrate.upgrade, empty_database_url, "0001")
    old = [decision(new_id(), recorded=datetime.now(UTC)) for _ in range(5)]
    await insert_old(empty_database_url, old)
    await asyncio.to_thread(migrate.upgrade, empty_database_url)
    async with running(empty_database_url, tmp_path) as audit:
        await audit.record(event(0, new_id()))
        await sealed(empty_database_url, tmp_path, audit)
    site = Site(empty_database_url, tmp_path, [])
    report = await site.verify()
    assert [str(finding) for finding in report.findings] == []
    assert report.events == 5 + 2
    await site.tamper("UPDATE events SET payload = replace(payload, 'red-flag', 'none') WHERE strand IS NULL")
    assert any(line.startswith("changed: events before the chain, block 1:") for line in await site.found())
    await site.tamper(
        "DELETE FROM events WHERE event_id = :id",
        "DELETE FROM shown_cards WHERE event_id = :id",
        id=old[2].event_id,
    )
    assert any("5 events then, 4 now" in line for line in await site.found())


async def insert_old(url: str, old: Sequence[Any]) -> None:
    """As revision 0001 stored them."""
    from cds_server.audit.events import encode  # noqa: PLC0415

    engine = create_engine(url)
    async with engine.begin() as connection:
        for each in old:
            await connection.execute(
                text(
                    "INSERT INTO events (event_id, recorded, action, service, hook_instance, client, "
                    "user_pseudonym, patient_pseudonym, severity, escalation, status, payload) VALUES "
                    "(:id, :at, :action, :service, :hook, :client, :user, :patient, :severity, :escalation, "
                    ":status, :payload)"
                ),
                {
                    "id": each.event_id,
                    "at": each.recorded.replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
                    if is_sqlite(url)
                    else each.recorded,
                    "action": each.action,
                    "service": each.service,
                    "hook": each.hook_instance,
                    "client": each.client,
                    "user": each.user,
                    "patient": each.patient,
                    "severity": each.severity,
                    "escalation": each.escalation,
                    "status": each.status,
                    "payload": encode(each).decode(),
                },
            )
            for position, card in enumerate(each.cards):
                await connection.execute(
                    text("INSERT INTO shown_cards VALUES (:id, :position, :uuid, :key, :indicator, :list)"),
                    {
                        "id": each.event_id,
                        "position": position,
                        "uuid": card.uuid,
                        "key": card.key,
                        "indicator": card.indicator,
                        "list": json.dumps(card.suggestions, separators=(",", ":")),
                    },
                )
    await engine.dispose()
