"""Verifies the whole trail: checkpoints, every strand, and the columns and tables that repeat the records.

Reads, in pages, and writes nothing.  What is wrong with the order of one strand is found by
`cds_server.audit.strand_check`; here the rows come from the database and the seals from checkpoints, those
of the database and those somebody carried away.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from cds_server.audit import events
from cds_server.audit.chain import Link, Strand, strand_name
from cds_server.audit.checkpoints import Body, Checkpoint, Head
from cds_server.audit.events import Access, Record, Withheld, digest
from cds_server.audit.sealing import read_unchained
from cds_server.audit.signing import PublicKeys, opening_bytes
from cds_server.audit.strand_check import Finding, Row, Seal, StrandCheck, digest_of
from cds_server.db import writer
from cds_server.db.models import CheckpointRow, Event

_PAGE = 2_000
_AFTER_ALL = 2**62  # of `seq`: nothing at a verified place is read again
_NAMED = 20  # rows of one kind that are named one by one
_Columns = Sequence[object]


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
        self._refused = frozenset(refused)
        self._since = since
        self._progress = progress
        self._report = Report()
        self._sqlite = engine.dialect.name == "sqlite"

    async def run(self) -> Report:
        """Verifies all of it.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the database cannot be read.
        """
        bodies = await self._checkpoints()
        seals = _seals(bodies)
        async with self._engine.connect() as connection:
            grouped = select(Event.strand).where(Event.strand.is_not(None)).distinct()
            stored = {
                number for number in (await connection.execute(grouped)).scalars() if number is not None
            }
        numbers = sorted(stored | {int(name, 16) for name in seals})
        self._report.strands = len(numbers)
        for number in numbers:
            await self._strand(number, seals.get(strand_name(number), []), bodies)
        await self._unchained(bodies)
        if self._since is None:
            await self._leftovers()
        return self._report

    # -- checkpoints

    async def _checkpoints(self) -> list[Body]:
        """The checkpoints that hold, oldest first; says which do not."""
        async with self._engine.connect() as connection:
            query = select(CheckpointRow).order_by(CheckpointRow.number)
            rows = (await connection.execute(query)).all()
        stored: dict[int, Checkpoint] = {}
        trusted: dict[int, Body] = {}
        for row in rows:
            checkpoint = Checkpoint(row.body, row.signature)
            stored[row.number] = checkpoint
            body = self._trusted(checkpoint, f"checkpoint {row.number}")
            if body is None:
                continue
            if (body.number, body.made, body.through_seq) != (row.number, row.made, row.through_seq):
                self._say(
                    "checkpoint changed", f"checkpoint {row.number}", "its columns are not what was signed"
                )
            trusted[body.number] = body
        for checkpoint in self._carried:
            body = self._trusted(checkpoint, "a checkpoint carried away")
            if body is None:
                continue
            number = body.number
            if number not in stored:
                self._say(
                    "checkpoint removed",
                    f"checkpoint {number}",
                    f"carried away, made {body.made:%Y-%m-%d %H:%M}Z",
                )
            elif stored[number] != checkpoint:
                self._say(
                    "checkpoint changed", f"checkpoint {number}", "is not the one that was carried away"
                )
            trusted[number] = body
        self._linked(stored, trusted)
        self._report.checkpoints = len(stored)
        if trusted:
            self._report.newest_checkpoint = trusted[max(trusted)].made
        return [trusted[number] for number in sorted(trusted)]

    def _trusted(self, checkpoint: Checkpoint, name: str) -> Body | None:
        if checkpoint.signed_by(self._keys):
            return checkpoint.read()
        try:
            key = checkpoint.read().key
        except msgspec.DecodeError:
            key = ""
        known = (
            "the signature does not hold" if key in self._keys.ids else "signed by a key that is not known"
        )
        self._say("checkpoint forged", name, known)
        return None

    def _linked(self, stored: Mapping[int, Checkpoint], trusted: Mapping[int, Body]) -> None:
        last = max([*stored, *trusted], default=0)
        for number in range(1, last + 1):
            if number not in stored and number not in trusted:
                self._say("checkpoint removed", f"checkpoint {number}", "the next one follows it")
            elif (
                number in trusted
                and number - 1 in stored
                and trusted[number].previous != stored[number - 1].digest
            ):
                self._say("checkpoint changed", f"checkpoint {number - 1}", "the next one names another")

    # -- strands

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
                records = [self._read(row[1:]) for row in page]
                if first:
                    self._vouched(number, page[0], records[0], len(page))
                    first = False
                check.read(self._row(row, record) for row, record in zip(page, records, strict=True))
                await self._repeated(connection, records)
                await self._projections(connection, [record for record in records if record is not None])
                place, seq = page[-1].place, page[-1].seq
                self._report.events += len(page)
                self._progress(len(page))
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

    def _vouched(self, number: int, row: Sequence[object], record: Record | None, count: int) -> None:
        """The first record of a strand says, signed, that its writer had the site's key."""
        name = strand_name(number)
        if row[1 + _PLACE] == 1 and isinstance(record, Access) and record.activity == "audit-started":
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
            f"no writer with the site's key opened it: {count}{more} events from {row[1]} were inserted, or "
            "its first event was changed or removed",
        )

    def _row(self, row: Sequence[object], record: Record | None) -> Row:
        columns = row[1:]
        payload = str(columns[_PAYLOAD])
        link = columns[_LINK]
        withheld = isinstance(record, Withheld)
        return Row(
            seq=int(str(row[0])),
            record_id=str(columns[0]),
            place=int(str(columns[_PLACE])),
            link=bytes(link) if isinstance(link, bytes | memoryview) else b"",
            digest=_hex(record.payload_digest) if isinstance(record, Withheld) else digest_of(payload),
            withheld=withheld,
        )

    def _read(self, columns: _Columns) -> Record | None:
        """The record of a row; says when its columns are not what it says."""
        payload = str(columns[_PAYLOAD])
        name = f"event {columns[0]}"
        try:
            record = events.decode(payload)
            chained = columns[_STRAND] is not None
            link = (
                Link(_int(columns[_STRAND]), _int(columns[_PLACE]), _bytes(columns[_LINK]))
                if chained
                else None
            )
            expected = writer.rows(
                [writer.Entry(record, payload.encode(), link)], text_times=self._sqlite
            ).events[0]
        except (msgspec.DecodeError, writer.RecordRefused, UnicodeEncodeError):
            self._say("changed", name, "is no record any more")
            return None
        # A record from before the chain was filed by the migration.
        wrong = [
            column
            for column, is_, should in zip(_NAMES, columns, expected, strict=True)
            if is_ != should and not (column == "filed" and not chained)
        ]
        if wrong:
            self._say("search column changed", name, f"{', '.join(wrong)}: not what the record says")
        return record

    async def _repeated(self, connection: AsyncConnection, records: Sequence[Record | None]) -> None:
        """A record that is kept elsewhere must be there, and be the one."""
        for record in records:
            if not isinstance(record, Withheld):
                continue
            if record.cause == "refused":
                if record.payload_digest not in self._refused:
                    self._say(
                        "removed",
                        f"event {record.record_id}",
                        "was refused by the database, and is not among the refused records at hand",
                    )
                continue
            query = select(Event.payload).where(Event.event_id == record.record_id)
            payloads = (await connection.execute(query)).scalars().all()
            if record.payload_digest not in {digest(payload.encode()) for payload in payloads}:
                self._say(
                    "changed" if payloads else "removed",
                    f"event {record.record_id}",
                    "was recorded twice, and what is stored is not what was recorded then",
                )

    # -- what repeats the records

    async def _projections(self, connection: AsyncConnection, records: Sequence[Record]) -> None:
        batch = [writer.Entry(record, events.encode(record)) for record in records]
        rows = writer.rows(batch, text_times=self._sqlite)
        ids = [events.identity(record) for record in records]
        tables: tuple[tuple[str, str, Sequence[tuple[object, ...]]], ...] = (
            ("shown_cards", writer.CARD_COLUMNS, rows.cards),
            ("feedback", writer.FEEDBACK_COLUMNS, [row[:-1] for row in rows.feedback]),
            ("feedback_suggestions", writer.SUGGESTION_COLUMNS, rows.suggestions),
        )
        for table, names, expected in tables:
            found = await self._of_events(connection, table, names, ids)
            wanted: dict[object, list[_Columns]] = {}
            for row in expected:
                wanted.setdefault(row[0], []).append(tuple(row))
            for record_id in wanted.keys() | found.keys():
                if sorted(map(repr, wanted.get(record_id, ()))) != sorted(
                    map(repr, found.get(record_id, ()))
                ):
                    self._say(
                        "search column changed", f"event {record_id}", f"{table} is not what the record says"
                    )

    async def _of_events(
        self, connection: AsyncConnection, table: str, names: str, ids: Sequence[str]
    ) -> dict[object, list[_Columns]]:
        columns = names.removesuffix(", payload") if table == "feedback" else names
        key = names.partition(",")[0]
        found: dict[object, list[_Columns]] = {}
        for start in range(0, len(ids), 500):
            part = ids[start : start + 500]
            marks = ", ".join(f":i{n}" for n in range(len(part)))
            query = text(f"SELECT {columns} FROM {table} WHERE {key} IN ({marks})")  # noqa: S608 constants
            for row in await connection.execute(query, {f"i{n}": value for n, value in enumerate(part)}):
                found.setdefault(row[0], []).append(tuple(row))
        return found

    async def _leftovers(self) -> None:
        """Rows beside the events that belong to none."""
        async with self._engine.connect() as connection:
            for table, key in (
                ("shown_cards", "event_id"),
                ("feedback", "feedback_id"),
                ("feedback_suggestions", "feedback_id"),
            ):
                query = text(
                    f"SELECT DISTINCT t.{key} FROM {table} t LEFT JOIN events e ON e.event_id = t.{key} "  # noqa: S608
                    f"WHERE e.event_id IS NULL ORDER BY 1 LIMIT {_NAMED}"
                )
                for (record_id,) in (await connection.execute(query)).all():
                    self._say(
                        "inserted", f"event {record_id}", f"rows in {table} of an event that is not there"
                    )

    # -- before the chain

    async def _unchained(self, bodies: Sequence[Body]) -> None:
        sealed = next((body.unchained for body in bodies if body.unchained is not None), None)
        async with self._engine.connect() as connection:
            if self._since is not None and sealed is not None and bodies[0].made < self._since:
                late = select(Event.event_id).where(Event.strand.is_(None), Event.seq > sealed.last_seq)
                for record_id in (await connection.execute(late.limit(_NAMED))).scalars():
                    self._say("inserted", f"event {record_id}", "has no place in the chain")
                return
            await self._unchained_columns(connection)
            found = await read_unchained(connection)
            last = sealed.last_seq if sealed else 0
            if sealed is None and not bodies and found is not None:
                self._report.notices.append(
                    f"{found.count} events from before the chain: no checkpoint covers them yet"
                )
                return
            if found is not None and found.last_seq > last:
                query = select(Event.event_id).where(Event.strand.is_(None), Event.seq > last)
                for record_id in (await connection.execute(query.limit(_NAMED))).scalars():
                    self._say("inserted", f"event {record_id}", "has no place in the chain")
            if sealed is None:
                return
            blocks = found.blocks if found else ()
            wrong = [n for n, block in enumerate(sealed.blocks) if n >= len(blocks) or blocks[n] != block]
            if wrong and (found is None or found.last_seq <= last or wrong[0] < len(sealed.blocks) - 1):
                await self._say_block(connection, wrong[0], sealed.count, found.count if found else 0)

    async def _unchained_columns(self, connection: AsyncConnection) -> None:
        seq = 0
        while True:
            query = text(
                f"SELECT seq, {writer.EVENT_COLUMNS} FROM events WHERE strand IS NULL AND seq > :seq "  # noqa: S608
                "ORDER BY seq LIMIT :page"
            )
            page = (await connection.execute(query, {"seq": seq, "page": _PAGE})).all()
            if not page:
                return
            records = [self._read(row[1:]) for row in page]
            await self._projections(connection, [record for record in records if record is not None])
            seq = page[-1].seq
            self._report.events += len(page)
            self._progress(len(page))

    async def _say_block(self, connection: AsyncConnection, block: int, sealed: int, found: int) -> None:
        query = (
            select(Event.event_id)
            .where(Event.strand.is_(None))
            .order_by(Event.seq)
            .offset(block * 1_000)
            .limit(1_000)
        )
        ids = (await connection.execute(query)).scalars().all()
        names = f"from {ids[0]} to {ids[-1]}" if ids else "at the end"
        kind = "removed" if found < sealed else "inserted" if found > sealed else "changed"
        self._say(
            kind,
            f"events before the chain, block {block + 1}",
            f"one or more of the events {names} are not what the first checkpoint sealed "
            f"({sealed} events then, {found} now)",
        )

    def _say(self, kind: str, subject: str, words: str) -> None:
        self._report.findings.append(
            msgspec.convert({"kind": kind, "subject": subject, "text": words}, Finding)
        )


async def count_events(engine: AsyncEngine) -> int:
    """How many events there are, for the progress bar."""
    async with engine.connect() as connection:
        return int((await connection.execute(select(func.count()).select_from(Event))).scalar_one())


def _seals(bodies: Sequence[Body]) -> dict[str, list[Seal]]:
    """What the checkpoints say of each strand, by growing count."""
    seals: dict[str, list[Seal]] = {}
    for body in bodies:
        for head in body.strands:
            seals.setdefault(head.strand, []).append(_seal(head, body.number))
    return {strand: sorted(of_it) for strand, of_it in seals.items()}


def _seal(head: Head, number: int) -> Seal:
    return Seal(head.count, number, bytes.fromhex(head.head), head.closed)


_NAMES = [name.strip() for name in writer.EVENT_COLUMNS.split(",")]
_STRAND, _PLACE, _LINK, _PAYLOAD = (_NAMES.index(name) for name in ("strand", "place", "link", "payload"))


def _int(value: object) -> int:
    return value if isinstance(value, int) else -1


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""


def _hex(value: str) -> bytes:
    try:
        return bytes.fromhex(value)
    except ValueError:
        return b""
