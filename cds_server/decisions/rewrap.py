"""Wrapping the data keys anew after the master key was rotated; what they seal stays as it is."""

from collections.abc import AsyncIterator

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from cds_server.audit import DataKey
from cds_server.db.models_decisions import PatientKeyRow
from cds_server.decisions.keys import DataKeys

BATCH = 500


async def waiting(engine: AsyncEngine, current: int) -> int:
    """How many data keys are wrapped under another master key than number `current`."""
    query = select(func.count()).select_from(PatientKeyRow).where(PatientKeyRow.master != current)
    async with engine.connect() as connection:
        return int((await connection.execute(query)).scalar_one())


async def rewrap_all(engine: AsyncEngine, keys: DataKeys, current: int) -> AsyncIterator[int]:
    """Wrap every data key under the current master key, batch by batch; gives the size of each.

    May be broken off and begun again.

    Raises:
        DecryptionFailed: a key's own master key is not in the ring; those before it are done.
    """
    last = ""
    while True:
        async with engine.begin() as connection:
            query = (
                select(PatientKeyRow.__table__)
                .where(PatientKeyRow.master != current, PatientKeyRow.key_id > last)
                .order_by(PatientKeyRow.key_id)
                .limit(BATCH)
            )
            rows = [DataKey(**row._mapping) for row in await connection.execute(query)]
            if not rows:
                return
            last = rows[-1].key_id
            changes = [
                {"the_key": old.key_id, "was": old.wrapped, "new": new.wrapped, "number": new.master}
                for old in rows
                if (new := keys.rewrap(old)) is not None
            ]
            if changes:
                await connection.execute(
                    update(PatientKeyRow)
                    .where(PatientKeyRow.key_id == bindparam("the_key"))
                    .where(PatientKeyRow.wrapped == bindparam("was"))
                    .values(wrapped=bindparam("new"), master=bindparam("number")),
                    changes,
                )
        yield len(rows)
