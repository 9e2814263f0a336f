"""The records that must not be lost, as values: one audited call, one answer to a card, one access.

They are members of one small tagged union (`Record`), so they share the writer, the spool, the hash
chain and their guarantees.  Everything that is not a decision or feedback is an `Access` whose
`activity` is a row of `cds_server.audit.activities`.  `encode` is the only serialisation: the same bytes
go into the database's payload column and into the spool, so a digest over them holds wherever they are
read.  Nothing here does I/O.  Nothing clinical belongs in a record beyond the codes of what was decided:
persons are pseudonyms, input and output are digests.
"""

import hashlib
import os
import time
from datetime import UTC, datetime
from typing import Literal, TypeGuard

import msgspec

from cds_server.audit.sealed import DataKey, SealedDecision

__all__ = [
    "OWN_APP",
    "Access",
    "CardFeedback",
    "DataKey",
    "Decision",
    "Durable",
    "Entity",
    "Record",
    "SealedDecision",
    "ShownCard",
    "Withheld",
    "decode",
    "decode_durable",
    "digest",
    "encode",
    "identity",
    "is_event",
    "new_id",
    "patient_of",
    "to_utc",
]


OWN_APP = "smart-app:"
"""Begins the client of what people do in our own app; the name of the EHR they came from follows."""


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
    the request's last byte to this record, `status` the HTTP status of the answer.  `roles` are those the
    caller was let in with, `purpose` a code of HL7 v3 PurposeOfUse, `network` the peer's IP address.
    `stored` says whether the inputs are kept for replay (``stored``) or why not (``off``: the site's
    setting, ``consent``: the patient's denial), `stored_digest` is the SHA-256 of the ciphertext kept.
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
    roles: tuple[str, ...] = ()
    purpose: str | None = None
    network: str | None = None
    stored: str | None = None
    stored_digest: str | None = None


class CardFeedback(msgspec.Struct, frozen=True, kw_only=True, tag="feedback", tag_field="kind"):
    """What a clinician did with one card.

    `reason_code`, `reason_system` and `reason_display` are of our own list of reasons.  `comment` and
    `reason_sealed`, whatever of a reason is not of that list, are ciphertext, never plain text
    (`feedback.store`).  `user` is a pseudonym; `roles`, `purpose` and `network` as in `Decision`.
    """

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
    reason_sealed: str | None = None
    comment: str | None = None
    user: str | None = None
    roles: tuple[str, ...] = ()
    purpose: str | None = None
    network: str | None = None


class Entity(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an access was about: `what` is a FHIR reference (``AuditEvent/…``) or a URI, never a patient.

    `name` is a short text of ours, `detail` are pairs of name and value; neither may identify a person.
    """

    what: str
    name: str | None = None
    detail: tuple[tuple[str, str], ...] = ()


class Access(msgspec.Struct, frozen=True, kw_only=True, tag="access", tag_field="kind", omit_defaults=True):
    """One event that is not a decision: a login, a read, an export, an erasure, a setting changed.

    `activity` is a code of `activities.ACTIVITIES`, which gives the FHIR type, subtype and action.
    `service` names the part of the server (``audit``, ``auth``, ``privacy``, ``deployment`` ...).
    `status` is the HTTP status of the answer, or what it would have been (200, 401, 403, 500): the
    outcome follows from it.  `reason` is a category of ours (``token expired``), never a caller's text.
    `client` is the client's id in plain, `user` and `patient` are pseudonyms, `network` the peer's IP
    address, `request` the ``X-Request-Id``.  `query` is a search whose patients are pseudonyms already.
    """

    event_id: str
    recorded: datetime
    activity: str
    service: str
    status: int = 200
    reason: str | None = None
    client: str | None = None
    user: str | None = None
    roles: tuple[str, ...] = ()
    purpose: str | None = None
    network: str | None = None
    request: str | None = None
    patient: str | None = None
    query: str | None = None
    entities: tuple[Entity, ...] = ()
    detail: tuple[tuple[str, str], ...] = ()


class Withheld(msgspec.Struct, frozen=True, kw_only=True, tag="withheld", tag_field="kind"):
    """Keeps the place of a record that could not be stored there, so that the chain has no gap.

    Made by the trail alone.  `payload_digest` is of the record's bytes (`digest`).  `cause`:
    ``refused``, the database did not take the content and the bytes are in ``spool/refused.records``;
    ``repeated``, a record of that id (`record_id`) is stored already.
    """

    event_id: str
    recorded: datetime
    record_id: str
    payload_digest: str
    cause: Literal["refused", "repeated"]


Record = Decision | CardFeedback | Access | Withheld
"""What is an audit event: has its row in `events` and its place in the chain."""

Durable = Record | DataKey | SealedDecision
"""What goes through the trail.  What is kept sealed can be destroyed, so the chain does not rest on it."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)
_durable = msgspec.json.Decoder(Durable)


def encode(record: Durable) -> bytes:
    """One line of JSON (UTF-8, no newline inside).

    Raises:
        UnicodeEncodeError: a text holds a lone surrogate.
    """
    return _encoder.encode(record)


def decode(line: bytes | str) -> Record:
    """The inverse of `encode` for an audit event.

    Raises:
        msgspec.DecodeError: not JSON, or (`msgspec.ValidationError`) not one of our records.
    """
    record: Record = _decoder.decode(line)
    return record


def decode_durable(line: bytes | str) -> Durable:
    """The inverse of `encode` for whatever goes through the trail.

    Raises:
        msgspec.DecodeError: see `decode`.
    """
    record: Durable = _durable.decode(line)
    return record


def identity(record: Durable) -> str:
    """The id under which a record is stored once, however often it is replayed."""
    match record:
        case CardFeedback():
            return record.feedback_id
        case DataKey():
            return record.key_id
        case _:
            return record.event_id


def patient_of(record: Record) -> str | None:
    """The pseudonym of the patient a record is about; of some kinds of record there is none."""
    return getattr(record, "patient", None)


def is_event(record: Durable) -> TypeGuard[Record]:
    """Whether a record is an audit event."""
    return not isinstance(record, DataKey | SealedDecision)


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
