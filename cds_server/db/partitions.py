"""The months of `events` on PostgreSQL: which there are, and those that will be needed, made in time.

A month is a partition ``events_YYYY_MM`` (UTC); ``events_unfiled`` takes every row no month is there
for, so nothing is ever refused.  The work is done by the database's own function (revision 0002), which
runs with its owner's rights: the server's role needs no right to create tables.  SQLite has no
partitions; there all of this does nothing.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

AHEAD = 3
"""Months after the present one for which there is always a partition."""


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition of `events`: its name, bounds as PostgreSQL writes them, rows (estimated), bytes."""

    name: str
    bounds: str
    rows: int
    size: int


def months_ahead(now: datetime, count: int = AHEAD) -> list[date]:
    """The first day of the month of `now` (UTC) and of the `count` after it."""
    first = now.astimezone(UTC).year * 12 + now.astimezone(UTC).month - 1
    return [date(month // 12, month % 12 + 1, 1) for month in range(first, first + count + 1)]


async def make_ahead(engine: AsyncEngine, now: datetime) -> dict[date, str]:
    """Sees to it that this month and the next have partitions; several processes may call it at once.

    Returns: for each month ``present``, ``added``, or ``unfiled``: rows of that month are in
    ``events_unfiled`` already (nobody made the partition in time) and the month stays there.

    Raises:
        sqlalchemy.exc.SQLAlchemyError, OSError: the database cannot be reached or refuses.
    """
    if engine.dialect.name != "postgresql":
        return {}
    found: dict[date, str] = {}
    for month in months_ahead(now):
        # One transaction each: a new partition locks the table for an instant, no longer.
        async with engine.begin() as connection:
            result = await connection.execute(text("SELECT cds_add_event_month(:month)"), {"month": month})
            found[month] = str(result.scalar_one())
    return found


async def partitions(engine: AsyncEngine) -> list[Partition]:
    """The partitions of `events`, by name; none on SQLite."""
    if engine.dialect.name != "postgresql":
        return []
    query = text(
        "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid), greatest(c.reltuples, 0)::bigint, "
        "pg_total_relation_size(c.oid) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'events'::regclass ORDER BY c.relname"
    )
    async with engine.connect() as connection:
        return [Partition(*row) for row in await connection.execute(query)]
