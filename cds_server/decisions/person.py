"""Everything that is held of one patient, gathered from all tables and all key rotations.

Reads only.  What cannot be opened any more is named with its reason, never left out in silence.
"""

from collections.abc import AsyncIterator, Sequence

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from cds_server.audit import CardFeedback, Decision
from cds_server.audit.events import decode
from cds_server.db.models import Event, FeedbackRow, ShownCardRow
from cds_server.db.models_decisions import DestructionRow

_PAGE = 200


class Person:
    """One patient's rows; `pseudonyms` are those under all key numbers (and all systems that are meant)."""

    def __init__(self, engine: AsyncEngine, pseudonyms: Sequence[str]) -> None:
        self._engine = engine
        self._pseudonyms = pseudonyms

    async def events(self) -> AsyncIterator[tuple[str, Decision | None]]:
        """Every audit event about the patient, oldest first: its JSON as stored, and the decision it is."""
        last = 0
        while True:
            query = (
                select(Event.seq, Event.payload)
                .where(Event.patient.in_(self._pseudonyms), Event.seq > last)
                .order_by(Event.seq)
                .limit(_PAGE)
            )
            async with self._engine.connect() as connection:
                rows = (await connection.execute(query)).all()
            if not rows:
                return
            for row in rows:
                record = decode(row.payload)
                yield row.payload, record if isinstance(record, Decision) else None
            last = rows[-1].seq

    async def feedback(self) -> AsyncIterator[CardFeedback]:
        """What clinicians said of cards that were shown for the patient, oldest first."""
        cards = (
            select(ShownCardRow.uuid)
            .join(Event, Event.event_id == ShownCardRow.event_id)
            .where(Event.patient.in_(self._pseudonyms))
        )
        last = 0
        while True:
            query = (
                select(FeedbackRow.seq, FeedbackRow.payload)
                .where(FeedbackRow.card.in_(cards), FeedbackRow.seq > last)
                .order_by(FeedbackRow.seq)
                .limit(_PAGE)
            )
            async with self._engine.connect() as connection:
                rows = (await connection.execute(query)).all()
            if not rows:
                return
            for row in rows:
                record = decode(row.payload)
                if isinstance(record, CardFeedback):
                    yield record
            last = rows[-1].seq

    async def destructions(self) -> list[bytes]:
        """The erasures that were done before, as JSON."""
        query = (
            select(DestructionRow.recorded, DestructionRow.reason, DestructionRow.subject)
            .where(DestructionRow.subject.in_(self._pseudonyms))
            .order_by(DestructionRow.seq)
        )
        async with self._engine.connect() as connection:
            rows = (await connection.execute(query)).all()
        return [msgspec.json.encode(dict(row._mapping)) for row in rows]
