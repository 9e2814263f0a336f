"""What the differential means for the orders being drafted (order-select): harm, and the test still missing.

Responsible for two questions: does a drafted drug do harm in a leading disease, and which test, neither
drafted nor answered, would tell the leading diseases apart best.  Which drug harms in which disease is
data (`models.knowledge.drug_harms`), how much a test tells is worked out by the common-disease engine.
Pure; what the record itself says against an order is in `models.rules.order_rules`.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from fhir_adapters.chart import Order, PatientChart
from models.assessment import Assessment, Fact, NextStep, OrderConcern, Prediction, Urgency
from models.knowledge.drug_harms import DrugHarm, packaged
from models.policy import URGENCY_RANK
from models.rules.actions import Actions
from models.rules.matching import Hits
from models.rules.order_rules import OrderRules

# All grade C: estimates of this project.
LEADING = 0.15
"""A disease at least this probable is a leading one."""
GRAVE_LEADING = 0.05
"""... or this, when missing it is dangerous; then the warning is at most ``urgent``."""
GRAVE = 0.3
"""Chance of needing attention within minutes from which missing a disease is dangerous."""
LEAST_GAIN = 0.05
"""Bits a test must be expected to tell about the disease before it is worth proposing an order."""
CLEAR_GAIN, STRONG_GAIN = 0.15, 0.4
"""Bits from which a test separates clearly, and strongly (1 bit settles an even choice of two)."""
MOST_FACTS = 3

SEPARATING = "separating-test"
SEPARATING_SOURCE = "grade C: expected information from the disease knowledge; estimate of this project"


def strength(gain: float) -> Literal["some", "clear", "strong"]:
    """How much a test tells, in words; `gain` in bits."""
    if gain >= STRONG_GAIN:
        return "strong"
    return "clear" if gain >= CLEAR_GAIN else "some"


def is_leading(prediction: Prediction) -> bool:
    """Whether a disease is probable enough, or grave and possible enough, to speak against a drug."""
    least = GRAVE_LEADING if prediction.immediate >= GRAVE else LEADING
    return prediction.probability >= least


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
        listed = {item.id for item in assessment.common}
        placed = {order.reference for order in chart.orders}
        for step in sorted(assessment.next_steps, key=_by_gain):
            if step.kind != "test" or not listed.issuperset(step.separates) or len(step.separates) < 2:
                continue
            if step.gain < LEAST_GAIN:
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
    if harm.urgency == "immediate" and suspected[0].probability < LEADING:
        return "urgent"
    return harm.urgency


def _facts(assessment: Assessment, suspected: list[Prediction]) -> tuple[Fact, ...]:
    """The facts that speak most for the most probable of the diseases."""
    target = suspected[0].id
    for_it = [item for item in assessment.explanation if item.target == target and item.amount > 0]
    for_it.sort(key=lambda item: -item.amount)
    return tuple([item.fact for item in for_it[:MOST_FACTS]])
