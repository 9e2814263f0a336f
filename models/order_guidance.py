"""What the differential means for the orders being drafted (order-select): harm, and the test still missing.

Responsible for two questions: does a drafted drug do harm in a leading disease, and which test, neither
drafted nor answered, would tell the leading diseases apart best.  Which drug harms in which disease is
data (`models.knowledge.drug_harms`), from which probability it counts too (``order_guidance.toml``); how much
a test tells is worked out by the common-disease engine.
Pure; what the record itself says against an order is in `models.rules.order_rules`.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import msgspec

from fhir_adapters.chart import Order, PatientChart
from models.assessment import Assessment, Fact, NextStep, OrderConcern, Prediction, Urgency
from models.knowledge.drug_harms import DrugHarm, packaged
from models.policy import URGENCY_RANK
from models.rules import tables
from models.rules.actions import Actions
from models.rules.errors import RulesInvalid
from models.rules.matching import Hits
from models.rules.order_rules import OrderRules

FILE = "order_guidance.toml"
MOST_FACTS = 3

SEPARATING = "separating-test"
SEPARATING_SOURCE = "grade C: expected information from the disease knowledge; estimate of this project"


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The limits of ``order_guidance.toml``; probabilities 0 to 1, gains in bits."""

    source: str
    leading: float
    grave_leading: float
    grave: float
    contender: float
    least_gain: float
    clear_gain: float
    strong_gain: float


@cache
def limits() -> Limits:
    """The packaged limits, read once per process; raises `models.rules.errors.RulesInvalid`."""
    return read_limits(tables.read_toml(FILE))


def read_limits(content: dict[str, Any]) -> Limits:
    """Check the content of an ``order_guidance.toml``; raises `models.rules.errors.RulesInvalid`."""
    try:
        found = msgspec.convert(content, Limits)
    except msgspec.ValidationError as problem:
        raise RulesInvalid(FILE, "file", str(problem)) from problem
    if not 0 < found.grave_leading <= found.contender <= found.leading < 1 or not 0 < found.grave < 1:
        raise RulesInvalid(FILE, "leading", "0 < grave_leading <= contender <= leading < 1, 0 < grave < 1")
    if not 0 < found.least_gain <= found.clear_gain <= found.strong_gain:
        raise RulesInvalid(FILE, "least_gain", "0 < least_gain <= clear_gain <= strong_gain")
    if not found.source:
        raise RulesInvalid(FILE, "source", "is missing")
    return found


def strength(gain: float) -> Literal["some", "clear", "strong"]:
    """How much a test tells, in words; `gain` in bits."""
    if gain >= limits().strong_gain:
        return "strong"
    return "clear" if gain >= limits().clear_gain else "some"


def is_grave(prediction: Prediction) -> bool:
    """Whether missing the disease is dangerous."""
    return prediction.immediate >= limits().grave


def is_leading(prediction: Prediction) -> bool:
    """Whether a disease is probable enough, or grave and possible enough, to speak against a drug."""
    least = limits().grave_leading if is_grave(prediction) else limits().leading
    return prediction.probability >= least


def worth_telling_apart(predictions: Sequence[Prediction]) -> bool:
    """Whether a test between these diseases is worth an order: one leads, and every one is a contender."""
    known = limits()
    return any(is_leading(one) for one in predictions) and all(
        one.probability >= (known.grave_leading if is_grave(one) else known.contender) for one in predictions
    )


class OrderGuidance:
    """The rows of ``drug_harms.csv`` by drug; immutable and shared by all requests."""

    def __init__(self, harms: Sequence[DrugHarm], actions: Actions, order_rules: OrderRules) -> None:
        self._actions = actions
        self._order_rules = order_rules
        by_drug: dict[str, list[tuple[int, DrugHarm]]] = {}
        for place, harm in enumerate(harms):
            for prefix in harm.drugs:
                by_drug.setdefault(prefix, []).append((place, harm))
        self._by_drug = by_drug

    @classmethod
    def load(cls, actions: Actions, order_rules: OrderRules) -> "OrderGuidance":
        """With the packaged rows; raises `models.rules.errors.RulesInvalid` naming the row."""
        return cls(tuple(packaged().values()), actions, order_rules)

    def complete(self, assessment: Assessment, chart: PatientChart, hits: Hits) -> Assessment:
        """The assessment with what its differential says of the drafted orders, gravest first.

        `hits` are the terms of the rules that the chart meets (what speaks against a test).  The same
        assessment when nothing is drafted or nothing is known of the disease.
        """
        drafts = [order for order in chart.orders if order.draft]
        if not drafts or not assessment.common:
            return assessment
        drafted = {action.id for order in drafts for action in self._actions.matching(order)}
        found = [*assessment.order_concerns, *self._harms(assessment, chart, hits, drafts, drafted)]
        test = self._separating(assessment, chart, hits, drafted)
        if test is not None:
            found.append(test)
        if len(found) == len(assessment.order_concerns):
            return assessment
        found.sort(key=_rank)
        return msgspec.structs.replace(assessment, order_concerns=tuple(found))

    def _harms(
        self,
        assessment: Assessment,
        chart: PatientChart,
        hits: Hits,
        drafts: list[Order],
        drafted: set[str],
    ) -> list[OrderConcern]:
        leading = {item.id: item for item in assessment.common if is_leading(item)}
        if not leading:
            return []
        concerns: list[OrderConcern] = []
        for order in [order for order in drafts if order.selected] or drafts:
            said = {c.rule for c in assessment.order_concerns if c.order == order.reference}
            for harm in self._about(order):
                # In the order of the differential, the most probable first.
                suspected = [item for name, item in leading.items() if name in harm.diseases]
                if not suspected or not harm.said_by.isdisjoint(said) or not _fits(harm, chart):
                    continue
                concerns.append(
                    OrderConcern(
                        "harmful-in-diagnosis",
                        harm.id,
                        order.reference,
                        order.label,
                        _urgency(harm, suspected),
                        _facts(assessment, suspected),
                        self._instead(harm, chart, hits, drafted),
                        harm.source,
                        tuple([item.id for item in suspected]),
                    )
                )
        return concerns

    def _about(self, order: Order) -> list[DrugHarm]:
        """The rows about a drafted drug, in the order of the file."""
        rows: dict[int, DrugHarm] = {}
        for code in order.atc:
            for length in range(1, len(code) + 1):
                rows.update(self._by_drug.get(code[:length], ()))
        return [rows[place] for place in sorted(rows)]

    def _instead(self, harm: DrugHarm, chart: PatientChart, hits: Hits, drafted: set[str]) -> tuple[str, ...]:
        """What to do first or instead, unless it is under way, done, or not for this patient."""
        if not harm.alternative or harm.alternative in drafted:
            return ()
        action = self._actions.by_id[harm.alternative]
        if self._actions.already(action.id, chart, chart.at) is not None:
            return ()
        return () if self._order_rules.refuses(action, chart, hits) else (action.id,)

    def _separating(
        self, assessment: Assessment, chart: PatientChart, hits: Hits, drafted: set[str]
    ) -> OrderConcern | None:
        """The test that tells most about which disease it is, as far as that is not under way.

        A test whose result is there, or that a rule speaks against, gives way to the next best; one that
        is drafted or on order already says it all.
        """
        listed = {item.id: item for item in assessment.common}
        placed = {order.reference for order in chart.orders}
        for step in sorted(assessment.next_steps, key=_by_gain):
            pair = [listed[name] for name in step.separates[:2] if name in listed]
            if step.kind != "test" or len(pair) < 2 or not worth_telling_apart(pair):
                continue
            if step.gain < limits().least_gain:
                return None
            action = self._actions.by_id.get(step.code)
            if action is None or not action.kind.startswith("order-"):
                continue
            answer = self._actions.already(action.id, chart, chart.at)
            if action.id in drafted or answer in placed:
                return None
            if answer is not None or self._order_rules.refuses(action, chart, hits):
                continue
            return OrderConcern(
                "separating-test",
                SEPARATING,
                "",
                "",
                "soon",
                (),
                (action.id,),
                SEPARATING_SOURCE,
                step.separates[:2],
            )
        return None


def _rank(concern: OrderConcern) -> int:
    return URGENCY_RANK[concern.urgency]


def _by_gain(step: NextStep) -> float:
    return -step.gain


def _fits(harm: DrugHarm, chart: PatientChart) -> bool:
    """Whether a row limited by age is about this patient; somebody of unknown age is taken for an adult."""
    age = chart.subject.age_years
    return harm.below_age is None or (age is not None and age < harm.below_age)


def _urgency(harm: DrugHarm, suspected: list[Prediction]) -> Urgency:
    """The row's urgency, at most ``urgent`` while the disease is a remote possibility."""
    if harm.urgency == "immediate" and suspected[0].probability < limits().leading:
        return "urgent"
    return harm.urgency


def _facts(assessment: Assessment, suspected: list[Prediction]) -> tuple[Fact, ...]:
    """The facts that speak most for the most probable of the diseases."""
    target = suspected[0].id
    for_it = [item for item in assessment.explanation if item.target == target and item.amount > 0]
    for_it.sort(key=lambda item: -item.amount)
    return tuple([item.fact for item in for_it[:MOST_FACTS]])
