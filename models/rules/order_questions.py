"""The questions asked of every drafted order without a rule file: allergy, doubled drug, forgotten test.

Responsible for a recorded allergy to the substance or its class, for a drug the patient takes already,
and for tests that the findings ask for and nobody drafted.  Rules of single drugs and tests are data
(`models.rules.order_rules`).
"""

from fhir_adapters.chart import Order, PatientChart
from models.assessment import CriticalValue, Fact, OrderConcern, Recommendation, RedFlag, Score
from models.policy import RuleResults
from models.rules.actions import Actions

# Two drugs of one chemical subgroup (ATC level 4) are alike enough to ask; grade C: estimate of this project.
GROUP = 4
SUBGROUP = 5
SUBSTANCE = 7
OWN_SOURCE = "grade C: estimate of this project"
_ALLERGY_SOURCE = "NICE CG183 (do not give a drug of a class the person is allergic to)"
# Insulins, electrolytes, fluids, vaccines and local treatments are combined on purpose.
_COMBINED_ON_PURPOSE = ("A10A", "B05", "J07", "D", "S", "A12", "V")


def allergy_concern(order: Order, chart: PatientChart) -> OrderConcern | None:
    """A recorded allergy to the substance (ATC level 5) or its chemical subgroup (level 4)."""
    best: OrderConcern | None = None
    for allergy in chart.allergies:
        if allergy.absent:
            continue
        for code in order.atc:
            for other in allergy.atc:
                same_drug = len(code) >= SUBSTANCE and code == other
                same_class = len(other) >= SUBGROUP and code[:SUBGROUP] == other[:SUBGROUP]
                if not (same_drug or same_class):
                    continue
                rule = "allergy-same-drug" if same_drug else "allergy-same-class"
                if best is not None and (best.rule == "allergy-same-drug" or not same_drug):
                    continue
                fact = Fact("allergy", other, allergy.label, allergy.sources)
                best = OrderConcern(
                    "allergy",
                    rule,
                    order.reference,
                    order.label,
                    "immediate",
                    (fact,),
                    source=_ALLERGY_SOURCE,
                )
    return best


def group_allergy_concern(order: Order, chart: PatientChart) -> OrderConcern | None:
    """A recorded allergy to a whole group (ATC level 3, such as aminoglycosides) that the drug is of.

    For groups of which no rule knows how far the allergy reaches.
    """
    for allergy in chart.allergies:
        if allergy.absent:
            continue
        for group in allergy.atc:
            if len(group) == GROUP and any(code.startswith(group) for code in order.atc):
                return OrderConcern(
                    "allergy",
                    "allergy-same-class",
                    order.reference,
                    order.label,
                    "immediate",
                    (Fact("allergy", group, allergy.label, allergy.sources),),
                    source=_ALLERGY_SOURCE,
                )
    return None


def duplicate_drug(order: Order, chart: PatientChart) -> OrderConcern | None:
    """The same substance, or another of its chemical subgroup, that the patient takes already."""
    if any(code.startswith(_COMBINED_ON_PURPOSE) for code in order.atc):
        return None
    for length, rule in ((SUBSTANCE, "duplicate-drug"), (SUBGROUP, "duplicate-drug-class")):
        wanted = {code[:length] for code in order.atc if len(code) >= length}
        for drug in chart.medications:
            if not drug.active or drug.sources == (order.reference,):
                continue
            shared = next(
                (code for code in drug.atc if len(code) >= length and code[:length] in wanted), None
            )
            if shared is not None:
                fact = Fact("medication", shared, drug.label, drug.sources, time=drug.time)
                return OrderConcern(
                    "duplicate", rule, order.reference, order.label, "soon", (fact,), source=OWN_SOURCE
                )
    return None


def missing_tests(
    actions: Actions, drafts: list[Order], results: RuleResults, recommendations: tuple[Recommendation, ...]
) -> list[OrderConcern]:
    """Tests that something immediate or urgent asks for, which are neither drafted nor answered."""
    drafted = {action.id for order in drafts for action in actions.matching(order)}
    reasons: dict[str, RedFlag | CriticalValue | Score] = {flag.id: flag for flag in results.red_flags}
    for value in results.critical_values:
        reasons.setdefault(value.id, value)
    for score in results.scores:
        reasons.setdefault(score.id, score)
    concerns: list[OrderConcern] = []
    for recommendation in recommendations:
        action = actions.by_id[recommendation.action]
        if (
            recommendation.urgency not in ("immediate", "urgent")
            or not action.kind.startswith("order-")
            or action.id in drafted
            or recommendation.already is not None
        ):
            continue
        reason = reasons.get(recommendation.because[0])
        concerns.append(
            OrderConcern(
                "missing",
                "missing-test",
                "",
                "",
                recommendation.urgency,
                _facts_of(reason),
                (action.id,),
                reason.source if reason is not None else action.source,
            )
        )
    return concerns


def _facts_of(reason: RedFlag | CriticalValue | Score | None) -> tuple[Fact, ...]:
    if isinstance(reason, RedFlag):
        return reason.facts
    if isinstance(reason, CriticalValue):
        return (reason.fact,)
    if isinstance(reason, Score):
        return tuple([part.fact for part in reason.parts if part.fact is not None and part.points > 0])
    return ()
