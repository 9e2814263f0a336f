"""What a batch writer is, and the rows a record becomes; the two databases are in `writer_*.py`.

A writer stores one batch of records in one transaction and returns after COMMIT.  It knows nothing of
queues, spools or retries (`cds_server.audit.trail`).  It runs on the drivers, not on SQLAlchemy: the
hot path pays for nothing but the insert.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec

from cds_server.audit.chain import Link
from cds_server.audit.events import (
    Access,
    AuthorityName,
    CardFeedback,
    DataKey,
    Decision,
    Durable,
    Record,
    SealedDecision,
    to_utc,
)
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
    """A record with its encoded form and, once it has one, its place in the chain."""

    record: Durable
    payload: bytes
    link: Link | None = None


class Stored(msgspec.Struct, frozen=True):
    """What the database holds under an id: strand and place, `None` for a record from before the chain."""

    record_id: str
    strand: int | None
    place: int | None


class Writer(Protocol):
    """One connection for batches; not for concurrent use."""

    async def connect(self) -> None:
        """Opens (again) and checks the schema revision.  Raises: DatabaseAway."""

    async def write(self, batch: Sequence[Entry]) -> int:
        """Commits the batch, in order; ids already stored are passed over.

        Returns: how many records were new.  Raises: DatabaseAway, RecordRefused.
        """

    async def stored(self, record_ids: Sequence[str]) -> list[Stored]:
        """Those of the records that are there.  Raises: DatabaseAway."""

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
    authorities: list[tuple[object, ...]] = field(default_factory=list)


EVENT_COLUMNS = (
    "event_id, filed, recorded, action, service, hook_instance, client, user_pseudonym, patient_pseudonym, "
    "entity, severity, escalation, status, strand, place, link, payload"
)
CARD_COLUMNS = "event_id, position, uuid, key, indicator, suggestions"
FEEDBACK_COLUMNS = (
    "feedback_id, recorded, service, client, card, outcome, outcome_timestamp, "
    "reason_code, reason_system, reason_display, comment, payload"
)
SUGGESTION_COLUMNS = "feedback_id, position, suggestion"
KEY_COLUMNS = "key_id, created, subject, wrapped, master"
SEALED_COLUMNS = "event_id, recorded, subject, key_id, sealed, plain_bytes"
AUTHORITY_COLUMNS = "authority, first_seen, sealed_name"


UNFILED = datetime(1970, 1, 1, tzinfo=UTC)
"""`events.filed` of a record whose id does not say when it was made."""
_FILED_WITHIN = timedelta(days=1)


def filed(record_id: str, recorded: datetime) -> datetime:
    """The time by which an event is put into a monthly partition: the one in its id (RFC 9562, UUIDv7).

    It follows from the record alone, so a record that is replayed goes where it already is.  An id that
    is no UUIDv7, or lies more than a day from `recorded`, is `UNFILED`: whoever searches by time may
    then leave out all partitions more than a day away, except that one.
    """
    if len(record_id) == 36 and record_id[14] == "7":
        try:
            made = UNFILED + timedelta(milliseconds=int(record_id[:8] + record_id[9:13], 16))
        except (ValueError, OverflowError):
            return UNFILED
        if abs(made - to_utc(recorded)) <= _FILED_WITHIN:
            return made
    return UNFILED


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
    time = sqlite_time if text_times else to_utc
    for entry in batch:
        record = entry.record
        if isinstance(record, DataKey):
            created = time(record.created)
            out.keys.append((record.key_id, created, record.subject, record.wrapped, record.master))
            continue
        if isinstance(record, SealedDecision):
            out.sealed.append(
                (
                    record.event_id,
                    time(record.recorded),
                    record.subject,
                    record.key_id,
                    record.sealed,
                    record.plain_bytes,
                )
            )
            continue
        if isinstance(record, AuthorityName):
            out.authorities.append((record.authority, time(record.first_seen), record.sealed))
            continue
        payload = entry.payload.decode()
        event = _event(record)
        link = entry.link
        out.events.append(
            (
                event.id,
                time(filed(event.id, record.recorded)),
                time(record.recorded),
                _text(event.action),
                _text(event.service),
                _text(event.hook_instance),
                _text(event.client),
                _text(event.user),
                _text(event.patient),
                _text(event.entity),
                _text(event.severity),
                _text(event.escalation),
                event.status,
                link.strand if link else None,
                link.place if link else None,
                link.value if link else None,
                payload,
            )
        )
        if isinstance(record, Decision):
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
        elif isinstance(record, CardFeedback):
            moment = record.outcome_timestamp
            out.feedback.append(
                (
                    record.feedback_id,
                    time(record.recorded),
                    _text(record.service),
                    _text(record.client),
                    _text(record.card),
                    _text(record.outcome),
                    None if moment is None else time(moment),
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


class _Event(msgspec.Struct, kw_only=True, gc=False):
    """The searched columns of any record."""

    id: str
    action: str
    service: str
    hook_instance: str | None = None
    client: str | None = None
    user: str | None = None
    patient: str | None = None
    entity: str | None = None
    severity: str | None = None
    escalation: str | None = None
    status: int = 200


def _event(record: Record) -> _Event:
    match record:
        case Decision():
            return _Event(
                id=record.event_id,
                action=record.action,
                service=record.service,
                hook_instance=record.hook_instance,
                client=record.client,
                user=record.user,
                patient=record.patient,
                severity=record.severity,
                escalation=record.escalation,
                status=record.status,
            )
        case CardFeedback():
            return _Event(
                id=record.feedback_id,
                action="feedback",
                service=record.service,
                client=record.client,
                user=record.user,
                entity=f"urn:uuid:{record.card}",
            )
        case Access():
            return _Event(
                id=record.event_id,
                action=record.activity,
                service=record.service,
                hook_instance=record.request,
                client=record.client,
                user=record.user,
                patient=record.patient,
                entity=record.entities[0].what if record.entities else None,
                status=record.status,
            )
        case _:
            return _Event(id=record.event_id, action="withheld", service="audit", entity=record.record_id)


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
