"""Everything that is held of one patient, gathered from all tables and all key rotations.

Reads only.  What cannot be opened any more is named with its reason, never left out in silence.
"""

from collections.abc import AsyncIterator, Sequence

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from cds_server.audit import CardFeedback
from cds_server.audit.events import Record, decode
from cds_server.db.models import Event, FeedbackRow, ShownCardRow
from cds_server.db.models_decisions import DestructionRow
from cds_server.decisions.subjects import events_of, everywhere
from cds_server.privacy import parts

_PAGE = 200


class Person:
    """One patient's rows; `subjects` (`decisions.subjects`) are those under all key numbers."""

    def __init__(self, engine: AsyncEngine, subjects: Sequence[str]) -> None:
        self._engine = engine
        self._subjects = subjects

    async def events(self) -> AsyncIterator[tuple[str, Record]]:
        """Every audit event about the patient, oldest first: its JSON as stored, and what it says."""
        last = 0
        while True:
            query = (
                select(Event.seq, Event.payload)
                .where(events_of(self._subjects), Event.seq > last)
                .order_by(Event.seq)
                .limit(_PAGE)
            )
            async with self._engine.connect() as connection:
                rows = (await connection.execute(query)).all()
            if not rows:
                return
            for row in rows:
                yield row.payload, decode(row.payload)
            last = rows[-1].seq

    async def feedback(self) -> AsyncIterator[CardFeedback]:
        """What clinicians said of cards that were shown for the patient, oldest first."""
        cards = (
            select(ShownCardRow.uuid)
            .join(Event, Event.event_id == ShownCardRow.event_id)
            .where(events_of(self._subjects))
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
        orders = {everywhere(parts(subject)[0]) for subject in self._subjects}
        query = (
            select(DestructionRow.recorded, DestructionRow.reason, DestructionRow.subject)
            .where(DestructionRow.subject.in_([*self._subjects, *orders]))
            .order_by(DestructionRow.seq)
        )
        async with self._engine.connect() as connection:
            rows = (await connection.execute(query)).all()
        return [msgspec.json.encode(dict(row._mapping)) for row in rows]
