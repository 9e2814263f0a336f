"""Is the answer to a drafted test there already: a recent result, a finished study, or an open order?

Responsible for which of these answers which order, for laboratory tests and imaging alike.  How long a
result stays good is data of the action (``actions.toml``); a test that no action knows is compared by
its own code.  Doubled drugs are in `models.rules.order_questions`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from fhir_adapters.chart import Order, PatientChart, Procedure
from models.assessment import Fact, OrderConcern
from models.rules.actions import LOINC, OPEN_ORDER, Action, Actions
from models.rules.analytes import Analyte
from models.rules.facts import fact_of
from models.rules.order_questions import OWN_SOURCE

RULE = "duplicate-test"
# A test that no action gives a window for: a result of the last day answers it.
# grade C: estimate of this project.
UNLISTED = timedelta(hours=24)


def duplicate_test(
    order: Order, chart: PatientChart, actions: Actions, analytes: dict[str, Analyte]
) -> OrderConcern | None:
    """What answers a drafted test, or `None`.

    An order that stands for several tests (a panel) is answered when each of them is.
    """
    drafts = {other.reference for other in chart.orders if other.draft}
    # A record system may list the draft among the orders it sends, too.
    earlier = [other for other in chart.orders if not other.draft and other.reference not in drafts]
    facts: list[Fact] = []
    source = OWN_SOURCE
    wanted = _ordered(order, actions)
    for action in wanted:
        reference = actions.already(action.id, chart, chart.at)
        if reference is None or reference in drafts:
            return None
        fact = _answer(reference, action.answered_by, chart, earlier, analytes)
        if all(other.sources != fact.sources for other in facts):
            facts.append(fact)
        source = action.source
    if not wanted:
        holding = actions.holding(order.loinc) if order.loinc is not None else ()
        found = _own_value(order, holding, chart, analytes) or _same_again(order, holding, chart, earlier)
        if found is None:
            return None
        facts.append(found)
    return OrderConcern("duplicate", RULE, order.reference, order.label, "soon", tuple(facts), source=source)


def _ordered(order: Order, actions: Actions) -> list[Action]:
    """The tests an order stands for by its codes, without those that another of them holds."""
    found = [action for action in actions.ordered_by(order) if action.kind.startswith("order-")]
    return [
        action
        for action in found
        if not any(action.answered_by and set(action.answered_by) < set(other.answered_by) for other in found)
    ]


def _own_value(
    order: Order, holding: Sequence[Action], chart: PatientChart, analytes: dict[str, Analyte]
) -> Fact | None:
    """A recent value of exactly the ordered analyte."""
    # What is measured at the bedside is measured again and again.
    if order.loinc is None or any(action.kind == "measure" for action in holding):
        return None
    spans = [timedelta(hours=action.within_hours) for action in holding]
    since = chart.at - max(spans, default=UNLISTED)
    measured = chart.measurements.get(order.loinc)
    if measured and _between(measured[0].time, since, chart.at):
        return fact_of(measured[0], analytes)
    coded = chart.coded.get(order.loinc)
    if coded and _between(coded[0].time, since, chart.at):
        return fact_of(coded[0], analytes)
    return None


def _same_again(
    order: Order, holding: Sequence[Action], chart: PatientChart, earlier: Sequence[Order]
) -> Fact | None:
    """An open order for the same code or for the panel that holds it, or the same study done lately."""
    codes = {*order.codes, f"{LOINC}|{order.loinc}"} if order.loinc is not None else set(order.codes)
    panels = {key for action in holding for key in action.order_keys}
    since = chart.at - OPEN_ORDER
    for other in earlier:
        same = not codes.isdisjoint(other.codes) or not panels.isdisjoint(other.codes)
        if same and (other.time is None or _between(other.time, since, chart.at)):
            return _of_order(other)
    since = chart.at - UNLISTED
    for procedure in chart.procedures:
        if not codes.isdisjoint(procedure.codes) and _between(procedure.time, since, chart.at):
            return _of_procedure(procedure)
    return None


def _between(time: datetime | None, since: datetime, until: datetime) -> bool:
    return time is not None and since <= time <= until


def _of_order(order: Order) -> Fact:
    code = order.loinc or (order.codes[0].rpartition("|")[2] if order.codes else "")
    return Fact("procedure", code, order.label, (order.reference,), time=order.time)


def _of_procedure(procedure: Procedure) -> Fact:
    code = procedure.codes[0].rpartition("|")[2] if procedure.codes else ""
    return Fact("procedure", code, procedure.label, procedure.sources, time=procedure.time)


def _answer(
    reference: str,
    loincs: tuple[str, ...],
    chart: PatientChart,
    earlier: Sequence[Order],
    analytes: dict[str, Analyte],
) -> Fact:
    """The fact behind the reference that answers an order."""
    for loinc in loincs:
        for measurement in chart.measurements.get(loinc, ()):
            if measurement.source == reference:
                return fact_of(measurement, analytes)
        for coded in chart.coded.get(loinc, ()):
            if coded.source == reference:
                return fact_of(coded, analytes)
    for other in earlier:
        if other.reference == reference:
            return _of_order(other)
    for procedure in chart.procedures:
        if reference in procedure.sources:
            return _of_procedure(procedure)
    return Fact("procedure", "", reference, (reference,))
