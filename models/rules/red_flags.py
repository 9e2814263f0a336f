"""Red flags: combinations of findings, problems and values that must not be missed.

Responsible for loading ``data/red_flags.toml`` (groups and rules) and for saying which rules a chart
meets.  A rule is looked at only when the chart meets one of its trigger terms.  What follows from a
red flag for the whole assessment is decided in `models.policy`.
"""

from typing import Any

import msgspec

from fhir_adapters.chart import PatientChart
from models.assessment import Fact, RedFlag, Urgency
from models.rules import tables
from models.rules.actions import Actions
from models.rules.conditions import Condition, Population, compile_condition
from models.rules.errors import RulesInvalid
from models.rules.facts import fact_of
from models.rules.matching import Hits
from models.rules.terms import TermTable

FILE = "red_flags.toml"
URGENCY_RANK: dict[str, int] = {"immediate": 0, "urgent": 1, "soon": 2, "routine": 3}
STEP_DOWN: dict[Urgency, Urgency] = {
    "immediate": "urgent",
    "urgent": "soon",
    "soon": "soon",
    "routine": "routine",
}


class Rule(msgspec.Struct, frozen=True, gc=False):
    """One compiled red flag; `order` is its place in the file."""

    id: str
    order: int
    urgency: Urgency
    population: Population
    condition: Condition
    suspects: tuple[str, ...]
    actions: tuple[str, ...]
    source: str
    supersedes: frozenset[str]


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    urgency: Urgency
    when: dict[str, Any]
    suspects: tuple[str, ...]
    actions: tuple[str, ...]
    grade: str
    source: str
    population: Population = Population()
    supersedes: tuple[str, ...] = ()


class RedFlagRules:
    """All red flags, compiled; immutable and shared by all requests."""

    def __init__(self, rules: tuple[Rule, ...], terms: TermTable) -> None:
        self.rules = rules
        self._terms = terms
        by_trigger: dict[int, list[Rule]] = {}
        common = terms.common()
        for rule in rules:
            for index in rule.condition.triggers(common):
                by_trigger.setdefault(index, []).append(rule)
        self._by_trigger = by_trigger

    @classmethod
    def load(cls, terms: TermTable, actions: Actions) -> "RedFlagRules":
        """Read, check and compile the packaged red flags; raises `RulesInvalid` naming file and id."""
        return cls.from_data(tables.read_toml(FILE), terms, actions)

    @classmethod
    def from_data(cls, raw: dict[str, Any], terms: TermTable, actions: Actions) -> "RedFlagRules":
        """The same from data already read."""
        for name, group in raw.get("group", {}).items():
            if not isinstance(group, dict) or set(group) - {"any", "at_least", "of"}:
                raise RulesInvalid(FILE, f"group {name}", "a group has any, or at_least with of")
            members = group["any"] if "any" in group else group.get("of", [])
            terms.group(name, group.get("at_least", 1), tuple(members), FILE)
        rules: dict[str, Rule] = {}
        for position, item in enumerate(raw.get("red_flag", ()), start=1):
            name = str(item.get("id", f"entry {position}"))
            if name in rules:
                raise RulesInvalid(FILE, name, "the id stands twice")
            rules[name] = _compile(item, name, position, terms, actions)
        for rule in rules.values():
            for other in rule.supersedes:
                weaker = rules.get(other)
                if weaker is None or other == rule.id:
                    raise RulesInvalid(FILE, rule.id, f"it supersedes {other!r}, which is no other red flag")
                if URGENCY_RANK[weaker.urgency] < URGENCY_RANK[rule.urgency]:
                    raise RulesInvalid(FILE, rule.id, f"it would hide {other!r}, which is graver")
        if not rules:
            raise RulesInvalid(FILE, "whole file", "no red flags")
        return cls(tuple(rules.values()), terms)

    def evaluate(self, chart: PatientChart, hits: Hits) -> tuple[RedFlag, ...]:
        """The red flags of a chart, gravest first, including those that a graver one will hide.

        `hits` is what `TermTable.match` found in the same chart.
        """
        found: list[tuple[int, int, RedFlag]] = []
        by_trigger = self._by_trigger
        seen: set[int] = set()
        older = bool(hits.before)
        for index in (*hits.now, *hits.before) if older else hits.now:
            rules = by_trigger.get(index)
            if rules is None:
                continue
            for rule in rules:
                if rule.order in seen:
                    continue
                seen.add(rule.order)
                now = rule.condition.met_now(hits)
                # Only what is not urgent anyway may rest on findings recorded weeks ago.
                if not now and not (older and rule.urgency == "soon" and rule.condition.met_with_older(hits)):
                    continue
                if rule.population.fits(chart.subject):
                    flag = self._flag(rule, chart, hits, stale=not now)
                    found.append((URGENCY_RANK[flag.urgency], rule.order, flag))
        found.sort(key=_place)
        return tuple([flag for _, _, flag in found])

    def visible(self, flags: tuple[RedFlag, ...]) -> tuple[RedFlag, ...]:
        """`flags` without those that another one of them, at least as urgent, says better."""
        if len(flags) < 2:
            return flags
        hidden: set[str] = set()
        by_id = {flag.id: flag for flag in flags}
        for rule in self.rules:
            stronger = by_id.get(rule.id)
            if stronger is None:
                continue
            for other in rule.supersedes:
                weaker = by_id.get(other)
                if weaker is not None and URGENCY_RANK[stronger.urgency] <= URGENCY_RANK[weaker.urgency]:
                    hidden.add(other)
        return tuple([flag for flag in flags if flag.id not in hidden]) if hidden else flags

    def _flag(self, rule: Rule, chart: PatientChart, hits: Hits, stale: bool) -> RedFlag:
        """The flag of a rule that is met, one step less urgent when all of it is uncertain."""
        condition = rule.condition
        urgency = rule.urgency if stale or condition.sure(hits) else STEP_DOWN[rule.urgency]
        analytes = self._terms.analytes
        facts: list[Fact] = [fact_of(item, analytes) for item in condition.evidence(hits)]
        facts.extend(rule.population.facts(chart.subject))
        return RedFlag(rule.id, urgency, tuple(facts), rule.suspects, rule.actions, rule.source, stale=stale)


def _place(item: tuple[int, int, RedFlag]) -> tuple[int, int]:
    return item[0], item[1]


def _compile(item: dict[str, Any], name: str, position: int, terms: TermTable, actions: Actions) -> Rule:
    try:
        entry = msgspec.convert(item, _Entry)
    except msgspec.ValidationError as problem:
        raise RulesInvalid(FILE, name, str(problem)) from problem
    if not tables.KEBAB.match(entry.id):
        raise RulesInvalid(FILE, name, "the id is not kebab-case")
    if entry.urgency == "routine":
        raise RulesInvalid(FILE, name, "a red flag is never routine")
    if entry.grade not in ("A", "B", "C") or not entry.source:
        raise RulesInvalid(FILE, name, "grade (A, B or C) and source are needed")
    for code in entry.suspects:
        if not tables.ICD10CM.match(code):
            raise RulesInvalid(FILE, name, f"suspects: {code!r} is not spelt as an ICD-10-CM code")
    if not entry.suspects or not entry.actions:
        raise RulesInvalid(FILE, name, "suspects and actions must not be empty")
    entry.population.check(FILE, name)
    actions.require(entry.actions, FILE, name)
    condition = compile_condition(entry.when, terms, FILE, name)
    source = f"{entry.source} (grade {entry.grade})"
    return Rule(
        entry.id,
        position,
        entry.urgency,
        entry.population,
        condition,
        entry.suspects,
        entry.actions,
        source,
        frozenset(entry.supersedes),
    )
