"""The batch writer for PostgreSQL: asyncpg, one connection of its own, two ways of one transaction.

A small batch is one statement (the seven inserts as data-modifying CTEs over `unnest`): one round trip.
A larger one is copied (COPY), which takes more round trips and for each row a fifth less processor time.
COPY cannot pass over what is stored already: a batch that holds such a row is rolled back and goes the
first way.  `synchronous_commit` is set for the session: a server configured otherwise still answers only
after its log is on disk.
"""

import asyncio
from collections.abc import Sequence

import asyncpg

from cds_server.db import writer
from cds_server.db.tls import taken_out
from cds_server.db.urls import asyncpg_dsn

_TYPES = {
    "created": "timestamptz",
    "first_seen": "timestamptz",
    "filed": "timestamptz",
    "recorded": "timestamptz",
    "outcome_timestamp": "timestamptz",
    "status": "int4",
    "position": "int4",
    "strand": "int8",
    "place": "int8",
    "link": "bytea",
    "master": "int4",
    "plain_bytes": "int8",
    "sealed": "bytea",
}


_COPY_FROM = 16
"""Events in a batch from which copying is quicker."""


def _names(columns: str) -> list[str]:
    return [name.strip() for name in columns.split(",")]


def _insert(table: str, columns: str, unique: str, first: int) -> tuple[str, int]:
    names = _names(columns)
    arrays = ", ".join(f"${first + i}::{_TYPES.get(name, 'text')}[]" for i, name in enumerate(names))
    # ORDER BY: identity values are given in the order of recording.
    return (
        f"INSERT INTO {table} ({columns}) SELECT {columns} "  # noqa: S608 built from constants only
        f"FROM unnest({arrays}) WITH ORDINALITY AS t({columns}, ordinal) ORDER BY ordinal "
        f"ON CONFLICT ({unique}) DO NOTHING RETURNING 1"
    ), first + len(names)


_TABLES = (
    ("e", "events", writer.EVENT_COLUMNS, "event_id, filed"),
    ("c", "shown_cards", writer.CARD_COLUMNS, "event_id, position"),
    ("f", "feedback", writer.FEEDBACK_COLUMNS, "feedback_id"),
    ("s", "feedback_suggestions", writer.SUGGESTION_COLUMNS, "feedback_id, position"),
    ("k", "patient_keys", writer.KEY_COLUMNS, "key_id"),
    ("d", "stored_decisions", writer.SEALED_COLUMNS, "event_id"),
    ("a", "assigning_authorities", writer.AUTHORITY_COLUMNS, "authority"),
)


def _statement() -> str:
    parts = []
    first = 1
    for name, table, columns, unique in _TABLES:
        insert, first = _insert(table, columns, unique, first)
        parts.append(f"{name} AS ({insert})")
    return f"WITH {', '.join(parts)} SELECT count(*) FROM e"  # noqa: S608


_WRITE = _statement()
_INSERTS = {table: _insert(table, columns, unique, 1)[0] for _, table, columns, unique in _TABLES}
_COLUMNS = {table: _names(columns) for _, table, columns, _ in _TABLES}
_WIDTHS = [len(columns.split(",")) for _, _, columns, _ in _TABLES]

# SQLSTATE classes that speak of the content: 22 data, 23 constraint, 54 program limit (index entry too long).
_CONTENT_CLASSES = ("22", "23", "54")


def _says_content(error: Exception) -> bool:
    if isinstance(error, asyncpg.DataError | asyncpg.exceptions.DataError):
        return True
    return isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "")[:2] in _CONTENT_CLASSES


def _arguments(rows: writer.Rows) -> list[Sequence[object]]:
    found: list[Sequence[object]] = []
    tables = (
        rows.events,
        rows.cards,
        rows.feedback,
        rows.suggestions,
        rows.keys,
        rows.sealed,
        rows.authorities,
    )
    for table, width in zip(tables, _WIDTHS, strict=True):
        found.extend(zip(*table, strict=True) if table else [()] * width)
    return found


async def _copy(connection: asyncpg.Connection, table: str, rows: list[tuple[object, ...]]) -> None:
    if rows:
        await connection.copy_records_to_table(table, columns=_COLUMNS[table], records=rows)


async def _insert_all(connection: asyncpg.Connection, table: str, rows: list[tuple[object, ...]]) -> None:
    if rows:
        await connection.execute(_INSERTS[table], *zip(*rows, strict=True))


class PostgresqlWriter:
    """See `writer.Writer`."""

    def __init__(self, database_url: str, *, timeout: float) -> None:
        plain, self._tls = taken_out(database_url)
        self._dsn = asyncpg_dsn(plain)
        self._timeout = timeout
        self._connection: asyncpg.Connection | None = None
        self._write: asyncpg.prepared_stmt.PreparedStatement | None = None

    async def connect(self) -> None:
        """See `writer.Writer.connect`."""
        await self.close()
        milliseconds = str(max(1, int(self._timeout * 1000)))
        try:
            connection = self._connection = await asyncpg.connect(
                self._dsn,
                ssl=self._tls,
                timeout=self._timeout,
                command_timeout=self._timeout,
                server_settings={
                    "application_name": "cds-server audit",
                    "synchronous_commit": "on",
                    "statement_timeout": milliseconds,
                    "lock_timeout": milliseconds,
                    "idle_in_transaction_session_timeout": milliseconds,
                },
            )
            revision = await connection.fetchval("SELECT version_num FROM alembic_version")
            writer.check_revision(revision)
            self._write = await connection.prepare(_WRITE)
        except Exception as error:
            self._drop()
            raise writer.DatabaseAway(f"PostgreSQL: {type(error).__name__}") from error

    async def write(self, batch: Sequence[writer.Entry]) -> int:
        """See `writer.Writer.write`."""
        if self._write is None:
            raise writer.DatabaseAway("PostgreSQL: not connected")
        rows = writer.rows(batch, text_times=False)
        try:
            if len(rows.events) >= _COPY_FROM and await self._copied(rows):
                return len(rows.events)
            return int(await self._write.fetchval(*_arguments(rows)))
        except Exception as error:
            # Broad on purpose: a connection that dies in mid-protocol also raises asyncpg's internal errors.
            if _says_content(error):
                raise writer.RecordRefused(f"PostgreSQL: {type(error).__name__}") from error
            # After a timeout the outcome is open and the connection in an unknown state.
            self._drop()
            raise writer.DatabaseAway(f"PostgreSQL: {type(error).__name__}") from error

    async def _copied(self, rows: writer.Rows) -> bool:
        """Commits the batch by COPY; `False` when its content stands against that: nothing is stored then."""
        connection = self._connection
        assert connection is not None  # noqa: S101 there is a prepared statement, so there is a connection
        try:
            async with asyncio.timeout(self._timeout), connection.transaction():
                await _copy(connection, "events", rows.events)
                await _copy(connection, "shown_cards", rows.cards)
                await _copy(connection, "stored_decisions", rows.sealed)
                # A data key comes with every call until it is known to be stored: it may well be there.
                await _insert_all(connection, "patient_keys", rows.keys)
                await _insert_all(connection, "feedback", rows.feedback)
                await _insert_all(connection, "feedback_suggestions", rows.suggestions)
                await _insert_all(connection, "assigning_authorities", rows.authorities)
        except (TypeError, ValueError, OverflowError):
            return False  # a value its column does not take; the other way says so in one form
        except asyncpg.PostgresError as error:
            if not _says_content(error):
                raise
            return False
        return True

    async def stored(self, record_ids: Sequence[str]) -> list[writer.Stored]:
        """See `writer.Writer.stored`."""
        if self._connection is None:
            raise writer.DatabaseAway("PostgreSQL: not connected")
        try:
            found = await self._connection.fetch(
                "SELECT event_id, strand, place FROM events WHERE event_id = ANY($1::text[])", record_ids
            )
        except Exception as error:
            self._drop()
            raise writer.DatabaseAway(f"PostgreSQL: {type(error).__name__}") from error
        return [writer.Stored(*row) for row in found]

    async def close(self) -> None:
        """See `writer.Writer.close`."""
        connection, self._connection, self._write = self._connection, None, None
        if connection is None:
            return
        try:
            await asyncio.wait_for(connection.close(), self._timeout)
        except Exception:  # noqa: BLE001 whatever state it is in, it is let go
            connection.terminate()

    def _drop(self) -> None:
        connection, self._connection, self._write = self._connection, None, None
        if connection is not None:
            connection.terminate()
