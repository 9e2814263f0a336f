"""Feedback on cards: recorded through the audit trail (same durability), read by queries.

A card's `uuid` may be one we never showed: it is stored all the same, and `known` is decided when
reading, because the event that showed it may still wait in a spool.  A comment, and a reason that is not
of our list, is what people typed: nothing of it is ever logged, and it is encrypted under a data key of its
card, which an erasure destroys with the data keys of the card's patient (`decisions.destruction`).
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from cds_server.audit import AuditTrail, CardFeedback, DataKey, new_id
from cds_server.audit.access import Caller
from cds_server.db.models import FeedbackRow, ShownCardRow
from cds_server.db.models_decisions import PatientKeyRow
from cds_server.decisions.keys import DataKeys
from cds_server.privacy import Cipher, DecryptionFailed


class OverrideReason(msgspec.Struct, frozen=True):
    """Why a card was overridden, as a Coding."""

    code: str | None = None
    system: str | None = None
    display: str | None = None


class FeedbackItem(msgspec.Struct, frozen=True, kw_only=True):
    """One element of a CDS Hooks feedback request, already read and checked.

    `override_reason` is of the card's `overrideReasons` and stored as it is; `own_reason` is what was sent
    of a reason beyond that (another code or system, another wording), and stored encrypted.
    """

    card: str
    outcome: str
    outcome_timestamp: datetime | None = None
    accepted_suggestions: tuple[str, ...] = ()
    override_reason: OverrideReason | None = None
    own_reason: OverrideReason | None = None
    user_comment: str | None = None


@dataclass(frozen=True, slots=True)
class OutcomeCount:
    """How often an outcome came for cards of one key; `card_key` is `None` for cards we never showed."""

    service: str
    card_key: str | None
    outcome: str
    count: int


_NOT_KNOWN = Caller()


def _now() -> datetime:
    return datetime.now(UTC)


class FeedbackStore:
    """Writes through `trail`; reads through `engine` (only the queries need one).

    `data_keys` seal comments; `cipher` reads those of before there were data keys.
    """

    def __init__(
        self,
        trail: AuditTrail,
        cipher: Cipher,
        data_keys: DataKeys,
        *,
        engine: AsyncEngine | None = None,
        now: Callable[[], datetime] = _now,
        new_id: Callable[[], str] = new_id,
    ) -> None:
        self._trail = trail
        self._cipher = cipher
        self._data_keys = data_keys
        self._engine = engine
        self._now = now
        self._new_id = new_id

    async def record(
        self,
        service: str,
        client: str | None,
        items: Sequence[FeedbackItem],
        *,
        caller: Caller = _NOT_KNOWN,
        purpose: str | None = None,
    ) -> None:
        """Returns when all items are durable; repeated feedback on a card is kept each time.

        Args:
            caller: who sent it, with `purpose` (HL7 v3 PurposeOfUse), as far as it is known.

        Raises:
            AuditUnavailable: nothing can be kept now.
        """
        recorded = self._now()
        keys: dict[str, DataKey] = {}
        records = [
            msgspec.structs.replace(
                self._record(service, client, item, recorded, keys),
                user=caller.user,
                roles=caller.roles,
                purpose=purpose,
                network=caller.network,
            )
            for item in items
        ]
        await self._trail.record_all([*keys.values(), *records])
        self._data_keys.confirm(keys.values())

    def _record(
        self,
        service: str,
        client: str | None,
        item: FeedbackItem,
        recorded: datetime,
        keys: dict[str, DataKey],
    ) -> CardFeedback:
        feedback_id = self._new_id()
        comment = own_reason = None
        if item.user_comment:
            comment = self._sealed(item.card, item.user_comment, _context(feedback_id), keys)
        if item.own_reason is not None:
            text = msgspec.json.encode(item.own_reason).decode()
            own_reason = self._sealed(item.card, text, _reason_context(feedback_id), keys)
        reason = item.override_reason or OverrideReason()
        return CardFeedback(
            feedback_id=feedback_id,
            recorded=recorded,
            service=service,
            client=client,
            card=item.card,
            outcome=item.outcome,
            outcome_timestamp=item.outcome_timestamp,
            accepted_suggestions=item.accepted_suggestions,
            reason_code=reason.code,
            reason_system=reason.system,
            reason_display=reason.display,
            reason_sealed=own_reason,
            comment=comment,
        )

    def _sealed(self, card: str, text: str, context: str, keys: dict[str, DataKey]) -> str:
        """A text as ``k<key id>.<base64>``; its key is put among `keys` when it is not stored yet."""
        key_id, sealed, key = self._data_keys.seal(
            subject_of(card), text.encode("utf-8", "surrogatepass"), context
        )
        if key is not None:
            keys[key.key_id] = key
        return f"k{key_id}.{base64.b64encode(sealed).decode()}"

    async def outcomes(self, *, since: datetime | None = None) -> list[OutcomeCount]:
        """Counts by service, card key and outcome, ordered by them."""
        shown = (
            select(ShownCardRow.uuid, func.min(ShownCardRow.key).label("key"))
            .group_by(ShownCardRow.uuid)
            .subquery()
        )
        query = (
            select(FeedbackRow.service, shown.c.key, FeedbackRow.outcome, func.count())
            .outerjoin(shown, shown.c.uuid == FeedbackRow.card)
            .group_by(FeedbackRow.service, shown.c.key, FeedbackRow.outcome)
        )
        if since is not None:
            query = query.where(FeedbackRow.recorded >= since)
        async with self._reader().connect() as connection:
            found = [OutcomeCount(*row) for row in await connection.execute(query)]
        return sorted(found, key=lambda c: (c.service, c.card_key or "", c.outcome))

    async def known(self, cards: Sequence[str]) -> frozenset[str]:
        """Those of the card uuids that we have shown (as far as the database knows now)."""
        query = select(ShownCardRow.uuid).where(ShownCardRow.uuid.in_(cards)).distinct()
        async with self._reader().connect() as connection:
            return frozenset((await connection.execute(query)).scalars())

    async def comments(self, card: str) -> list[str]:
        """The comments on a card, decrypted, oldest first; those whose key was destroyed are gone.

        Raises:
            DecryptionFailed: a comment was altered, or its master key is gone.
        """
        query = (
            select(FeedbackRow.feedback_id, FeedbackRow.comment)
            .where(FeedbackRow.card == card, FeedbackRow.comment.is_not(None))
            .order_by(FeedbackRow.seq)
        )
        async with self._reader().connect() as connection:
            rows = (await connection.execute(query)).all()
            of_card = select(PatientKeyRow.__table__).where(PatientKeyRow.subject == subject_of(card))
            keys = {row.key_id: DataKey(**row._mapping) for row in await connection.execute(of_card)}
        found = [
            self._opened(comment, _context(feedback_id), keys) for feedback_id, comment in rows if comment
        ]
        return [text for text in found if text is not None]

    async def opened(self, feedback: CardFeedback) -> CardFeedback:
        """A feedback with its comment and reason in clear; without them when their key was destroyed.

        Raises:
            DecryptionFailed: see `comments`.
        """
        if feedback.comment is None and feedback.reason_sealed is None:
            return feedback
        of_card = select(PatientKeyRow.__table__).where(PatientKeyRow.subject == subject_of(feedback.card))
        async with self._reader().connect() as connection:
            keys = {row.key_id: DataKey(**row._mapping) for row in await connection.execute(of_card)}
        name, comment, reason = feedback.feedback_id, feedback.comment, feedback.reason_sealed
        text = self._opened(reason, _reason_context(name), keys) if reason is not None else None
        own = msgspec.json.decode(text, type=OverrideReason) if text is not None else OverrideReason()
        return msgspec.structs.replace(
            feedback,
            comment=self._opened(comment, _context(name), keys) if comment is not None else None,
            reason_code=feedback.reason_code or own.code,
            reason_system=feedback.reason_system or own.system,
            reason_display=feedback.reason_display or own.display,
            reason_sealed=None,
        )

    def _opened(self, stored: str, context: str, keys: Mapping[str, DataKey]) -> str | None:
        if not stored.startswith("k"):
            return self._cipher.decrypt(stored, context)
        key_id, _, body = stored[1:].partition(".")
        if key_id not in keys:
            return None
        try:
            sealed = base64.b64decode(body, validate=True)
        except ValueError as error:
            raise DecryptionFailed("a comment or reason is not as it was stored") from error
        opened = self._data_keys.open_sealed(keys[key_id], sealed, context)
        return opened.decode("utf-8", "surrogatepass")

    def _reader(self) -> AsyncEngine:
        if self._engine is None:
            raise RuntimeError("this FeedbackStore was built without an engine: it only writes")
        return self._engine


def subject_of(card: str) -> str:
    """Whose data keys seal the comments on a card (`decisions.keys`)."""
    return f"card:{card}"


def _context(feedback_id: str) -> str:
    return f"feedback.comment/{feedback_id}"


def _reason_context(feedback_id: str) -> str:
    return f"feedback.reason/{feedback_id}"
