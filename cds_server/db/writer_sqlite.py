"""The batch writer for SQLite: the standard library's driver in one dedicated thread.

WAL with ``synchronous=FULL``: COMMIT returns after the log is fsynced.  Several processes may write to
the same file; SQLite's file lock puts them in a row and `timeout` says how long one waits.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

from cds_server.db import writer
from cds_server.db.urls import sqlite_path


def _insert(table: str, columns: str) -> str:
    marks = ", ".join("?" * len(columns.split(",")))
    # OR FAIL: by default (OR ABORT) SQLite copies each page a row touches, because of the triggers, to be
    # able to undo that row alone: a quarter of the time.  A row that fails has changed nothing yet, and the
    # whole transaction is rolled back then.
    return f"INSERT OR FAIL INTO {table} ({columns}) VALUES ({marks}) ON CONFLICT DO NOTHING"  # noqa: S608


_EVENTS = _insert("events", writer.EVENT_COLUMNS)
_CARDS = _insert("shown_cards", writer.CARD_COLUMNS)
_FEEDBACK = _insert("feedback", writer.FEEDBACK_COLUMNS)
_SUGGESTIONS = _insert("feedback_suggestions", writer.SUGGESTION_COLUMNS)
_KEYS = _insert("patient_keys", writer.KEY_COLUMNS)
_SEALED = _insert("stored_decisions", writer.SEALED_COLUMNS)
_AUTHORITIES = _insert("assigning_authorities", writer.AUTHORITY_COLUMNS)

# What says "this content", not "this database": constraint, value out of range, wrong type.
_REFUSALS = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    OverflowError,
)


class SqliteWriter:
    """See `writer.Writer`."""

    def __init__(self, database_url: str, *, timeout: float) -> None:
        self._path = sqlite_path(database_url).absolute()
        self._timeout = timeout
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="audit-sqlite")
        self._connection: sqlite3.Connection | None = None
        self._inode = (0, 0)

    async def connect(self) -> None:
        """See `writer.Writer.connect`."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._open)

    async def write(self, batch: Sequence[writer.Entry]) -> int:
        """See `writer.Writer.write`."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._write, batch)

    async def stored(self, record_ids: Sequence[str]) -> list[writer.Stored]:
        """See `writer.Writer.stored`."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._stored, record_ids)

    async def close(self) -> None:
        """See `writer.Writer.close`."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def _open(self) -> None:
        self._close()
        try:
            # mode=rw: a missing file is a database that is away, never a new empty one.
            connection = sqlite3.connect(
                f"file:{quote(str(self._path))}?mode=rw",
                uri=True,
                timeout=self._timeout,
                isolation_level=None,
            )
            self._connection = connection
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            found = self._path.stat()
            self._inode = (found.st_dev, found.st_ino)
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except (sqlite3.Error, OSError) as error:
            self._close()
            raise writer.DatabaseAway(f"SQLite: {type(error).__name__}") from error
        writer.check_revision(row[0] if row else None)

    def _write(self, batch: Sequence[writer.Entry]) -> int:
        connection = self._connection
        if connection is None:
            raise writer.DatabaseAway("SQLite: not open")
        try:
            # A file that was moved or replaced under us would swallow commits that nobody can read again.
            found = self._path.stat()
            if (found.st_dev, found.st_ino) != self._inode:
                raise writer.DatabaseAway("SQLite: the database file was replaced")
            rows = writer.rows(batch, text_times=True)
            connection.execute("BEGIN IMMEDIATE")
            new = connection.executemany(_EVENTS, rows.events).rowcount if rows.events else 0
            if rows.cards:
                connection.executemany(_CARDS, rows.cards)
            if rows.feedback:
                connection.executemany(_FEEDBACK, rows.feedback)
            if rows.suggestions:
                connection.executemany(_SUGGESTIONS, rows.suggestions)
            if rows.keys:
                connection.executemany(_KEYS, rows.keys)
            if rows.sealed:
                connection.executemany(_SEALED, rows.sealed)
            if rows.authorities:
                connection.executemany(_AUTHORITIES, rows.authorities)
            connection.execute("COMMIT")
        except _REFUSALS as error:
            self._rollback()
            raise writer.RecordRefused(f"SQLite: {type(error).__name__}") from error
        except (sqlite3.Error, OSError) as error:
            self._rollback()
            raise writer.DatabaseAway(
                f"SQLite: {getattr(error, 'sqlite_errorname', type(error).__name__)}"
            ) from error
        return new

    def _stored(self, record_ids: Sequence[str]) -> list[writer.Stored]:
        connection = self._connection
        if connection is None:
            raise writer.DatabaseAway("SQLite: not open")
        query = "SELECT event_id, strand, place FROM events WHERE event_id = ?"
        try:
            found = [connection.execute(query, (record_id,)).fetchone() for record_id in record_ids]
        except sqlite3.Error as error:
            raise writer.DatabaseAway(f"SQLite: {type(error).__name__}") from error
        return [writer.Stored(*row) for row in found if row]

    def _rollback(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def _close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
