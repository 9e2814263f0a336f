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

from models.assessment import Assessment, CriticalValue, Fact, RedFlag, Score

RANK = {"immediate": 0, "urgent": 1, "soon": 2, "routine": 3}
Kind = Literal["red-flag", "critical", "score"]
_KIND_ORDER = {"red-flag": 0, "critical": 1, "score": 2}


class Statement(msgspec.Struct, frozen=True, gc=False):
    """A red flag, critical value or score with what sorting needs: `rank` 0 (immediate) to 3 (routine)."""

    kind: Kind
    id: str
    rank: int
    stale: bool
    facts: tuple[Fact, ...]
    actions: tuple[str, ...]
    source: str
    value: RedFlag | CriticalValue | Score


class Group(msgspec.Struct):
    """Statements that belong on one card, gravest first, and the keys of the facts they rest on."""

    statements: list[Statement]
    keys: set[str]
    has_score: bool = False

    @property
    def rank(self) -> int:
        """Rank of the gravest statement."""
        return self.statements[0].rank

    @property
    def head(self) -> Statement:
        """The gravest statement."""
        return self.statements[0]


class DataInvalid(ValueError):
    """A packaged data file of the cards is wrong; names file and entry."""


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
    """Every statement of an assessment that has an urgency, gravest first, the engine's order kept."""
    found: list[Statement] = []
    for flag in assessment.red_flags:
        rank = RANK[flag.urgency]
        found.append(
            Statement("red-flag", flag.id, rank, flag.stale, flag.facts, flag.actions, flag.source, flag)
        )
    for critical in assessment.critical_values:
        found.append(
            Statement(
                "critical",
                critical.id,
                RANK[critical.urgency],
                critical.stale,
                (critical.fact,),
                critical.actions,
                critical.source,
                critical,
            )
        )
    for score in assessment.scores:
        if score.urgency is not None:
            rank = RANK[score.urgency]
            facts = scored_facts(score)
            found.append(Statement("score", score.id, rank, score.stale, facts, (), score.source, score))
    found.sort(key=lambda s: (s.rank, _KIND_ORDER[s.kind]))
    return found


def _belongs(statement: Statement, keys: set[str], group: Group) -> bool:
    if not keys.isdisjoint(group.keys):
        return True
    if statement.kind == "score":
        return group.has_score
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
    """Put statements (gravest first) into at most `most` groups, gravest first.

    A routine score only joins a group; alone it is nothing to interrupt for.  When there are more
    groups than cards, the last card takes all that remain.
    """
    groups: list[Group] = []
    for statement in statements:
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
            if statement.kind == "score" and statement.rank == RANK["routine"]:
                continue
            home = Group([], set())
            kept.append(home)
        home.statements.append(statement)
        home.keys |= keys
        home.has_score = home.has_score or statement.kind == "score"
        groups = kept
    while len(groups) > most:
        _absorb(groups[-2], groups.pop())
    return groups


def _absorb(home: Group, other: Group) -> None:
    home.statements.extend(other.statements)
    home.statements.sort(key=lambda s: (s.rank, _KIND_ORDER[s.kind]))
    home.keys |= other.keys
    home.has_score = home.has_score or other.has_score
