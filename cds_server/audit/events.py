"""The records that must not be lost, as values: an audited call, a clinician's answer, what is kept sealed.

All are members of one small tagged union (`Record`), so they share the writer, the spool and their
guarantees.  `encode` is the only serialisation: the same bytes go into the database's payload column
and into the spool, so a later digest over them holds wherever they are read.  Nothing here does I/O.
Nothing clinical belongs in a `Decision` beyond the codes of what was decided: persons are pseudonyms,
input and output are digests.
"""

import hashlib
import os
import time
from datetime import UTC, datetime

import msgspec

__all__ = [
    "CardFeedback",
    "DataKey",
    "Decision",
    "Record",
    "SealedDecision",
    "ShownCard",
    "decode",
    "digest",
    "encode",
    "identity",
    "new_id",
    "to_utc",
]


class ShownCard(msgspec.Struct, frozen=True):
    """A card that left the house: its CDS Hooks `uuid`, our stable `key`, indicator, suggestions' uuids."""

    uuid: str
    key: str
    indicator: str
    suggestions: tuple[str, ...] = ()


class Decision(msgspec.Struct, frozen=True, kw_only=True, tag="decision", tag_field="kind"):
    """One audit event: who asked what, what was answered, by which knowledge.

    `recorded` is an aware UTC time.  `user` and `patient` are pseudonyms (`privacy.Pseudonymiser`).
    `input_digest` and `output_digest` are SHA-256 in hex (`digest`).  `duration_ms` is the time from
    the request's last byte to this record, `status` the HTTP status of the answer.  `stored` says whether
    the inputs are kept for replay (``stored``) or why not (``off``: the site's setting, ``consent``: the
    patient's denial), `stored_digest` is the SHA-256 of what is kept, as it is kept (ciphertext).
    """

    event_id: str
    recorded: datetime
    action: str
    service: str
    hook_instance: str | None = None
    client: str | None = None
    user: str | None = None
    patient: str | None = None
    input_digest: str
    output_digest: str
    severity: str | None = None
    immediate: bool | None = None
    escalation: str | None = None
    rule: str | None = None
    model: str
    knowledge: str
    duration_ms: float
    status: int
    language: str
    cards: tuple[ShownCard, ...] = ()
    stored: str | None = None
    stored_digest: str | None = None


class CardFeedback(msgspec.Struct, frozen=True, kw_only=True, tag="feedback", tag_field="kind"):
    """What a clinician did with one card.  `comment` is ciphertext (`privacy.Cipher`), never plain text."""

    feedback_id: str
    recorded: datetime
    service: str
    client: str | None = None
    card: str
    outcome: str
    outcome_timestamp: datetime | None = None
    accepted_suggestions: tuple[str, ...] = ()
    reason_code: str | None = None
    reason_system: str | None = None
    reason_display: str | None = None
    comment: str | None = None


class DataKey(msgspec.Struct, frozen=True, kw_only=True, tag="data-key", tag_field="kind"):
    """A data key as it is stored: wrapped under master key number `master` (`decisions.keys`)."""

    key_id: str
    created: datetime
    subject: str
    wrapped: str
    master: int


class SealedDecision(msgspec.Struct, frozen=True, kw_only=True, tag="sealed-decision", tag_field="kind"):
    """Inputs and answer of one decision, compressed and encrypted under data key `key_id`.

    `plain_bytes` is their size before both.
    """

    event_id: str
    recorded: datetime
    subject: str
    key_id: str
    sealed: bytes
    plain_bytes: int


Record = Decision | CardFeedback | DataKey | SealedDecision

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


def encode(record: Record) -> bytes:
    """One line of JSON (UTF-8, no newline inside).

    Raises:
        UnicodeEncodeError: a text holds a lone surrogate.
    """
    return _encoder.encode(record)


def decode(line: bytes | str) -> Record:
    """The inverse of `encode`.

    Raises:
        msgspec.DecodeError: not JSON, or (`msgspec.ValidationError`) not one of our records.
    """
    record: Record = _decoder.decode(line)
    return record


def identity(record: Record) -> str:
    """The id under which a record is stored once, however often it is replayed."""
    match record:
        case CardFeedback():
            return record.feedback_id
        case DataKey():
            return record.key_id
        case _:
            return record.event_id


def new_id() -> str:
    """A UUID version 7 (RFC 9562, 5.7): unique, and growing with time.

    Use it for event ids and card uuids.  Random (version 4) ids work too, but each lands on another
    page of the database's indexes: with them SQLite takes 10,000 events a second instead of 26,000.
    """
    random = int.from_bytes(os.urandom(10))
    milliseconds = time.time_ns() // 1_000_000
    low = random & ((1 << 62) - 1)
    value = milliseconds << 80 | 0x7 << 76 | (random >> 62 & 0xFFF) << 64 | 0b10 << 62 | low
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def digest(data: bytes) -> str:
    """SHA-256 in hex, for `input_digest` and `output_digest`."""
    return hashlib.sha256(data).hexdigest()


def to_utc(moment: datetime) -> datetime:
    """The same moment in UTC; a time without a zone is taken as UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
