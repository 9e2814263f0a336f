"""Reviews drafted orders against the record (order-select): allergy, contraindication, duplicate, missing.

Responsible for ``data/order_rules.toml`` (drugs and tests against what the chart says) and for the
three built-in questions: is the patient allergic to this substance or class, is the order needless,
does the record ask for a test that nobody drafted.  Only the drafts the clinician has just selected
are judged when there is a selection; the other drafts are context.
"""

from typing import Any, Literal

import msgspec

from fhir_adapters.chart import Medication, Order, PatientChart
from models.assessment import Fact, OrderConcern, Recommendation, Urgency
from models.policy import URGENCY_RANK, RuleResults
from models.rules import tables
from models.rules.actions import Action, Actions
from models.rules.conditions import Condition, Population, compile_condition
from models.rules.currency import Currency
from models.rules.duplicate_tests import duplicate_test
from models.rules.errors import RulesInvalid
from models.rules.facts import fact_of
from models.rules.matching import Hits
from models.rules.order_questions import (
    allergy_concern,
    duplicate_drug,
    group_allergy_concern,
    missing_tests,
)
from models.rules.terms import TermTable

FILE = "order_rules.toml"
BUILT_IN = (
    "allergy-same-drug",
    "allergy-same-class",
    "duplicate-test",
    "duplicate-drug",
    "duplicate-drug-class",
    "missing-test",
)


class OrderRule(msgspec.Struct, frozen=True, gc=False):
    """One compiled rule: a drug (ATC prefixes) or a test (actions) against a condition of the chart."""

    id: str
    order: int
    kind: Literal["allergy", "contraindicated"]
    urgency: Urgency
    drugs: tuple[str, ...]
    tests: frozenset[str]
    population: Population
    condition: Condition | None
    actions: tuple[str, ...]
    source: str


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    kind: Literal["allergy", "contraindicated"]
    urgency: Urgency
    grade: Literal["A", "B", "C"]
    source: str
    drugs: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    population: Population = Population()
    actions: tuple[str, ...] = ()
    when: dict[str, Any] | None = None


class OrderRules:
    """All order rules, compiled; immutable and shared by all requests."""

    def __init__(self, rules: tuple[OrderRule, ...], terms: TermTable, actions: Actions) -> None:
        self.rules = rules
        self._terms = terms
        self._actions = actions
        by_drug: dict[str, list[OrderRule]] = {}
        by_test: dict[str, list[OrderRule]] = {}
        for rule in rules:
            for prefix in rule.drugs:
                by_drug.setdefault(prefix, []).append(rule)
            for name in rule.tests:
                by_test.setdefault(name, []).append(rule)
        self._by_drug = by_drug
        self._by_test = by_test

    @classmethod
    def load(cls, terms: TermTable, actions: Actions) -> "OrderRules":
        """Read, check and compile the packaged rules; raises `RulesInvalid` naming file and id."""
        return cls.from_data(tables.read_toml(FILE), terms, actions)

    @classmethod
    def from_data(cls, raw: dict[str, Any], terms: TermTable, actions: Actions) -> "OrderRules":
        """The same from data already read."""
        rules: dict[str, OrderRule] = {}
        for position, item in enumerate(raw.get("rule", ()), start=1):
            name = str(item.get("id", f"entry {position}"))
            if name in rules or name in BUILT_IN:
                raise RulesInvalid(FILE, name, "the id stands twice")
            rules[name] = _compile(item, name, position, terms, actions)
        if not rules:
            raise RulesInvalid(FILE, "whole file", "no rules")
        return cls(tuple(rules.values()), terms, actions)

    def review(
        self,
        chart: PatientChart,
        currency: Currency,
        results: RuleResults,
        recommendations: tuple[Recommendation, ...],
    ) -> tuple[OrderConcern, ...]:
        """What to say of the drafted orders, gravest first; nothing when nothing is drafted."""
        drafts = [order for order in chart.orders if order.draft]
        if not drafts:
            return ()
        judged = [order for order in drafts if order.selected] or drafts
        # A drug that is drafted too is taken for one the patient is going to take.
        planned = tuple(
            [
                Medication(order.label, True, (order.reference,), atc=order.atc)
                for order in drafts
                if order.atc
            ]
        )
        plan = msgspec.structs.replace(chart, medications=chart.medications + planned) if planned else chart
        hits = self._terms.match(plan, currency)
        found: list[tuple[int, int, OrderConcern]] = []
        for order in judged:
            for concern in self._judge(order, chart, hits):
                found.append((URGENCY_RANK[concern.urgency], len(found), concern))
        for concern in missing_tests(self._actions, drafts, results, recommendations):
            found.append((URGENCY_RANK[concern.urgency], len(found), concern))
        found.sort(key=_place)
        return tuple([concern for _, _, concern in found])

    def _judge(self, order: Order, chart: PatientChart, hits: Hits) -> list[OrderConcern]:
        concerns: list[OrderConcern] = []
        allergy = allergy_concern(order, chart)
        if allergy is not None:
            concerns.append(allergy)
        tests = {action.id for action in self._actions.matching(order)} if not order.atc else set()
        rules: dict[int, OrderRule] = {}
        for code in order.atc:
            for length in range(1, len(code) + 1):
                for rule in self._by_drug.get(code[:length], ()):
                    rules[rule.order] = rule
        for name in tests:
            for rule in self._by_test.get(name, ()):
                rules[rule.order] = rule
        for _, rule in sorted(rules.items()):
            concern = self._apply(rule, order, chart, hits)
            # The built-in allergy question has already said it when the very class is on record.
            if concern is not None and not (rule.kind == "allergy" and allergy is not None):
                concerns.append(concern)
        if order.atc and all(concern.kind != "allergy" for concern in concerns):
            group = group_allergy_concern(order, chart)
            if group is not None:
                concerns.insert(0, group)
        duplicate = (
            duplicate_drug(order, chart)
            if order.atc
            else duplicate_test(order, chart, self._actions, self._terms.analytes)
        )
        if duplicate is not None:
            concerns.append(duplicate)
        return concerns

    def _apply(self, rule: OrderRule, order: Order, chart: PatientChart, hits: Hits) -> OrderConcern | None:
        if not rule.population.fits(chart.subject):
            return None
        facts: list[Fact] = []
        condition = rule.condition
        if condition is not None:
            if not condition.met_now(hits):
                return None
            own = (order.reference,)
            analytes = self._terms.analytes
            evidence = [
                item
                for item in condition.evidence(hits)
                if not (isinstance(item, Medication) and item.sources == own)
            ]
            # Only the order itself speaks for the condition: a drug is no reason against itself.
            if not evidence:
                return None
            facts = [fact_of(item, analytes) for item in evidence]
        facts.extend(rule.population.facts(chart.subject))
        return OrderConcern(
            rule.kind,
            rule.id,
            order.reference,
            order.label,
            rule.urgency,
            tuple(facts),
            rule.actions,
            rule.source,
        )

    def refuses(self, action: Action, chart: PatientChart, hits: Hits) -> bool:
        """Whether a rule speaks against an action for this patient, were it ordered.

        `hits` are the terms that the chart meets.
        """
        if action.id not in self._by_test:
            return False
        codes = tuple([f"{system}|{code}" for system, code, _ in action.codings])
        order = Order("ServiceRequest", f"action/{action.id}", action.id, True, codes)
        return any(self._apply(rule, order, chart, hits) is not None for rule in self._by_test[action.id])


def _place(item: tuple[int, int, OrderConcern]) -> tuple[int, int]:
    return item[0], item[1]


def _compile(item: dict[str, Any], name: str, position: int, terms: TermTable, actions: Actions) -> OrderRule:
    try:
        entry = msgspec.convert(item, _Entry)
    except msgspec.ValidationError as problem:
        raise RulesInvalid(FILE, name, str(problem)) from problem
    if not tables.KEBAB.match(entry.id):
        raise RulesInvalid(FILE, name, "the id is not kebab-case")
    if not entry.drugs and not entry.tests:
        raise RulesInvalid(FILE, name, "it is about no drug and no test")
    if not entry.source:
        raise RulesInvalid(FILE, name, "source is empty")
    for code in entry.drugs:
        if not tables.ATC.match(code):
            raise RulesInvalid(FILE, name, f"drugs: {code!r} is not spelt as an ATC code")
    actions.require(entry.tests, FILE, name)
    actions.require(entry.actions, FILE, name)
    entry.population.check(FILE, name)
    if entry.when is None and entry.population == Population():
        raise RulesInvalid(FILE, name, "it would hold for every patient")
    condition = None if entry.when is None else compile_condition(entry.when, terms, FILE, name)
    return OrderRule(
        id=entry.id,
        order=position,
        kind=entry.kind,
        urgency=entry.urgency,
        drugs=entry.drugs,
        tests=frozenset(entry.tests),
        population=entry.population,
        condition=condition,
        actions=entry.actions,
        source=f"{entry.source} (grade {entry.grade})",
    )
