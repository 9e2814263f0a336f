"""Feedback on cards (CDS Hooks 2.0.1, "Feedback"): decoded, checked, stored.

Tolerant where the standard leaves room: an empty array, the same card twice, a card we never showed, a
reason that the card did not offer: nobody knows what such a one says, so it is kept apart from ours.
"""

import re
from datetime import UTC, datetime
from functools import cache
from itertools import product
from typing import get_args

import msgspec

from cds_server.errors import RequestMalformed, malformed
from cds_server.feedback.store import FeedbackItem, OverrideReason
from hooks.cards import OVERRIDE_SYSTEM
from hooks.override_reasons import Audience, override_reasons
from hooks.texts import LANGUAGES

_MOST_ITEMS = 1_000
_LONGEST_COMMENT = 10_000
_LONGEST_TEXT = 512
_OUTCOMES = ("accepted", "overridden")
_UUID = re.compile(r"(urn:uuid:)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.IGNORECASE)


class _Accepted(msgspec.Struct, gc=False):
    id: str


class _Coding(msgspec.Struct, gc=False):
    code: str
    system: str | None = None
    display: str | None = None


class _Reason(msgspec.Struct, gc=False):
    reason: _Coding | None = None
    userComment: str | None = None


class _Item(msgspec.Struct, gc=False):
    card: str
    outcome: str
    outcomeTimestamp: str
    acceptedSuggestions: list[_Accepted] | None = None
    overrideReason: _Reason | None = None


class _Feedback(msgspec.Struct, gc=False):
    feedback: list[_Item]


_decoder = msgspec.json.Decoder(_Feedback)


def decode_feedback(body: bytes) -> list[FeedbackItem]:
    """The feedback of one request; raises `RequestMalformed` naming the member at fault."""
    try:
        items = _decoder.decode(body).feedback
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as fault:
        raise malformed(fault) from None
    if len(items) > _MOST_ITEMS:
        raise RequestMalformed(f"more than {_MOST_ITEMS} items in one request", "feedback")
    return [_checked(item, f"feedback[{position}]") for position, item in enumerate(items)]


def _checked(item: _Item, where: str) -> FeedbackItem:
    if not _UUID.match(item.card):
        raise RequestMalformed("expected the uuid of a card", f"{where}.card")
    if item.outcome not in _OUTCOMES:
        raise RequestMalformed("expected accepted or overridden", f"{where}.outcome")
    moment: datetime | None
    try:
        moment = datetime.fromisoformat(item.outcomeTimestamp)
        # The first and last day of the calendar have offsets that no UTC time can show (OverflowError).
        moment = moment.astimezone(UTC) if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        raise RequestMalformed("expected an RFC 3339 time in UTC", f"{where}.outcomeTimestamp")
    accepted = tuple(s.id for s in item.acceptedSuggestions or ())
    if any(not _UUID.match(suggestion) for suggestion in accepted):
        raise RequestMalformed("expected the uuid of a suggestion", f"{where}.acceptedSuggestions.id")
    reason, own, comment = _reason(item.overrideReason, f"{where}.overrideReason")
    return FeedbackItem(
        card=item.card.lower().removeprefix("urn:uuid:"),
        outcome=item.outcome,
        outcome_timestamp=moment,
        accepted_suggestions=accepted,
        override_reason=reason,
        own_reason=own,
        user_comment=comment,
    )


def _reason(
    given: _Reason | None, where: str
) -> tuple[OverrideReason | None, OverrideReason | None, str | None]:
    """The reason as far as it is of our list, what it says beyond that, and the comment."""
    if given is None:
        return None, None, None
    comment = given.userComment or None
    if comment is not None and len(comment) > _LONGEST_COMMENT:
        raise RequestMalformed(f"longer than {_LONGEST_COMMENT} characters", f"{where}.userComment")
    coding = given.reason
    if coding is None:
        return None, None, comment
    if any(len(text or "") > _LONGEST_TEXT for text in (coding.code, coding.system, coding.display)):
        raise RequestMalformed(f"longer than {_LONGEST_TEXT} characters", f"{where}.reason")
    texts = _own_texts().get(coding.code)
    if texts is None or coding.system not in (None, OVERRIDE_SYSTEM):
        return None, OverrideReason(coding.code, coding.system, coding.display), comment
    if coding.display is None or coding.display in texts:
        return OverrideReason(coding.code, coding.system, coding.display), None, comment
    return OverrideReason(coding.code, coding.system), OverrideReason(display=coding.display), comment


@cache
def _own_texts() -> dict[str, set[str]]:
    """The codes of the reasons our cards offer, each with its wordings."""
    texts: dict[str, set[str]] = {}
    for audience, language in product(get_args(Audience), LANGUAGES):
        for reason in override_reasons(audience, language):
            texts.setdefault(reason.code, set()).add(reason.display or "")
    return texts
