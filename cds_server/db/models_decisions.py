"""The tables of kept decisions: what may be destroyed, what orders it, holds, and noisy answers.

`destructions`, `legal_holds` and `noisy_answers` are append-only.  A row of `stored_decisions` or
`patient_keys` goes only when a row of `destructions` orders it; triggers see to both.
"""

from datetime import datetime

from sqlalchemy import BigInteger, Float, Identity, Index, Integer, LargeBinary, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from cds_server.db.models import Base, Sequence64, UtcDateTime

__all__ = ["Base", "DestructionRow", "LegalHoldRow", "NoisyAnswerRow", "PatientKeyRow", "StoredDecisionRow"]


class PatientKeyRow(Base):
    """One data key, wrapped under master key number `master`; see `decisions.keys` for `subject`."""

    __tablename__ = "patient_keys"
    key_id: Mapped[str] = mapped_column(Text, primary_key=True)
    created: Mapped[datetime] = mapped_column(UtcDateTime)
    subject: Mapped[str] = mapped_column(Text)
    wrapped: Mapped[str] = mapped_column(Text, comment="AES-GCM under the master key")
    master: Mapped[int] = mapped_column(Integer)

    __table_args__ = (
        Index("ix_patient_keys_subject", "subject"),
        Index("ix_patient_keys_created", "created"),
        Index("ix_patient_keys_master", "master"),
    )


class StoredDecisionRow(Base):
    """Inputs and answer of one decision (`decisions.stored`), under the data key `key_id`."""

    __tablename__ = "stored_decisions"
    event_id: Mapped[str] = mapped_column(Text, primary_key=True)
    recorded: Mapped[datetime] = mapped_column(UtcDateTime)
    subject: Mapped[str] = mapped_column(Text)
    key_id: Mapped[str] = mapped_column(Text)
    sealed: Mapped[bytes] = mapped_column(LargeBinary, comment="AES-GCM under the data key")
    plain_bytes: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        Index("ix_stored_decisions_recorded", "recorded"),
        Index("ix_stored_decisions_subject", "subject"),
        Index("ix_stored_decisions_key", "key_id"),
    )


class DestructionRow(Base):
    """An order to destroy: what is of `subject` (of everybody when null) and not newer than `up_to`."""

    __tablename__ = "destructions"
    seq: Mapped[int] = mapped_column(Sequence64, Identity(always=False), primary_key=True)
    destruction_id: Mapped[str] = mapped_column(Text)
    recorded: Mapped[datetime] = mapped_column(UtcDateTime)
    reason: Mapped[str] = mapped_column(Text)
    subject: Mapped[str | None] = mapped_column(Text, comment="null: everybody's, of that age")
    up_to: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (
        UniqueConstraint("destruction_id", name="uq_destructions_destruction_id"),
        Index("ix_destructions_subject", "subject", "up_to"),
        {"sqlite_autoincrement": True},
    )


class LegalHoldRow(Base):
    """A hold placed or lifted; whom it protects, why and by whom is in `sealed`."""

    __tablename__ = "legal_holds"
    seq: Mapped[int] = mapped_column(Sequence64, Identity(always=False), primary_key=True)
    hold_id: Mapped[str] = mapped_column(Text)
    recorded: Mapped[datetime] = mapped_column(UtcDateTime)
    action: Mapped[str] = mapped_column(Text)
    sealed: Mapped[str] = mapped_column(Text, comment="AES-GCM under the site key")

    __table_args__ = (
        UniqueConstraint("hold_id", "action", name="uq_legal_holds_hold_id_action"),
        {"sqlite_autoincrement": True},
    )


class NoisyAnswerRow(Base):
    """An answer that was given about many patients, and the privacy it cost in each month it is about."""

    __tablename__ = "noisy_answers"
    answer_id: Mapped[str] = mapped_column(Text, primary_key=True)
    recorded: Mapped[datetime] = mapped_column(UtcDateTime)
    question: Mapped[str] = mapped_column(Text)
    first_month: Mapped[str] = mapped_column(Text)
    last_month: Mapped[str] = mapped_column(Text)
    epsilon: Mapped[float] = mapped_column(Float)
    answer: Mapped[str] = mapped_column(Text)

    __table_args__ = (Index("ix_noisy_answers_months", "first_month", "last_month"),)
