"""Destroying what was kept: data keys first, then the ciphertexts that nobody can open any more.

Every destruction is ordered by a row of its own before anything goes, and the database lets nothing go
without one (`migrations`).  An order also stands against what comes late: a key that arrives from a spool
after its patient was erased is not stored any more.

Deleted rows must also leave the files.  SQLite overwrites them (``secure_delete``) and its log is emptied;
PostgreSQL frees them with VACUUM.  Backups and replicas keep what they had: `docs/privacy.md`.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Select, delete, func, insert, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from cds_server.audit import new_id
from cds_server.db.models import Event, ShownCardRow
from cds_server.db.models_decisions import DestructionRow, PatientKeyRow, StoredDecisionRow
from cds_server.decisions.subjects import covers, events_of, in_care
from cds_server.feedback.store import subject_of
from cds_server.privacy import parts

BATCH = 500


class Amount(msgspec.Struct, frozen=True):
    """How much there is, or went: data keys and kept decisions."""

    keys: int
    decisions: int

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.keys + other.keys, self.decisions + other.decisions)


NOTHING = Amount(0, 0)


_MAY_VACUUM = (
    "SELECT bool_and(pg_has_role(current_user, c.relowner, 'USAGE') OR CASE WHEN "
    "current_setting('server_version_num')\\:\\:int >= 170000 THEN has_table_privilege(c.oid, 'MAINTAIN') "
    "ELSE false END) FROM pg_class c WHERE c.oid IN "
    "('patient_keys'\\:\\:regclass, 'stored_decisions'\\:\\:regclass)"
)


class Destruction:
    """Destroys through an engine."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def subjects_of(self, subjects: Sequence[str]) -> list[str]:
        """Everything that data keys of a patient are for: the subjects, whom they cover, and shown cards."""
        cards = (
            select(ShownCardRow.uuid)
            .join(Event, Event.event_id == ShownCardRow.event_id)
            .where(events_of(subjects))
            .distinct()
        )
        async with self._engine.connect() as connection:
            shown = list((await connection.execute(cards)).scalars())
        known = await in_care(self._engine, [parts(subject)[0] for subject in subjects])
        covered = [one for one in known if any(covers(subject, one) for subject in subjects)]
        return [*dict.fromkeys((*subjects, *covered)), *(subject_of(uuid) for uuid in shown)]

    async def amount(self, subjects: Sequence[str]) -> Amount:
        """What is kept of the subjects now."""
        total = NOTHING
        async with self._engine.connect() as connection:
            for part in _parts(subjects):
                keys = select(func.count()).where(PatientKeyRow.subject.in_(part))
                decisions = select(func.count()).where(StoredDecisionRow.subject.in_(part))
                total += Amount(
                    (await connection.execute(keys)).scalar_one(),
                    (await connection.execute(decisions)).scalar_one(),
                )
        return total

    async def erase_all(
        self, subjects: Sequence[str], now: datetime, *, up_to: datetime | None = None
    ) -> Amount:
        """`erase` the subjects, whom they cover, and their cards; again for systems stored meanwhile.

        Once the first order stands, nothing of before it is stored any more, so twice is enough.
        """
        total, done = NOTHING, frozenset[str]()
        for _ in range(2):
            new = [one for one in await self.subjects_of(subjects) if one not in done]
            if new:
                total += await self.erase(new, now, up_to=up_to)
                done |= frozenset(new)
        return total

    async def erase(self, subjects: Sequence[str], now: datetime, *, up_to: datetime | None = None) -> Amount:
        """Destroy everything kept of the subjects.

        Args:
            up_to: only what is not newer (for doing an erasure again after a restore); default: all.
        """
        total = NOTHING
        ordered: list[tuple[Sequence[str], datetime]] = []
        for part in _parts(subjects):  # all keys first: from then on nothing can be read
            async with self._engine.begin() as connection:
                await self._overwriting(connection)
                await self._no_key_meanwhile(connection)
                until = up_to or await self._newest(connection, part, now)
                ordered.append((part, until))
                await connection.execute(
                    insert(DestructionRow), [_order("erasure", subject, until, now) for subject in part]
                )
                gone = await connection.execute(
                    delete(PatientKeyRow).where(
                        PatientKeyRow.subject.in_(part), PatientKeyRow.created <= until
                    )
                )
                total += Amount(gone.rowcount, 0)
        for part, until in ordered:
            wanted = select(StoredDecisionRow.event_id).where(
                StoredDecisionRow.subject.in_(part), StoredDecisionRow.recorded <= until
            )
            async for count in self._delete_decisions(wanted):
                total += Amount(0, count)
        return total

    async def expired(self, before: datetime, held: Sequence[str]) -> tuple[int, int, int]:
        """Kept decisions older than `before`: how many may go, how many are held; and data keys that old."""
        old = select(func.count()).select_from(StoredDecisionRow).where(StoredDecisionRow.recorded < before)
        keys = select(func.count()).select_from(PatientKeyRow).where(PatientKeyRow.created < before)
        async with self._engine.connect() as connection:
            free = (await connection.execute(old.where(StoredDecisionRow.subject.not_in(held)))).scalar_one()
            every = (await connection.execute(old)).scalar_one()
            return free, every - free, (await connection.execute(keys)).scalar_one()

    async def expire(self, before: datetime, held: Sequence[str], now: datetime) -> AsyncIterator[Amount]:
        """Destroy what is older than `before` and not of a held subject, batch by batch; gives each batch.

        May be broken off at any time and begun again.  A data key goes when nothing that is kept needs it.
        """
        async with self._engine.begin() as connection:
            await connection.execute(insert(DestructionRow), [_order("retention", None, before, now)])
        wanted = select(StoredDecisionRow.event_id).where(
            StoredDecisionRow.recorded < before, StoredDecisionRow.subject.not_in(held)
        )
        async for count in self._delete_decisions(wanted):
            yield Amount(0, count)
        protected = frozenset(await self.subjects_of(held)) if held else frozenset()
        last = ""
        while True:
            async with self._engine.begin() as connection:
                await self._overwriting(connection)
                old = (
                    select(PatientKeyRow.key_id, PatientKeyRow.subject)
                    .where(PatientKeyRow.created < before, PatientKeyRow.key_id > last)
                    .order_by(PatientKeyRow.key_id)
                    .limit(BATCH)
                )
                rows = (await connection.execute(old)).all()
                if not rows:
                    return
                last = rows[-1].key_id
                free = [row.key_id for row in rows if row.subject not in protected]
                gone = await connection.execute(
                    delete(PatientKeyRow).where(
                        PatientKeyRow.key_id.in_(free),
                        ~select(StoredDecisionRow.event_id)
                        .where(StoredDecisionRow.key_id == PatientKeyRow.key_id)
                        .exists(),
                    )
                )
            yield Amount(gone.rowcount, 0)

    async def scrub(self) -> str | None:
        """Take what was deleted out of the database's files; a text says why when that was not possible."""
        sqlite = self._engine.dialect.name == "sqlite"
        try:
            async with self._engine.connect() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                if sqlite:
                    row = (await connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))).one()
                    return "its log is in use and will be emptied later" if row[0] else None
                if not (await connection.execute(text(_MAY_VACUUM))).scalar_one():
                    # PostgreSQL would pass over the tables with a warning nobody reads.
                    return (
                        "this role may not; let the tables' owner run VACUUM patient_keys, stored_decisions"
                    )
                await connection.execute(text("SET statement_timeout = 0"))
                await connection.execute(text("VACUUM patient_keys, stored_decisions"))
        except SQLAlchemyError as error:
            return f"{type(error).__name__}; let the tables' owner run VACUUM patient_keys, stored_decisions"
        return None

    async def _delete_decisions(self, wanted: Select[Any]) -> AsyncIterator[int]:
        while True:
            async with self._engine.begin() as connection:
                await self._overwriting(connection)
                ids = (await connection.execute(wanted.limit(BATCH))).scalars().all()
                if not ids:
                    return
                gone = await connection.execute(
                    delete(StoredDecisionRow).where(StoredDecisionRow.event_id.in_(ids))
                )
            yield gone.rowcount

    async def _overwriting(self, connection: AsyncConnection) -> None:
        if connection.dialect.name == "sqlite":
            await connection.execute(text("PRAGMA secure_delete = ON"))

    @staticmethod
    async def _no_key_meanwhile(connection: AsyncConnection) -> None:
        """Until this transaction ends: a key being stored now would neither see the order nor be seen by it.

        Waits for the transactions that are storing keys; SQLite has one writer at a time anyway.
        """
        if connection.dialect.name == "postgresql":
            await connection.execute(text("LOCK TABLE patient_keys IN SHARE ROW EXCLUSIVE MODE"))

    @staticmethod
    async def _newest(connection: AsyncConnection, subjects: Sequence[str], now: datetime) -> datetime:
        """Now, or the time of the newest row where another machine's clock is ahead."""
        keys = select(func.max(PatientKeyRow.created)).where(PatientKeyRow.subject.in_(subjects))
        kept = select(func.max(StoredDecisionRow.recorded)).where(StoredDecisionRow.subject.in_(subjects))
        times = [(await connection.execute(query)).scalar() for query in (keys, kept)]
        return max([now, *(found for found in times if found is not None)])


def _order(reason: str, subject: str | None, up_to: datetime, now: datetime) -> dict[str, Any]:
    return {
        "destruction_id": new_id(),
        "recorded": now,
        "reason": reason,
        "subject": subject,
        "up_to": up_to,
    }


def _parts(subjects: Sequence[str]) -> list[Sequence[str]]:
    return [subjects[start : start + BATCH] for start in range(0, len(subjects), BATCH)]
