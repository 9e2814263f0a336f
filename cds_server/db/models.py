"""The schema, once, for SQLite and PostgreSQL.  Rows of `APPEND_ONLY` are only added; triggers see to it.

`payload` is the exact JSON of the record (text, not jsonb: a digest over it must hold); the columns
beside it are what is searched by, cut to `writer.INDEXED_LENGTH`.  An index over random values costs a
page write per event, so there is one (the trace), and ids made here grow with time (`audit.new_id`).
On PostgreSQL `events` is partitioned by the month of `filed` (`cds_server.db.partitions`).  There are
no foreign keys: feedback may come for a card we never showed, and a card's event may still wait in a
spool when its feedback is stored already, so belonging together is a join at reading time.
"""

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

APPEND_ONLY = (
    "events",
    "shown_cards",
    "feedback",
    "feedback_suggestions",
    "audit_checkpoints",
    "assigning_authorities",
)
"""Tables whose rows nobody may change or delete."""


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time, stored in UTC (SQLite has no zones: there it is UTC by agreement)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Sequence64 = BigInteger().with_variant(Integer(), "sqlite")


class Base(DeclarativeBase):
    """All tables of the server."""


_ENTITY = text("entity IS NOT NULL")
# Nearly every event is a hook call: by that, no index finds anything sooner than by time.
_RARE = text("action <> 'hook-call'")
_FAILED = text("status >= 400")


class Event(Base):
    """One record of the trail, of any kind; `seq` grows in the order in which a process recorded.

    `action` is the code of an activity (`audit.activities`), `hook_instance` the trace: the hook's
    instance or the request's id.  `strand`, `place` and `link` are its place in the chain
    (`audit.chain`), empty for what was recorded before there was one.
    """

    __tablename__ = "events"
    seq: Mapped[int] = mapped_column(Sequence64, Identity(always=False), primary_key=True)
    event_id: Mapped[str] = mapped_column(Text)
    filed: Mapped[datetime] = mapped_column(UtcDateTime)
    recorded: Mapped[datetime] = mapped_column(UtcDateTime)
    action: Mapped[str] = mapped_column(Text)
    service: Mapped[str] = mapped_column(Text)
    hook_instance: Mapped[str | None] = mapped_column(Text)
    client: Mapped[str | None] = mapped_column(Text)
    user: Mapped[str | None] = mapped_column("user_pseudonym", Text)
    patient: Mapped[str | None] = mapped_column("patient_pseudonym", Text)
    entity: Mapped[str | None] = mapped_column(Text)
    severity: Mapped[str | None] = mapped_column(Text)
    escalation: Mapped[str | None] = mapped_column(Text)
    status: Mapped[int] = mapped_column(Integer)
    strand: Mapped[int | None] = mapped_column(BigInteger)
    place: Mapped[int | None] = mapped_column(BigInteger)
    link: Mapped[bytes | None] = mapped_column(LargeBinary)
    payload: Mapped[str] = mapped_column(Text)

    __table_args__ = (
        UniqueConstraint("event_id", "filed", name="uq_events_event_id"),
        Index("ix_events_recorded", "recorded", "event_id"),
        Index("ix_events_patient", "patient_pseudonym", "recorded"),
        Index("ix_events_user", "user_pseudonym", "recorded"),
        Index("ix_events_client", "client", "recorded"),
        Index("ix_events_action", "action", "recorded", postgresql_where=_RARE, sqlite_where=_RARE),
        Index("ix_events_trace", "hook_instance"),
        Index("ix_events_entity", "entity", postgresql_where=_ENTITY, sqlite_where=_ENTITY),
        Index("ix_events_failed", "recorded", postgresql_where=_FAILED, sqlite_where=_FAILED),
        Index("ix_events_strand", "strand", "place"),
        {"sqlite_autoincrement": True},  # a seq is never used twice
    )


class ShownCardRow(Base):
    """One card of one event, at its place in the answer."""

    __tablename__ = "shown_cards"
    event_id: Mapped[str] = mapped_column(Text, primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    uuid: Mapped[str] = mapped_column(Text)
    key: Mapped[str] = mapped_column(Text)
    indicator: Mapped[str] = mapped_column(Text)
    suggestions: Mapped[str] = mapped_column(Text, comment="JSON array of the suggestions' uuids")

    __table_args__ = (Index("ix_shown_cards_uuid", "uuid"),)


class AssigningAuthorityRow(Base):
    """A system whose ids are in the trail: a keyed digest of its name, and the name, sealed."""

    __tablename__ = "assigning_authorities"
    authority: Mapped[str] = mapped_column(Text, primary_key=True)
    first_seen: Mapped[datetime] = mapped_column(UtcDateTime)
    sealed_name: Mapped[str] = mapped_column(Text, comment="AES-GCM under the site key")


class FeedbackRow(Base):
    """One outcome a clinician reported for one card; several for the same card are several rows."""

    __tablename__ = "feedback"
    seq: Mapped[int] = mapped_column(Sequence64, Identity(always=False), primary_key=True)
    feedback_id: Mapped[str] = mapped_column(Text)
    recorded: Mapped[datetime] = mapped_column(UtcDateTime)
    service: Mapped[str] = mapped_column(Text)
    client: Mapped[str | None] = mapped_column(Text)
    card: Mapped[str] = mapped_column(Text)
    outcome: Mapped[str] = mapped_column(Text)
    outcome_timestamp: Mapped[datetime | None] = mapped_column(UtcDateTime)
    reason_code: Mapped[str | None] = mapped_column(Text)
    reason_system: Mapped[str | None] = mapped_column(Text)
    reason_display: Mapped[str | None] = mapped_column(Text)
    comment: Mapped[str | None] = mapped_column(Text, comment="AES-GCM under the site key")
    payload: Mapped[str] = mapped_column(Text)

    __table_args__ = (
        UniqueConstraint("feedback_id", name="uq_feedback_feedback_id"),
        Index("ix_feedback_card", "card"),
        Index("ix_feedback_recorded", "recorded"),
        {"sqlite_autoincrement": True},
    )


class FeedbackSuggestionRow(Base):
    """One accepted suggestion of one feedback."""

    __tablename__ = "feedback_suggestions"
    feedback_id: Mapped[str] = mapped_column(Text, primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    suggestion: Mapped[str] = mapped_column(Text)

    __table_args__ = (Index("ix_feedback_suggestions_suggestion", "suggestion"),)


class SmartLaunchRow(Base):
    """A SMART launch on its way through an EHR's authorization server; gone when it is over or expired."""

    __tablename__ = "smart_launches"
    state_digest: Mapped[str] = mapped_column(Text, primary_key=True)
    browser_digest: Mapped[str] = mapped_column(Text)
    expires: Mapped[datetime] = mapped_column(UtcDateTime)
    sealed: Mapped[str] = mapped_column(Text, comment="AES-GCM under the site key")

    __table_args__ = (Index("ix_smart_launches_expires", "expires"),)


class SmartSessionRow(Base):
    """A person's session after a SMART launch; who and what is sealed, only its times are not."""

    __tablename__ = "smart_sessions"
    session_digest: Mapped[str] = mapped_column(Text, primary_key=True)
    expires: Mapped[datetime] = mapped_column(UtcDateTime)
    seen: Mapped[datetime] = mapped_column(UtcDateTime)
    refreshing: Mapped[datetime | None] = mapped_column(UtcDateTime)
    sealed: Mapped[str] = mapped_column(Text, comment="AES-GCM under the site key")

    __table_args__ = (Index("ix_smart_sessions_expires", "expires"),)


class UsedTokenRow(Base):
    """A client's token that was used; needed until it has expired, then deleted."""

    __tablename__ = "used_tokens"
    digest: Mapped[str] = mapped_column(Text, primary_key=True, comment="SHA-256 of issuer and jti")
    expires: Mapped[int] = mapped_column(BigInteger, comment="seconds since 1970")

    __table_args__ = (Index("ix_used_tokens_expires", "expires"),)


class CheckpointRow(Base):
    """One signed checkpoint of the chain (`audit.checkpoints`): the exact bytes that were signed."""

    __tablename__ = "audit_checkpoints"
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    made: Mapped[datetime] = mapped_column(UtcDateTime)
    through_seq: Mapped[int] = mapped_column(BigInteger)
    body: Mapped[str] = mapped_column(Text)
    signature: Mapped[str] = mapped_column(Text, comment="Ed25519 over the body, base64")
