"""What a visit turned out to be: its label from confirmed diagnoses, or why it has none.

Only Conditions count that are confirmed and a visit's diagnosis.  Those of the visit
itself come first, then those that name no visit and were recorded before the next one began, then (when
asked for) those of later visits.  Of several, the one that the Encounter ranks first; symptom codes give
way to a definite diagnosis (ICD-10-CM Official Guidelines for Coding and Reporting, section IV.D).
"""

from dataclasses import dataclass
from datetime import timedelta

from training.datasets.labels import LabelMap, Meaning
from training.datasets.moments import Resource, codings_of, last_part, rows_at, text_at
from training.datasets.options import CohortOptions
from training.datasets.visits import Item, Record, Visit

_COMPETES = ("disease", "unknown")


@dataclass(frozen=True)
class Label:
    """The disease of a visit and the references of the Conditions that say so: never features."""

    disease: str
    own: frozenset[str]


@dataclass(frozen=True)
class _Candidate:
    item: Item
    meaning: Meaning
    rank: tuple[int, float]

    @property
    def counts(self) -> bool:
        """Whether it is a diagnosis at all: factors and situations are coded beside diagnoses."""
        return bool(self.meaning.diseases) or self.meaning.kind in _COMPETES


def choose_label(record: Record, visit: Visit, labels: LabelMap, options: CohortOptions) -> Label | str:
    """The label of a visit, or the reason (a stable key) why it has none."""
    person = record.person(visit)
    ranks = _ranks(visit.encounter)
    own: list[_Candidate] = []
    loose: list[_Candidate] = []
    later: list[_Candidate] = []
    end = visit.last + timedelta(days=options.window_days)
    following = [other.start for other in record.visits if other.start > visit.start]
    next_start = min(following, default=None)
    for item in record.items:
        if item.kind != "Condition" or item.known is None:
            continue
        listed = item.reference.partition("/")[2] in ranks
        if not _is_confirmed_diagnosis(item, listed=listed):
            continue
        ours = item.visit == visit.id or listed
        if item.known > end or (item.known < visit.start and not ours):
            continue
        meaning = labels.meaning(codings_of(item.resource.get("code")), person)
        rank = ranks.get(item.reference.partition("/")[2], (1, float("inf")))
        candidate = _Candidate(item, meaning, rank)
        if not candidate.counts:
            continue
        if ours:
            own.append(candidate)
        elif item.visit is None:
            if next_start is None or item.known < next_start:
                loose.append(candidate)
        elif options.follow_ups:
            later.append(candidate)
    for group in (own, loose, later):
        if group:
            return _best(group)
    return "no-confirmed-diagnosis"


def _best(group: list[_Candidate]) -> Label | str:
    first = min(candidate.rank for candidate in group)
    leading = [candidate for candidate in group if candidate.rank == first]
    definite = [candidate for candidate in leading if candidate.meaning.kind != "finding"]
    leading = definite or leading
    named = {candidate.meaning.disease for candidate in leading if candidate.meaning.disease is not None}
    unclear = [candidate for candidate in leading if candidate.meaning.disease is None]
    # An unclear code beside a clear one of the same diseases is the same diagnosis said less exactly.
    unclear = [candidate for candidate in unclear if not (named & candidate.meaning.diseases)]
    if len(named) > 1 or (named and unclear):
        return "several-diagnoses"
    if not named:
        shared = any(candidate.meaning.diseases for candidate in unclear)
        return "code-of-several-diseases" if shared else "diagnosis-not-in-knowledge"
    disease = named.pop()
    return Label(
        disease,
        frozenset(c.item.reference for c in group if disease in c.meaning.diseases),
    )


def _is_confirmed_diagnosis(item: Item, *, listed: bool) -> bool:
    """Whether a Condition is a confirmed diagnosis of a visit.

    By its category, by being listed in the Encounter's diagnoses, or (`category` may be left out) by
    having no category and naming its visit.
    """
    condition = item.resource
    if "confirmed" not in {code for _, code in codings_of(condition.get("verificationStatus"))}:
        return False
    categories = {code for row in rows_at(condition, "category") for _, code in codings_of(row)}
    return listed or "encounter-diagnosis" in categories or (not categories and item.visit is not None)


def _ranks(encounter: Resource) -> dict[str, tuple[int, float]]:
    """By Condition id how the Encounter ranks it: discharge diagnoses first, then by rank."""
    found: dict[str, tuple[int, float]] = {}
    for row in rows_at(encounter, "diagnosis"):
        reference = text_at(row, "condition.reference")
        if reference is None:
            continue
        discharge = any(code == "DD" for _, code in codings_of(row.get("use")))
        rank = row.get("rank")
        value = float(rank) if isinstance(rank, int) else float("inf")
        key = last_part(reference)
        found[key] = min((0 if discharge else 1, value), found.get(key, (2, 0.0)))
    return found
