"""The shapes of CDS Hooks cards, exactly the standard's fields, and the builder that keeps its limits.

`omit_defaults` leaves out every member without a value, so that no null and no empty member is ever
sent (CDS Hooks, "null and empty values").  Knows the wire format only: what a card says is decided
in `diagnostic_assessment` and `order_review`.
"""

from collections.abc import Sequence
from hashlib import sha1
from typing import Any, Literal
from uuid import UUID

import msgspec

Indicator = Literal["info", "warning", "critical"]
SelectionBehavior = Literal["at-most-one", "any"]

SUMMARY_LIMIT = 139
"""CDS Hooks: fewer than 140 characters."""

TOPIC_SYSTEM = "urn:cds-server:topic"
OVERRIDE_SYSTEM = "urn:cds-server:override-reason"

_NAMESPACE = UUID("5b0f3c0e-6f0a-5f0f-9b51-3d1a5f1f7c11")
# RFC 9562: version 5 in bits 76 to 79, variant 2 in bits 62 and 63.
_UUID_MASK = ~((0xF << 76) | (0x3 << 62))
_UUID_5 = (5 << 76) | (2 << 62)


class CardInvalid(ValueError):
    """A card was about to break the standard; a defect of ours, never of the data."""


class Coding(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A code of a code system."""

    code: str
    system: str
    display: str | None = None


class Source(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Where a card's guidance comes from; `url` and `icon` are absolute."""

    label: str
    url: str | None = None
    icon: str | None = None
    topic: Coding | None = None


class Action(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One step of a suggestion: a `create` with its resource, or a `delete` with its `resourceId`."""

    type: Literal["create", "update", "delete"]
    description: str
    resource: dict[str, Any] | None = None
    resourceId: str | None = None


class Suggestion(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Something the clinician can accept with one click."""

    label: str
    uuid: str | None = None
    isRecommended: bool = False
    actions: tuple[Action, ...] = ()


class Link(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A link to a page or a SMART app; `appContext` belongs to `smart` links only."""

    label: str
    url: str
    type: Literal["absolute", "smart"]
    appContext: str | None = None


class Card(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One card as it is sent."""

    summary: str
    indicator: Indicator
    source: Source
    uuid: str | None = None
    detail: str | None = None
    suggestions: tuple[Suggestion, ...] = ()
    selectionBehavior: SelectionBehavior | None = None
    overrideReasons: tuple[Coding, ...] = ()
    links: tuple[Link, ...] = ()


class CardSettings(msgspec.Struct, frozen=True):
    """What a site may change about cards.

    `max_cards` per call; `max_suggestions` and `max_facts` per card (what is left out is counted on
    the card); `stale_horizon_hours` is how far back an outdated warning is still worth a card (grade
    C: estimate of this project; older values are history, not a reason to interrupt);
    `stale_vitals_hours` the same for vital signs, which change faster than laboratory values.
    """

    max_cards: int = 3
    max_suggestions: int = 6
    max_facts: int = 8
    stale_horizon_hours: float = 168.0
    stale_vitals_hours: float = 72.0
    source_label: str = "CDS Server"


DEFAULT_SETTINGS = CardSettings()


class CardResponse(msgspec.Struct, frozen=True):
    """The body of a hook's answer; `cards` is there even when it is empty."""

    cards: tuple[Card, ...]


def fit_summary(text: str) -> str:
    """Cut a summary to fewer than 140 characters, at a word, with an ellipsis."""
    if len(text) <= SUMMARY_LIMIT:
        return text
    cut = text[: SUMMARY_LIMIT - 1]
    space = cut.rfind(" ")
    # A single word longer than half the line is cut inside rather than dropped.
    return (cut[:space] if space > SUMMARY_LIMIT // 2 else cut).rstrip(" ,;:·(") + "…"


def stable_uuid(seed: str, key: str) -> str:
    """A UUID (version 5) from the caller's seed (one per hook call) and the key of the thing named."""
    # What `uuid.uuid5` gives, without its objects: a card has up to seven of them.
    digest = sha1(_NAMESPACE.bytes + f"{seed}\x1f{key}".encode("utf-8", "replace"), usedforsecurity=False)
    number = (int.from_bytes(digest.digest()[:16], "big") & _UUID_MASK) | _UUID_5
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def build_card(
    *,
    seed: str,
    key: str,
    summary: str,
    indicator: Indicator,
    detail: str,
    source: Source,
    suggestions: Sequence[Suggestion] = (),
    selection_behavior: SelectionBehavior = "any",
    override_reasons: tuple[Coding, ...] = (),
    links: tuple[Link, ...] = (),
) -> Card:
    """Make a card that keeps the standard's rules.

    Args:
        seed: one per hook call; with `key` it gives the card's and the suggestions' UUIDs.
        key: what the card is about, unique within the call.
        summary: one plain sentence, cut to fewer than 140 characters.
        detail: GitHub-flavoured Markdown, patient text already escaped; left out when empty.
        suggestions: their own `uuid` is replaced by one made from the seed.
        selection_behavior: left out without suggestions.

    Raises:
        CardInvalid: an empty summary, more than one recommended suggestion where at most one may be
            chosen, or an absolute link with `appContext`.
    """
    if not summary.strip():
        raise CardInvalid(f"card {key}: empty summary")
    if selection_behavior == "at-most-one" and sum(s.isRecommended for s in suggestions) > 1:
        raise CardInvalid(f"card {key}: several recommended suggestions of which at most one may be chosen")
    if any(link.type == "absolute" and link.appContext is not None for link in links):
        raise CardInvalid(f"card {key}: appContext on an absolute link")
    named = tuple(
        Suggestion(
            label=suggestion.label,
            uuid=stable_uuid(seed, f"{key}\x1f{position}\x1f{suggestion.label}"),
            isRecommended=suggestion.isRecommended,
            actions=suggestion.actions,
        )
        for position, suggestion in enumerate(suggestions)
    )
    return Card(
        summary=fit_summary(summary),
        indicator=indicator,
        source=source,
        uuid=stable_uuid(seed, key),
        detail=detail or None,
        suggestions=named,
        selectionBehavior=selection_behavior if named else None,
        overrideReasons=override_reasons,
        links=links,
    )
