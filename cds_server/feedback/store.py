"""Feedback on cards: recorded through the audit trail (same durability), read by queries.

A card's `uuid` may be one we never showed: it is stored all the same, and `known` is decided when
reading, because the event that showed it may still wait in a spool.  A reason or comment is what
people typed: nothing of it is ever logged, and the comment is encrypted under a data key of its card, which
an erasure destroys with the data keys of the card's patient (`decisions.erasure`).
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from cds_server.audit import AuditTrail, CardFeedback, DataKey, new_id
from cds_server.db.models import FeedbackRow, ShownCardRow
from cds_server.db.models_decisions import PatientKeyRow
from cds_server.decisions.keys import DataKeys
from cds_server.privacy import Cipher, DecryptionFailed


class OverrideReason(msgspec.Struct, frozen=True):
    """Why a card was overridden: the Coding of the reason chosen from the card's `overrideReasons`."""

    code: str | None = None
    system: str | None = None
    display: str | None = None


class FeedbackItem(msgspec.Struct, frozen=True, kw_only=True):
    """One element of a CDS Hooks feedback request, already read and checked."""

    card: str
    outcome: str
    outcome_timestamp: datetime | None = None
    accepted_suggestions: tuple[str, ...] = ()
    override_reason: OverrideReason | None = None
    user_comment: str | None = None


@dataclass(frozen=True, slots=True)
class OutcomeCount:
    """How often an outcome came for cards of one key; `card_key` is `None` for cards we never showed."""

    service: str
    card_key: str | None
    outcome: str
    count: int


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

    async def record(self, service: str, client: str | None, items: Sequence[FeedbackItem]) -> None:
        """Returns when all items are durable; repeated feedback on a card is kept each time.

        Raises:
            AuditUnavailable: nothing can be kept now.
        """
        recorded = self._now()
        keys: dict[str, DataKey] = {}
        records = [self._record(service, client, item, recorded, keys) for item in items]
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
        comment = None
        if item.user_comment:
            comment, key = self._sealed(item.card, item.user_comment, feedback_id)
            if key is not None:
                keys[key.key_id] = key
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
            comment=comment,
        )

    def _sealed(self, card: str, comment: str, feedback_id: str) -> tuple[str, DataKey | None]:
        """The comment as ``k<key id>.<base64>``, and its key when that is not stored yet."""
        key_id, sealed, key = self._data_keys.seal(
            subject_of(card), comment.encode("utf-8", "surrogatepass"), _context(feedback_id)
        )
        return f"k{key_id}.{base64.b64encode(sealed).decode()}", key

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
        found = [self._opened(feedback_id, comment, keys) for feedback_id, comment in rows if comment]
        return [text for text in found if text is not None]

    async def opened(self, feedback: CardFeedback) -> CardFeedback:
        """A feedback with its comment in clear; without one when the comment's key was destroyed.

        Raises:
            DecryptionFailed: see `comments`.
        """
        if feedback.comment is None:
            return feedback
        of_card = select(PatientKeyRow.__table__).where(PatientKeyRow.subject == subject_of(feedback.card))
        async with self._reader().connect() as connection:
            keys = {row.key_id: DataKey(**row._mapping) for row in await connection.execute(of_card)}
        comment = self._opened(feedback.feedback_id, feedback.comment, keys)
        return msgspec.structs.replace(feedback, comment=comment)

    def _opened(self, feedback_id: str, comment: str, keys: Mapping[str, DataKey]) -> str | None:
        if not comment.startswith("k"):
            return self._cipher.decrypt(comment, _context(feedback_id))
        key_id, _, body = comment[1:].partition(".")
        if key_id not in keys:
            return None
        try:
            sealed = base64.b64decode(body, validate=True)
        except ValueError as error:
            raise DecryptionFailed("a comment is not as it was stored") from error
        opened = self._data_keys.open_sealed(keys[key_id], sealed, _context(feedback_id))
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
