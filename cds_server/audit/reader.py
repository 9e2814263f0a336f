"""Reads the trail: pages, single events, counts, and everything in a stream of constant memory."""

from collections.abc import AsyncIterator
from datetime import datetime

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from cds_server.audit.events import Record, decode
from cds_server.audit.question import EVENT_ID, Cursor, Question, page, total
from cds_server.db.models import CheckpointRow, Event

_STREAM_PAGE = 500


class Page(msgspec.Struct, frozen=True):
    """Events that answer a question, and where the next page begins (`None` after the last).

    `unreadable` are the ids of events that are no records any more: `cds_server.audit.verify` says why.
    """

    records: tuple[Record, ...]
    unreadable: tuple[str, ...]
    following: Cursor | None


class ChainStatus(msgspec.Struct, frozen=True):
    """The chain at a glance: what is stored, and what the newest checkpoint covers."""

    events_after_checkpoint: int
    checkpoints: int
    newest_checkpoint: datetime | None


class AuditReader:
    """Reads through an engine.  All methods raise SQLAlchemyError or OSError when the database is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def page(self, question: Question, size: int, after: Cursor | None = None) -> Page:
        """At most `size` events after a cursor."""
        async with self._engine.connect() as connection:
            rows = (await connection.execute(page(question, size + 1, after))).all()
        more = len(rows) > size
        rows = rows[:size]
        following = Cursor(rows[-1][0], rows[-1][1]) if more else None
        records: list[Record] = []
        unreadable: list[str] = []
        for _, event_id, payload in rows:
            try:
                records.append(decode(payload))
            except msgspec.DecodeError:
                unreadable.append(event_id)
        return Page(tuple(records), tuple(unreadable), following)

    async def count(self, question: Question) -> int:
        """How many events answer the question."""
        async with self._engine.connect() as connection:
            return int((await connection.execute(total(question))).scalar_one())

    async def one(self, event_id: str) -> Record | None:
        """The event of that id."""
        if not EVENT_ID.match(event_id):
            return None
        found = await self.page(Question(ids=(event_id,)), 1)
        return found.records[0] if found.records else None

    async def stream(self, question: Question) -> AsyncIterator[Page]:
        """All of them, a page at a time: no long transaction, and one page in memory."""
        after: Cursor | None = None
        while True:
            found = await self.page(question, _STREAM_PAGE, after)
            if found.records or found.unreadable:
                yield found
            if found.following is None:
                return
            after = found.following

    async def chain_status(self) -> ChainStatus:
        """What is sealed, and since when not."""
        async with self._engine.connect() as connection:
            newest = (
                await connection.execute(
                    select(CheckpointRow.number, CheckpointRow.made, CheckpointRow.through_seq)
                    .order_by(CheckpointRow.number.desc())
                    .limit(1)
                )
            ).first()
            through = newest.through_seq if newest else 0
            after = select(func.count()).select_from(Event).where(Event.seq > through)
            waiting = int((await connection.execute(after)).scalar_one())
        return ChainStatus(waiting, newest.number if newest else 0, newest.made if newest else None)
