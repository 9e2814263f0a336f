"""Verifies the whole trail: checkpoints, every strand, and the columns and tables that repeat the records.

Reads, in pages, and writes nothing.  Here the rows come from the database; what is wrong is found by
`checkpoint_check`, by `strand_check` in the order of one strand, by `record_check` in the columns and tables,
and by `unchained_check` in what is older than the chain.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from cds_server.audit.chain import Strand, strand_name
from cds_server.audit.checkpoint_check import CheckpointCheck, Stored, seals_of
from cds_server.audit.checkpoints import Body, Checkpoint
from cds_server.audit.events import Access, Record
from cds_server.audit.findings import Finding, Kind
from cds_server.audit.record_check import RecordCheck, chained_row
from cds_server.audit.signing import PublicKeys, opening_bytes
from cds_server.audit.strand_check import Row, Seal, StrandCheck
from cds_server.audit.unchained_check import UnchainedCheck
from cds_server.db import writer
from cds_server.db.models import CheckpointRow, Event

_PAGE = 2_000
_AFTER_ALL = 2**62  # of `seq`: nothing at a verified place is read again


@dataclass(slots=True)
class Report:
    """What a verification found.  `notices` are worth knowing and no fault."""

    events: int = 0
    strands: int = 0
    checkpoints: int = 0
    sealed_events: int = 0
    newest_checkpoint: datetime | None = None
    findings: list[Finding] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether everything is as it was recorded."""
        return not self.findings


class Verifier:
    """One verification.

    Args:
        keys: public keys of the site.
        carried: checkpoints from outside the database.
        refused: SHA-256 (hexadecimal) of the records the database refused and the spool kept.
        since: what checkpoints before this moment sealed is taken as verified then.
        progress: called with the number of events read since the last call.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        keys: PublicKeys,
        *,
        carried: Iterable[Checkpoint] = (),
        refused: Iterable[str] = (),
        since: datetime | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._engine = engine
        self._keys = keys
        self._carried = tuple(carried)
        self._since = since
        self._progress = progress
        self._report = Report()
        sqlite = engine.dialect.name == "sqlite"
        self._records = RecordCheck(self._say, text_times=sqlite, refused=refused)

    async def run(self) -> Report:
        """Verifies all of it.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the database cannot be read.
        """
        bodies = await self._checkpoints()
        seals = seals_of(bodies)
        async with self._engine.connect() as connection:
            grouped = select(Event.strand).where(Event.strand.is_not(None)).distinct()
            stored = {
                number for number in (await connection.execute(grouped)).scalars() if number is not None
            }
        numbers = sorted(stored | {int(name, 16) for name in seals})
        self._report.strands = len(numbers)
        for number in numbers:
            await self._strand(number, seals.get(strand_name(number), []), bodies)
        async with self._engine.connect() as connection:
            unchained = UnchainedCheck(connection, self._records, self._say, self._counted)
            notice = await unchained.run(bodies, self._since)
            if notice is not None:
                self._report.notices.append(notice)
        if self._since is None:
            async with self._engine.connect() as connection:
                await self._records.leftovers(connection)
        return self._report

    async def _checkpoints(self) -> list[Body]:
        async with self._engine.connect() as connection:
            columns = [getattr(CheckpointRow, name) for name in Stored._fields]
            found = (await connection.execute(select(*columns).order_by(CheckpointRow.number))).all()
        rows = [Stored(*row) for row in found]
        bodies = CheckpointCheck(self._keys, self._say).read(rows, self._carried)
        self._report.checkpoints = len(rows)
        if bodies:
            self._report.newest_checkpoint = bodies[-1].made
        return bodies

    async def _strand(self, number: int, seals: list[Seal], bodies: Sequence[Body]) -> None:
        start = Strand.empty(number)
        if self._since is not None:
            made = {body.number: body.made for body in bodies}
            before = [seal for seal in seals if made[seal.checkpoint] < self._since]
            if before:
                start = Strand(number, before[-1].count, before[-1].head)
        check = StrandCheck(start, seals)
        async with self._engine.connect() as connection:
            if start.count:
                await self._still_there(connection, start)
            place, seq, first = start.count, _AFTER_ALL, start.count == 0
            while True:
                query = text(
                    f"SELECT seq, {writer.EVENT_COLUMNS} FROM events WHERE strand = :strand "  # noqa: S608
                    "AND (place > :place OR (place = :place AND seq > :seq)) ORDER BY place, seq LIMIT :page"
                )
                values = {"strand": number, "place": place, "seq": seq, "page": _PAGE}
                page = (await connection.execute(query, values)).all()
                if not page:
                    break
                records = [self._records.read(row[1:]) for row in page]
                if first:
                    self._vouched(number, chained_row(page[0], records[0]), records[0], len(page))
                    first = False
                check.read(chained_row(row, record) for row, record in zip(page, records, strict=True))
                await self._records.repeated(connection, records)
                await self._records.projections(
                    connection, [record for record in records if record is not None]
                )
                place, seq = page[-1].place, page[-1].seq
                self._counted(len(page))
        self._report.findings += check.finish()
        self._report.sealed_events += seals[-1].count if seals else 0
        if not seals and check.first_id is not None:
            self._report.notices.append(
                f"strand {strand_name(number)}: not sealed yet, begins with event {check.first_id}"
            )

    async def _still_there(self, connection: AsyncConnection, start: Strand) -> None:
        query = select(Event.link).where(Event.strand == start.number, Event.place == start.count)
        link = (await connection.execute(query)).scalars().first()
        if link != start.head:
            self._say(
                "tail removed" if link is None else "changed",
                f"strand {strand_name(start.number)}",
                f"place {start.count} is not what a checkpoint sealed there",
            )

    def _vouched(self, number: int, row: Row, record: Record | None, count: int) -> None:
        """The first record of a strand says, signed, that its writer had the site's key."""
        name = strand_name(number)
        if row.place == 1 and isinstance(record, Access) and record.activity == "audit-started":
            detail = dict(record.detail)
            signature = detail.get("signature", "")
            if detail.get("strand") == name and self._keys.holds(
                detail.get("key", ""), opening_bytes(number), signature
            ):
                return
        more = "" if count < _PAGE else " or more"
        self._say(
            "not vouched for",
            f"strand {name}",
            f"no writer with the site's key opened it: {count}{more} events from {row.record_id} were "
            "inserted, or its first event was changed or removed",
        )

    def _counted(self, count: int) -> None:
        self._report.events += count
        self._progress(count)

    def _say(self, kind: Kind, subject: str, words: str) -> None:
        self._report.findings.append(Finding(kind, subject, words))


async def count_events(engine: AsyncEngine) -> int:
    """How many events there are, for the progress bar."""
    async with engine.connect() as connection:
        return int((await connection.execute(select(func.count()).select_from(Event))).scalar_one())
