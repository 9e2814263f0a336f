"""What a batch writer is, and the rows a record becomes; the two databases are in `writer_*.py`.

A writer stores one batch of records in one transaction and returns after COMMIT.  It knows nothing of
queues, spools or retries (`cds_server.audit.trail`).  It runs on the drivers, not on SQLAlchemy: the
hot path pays for nothing but the insert.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import msgspec

from cds_server.audit.events import Access, DataKey, Decision, Record, SealedDecision, to_utc
from cds_server.db import HEAD
from cds_server.db.urls import is_sqlite

INDEXED_LENGTH = 512
"""Characters of a searched column (a PostgreSQL B-tree entry ends at 2,704 bytes); the payload keeps all."""


class DatabaseAway(Exception):
    """The database cannot take the batch now: unreachable, locked, full, not migrated.  The batch may or may
    not have been committed; writing it again is safe."""


class RecordRefused(Exception):
    """The database is there but refuses the content of at least one record of the batch; none was stored."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A record with its encoded form."""

    record: Record
    payload: bytes


class Writer(Protocol):
    """One connection for batches; not for concurrent use."""

    async def connect(self) -> None:
        """Opens (again) and checks the schema revision.  Raises: DatabaseAway."""

    async def write(self, batch: Sequence[Entry]) -> int:
        """Commits the batch, in order; ids already stored are passed over.

        Returns: how many records were new.  Raises: DatabaseAway, RecordRefused.
        """

    async def close(self) -> None:
        """Gives the connection back; never raises for a database that is gone."""


@dataclass(slots=True)
class Rows:
    """The rows of a batch, per table, columns in the order of the statements in `writer_*.py`."""

    events: list[tuple[object, ...]] = field(default_factory=list)
    cards: list[tuple[object, ...]] = field(default_factory=list)
    feedback: list[tuple[object, ...]] = field(default_factory=list)
    suggestions: list[tuple[object, ...]] = field(default_factory=list)
    keys: list[tuple[object, ...]] = field(default_factory=list)
    sealed: list[tuple[object, ...]] = field(default_factory=list)


EVENT_COLUMNS = (
    "event_id, recorded, action, service, hook_instance, client, user_pseudonym, patient_pseudonym, "
    "severity, escalation, status, payload"
)
CARD_COLUMNS = "event_id, position, uuid, key, indicator, suggestions"
FEEDBACK_COLUMNS = (
    "feedback_id, recorded, service, client, card, outcome, outcome_timestamp, "
    "reason_code, reason_system, reason_display, comment, payload"
)
SUGGESTION_COLUMNS = "feedback_id, position, suggestion"
KEY_COLUMNS = "key_id, created, subject, wrapped, master"
SEALED_COLUMNS = "event_id, recorded, subject, key_id, sealed, plain_bytes"


def sqlite_time(moment: datetime) -> str:
    """The text SQLAlchemy's SQLite dialect writes and reads for a time."""
    return to_utc(moment).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")


def _text(value: str | None) -> str | None:
    """A searched column: no NUL (PostgreSQL has none in text), bounded length."""
    if value is None:
        return None
    if len(value) > INDEXED_LENGTH:
        value = value[:INDEXED_LENGTH]
    return value.replace("\x00", "\ufffd") if "\x00" in value else value


def rows(batch: Sequence[Entry], *, text_times: bool) -> Rows:
    """The rows of `batch`; `text_times` for SQLite, which stores times as text.

    Raises:
        RecordRefused: a record that breaks the promises of its type (a number where text belongs).
    """
    try:
        return _rows(batch, text_times=text_times)
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise RecordRefused(f"a record has no rows: {type(error).__name__}") from error


def _rows(batch: Sequence[Entry], *, text_times: bool) -> Rows:
    out = Rows()
    for entry in batch:
        record = entry.record
        if isinstance(record, DataKey):
            created = sqlite_time(record.created) if text_times else to_utc(record.created)
            out.keys.append((record.key_id, created, record.subject, record.wrapped, record.master))
            continue
        recorded = sqlite_time(record.recorded) if text_times else to_utc(record.recorded)
        if isinstance(record, SealedDecision):
            out.sealed.append(
                (
                    record.event_id,
                    recorded,
                    record.subject,
                    record.key_id,
                    record.sealed,
                    record.plain_bytes,
                )
            )
            continue
        payload = entry.payload.decode()
        if isinstance(record, Decision):
            out.events.append(
                (
                    record.event_id,
                    recorded,
                    _text(record.action),
                    _text(record.service),
                    _text(record.hook_instance),
                    _text(record.client),
                    _text(record.user),
                    _text(record.patient),
                    _text(record.severity),
                    _text(record.escalation),
                    record.status,
                    payload,
                )
            )
            for position, card in enumerate(record.cards):
                suggestions = msgspec.json.encode(card.suggestions).decode()
                out.cards.append(
                    (
                        record.event_id,
                        position,
                        _text(card.uuid),
                        _text(card.key),
                        _text(card.indicator),
                        suggestions,
                    )
                )
        elif isinstance(record, Access):
            out.events.append(
                (
                    record.event_id,
                    recorded,
                    _text(record.activity),
                    _text(record.service),
                    None,
                    _text(record.client),
                    _text(record.user),
                    _text(record.patient),
                    None,
                    None,
                    record.status,
                    payload,
                )
            )
        else:
            moment = record.outcome_timestamp
            outcome_time = None if moment is None else sqlite_time(moment) if text_times else to_utc(moment)
            out.feedback.append(
                (
                    record.feedback_id,
                    recorded,
                    _text(record.service),
                    _text(record.client),
                    _text(record.card),
                    _text(record.outcome),
                    outcome_time,
                    _text(record.reason_code),
                    _text(record.reason_system),
                    _text(record.reason_display),
                    record.comment,
                    payload,
                )
            )
            for position, suggestion in enumerate(record.accepted_suggestions):
                out.suggestions.append((record.feedback_id, position, _text(suggestion)))
    return out


def check_revision(revision: str | None) -> None:
    """Raises `DatabaseAway` unless the schema is the one this code writes to."""
    if revision != HEAD:
        raise DatabaseAway(f"database schema is at {revision or 'nothing'}, this version writes to {HEAD}")


def open_writer(database_url: str, *, timeout: float) -> Writer:
    """The writer for a database URL; connects nothing yet.

    Args:
        timeout: seconds a connection attempt, a lock or a commit may take before the database counts as away.

    Raises:
        DatabaseUrlInvalid: neither SQLite nor PostgreSQL.
    """
    # Only the driver that is used is imported: a worker's memory is counted.
    if is_sqlite(database_url):
        from cds_server.db.writer_sqlite import SqliteWriter  # noqa: PLC0415

        return SqliteWriter(database_url, timeout=timeout)
    from cds_server.db.writer_postgresql import PostgresqlWriter  # noqa: PLC0415

    return PostgresqlWriter(database_url, timeout=timeout)
