"""Reading what was kept: an event, its sealed decision, the data key, and why one of them is not there.

Queries only; nothing here decides who may read.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from cds_server.audit import DataKey, Decision, SealedDecision
from cds_server.audit.events import decode
from cds_server.db.models import Event
from cds_server.db.models_decisions import DestructionRow, PatientKeyRow, StoredDecisionRow
from cds_server.decisions.subjects import everywhere
from cds_server.privacy import parts

DECISIONS = ("hook-call", "assess")
"""What `events.action` holds for a decision."""


class Destroyed(msgspec.Struct, frozen=True):
    """When and why something was destroyed: ``erasure``, ``retention``."""

    reason: str
    recorded: datetime


class Shelf:
    """Reads kept decisions through an engine."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def decision(self, event_id: str) -> Decision | None:
        """The audit event of a decision; `None` when there is none of that id, or it is of something else."""
        query = select(Event.payload).where(Event.event_id == event_id)
        async with self._engine.connect() as connection:
            payload = (await connection.execute(query)).scalar()
        record = decode(payload) if payload is not None else None
        return record if isinstance(record, Decision) else None

    async def latest(self, count: int) -> list[str]:
        """The ids of the newest answered decisions, newest first."""
        query = (
            select(Event.event_id)
            .where(Event.action.in_(DECISIONS), Event.status == 200)
            .order_by(Event.recorded.desc(), Event.seq.desc())
            .limit(count)
        )
        async with self._engine.connect() as connection:
            return list((await connection.execute(query)).scalars())

    async def sealed(self, event_id: str) -> SealedDecision | None:
        """What is kept of a decision."""
        query = select(StoredDecisionRow.__table__).where(StoredDecisionRow.event_id == event_id)
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else SealedDecision(**row._mapping)

    async def keys(self, key_ids: Sequence[str]) -> dict[str, DataKey]:
        """The wrapped data keys of those ids, as far as they are there."""
        query = select(PatientKeyRow.__table__).where(PatientKeyRow.key_id.in_(key_ids))
        async with self._engine.connect() as connection:
            return {row.key_id: DataKey(**row._mapping) for row in await connection.execute(query)}

    async def destroyed(self, subject: str, made: datetime | None) -> Destroyed | None:
        """The first order to destroy what is of a subject and was made then (whenever: `None`)."""
        query = select(DestructionRow.reason, DestructionRow.recorded).order_by(DestructionRow.seq).limit(1)
        theirs = DestructionRow.subject.in_((subject, everywhere(parts(subject)[0])))
        if made is None:
            query = query.where(theirs)
        else:
            query = query.where(DestructionRow.up_to >= made, or_(theirs, DestructionRow.subject.is_(None)))
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else Destroyed(row[0], row[1])
