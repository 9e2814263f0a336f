"""Makes checkpoints: of this process's strand from its own memory, of dead processes' as they are found.

Each goes into the table `audit_checkpoints` (append-only) and, as one line, into
``<var_dir>/audit/checkpoints.jsonl``.  Several processes may seal at once: the number is the primary
key, who comes second builds on the first.
"""

import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from cds_server.audit.chain import Strand, strand_name
from cds_server.audit.checkpoints import (
    BLOCK,
    Body,
    Checkpoint,
    Head,
    Unchained,
    signed,
    unchained_blocks,
)
from cds_server.audit.signing import Signer
from cds_server.clock import Clock
from cds_server.db.models import CheckpointRow, Event

FILE = "audit/checkpoints.jsonl"
_REMEMBERED = 500  # newest checkpoints read to know what is sealed already
_PAGE = 20 * BLOCK


class Sealer:
    """Seals what is in the database.

    Args:
        interval: time between two checkpoints of a live process; a strand that nobody has sealed for
            two of them has lost its writer and is sealed as it is found.
    """

    def __init__(
        self, engine: AsyncEngine, signer: Signer, var_dir: Path, *, interval: timedelta, clock: Clock
    ) -> None:
        self._engine = engine
        self._signer = signer
        self._file = var_dir / FILE
        self._interval = interval
        self._clock = clock

    async def seal(self, own: Strand | None, *, closed: bool = False) -> Body | None:
        """Makes a checkpoint; `None` when there is nothing new.

        Args:
            own: this process's strand; all of it must be in the database (not in the spool).
            closed: nothing will follow in it.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the database or the file cannot be written.
        """
        unchained = await self._unchained()
        while True:
            async with self._engine.connect() as connection:
                body = await self._body(connection, own, closed, unchained)
            if body is None:
                return None
            checkpoint = signed(body, self._signer)
            if await self._store(body, checkpoint):
                self._append(checkpoint)
                return body

    async def _body(
        self, connection: AsyncConnection, own: Strand | None, closed: bool, unchained: Unchained | None
    ) -> Body | None:
        now = self._clock()
        newest = await _newest(connection)
        bodies = [checkpoint.read() for checkpoint in newest]
        sealed: dict[str, tuple[Head, datetime]] = {}
        for body in bodies:
            sealed.update({head.strand: (head, body.made) for head in body.strands})
        heads = await self._found(connection, sealed, bodies, own, now)
        if own is not None and own.count:
            mine = Head.of(own, closed=closed)
            last = sealed.get(mine.strand)
            if last is None or msgspec.structs.replace(last[0], by="writer") != mine:
                heads.append(mine)
        if not heads and unchained is None:
            return None
        through = (await connection.execute(select(func.max(Event.seq)))).scalar()
        return Body(
            number=bodies[-1].number + 1 if bodies else 1,
            made=now,
            previous=newest[-1].digest if newest else "",
            key=self._signer.key_id,
            through_seq=through or 0,
            strands=tuple(sorted(heads, key=lambda head: head.strand)),
            unchained=unchained,
        )

    async def _found(
        self,
        connection: AsyncConnection,
        sealed: dict[str, tuple[Head, datetime]],
        bodies: Sequence[Body],
        own: Strand | None,
        now: datetime,
    ) -> list[Head]:
        """Strands that have grown and that nobody seals: their writers are gone."""
        quiet = now - 2 * self._interval
        # Older than any commit still on its way, and than any strand passed over because it seemed alive.
        before = [body.through_seq for body in bodies if body.made < now - 4 * self._interval]
        first = before[-1] if before else 0
        grown = (
            select(Event.strand, func.max(Event.place), func.max(Event.recorded))
            .where(Event.seq > first, Event.strand.is_not(None))
            .group_by(Event.strand)
        )
        heads = []
        for strand, count, recorded in (await connection.execute(grown)).all():
            if strand is None or count is None:
                continue  # the type says they could be; the query that they are not
            if own is not None and strand == own.number:
                continue
            last = sealed.get(strand_name(strand))
            if last is not None and (last[0].count >= count or last[1] > quiet):
                continue
            if last is None and recorded > quiet:
                continue
            where = (Event.strand == strand, Event.place == count)
            link = (await connection.execute(select(Event.link).where(*where))).scalars().first()
            if link is not None:
                heads.append(Head(strand_name(strand), count, link.hex(), "found"))
        return heads

    async def _unchained(self) -> Unchained | None:
        """The records from before the chain, if no checkpoint covers them yet."""
        async with self._engine.connect() as connection:
            if (await connection.execute(select(CheckpointRow.number).limit(1))).first() is not None:
                return None
            return await read_unchained(connection)

    async def _store(self, body: Body, checkpoint: Checkpoint) -> bool:
        row = {
            "number": body.number,
            "made": body.made,
            "through_seq": body.through_seq,
            "body": checkpoint.body,
            "signature": checkpoint.signature,
        }
        dialect = sqlite if self._engine.dialect.name == "sqlite" else postgresql
        statement = dialect.insert(CheckpointRow).values(row).on_conflict_do_nothing()
        async with self._engine.begin() as connection:
            return (await connection.execute(statement)).rowcount == 1

    def _append(self, checkpoint: Checkpoint) -> None:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        line = msgspec.json.encode(checkpoint) + b"\n"
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if os.write(descriptor, line) != len(line):
                raise OSError("short write to the file of checkpoints")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


async def read_unchained(connection: AsyncConnection) -> Unchained | None:
    """The digests of the records that have no place in the chain; `None` when there are none."""
    blocks: list[str] = []
    count = last = 0
    while True:
        page = (
            await connection.execute(
                select(Event.seq, Event.event_id, Event.payload)
                .where(Event.seq > last, Event.strand.is_(None))
                .order_by(Event.seq)
                .limit(_PAGE)
            )
        ).all()
        if not page:
            return Unchained(count, last, tuple(blocks)) if count else None
        # A page is a whole number of blocks, so each can be digested by itself.
        found, digests = unchained_blocks((row[1], row[2]) for row in page)
        count += found
        blocks.extend(digests)
        last = page[-1][0]


async def _newest(connection: AsyncConnection) -> list[Checkpoint]:
    """The newest checkpoints, oldest first."""
    query = (
        select(CheckpointRow.body, CheckpointRow.signature)
        .order_by(CheckpointRow.number.desc())
        .limit(_REMEMBERED)
    )
    return [Checkpoint(*row) for row in reversed((await connection.execute(query)).all())]
