"""The cards of `order-review` (order-select): what to know about the orders being picked.

Responsible for which concerns of the assessment share a card, and for the cards about unsafe orders:
allergies, contraindications, drugs that do harm in a leading disease.  Cards about tests are in
`order_tests`.  Judges no order itself, and leaves everything else about the patient to
`diagnostic_assessment`.
"""

from collections.abc import Mapping, Sequence

from fhir_adapters.chart import PatientChart
from hooks import order_tests, order_words, wording
from hooks.cards import DEFAULT_SETTINGS, SUMMARY_LIMIT, Card, CardSettings, build_card
from hooks.context import INDICATOR, CallContext
from hooks.facts import distinct
from hooks.markdown import escape, plain
from hooks.override_reasons import override_reasons
from hooks.priority import RANK
from hooks.texts import texts_for
from hooks.wording import Names, label_of
from models.assessment import Assessment, OrderConcern

_FIRST = ("allergy", "contraindicated", order_words.HARM)
"""The unsafe kinds; of two that are equally grave the earlier is said first."""
_TOPIC: Mapping[str, str] = {
    "allergy": "order-allergy",
    "contraindicated": "order-contraindication",
    order_words.HARM: "order-harm",
}
# A suspected disease at least this probable is reason enough to offer the removal of the drug first.
# grade C: estimate of this project.
_LIKELY = 0.5


def cards(
    chart: PatientChart,
    assessment: Assessment,
    *,
    language: str,
    seed: str,
    names: Names = label_of,
    base_url: str | None = None,
    settings: CardSettings = DEFAULT_SETTINGS,
) -> tuple[Card, ...]:
    """The cards about the drafted orders, gravest first; empty when there is nothing to say.

    One card per unsafe order, one for all duplicate tests, one for the missing tests that something
    urgent asks for, one for the test that would separate the leading diseases; arguments as for
    `diagnostic_assessment.cards`.  When there are more unsafe orders than room, the last card takes the
    remaining ones, so that none is lost.
    """
    context = CallContext(chart, assessment, texts_for(language), names, seed, base_url, settings)
    unsafe: dict[str, list[OrderConcern]] = {}
    duplicate: list[OrderConcern] = []
    missing: list[OrderConcern] = []
    separating: list[OrderConcern] = []
    for concern in assessment.order_concerns:
        if concern.kind in _FIRST:
            unsafe.setdefault(concern.order, []).append(concern)
        elif concern.kind == "duplicate":
            duplicate.append(concern)
        elif concern.kind == order_words.SEPARATING:
            separating.append(concern)
        elif RANK[concern.urgency] <= RANK["urgent"]:
            missing.append(concern)
    # A test that is to be removed because the drug is unsafe is not also called a duplicate.
    duplicate = [concern for concern in duplicate if concern.order not in unsafe]
    orders = sorted(unsafe.values(), key=order_words.rank)
    room = max(1, settings.max_cards - bool(duplicate) - bool(missing))
    while len(orders) > room:
        orders[-2].extend(orders.pop())
    found = [(order_words.rank(concerns), _unsafe_card(context, concerns)) for concerns in orders]
    asked = {action for concerns in orders for concern in concerns for action in concern.actions}
    if missing:
        missing.sort(key=order_words.one_rank)
        card = order_tests.missing_card(context, missing)
        if card is not None:
            asked.update([action for concern in missing for action in concern.actions])
            found.append((max(order_words.rank(missing), RANK["urgent"]), card))
    if duplicate:
        found.append((RANK["soon"], order_tests.duplicate_card(context, duplicate)))
    # What another card proposes already is not proposed twice.
    if separating and asked.isdisjoint(separating[0].actions):
        card = order_tests.separating_card(context, separating[0])
        if card is not None:
            found.append((RANK["soon"], card))
    found.sort(key=lambda entry: entry[0])
    return tuple([card for _, card in found[: settings.max_cards]])


def _certain(concern: OrderConcern, context: CallContext) -> bool:
    """Whether to offer the removal of the order first: a grave reason that is more than a suspicion."""
    if RANK[concern.urgency] > 0:
        return False
    if concern.kind != order_words.HARM:
        return True
    return any(item.probability >= _LIKELY for item in order_words.suspected(concern, context))


def _allergens(concern: OrderConcern, context: CallContext) -> str:
    """What the patient is allergic to; the title says "allergy" already."""
    named = [
        plain(wording.mid_sentence(wording.name_of(fact, context.texts, context.names)), 60)
        for fact in concern.facts
    ]
    return wording.join(list(dict.fromkeys(named)), context.texts)


def _unsafe_card(context: CallContext, concerns: list[OrderConcern]) -> Card:
    texts = context.texts
    concerns.sort(key=lambda c: (RANK[c.urgency], _FIRST.index(c.kind)))
    head = concerns[0]
    order = order_words.order_name(head, context)
    same = [concern for concern in concerns if concern.order == head.order]
    others = dict.fromkeys([order_words.order_name(c, context) for c in concerns if c.order != head.order])
    facts = order_words.facts_of(concerns)
    summary = wording.extend_summary(
        *_problems(order, same, context), SUMMARY_LIMIT, mark="; " if len(same) > 1 else ": "
    )
    if others:
        summary = wording.extend_summary(summary, others, SUMMARY_LIMIT, mark="; ")
    lines = []
    for concern in concerns:
        problem = order_words.problem(concern, context)
        name = f"**{escape(order_words.order_name(concern, context))}**"
        why = order_words.why(concern, context)
        lines.append(f"{name}, {escape(problem, 300)}: {why}" if problem else f"{name}: {why}")
    parts = [wording.bullets(lines) if len(lines) > 1 else lines[0]]
    instead, suggestions = order_words.creations(context, concerns)
    if instead:
        parts.append(wording.section(texts["card.do_soon"], wording.bullets(instead)))
    if facts:
        parts.append(order_words.table(facts, context))
    parts.append(context.basis([concern.source for concern in concerns]))
    removals = order_words.removals(
        context, concerns, recommended=any(_certain(c, context) for c in concerns)
    )
    return build_card(
        seed=context.seed,
        key="unsafe|" + "|".join([f"{c.order}:{c.rule}" for c in concerns]),
        summary=summary,
        indicator=INDICATOR[order_words.rank(concerns)],
        detail="\n\n".join(parts),
        source=context.source(_TOPIC[head.kind], learned=head.kind == order_words.HARM),
        suggestions=[*removals, *suggestions],
        override_reasons=override_reasons("order", texts.language),
    )


def _problems(order: str, concerns: Sequence[OrderConcern], context: CallContext) -> tuple[str, list[str]]:
    """The order with the gravest reason against it, and what else fits: its facts, or the other reasons."""
    texts = context.texts
    said: list[str] = []
    for concern in concerns:
        rule = order_words.problem(concern, context)
        if concern.kind == "allergy":
            allergens = _allergens(concern, context)
            key = "order_card.problem_allergy_to" if allergens else "order_card.problem_allergy"
            problem = texts[key].format(allergens=allergens) if allergens else texts[key]
        else:
            problem = rule or texts["order_card.problem"]
            first = [f for f in concern.facts if f.kind != "demographic"][:1]
            # What speaks for a suspected disease is in the table; the harm has its probability already.
            if len(concerns) > 1 and first and concern.kind != order_words.HARM:
                problem = f"{problem} ({order_words.phrases(first, context)[0]})"
        if problem not in said:
            said.append(problem)
    head = texts["order_card.ordered"].format(order=order, problem=said[0])
    if len(concerns) > 1 or concerns[0].kind in ("allergy", order_words.HARM):
        return head, said[1:]
    facts = [fact for fact in distinct([concerns[0].facts]) if fact.kind != "demographic"]
    return head, order_words.phrases(facts, context)
