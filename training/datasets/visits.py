"""One patient's record as it was exported, and the visits in it.

Responsible for putting resources in order and for what a visit is: an Encounter that happened and has a
start.  What was known at a visit is `asof`, what it turned out to be `diagnosis`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from fhir_adapters.times import age_days
from training.datasets.labels import Person
from training.datasets.moments import Resource, earliest, known_at, latest, text_at, visit_id
from training.datasets.options import CohortOptions

_NEVER = frozenset({"cancelled", "entered-in-error", "planned", "unknown"})
Reject = tuple[str, str]


@dataclass(frozen=True)
class Item:
    """A resource with its bytes, the moment it was known, and the visit that it says it belongs to."""

    kind: str
    reference: str
    resource: Resource
    raw: bytes
    known: datetime | None
    visit: str | None


@dataclass(frozen=True)
class Visit:
    """An Encounter that happened.  `decision` is the moment its chart is read, `last` its end or start."""

    id: str
    start: datetime
    decision: datetime
    last: datetime
    encounter: Resource

    @property
    def reference(self) -> str:
        """``Encounter/<id>``."""
        return f"Encounter/{self.id}"


@dataclass
class Record:
    """All resources of one patient; `visits` by start, `rejects` what cannot be read or did not happen."""

    patient: Resource
    items: list[Item]
    visits: list[Visit]
    rejects: list[Reject] = field(default_factory=list)

    def person(self, visit: Visit) -> Person:
        """Age and sex at a visit."""
        days, _ = age_days(text_at(self.patient, "birthDate"), visit.start)
        gender = self.patient.get("gender")
        return Person(
            None if days is None else days / 365.25,
            gender == "female" if gender in ("female", "male") else None,
        )


def read_record(lines: Iterable[bytes], options: CohortOptions) -> Record | None:
    """The record of one patient from its resources; `None` when there is no Patient among them.

    The order of the lines does not matter; of a resource sent twice the one changed last counts.
    """
    sent: dict[tuple[str, str], tuple[tuple[str, bytes], Resource, bytes]] = {}
    for raw in lines:
        resource: dict[str, Any] = msgspec.json.decode(raw)
        key = str(resource.get("resourceType")), str(resource.get("id"))
        rank = (text_at(resource, "meta.lastUpdated") or "", raw)
        if key not in sent or sent[key][0] < rank:
            sent[key] = rank, resource, raw
    # Shorter ids first: where ids count, this is the order in which they were given.
    keys = sorted(sent, key=lambda key: (key[0], len(key[1]), key[1]))
    ordered = [(kind, identity, *sent[kind, identity][1:]) for kind, identity in keys]
    patients = [resource for kind, _, resource, _ in ordered if kind == "Patient"]
    if not patients:
        return None
    rejects: list[Reject] = []
    visits: list[Visit] = []
    for kind, identity, resource, _ in ordered:
        if kind == "Encounter":
            visit = _visit(identity, resource, options)
            if isinstance(visit, Visit):
                visits.append(visit)
            else:
                rejects.append((f"Encounter/{identity}", visit))
    ends = {visit.id: end for visit in visits if (end := latest(text_at(visit.encounter, "period.end")))}
    items = [
        Item(kind, f"{kind}/{identity}", resource, raw, known_at(resource, ends), visit_id(resource))
        for kind, identity, resource, raw in ordered
        if kind not in ("Patient", "Encounter")
    ]
    visits.sort(key=lambda visit: (visit.start, visit.id))
    return Record(patients[0], items, visits, rejects)


def _visit(identity: str, encounter: Resource, options: CohortOptions) -> Visit | str:
    """The visit that an Encounter is, or why it is none."""
    if encounter.get("status") in _NEVER:
        return "visit-did-not-happen"
    sent = text_at(encounter, "period.start")
    start, latest_start = earliest(sent), latest(sent)
    if start is None or latest_start is None:
        return "visit-without-start"
    # Of a start that is only a day the decision is at its end: nothing tells what came first on that day.
    decision = max(start + timedelta(hours=options.decision_hours), latest_start)
    last = max(latest(text_at(encounter, "period.end")) or latest_start, latest_start)
    return Visit(identity, start, decision, last, encounter)
