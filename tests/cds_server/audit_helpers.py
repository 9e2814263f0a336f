"""What the audit tests share: made-up events, and reading the database past everything that is tested."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from cds_server.audit import AuditTrail, Decision, ShownCard
from cds_server.audit.sealing import Sealer
from cds_server.audit.signing import Signer
from cds_server.clock import utc_now
from cds_server.db.engine import create_engine

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def decision(event_id: str | None = None, **changes: Any) -> Decision:
    """A complete event; `changes` override its fields."""
    values: dict[str, Any] = {
        "event_id": event_id or str(uuid.uuid4()),
        "recorded": NOON,
        "action": "assess",
        "service": "diagnostic-assessment",
        "hook_instance": str(uuid.uuid4()),
        "client": "ehr.example",
        "user": "p1-user",
        "patient": "p1-patient",
        "input_digest": "0" * 64,
        "output_digest": "f" * 64,
        "severity": "acute-disease",
        "immediate": True,
        "escalation": "red-flag",
        "rule": "news2",
        "model": "rules",
        "knowledge": "2026.1",
        "duration_ms": 1.25,
        "status": 200,
        "language": "en",
        "cards": (ShownCard(str(uuid.uuid4()), "news2", "critical", ("s1", "s2")),),
    }
    return Decision(**(values | changes))


async def rows(database_url: str, query: str, **values: Any) -> list[tuple[Any, ...]]:
    """The rows of a query, on a connection of its own."""
    engine = create_async_engine(database_url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            return [tuple(row) for row in await connection.execute(text(query), values)]
    finally:
        await engine.dispose()


async def stored_ids(database_url: str) -> list[str]:
    """The ids of all recorded events in the order of `seq`; not the places the chain keeps for others."""
    query = "SELECT event_id FROM events WHERE action <> 'withheld' ORDER BY seq"
    return [row[0] for row in await rows(database_url, query)]


async def sealed(database_url: str, directory: Path, audit: AuditTrail, *, closed: bool = False) -> None:
    """Makes a checkpoint of a trail, with the key in `directory`."""
    engine = create_engine(database_url)
    try:
        signer = Signer.open(directory / "keys")
        sealer = Sealer(engine, signer, directory, interval=timedelta(minutes=5), clock=utc_now)
        await sealer.seal(audit.strand, closed=closed)
    finally:
        await engine.dispose()


@asynccontextmanager
async def trail(database_url: str, spool: Path, **options: Any) -> AsyncIterator[AuditTrail]:
    """A running trail, closed at the end."""
    running = AuditTrail(database_url, spool, **options)
    await running.start()
    try:
        yield running
    finally:
        await running.close()


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Waits for `condition`; fails the test when it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        await asyncio.sleep(0.02)
