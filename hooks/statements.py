"""Sorts what an assessment says into groups that each become one card.

Responsible for three promises: the gravest statement comes first, the same finding is never said
twice (statements that rest on a common fact go together), and nothing grave is lost when there are
more groups than cards.  Contains no words for people.
"""

import tomllib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Literal

import msgspec

from hooks.errors import DataInvalid
from hooks.facts import distinct
from hooks.priority import RANK, priorities
from models.assessment import Assessment, CriticalValue, Fact, RedFlag, Score

_STATE = "state"
Kind = Literal["red-flag", "critical", "score"]


class Statement(msgspec.Struct, frozen=True, gc=False):
    """A red flag, critical value or score with what sorting needs.

    `rank` is 0 (immediate) to 3 (routine); `lead` sorts statements into the order in which they lead.
    """

    kind: Kind
    id: str
    rank: int
    stale: bool
    facts: tuple[Fact, ...]
    actions: tuple[str, ...]
    source: str
    value: RedFlag | CriticalValue | Score
    lead: tuple[float, int, int, int, int] = (3.5, 0, 0, 0, 0)


class Group(msgspec.Struct):
    """Statements that belong on one card, in the order they lead, and the keys of the facts that red flags
    and critical values rest on.

    `leaders` are the problems the card is about: its head, and those of groups it took in for want of
    room.
    """

    statements: list[Statement]
    keys: set[str]
    leaders: list[Statement] = []
    rank: int = 3

    @property
    def head(self) -> Statement:
        """The statement that leads."""
        return self.statements[0]


@cache
def related() -> dict[str, frozenset[str]]:
    """Red flag id to the LOINC codes whose critical values belong on its card (``data/related.toml``)."""
    text = resources.files("hooks").joinpath("data", "related.toml").read_text(encoding="utf-8")
    found: dict[str, frozenset[str]] = {}
    for number, row in enumerate(tomllib.loads(text).get("related", ()), start=1):
        flags, loinc, source = row.get("red_flags"), row.get("loinc"), row.get("source")
        if not (isinstance(flags, list) and isinstance(loinc, list) and flags and loinc and source):
            raise DataInvalid(f"related.toml, entry {number}: needs red_flags, loinc and source")
        for flag in flags:
            found[flag] = found.get(flag, frozenset()) | {f"measurement:{code}" for code in loinc}
    return found


def keys_of(facts: Sequence[Fact]) -> set[str]:
    """What makes two facts the same finding: the code, or the Observation they were read from.

    Fever as a finding and the temperature it was derived from share their Observation.  Age, sex and
    pregnancy connect nothing: every statement about a woman in pregnancy would be one.
    """
    keys: set[str] = set()
    for fact in facts:
        if fact.kind == "demographic":
            continue
        keys.add(f"{fact.kind}:{fact.code}")
        for source in fact.sources:
            if source.startswith("Observation/"):
                keys.add(source)
    return keys


def scored_facts(score: Score) -> tuple[Fact, ...]:
    """The facts that gave a score its points (or all, for a score that is no sum of points)."""
    facts = tuple([part.fact for part in score.parts if part.fact is not None and part.points > 0])
    return facts or tuple([part.fact for part in score.parts if part.fact is not None])


def statements_of(assessment: Assessment) -> list[Statement]:
    """Every statement of an assessment that has an urgency, in the order they lead (`priority`)."""
    table = priorities()
    found: list[Statement] = []
    places = [(RANK[flag.urgency], *table.of_flag(flag.id)) for flag in assessment.red_flags]
    rivals = [place[:2] for place in places]
    for flag, (rank, kind, tie) in zip(assessment.red_flags, places, strict=True):
        # How many independent facts there are matters between rivals only.
        weight = _weight(flag.facts) if rivals.count((rank, kind)) > 1 else 0
        lead = (rank, 0, kind, -weight, tie)
        found.append(
            Statement(
                "red-flag", flag.id, rank, flag.stale, flag.facts, flag.actions, flag.source, flag, lead
            )
        )
    for critical in assessment.critical_values:
        rank = RANK[critical.urgency]
        found.append(
            Statement(
                "critical",
                critical.id,
                rank,
                critical.stale,
                (critical.fact,),
                critical.actions,
                critical.source,
                critical,
                (rank, 1, 0, 0, 0),
            )
        )
    for score in assessment.scores:
        if score.urgency is not None:
            rank = RANK[score.urgency]
            facts = scored_facts(score)
            # A score says how ill the patient is, not with what: what is urgent for a reason leads before it.
            restates = int(score.id in table.restating)
            found.append(
                Statement(
                    "score",
                    score.id,
                    rank,
                    score.stale,
                    facts,
                    (),
                    score.source,
                    score,
                    (max(rank, RANK["urgent"]) + 0.5, restates, rank, 0, 0),
                )
            )
    found.sort(key=_lead)
    return found


def _lead(statement: Statement) -> tuple[float, int, int, int, int]:
    return statement.lead


def _weight(facts: Sequence[Fact]) -> int:
    """How many independent facts a pattern rests on; age and sex are none."""
    return sum([fact.kind != "demographic" for fact in distinct([facts])])


def _belongs(statement: Statement, keys: set[str], group: Group) -> bool:
    if not keys.isdisjoint(group.keys):
        return True
    table = related()
    if statement.kind == "critical":
        for other in group.statements:
            if other.kind == "red-flag" and not keys.isdisjoint(table.get(other.id, ())):
                return True
        return False
    belonging = table.get(statement.id)
    return belonging is not None and any(
        other.kind == "critical" and not belonging.isdisjoint(keys_of(other.facts))
        for other in group.statements
    )


def group(statements: Sequence[Statement], most: int) -> list[Group]:
    """Put statements into at most `most` groups, gravest first.

    Red flags and critical values go together when they rest on a common fact or belong together
    (`related`).  A state that a disease may explain goes onto the card of the disease.  A score is
    about the whole patient: it joins the gravest card there is, and makes one of its own only when it
    is worth one (`Priorities.stands_alone`).  When there are more groups than cards, the last card
    takes all that remain.
    """
    groups: list[Group] = []
    scores: list[Statement] = []
    for statement in statements:
        if statement.kind == "score":
            scores.append(statement)
            continue
        keys = keys_of(statement.facts)
        home: Group | None = None
        kept: list[Group] = []
        for candidate in groups:
            if not _belongs(statement, keys, candidate):
                kept.append(candidate)
            elif home is None:
                home = candidate
                kept.append(candidate)
            else:
                _absorb(home, candidate)
        if home is None:
            home = Group([], set())
            kept.append(home)
        home.statements.append(statement)
        home.keys |= keys
        home.rank = min(home.rank, statement.rank)
        groups = kept
    groups = _explained(groups)
    _place_scores(groups, scores)
    for members in groups:
        members.statements.sort(key=_lead)
        head = members.statements.pop(0)
        members.statements.sort(key=_rank_of)
        members.statements.insert(0, head)
        members.leaders = [head]
    groups.sort(key=_lead_of_group)
    while len(groups) > most:
        last = groups.pop()
        groups[-1].leaders.extend(last.leaders)
        _absorb(groups[-1], last)
    return groups


def _explained(groups: list[Group]) -> list[Group]:
    """Urgent states that an urgent disease on another card may explain (confusion in sepsis) go onto it."""
    homes: list[Group] = []
    states: list[Group] = []
    rest: list[Group] = []
    table = priorities()
    for members in groups:
        kinds = [
            _STATE if s.kind == "red-flag" and table.is_consequence(s.id) else s.kind
            for s in members.statements
        ]
        if members.rank > RANK["urgent"]:
            rest.append(members)
        elif kinds.count(_STATE) == len(kinds):
            states.append(members)
        elif "red-flag" in kinds:
            homes.append(members)
        else:
            rest.append(members)
    if not states or not homes:
        return groups
    home = min(homes, key=_rank_of_group)
    for members in states:
        _absorb(home, members)
    return [*homes, *rest]


def _lead_of_group(members: Group) -> tuple[float, ...]:
    return members.rank, *members.statements[0].lead


def _place_scores(groups: list[Group], scores: Sequence[Statement]) -> None:
    """Scores onto the gravest urgent card; else onto a card of their own, or one they share facts with."""
    urgent = [members for members in groups if members.rank <= RANK["urgent"]]
    home: Group | None = min(urgent, key=_rank_of_group) if urgent else None
    table = priorities()
    if home is None and any(table.stands_alone(score.id, score.rank) for score in scores):
        home = Group([], set())
        groups.append(home)
    for score in scores:
        place = home
        if place is None and groups:
            keys = keys_of(score.facts)
            place = next((members for members in groups if not keys.isdisjoint(members.keys)), None)
        if place is not None:
            place.statements.append(score)
            place.rank = min(place.rank, score.rank)


def _rank_of(statement: Statement) -> int:
    return statement.rank


def _rank_of_group(members: Group) -> int:
    return members.rank


def _absorb(home: Group, other: Group) -> None:
    home.statements.extend(other.statements)
    home.keys |= other.keys
    home.rank = min(home.rank, other.rank)
