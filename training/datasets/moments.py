"""When a resource was known: the question on which everything about leakage rests.

A result is known when it is issued, not when the blood was drawn; a diagnosis when it was recorded, not
when the illness began.  A date without a time counts as its last moment.  What tells no date of its own
takes the end of the visit that it belongs to, then the server's last change of it; what tells nothing is
known at no time.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from fhir_adapters.times import parse_datetime

Resource = dict[str, Any]
_WITH_TIME = 11
"""Characters of a FHIR dateTime from which on it has a time of day."""
_INSTANT = timedelta(microseconds=1)
# Of each type the elements that say when it was written or came to be known.  All of the first group that
# is there count, and the latest decides; FHIR R4, resource pages.
_KNOWN: dict[str, tuple[tuple[str, ...], ...]] = {
    "Condition": (("recordedDate",),),
    "Observation": (
        ("issued", "effectiveDateTime", "effectiveInstant", "effectivePeriod.start", "effectivePeriod.end"),
    ),
    "DiagnosticReport": (("issued", "effectiveDateTime", "effectivePeriod.start", "effectivePeriod.end"),),
    "AllergyIntolerance": (("recordedDate",),),
    "MedicationRequest": (("authoredOn",),),
    "MedicationStatement": (("dateAsserted",), ("effectiveDateTime", "effectivePeriod.start")),
    "ServiceRequest": (("authoredOn",),),
    "Procedure": (("performedDateTime", "performedPeriod.start", "performedPeriod.end"),),
    "Immunization": (("recorded", "occurrenceDateTime"),),
    "FamilyMemberHistory": (("date",),),
}


def at(resource: Any, path: str) -> Any:
    """The element at a dotted path, `None` where there is none."""
    for name in path.split("."):
        if not isinstance(resource, dict):
            return None
        resource = resource.get(name)
    return resource


def text_at(resource: Any, path: str) -> str | None:
    """The text at a dotted path, `None` where there is none."""
    found = at(resource, path)
    return found if isinstance(found, str) else None


def rows_at(resource: Any, path: str) -> list[Resource]:
    """The objects of a list at a dotted path; whatever else stands there is left out."""
    found = at(resource, path)
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def codings_of(concept: Any) -> list[tuple[str, str]]:
    """The ``(system, code)`` pairs of a CodeableConcept."""
    pairs = [
        (text_at(coding, "system") or "", text_at(coding, "code")) for coding in rows_at(concept, "coding")
    ]
    return [(system, code) for system, code in pairs if code]


def words_of(concept: Any) -> str | None:
    """The text of a CodeableConcept, or the first display."""
    displays = [text_at(coding, "display") for coding in rows_at(concept, "coding")]
    return text_at(concept, "text") or next((text for text in displays if text), None)


def earliest(text: str | None) -> datetime | None:
    """The first moment of a FHIR date or dateTime."""
    return parse_datetime(text) if text else None


def latest(text: str | None) -> datetime | None:
    """The last moment of a FHIR date or dateTime: of a day its end."""
    start = earliest(text)
    if start is None or text is None or len(text) >= _WITH_TIME:
        return start
    if len(text) == 4:
        return start.replace(year=start.year + 1) - _INSTANT
    if len(text) == 7:
        return (start + timedelta(days=31)).replace(day=1) - _INSTANT
    return start + timedelta(days=1) - _INSTANT


def visit_id(resource: Resource) -> str | None:
    """The id of the Encounter that a resource says it belongs to."""
    sent = text_at(resource, "encounter.reference")
    return last_part(sent) if sent else None


def last_part(reference: str) -> str:
    """The id of a relative, absolute, versioned or ``urn:uuid:`` reference."""
    bare = reference.partition("/_history/")[0]
    return bare.rpartition("/")[2].removeprefix("urn:uuid:")


def known_at(resource: Resource, ends: Mapping[str, datetime]) -> datetime | None:
    """The moment from which on a resource was known, or `None` when nothing tells.

    `ends` holds the end of each finished visit by Encounter id.
    """
    for group in _KNOWN.get(str(resource.get("resourceType")), ()):
        dates = [date for path in group if (date := latest(text_at(resource, path))) is not None]
        if dates:
            return max(dates)
    visit = visit_id(resource)
    if visit is not None and visit in ends:
        return ends[visit]
    return latest(text_at(resource, "meta.lastUpdated"))
