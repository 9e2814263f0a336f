"""The events from before the chain: the first checkpoint alone holds them, in blocks."""

from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy import Select, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from cds_server.audit.checkpoints import BLOCK, Body, Unchained
from cds_server.audit.findings import Kind, Say
from cds_server.audit.record_check import NAMED, RecordCheck
from cds_server.audit.sealing import read_unchained
from cds_server.db import writer
from cds_server.db.models import Event

_PAGE = 2_000


class UnchainedCheck:
    """Reads them in pages, and again for the digests of the blocks.

    Args:
        records: compares each with what repeats it.
        counted: called with the number of events read since the last call.
    """

    def __init__(
        self, connection: AsyncConnection, records: RecordCheck, say: Say, counted: Callable[[int], None]
    ) -> None:
        self._connection = connection
        self._records = records
        self._say = say
        self._counted = counted

    async def run(self, bodies: Sequence[Body], since: datetime | None) -> str | None:
        """Says what is wrong; what it returns is worth knowing and no fault.

        Args:
            bodies: the checkpoints that hold, oldest first.
            since: what checkpoints before this moment sealed is taken as verified then.
        """
        sealed = next((body.unchained for body in bodies if body.unchained is not None), None)
        if since is not None and sealed is not None and bodies[0].made < since:
            await self._late(sealed.last_seq)
            return None
        await self._columns()
        found = await read_unchained(self._connection)
        if sealed is None and not bodies and found is not None:
            return f"{found.count} events from before the chain: no checkpoint covers them yet"
        last = sealed.last_seq if sealed else 0
        if found is not None and found.last_seq > last:
            await self._late(last)
        if sealed is not None:
            await self._blocks(sealed, found)
        return None

    async def _late(self, last: int) -> None:
        """None can have come after the first checkpoint."""
        query = select(Event.event_id).where(Event.strand.is_(None), Event.seq > last).limit(NAMED)
        for record_id in (await self._connection.execute(query)).scalars():
            self._say("inserted", f"event {record_id}", "has no place in the chain")

    async def _columns(self) -> None:
        seq = 0
        while True:
            query = text(
                f"SELECT seq, {writer.EVENT_COLUMNS} FROM events WHERE strand IS NULL AND seq > :seq "  # noqa: S608
                "ORDER BY seq LIMIT :page"
            )
            page = (await self._connection.execute(query, {"seq": seq, "page": _PAGE})).all()
            if not page:
                return
            records = [self._records.read(row[1:]) for row in page]
            await self._records.projections(self._connection, records)
            seq = page[-1].seq
            self._counted(len(page))

    async def _blocks(self, sealed: Unchained, found: Unchained | None) -> None:
        blocks = found.blocks if found else ()
        wrong = [n for n, block in enumerate(sealed.blocks) if n >= len(blocks) or blocks[n] != block]
        if wrong and (
            found is None or found.last_seq <= sealed.last_seq or wrong[0] < len(sealed.blocks) - 1
        ):
            await self._say_block(wrong[0], sealed.count, found.count if found else 0)

    async def _say_block(self, block: int, sealed: int, found: int) -> None:
        ids = (await self._connection.execute(_of_block(block))).scalars().all()
        names = f"from {ids[0]} to {ids[-1]}" if ids else "at the end"
        kind: Kind = "removed" if found < sealed else "inserted" if found > sealed else "changed"
        self._say(
            kind,
            f"events before the chain, block {block + 1}",
            f"one or more of the events {names} are not what the first checkpoint sealed "
            f"({sealed} events then, {found} now)",
        )


def _of_block(block: int) -> Select[str]:
    chosen = select(Event.event_id).where(Event.strand.is_(None)).order_by(Event.seq)
    return chosen.offset(block * BLOCK).limit(BLOCK)
