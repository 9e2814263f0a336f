"""The batch writer for PostgreSQL: asyncpg, one connection of its own, one statement per batch.

The six inserts are one statement (data-modifying CTEs over `unnest`), so a batch is one transaction
and one round trip.  `synchronous_commit` is set for the session: a server configured otherwise still
answers only after its log is on disk.
"""

import asyncio
from collections.abc import Sequence

import asyncpg

from cds_server.db import writer
from cds_server.db.urls import asyncpg_dsn

_TYPES = {
    "created": "timestamptz",
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


def _insert(table: str, columns: str, unique: str, first: int) -> tuple[str, int]:
    names = [name.strip() for name in columns.split(",")]
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
)


def _statement() -> str:
    parts = []
    first = 1
    for name, table, columns, unique in _TABLES:
        insert, first = _insert(table, columns, unique, first)
        parts.append(f"{name} AS ({insert})")
    return f"WITH {', '.join(parts)} SELECT count(*) FROM e"  # noqa: S608


_WRITE = _statement()
_WIDTHS = [len(columns.split(",")) for _, _, columns, _ in _TABLES]

# SQLSTATE classes that speak of the content: 22 data, 23 constraint, 54 program limit (index entry too long).
_CONTENT_CLASSES = ("22", "23", "54")


def _says_content(error: Exception) -> bool:
    if isinstance(error, asyncpg.DataError | asyncpg.exceptions.DataError):
        return True
    return isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "")[:2] in _CONTENT_CLASSES


class PostgresqlWriter:
    """See `writer.Writer`."""

    def __init__(self, database_url: str, *, timeout: float) -> None:
        self._dsn = asyncpg_dsn(database_url)
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
        arguments: list[Sequence[object]] = []
        for table, width in zip(
            (rows.events, rows.cards, rows.feedback, rows.suggestions, rows.keys, rows.sealed),
            _WIDTHS,
            strict=True,
        ):
            arguments.extend(zip(*table, strict=True) if table else [()] * width)
        try:
            return int(await self._write.fetchval(*arguments))
        except Exception as error:
            # Broad on purpose: a connection that dies in mid-protocol also raises asyncpg's internal errors.
            if _says_content(error):
                raise writer.RecordRefused(f"PostgreSQL: {type(error).__name__}") from error
            # After a timeout the outcome is open and the connection in an unknown state.
            self._drop()
            raise writer.DatabaseAway(f"PostgreSQL: {type(error).__name__}") from error

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
