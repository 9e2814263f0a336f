"""Whether what repeats the records says what they say: their columns, other records, other tables."""

from collections.abc import Iterable, Sequence

import msgspec
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from cds_server.audit import events
from cds_server.audit.chain import Link
from cds_server.audit.events import Record, Withheld, digest
from cds_server.audit.findings import Say
from cds_server.audit.strand_check import Row, digest_of
from cds_server.db import writer
from cds_server.db.models import Event

NAMED = 20
"""Rows of one kind that are named one by one."""
_Columns = Sequence[object]


class RecordCheck:
    """Reads the rows of records and compares.

    Args:
        text_times: whether times are stored as text (SQLite).
        refused: SHA-256 (hexadecimal) of the records the database refused and the spool kept.
    """

    def __init__(self, say: Say, *, text_times: bool, refused: Iterable[str]) -> None:
        self._say = say
        self._text_times = text_times
        self._refused = frozenset(refused)

    def read(self, columns: _Columns) -> Record | None:
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
                [writer.Entry(record, payload.encode(), link)], text_times=self._text_times
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

    async def repeated(self, connection: AsyncConnection, records: Sequence[Record | None]) -> None:
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

    async def projections(self, connection: AsyncConnection, records: Sequence[Record | None]) -> None:
        """The tables that repeat these records have their rows, and no others of them."""
        batch = [writer.Entry(record, events.encode(record)) for record in records if record is not None]
        rows = writer.rows(batch, text_times=self._text_times)
        ids = [events.identity(entry.record) for entry in batch]
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

    async def leftovers(self, connection: AsyncConnection) -> None:
        """Rows beside the events that belong to none."""
        for table, key in (
            ("shown_cards", "event_id"),
            ("feedback", "feedback_id"),
            ("feedback_suggestions", "feedback_id"),
        ):
            query = text(
                f"SELECT DISTINCT t.{key} FROM {table} t LEFT JOIN events e ON e.event_id = t.{key} "  # noqa: S608
                f"WHERE e.event_id IS NULL ORDER BY 1 LIMIT {NAMED}"
            )
            for (record_id,) in (await connection.execute(query)).all():
                self._say("inserted", f"event {record_id}", f"rows in {table} of an event that is not there")


def chained_row(row: Sequence[object], record: Record | None) -> Row:
    """What a check of the strand needs of a row: `seq` and the columns, and the record that was read."""
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
