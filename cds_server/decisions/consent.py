"""Whether what was sent says that it must not be kept.

Two things of FHIR R4 say so, and only when the EHR sends them: an active `Consent` of scope patient-privacy
whose rules deny storing, and a security label on a resource.  No service here asks for a Consent, so this
respects a denial that comes along and cannot know of one that does not (`docs/privacy.md`).

Sources: FHIR R4 Consent (provision, "a deny ... exceptions nested below"); CodeSystem consentaction, where
`collect` is to gather information for storage; HL7 v3 ActCode, RefrainPolicy NOCOLLECT (no collection or
storage) and NOPERSISTP (not beyond the purpose of use), ObligationPolicy DELAU (delete after use).

When in doubt the denial wins: an exception that permits part of what is denied does not bring it back, for
all that is lost is the replay of one decision.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import msgspec

_LABELS = frozenset({"NOCOLLECT", "NOPERSISTP", "DELAU"})
_ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
_OTHER_SCOPES = frozenset({"adr", "research", "treatment"})
_STORING = "collect"
_DAY = timedelta(days=1)  # a date without a time may begin up to a day earlier or later elsewhere


def denies_storing(document: bytes, now: datetime) -> bool:
    """Whether a request, a Bundle or a page of one says that its content must not be stored.

    Fast for the many that name neither a Consent nor a label; `now` is compared with a Consent's period.
    """
    if b"Consent" not in document and b'"security"' not in document:
        return False
    try:
        root = msgspec.json.decode(document)
        return any(_denies(found, now) for found in _objects(root))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return True  # it cannot be told what it says


def _objects(root: Any) -> Iterator[dict[str, Any]]:
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _denies(found: dict[str, Any], now: datetime) -> bool:
    kind = found.get("resourceType")
    if not isinstance(kind, str):
        return False
    if any(
        label.get("code") in _LABELS and label.get("system") in (_ACT_CODE, None)
        for label in _dicts(_dict(found.get("meta")).get("security"))
    ):
        return True
    return kind == "Consent" and found.get("status") == "active" and _consent_denies(found, now)


def _consent_denies(consent: dict[str, Any], now: datetime) -> bool:
    scopes = _codes(consent.get("scope"))
    if scopes and scopes <= _OTHER_SCOPES:
        return False  # do not resuscitate says nothing of storing
    waiting = [_dict(consent.get("provision"))]
    while waiting:
        rule = waiting.pop()
        waiting.extend(_dicts(rule.get("provision")))
        if rule.get("type") != "deny" or rule.get("actor") or not _in_force(rule.get("period"), now):
            continue
        actions = {code for action in _dicts(rule.get("action")) for code in _codes(action)}
        if not actions or _STORING in actions:
            return True
    return False


def _in_force(period: Any, now: datetime) -> bool:
    start, end = _dict(period).get("start"), _dict(period).get("end")
    latest, earliest = (now + _DAY).date().isoformat(), (now - _DAY).date().isoformat()
    begun = not isinstance(start, str) or start[:10] <= latest
    # "2026" ends with the year: as text it must be compared at its own length.
    ended = isinstance(end, str) and end[:10] < earliest[: len(end[:10])]
    return begun and not ended


def _codes(concept: Any) -> set[str]:
    return {
        code for coding in _dicts(_dict(concept).get("coding")) if isinstance(code := coding.get("code"), str)
    }


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
