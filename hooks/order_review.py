"""The cards of `order-review` (order-select): what to know about the orders being picked.

Responsible for wording allergies, contraindications, duplicate tests and missing tests that the
assessment found among the drafts, with suggestions that remove or add a draft.  Judges no order
itself, and leaves everything else about the patient to `diagnostic_assessment`.
"""

from collections.abc import Sequence

from fhir_adapters.chart import PatientChart
from hooks import wording
from hooks.cards import DEFAULT_SETTINGS, SUMMARY_LIMIT, Card, CardSettings, Suggestion, build_card
from hooks.context import INDICATOR, CallContext
from hooks.markdown import escape, plain
from hooks.override_reasons import override_reasons
from hooks.statements import RANK
from hooks.suggestions import action_title, catalogue, order_suggestion, removal_suggestion
from hooks.texts import texts_for
from hooks.wording import Names, label_of
from models.assessment import Assessment, Fact, OrderConcern

_SAFETY = frozenset({"allergy", "contraindicated"})


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

    One card per unsafe order, one for all duplicate tests, one for all missing tests; arguments as
    for `diagnostic_assessment.cards`.  When there are more unsafe orders than room, the last card
    takes the remaining ones, so that none is lost.
    """
    context = CallContext(chart, assessment, texts_for(language), names, seed, base_url, settings)
    unsafe: dict[str, list[OrderConcern]] = {}
    duplicate: list[OrderConcern] = []
    missing: list[OrderConcern] = []
    for concern in assessment.order_concerns:
        if concern.kind in _SAFETY:
            unsafe.setdefault(concern.order, []).append(concern)
        elif concern.kind == "duplicate":
            duplicate.append(concern)
        else:
            missing.append(concern)
    # A test that is to be removed because the drug is unsafe is not also called a duplicate.
    duplicate = [concern for concern in duplicate if concern.order not in unsafe]
    orders = sorted(unsafe.values(), key=_rank)
    room = max(1, settings.max_cards - bool(duplicate) - bool(missing))
    while len(orders) > room:
        orders[-2].extend(orders.pop())
    found = [(_rank(concerns), _unsafe_card(context, concerns)) for concerns in orders]
    if missing:
        missing.sort(key=_one_rank)
        found.append((max(_rank(missing), RANK["urgent"]), _missing_card(context, missing)))
    if duplicate:
        found.append((RANK["soon"], _duplicate_card(context, duplicate)))
    found.sort(key=lambda entry: entry[0])
    return tuple([card for _, card in found[: settings.max_cards]])


def _one_rank(concern: OrderConcern) -> int:
    return RANK[concern.urgency]


def _rank(concerns: Sequence[OrderConcern]) -> int:
    return min(RANK[concern.urgency] for concern in concerns)


def _facts(concerns: Sequence[OrderConcern]) -> list[Fact]:
    """The facts behind concerns, each once."""
    return list({(fact.kind, fact.code, fact.label): fact for c in concerns for fact in c.facts}.values())


def _phrases(facts: Sequence[Fact], context: CallContext) -> list[str]:
    return [wording.fact_phrase(fact, context.texts, context.names) for fact in facts]


def _reasons(concern: OrderConcern, context: CallContext) -> list[str]:
    """What stands against an order, in a few words; a title that says "allergy" need not say it again."""
    if concern.kind != "allergy":
        return _phrases(concern.facts, context)
    return [
        plain(wording.mid_sentence(wording.name_of(fact, context.texts, context.names)), 60)
        for fact in concern.facts
    ]


def _order_name(concern: OrderConcern) -> str:
    return plain(concern.order_label, 60) or concern.order


def _removals(
    context: CallContext, concerns: Sequence[OrderConcern], *, recommended: bool
) -> list[Suggestion]:
    """One removal per drafted order that has an id to delete by."""
    drafts = {order.reference for order in context.chart.orders if order.draft}
    named = {concern.order: concern for concern in concerns}
    return [
        removal_suggestion(order, concern.order_label, context.texts, recommended=recommended)
        for order, concern in named.items()
        if order in drafts and "/" in order
    ][: context.settings.max_suggestions]


def _why(concern: OrderConcern, context: CallContext) -> str:
    """What the rule says, as Markdown of our own; the kind's general sentence for an unknown rule."""
    texts = context.texts
    return texts.get(f"order.{concern.rule}.detail", texts[f"order_card.{concern.kind}_detail"])


def _table(facts: list[Fact], context: CallContext) -> str:
    table = wording.fact_table(
        facts, context.chart, context.texts, context.names, most=context.settings.max_facts
    )
    return wording.section(context.texts["card.why"], table)


def _unsafe_card(context: CallContext, concerns: list[OrderConcern]) -> Card:
    texts = context.texts
    concerns.sort(key=lambda c: (RANK[c.urgency], c.kind != "allergy"))
    head = concerns[0]
    order = _order_name(head)
    title = texts[f"order_card.{head.kind}"].format(order=order)
    rule = texts.maybe(f"order.{head.rule}.summary")
    if head.kind == "contraindicated" and rule:
        title = texts["order_card.ordered"].format(order=order, problem=rule)
    others = [_order_name(c) for c in concerns if c.order != head.order]
    facts = _facts(concerns)
    summary = wording.extend_summary(title, [*_reasons(head, context), *dict.fromkeys(others)], SUMMARY_LIMIT)
    lines = [f"**{escape(_order_name(concern))}**: {_why(concern, context)}" for concern in concerns]
    parts = [wording.bullets(lines) if len(lines) > 1 else lines[0]]
    instead, suggestions = _creations(context, concerns)
    if instead:
        parts.append(wording.section(texts["card.do_soon"], wording.bullets(instead)))
    if facts:
        parts.append(_table(facts, context))
    parts.append(context.basis([concern.source for concern in concerns]))
    removals = _removals(context, concerns, recommended=_rank(concerns) == 0)
    return build_card(
        seed=context.seed,
        key="unsafe|" + "|".join([f"{c.order}:{c.rule}" for c in concerns]),
        summary=summary,
        indicator=INDICATOR[_rank(concerns)],
        detail="\n\n".join(parts),
        source=context.source("order-allergy" if head.kind == "allergy" else "order-contraindication"),
        suggestions=[*removals, *suggestions],
        override_reasons=override_reasons("order", texts.language),
    )


def _creations(context: CallContext, concerns: Sequence[OrderConcern]) -> tuple[list[str], list[Suggestion]]:
    """What the concerns ask for (Markdown lines) and the drafts of what can be ordered, each once."""
    texts = context.texts
    orders = catalogue()
    lines: list[str] = []
    suggestions: list[Suggestion] = []
    seen: set[str] = set()
    for concern in concerns:
        for action in concern.actions:
            if action in seen:
                continue
            seen.add(action)
            line = texts.maybe(f"action.{action}.line")
            title = action_title(action, texts)
            lines.append(f"**{title}**: {line}" if line else f"**{title}**")
            orderable = orders.get(action)
            if (
                orderable is not None
                and orderable.drafted
                and len(suggestions) < context.settings.max_suggestions
            ):
                suggestions.append(
                    order_suggestion(
                        orderable,
                        context.chart,
                        texts,
                        reason=texts.get(f"order.{concern.rule}.summary", ""),
                        recommended=RANK[concern.urgency] == 0,
                    )
                )
    return lines, suggestions


def _missing_card(context: CallContext, concerns: list[OrderConcern]) -> Card:
    texts = context.texts
    lines, suggestions = _creations(context, concerns)
    named = [action_title(action, texts) for concern in concerns for action in concern.actions]
    reasons = dict.fromkeys(_why(concern, context) for concern in concerns)
    summary = wording.extend_summary(
        texts["order_card.missing"], [wording.mid_sentence(n) for n in dict.fromkeys(named)], SUMMARY_LIMIT
    )
    parts = [wording.bullets(list(reasons)) if len(reasons) > 1 else next(iter(reasons))]
    if lines:
        parts.append(wording.section(texts["card.do_soon"], wording.bullets(lines)))
    facts = _facts(concerns)
    if facts:
        parts.append(_table(facts, context))
    parts.append(context.basis([concern.source for concern in concerns]))
    return build_card(
        seed=context.seed,
        key="missing|" + "|".join([f"{c.rule}:{','.join(c.actions)}" for c in concerns]),
        summary=summary,
        # What is grave is said as such by diagnostic-assessment; here a reminder while ordering.
        indicator=INDICATOR[max(_rank(concerns), RANK["urgent"])],
        detail="\n\n".join(parts),
        source=context.source("order-missing"),
        suggestions=suggestions,
        override_reasons=override_reasons("order", texts.language),
    )


def _duplicate_card(context: CallContext, concerns: list[OrderConcern]) -> Card:
    texts = context.texts
    head = concerns[0]
    orders = dict.fromkeys(concern.order for concern in concerns)
    if len(orders) == 1:
        summary = texts["order_card.duplicate"].format(order=_order_name(head))
        said = []
        for fact in head.facts[:2]:
            phrase = wording.fact_phrase(fact, texts, context.names)
            ago = f" ({texts.ago(fact.time, context.chart.at)})" if fact.time is not None else ""
            said.append(phrase + ago)
        summary = wording.extend_summary(summary, said, SUMMARY_LIMIT)
    else:
        summary = wording.extend_summary(
            texts["order_card.duplicates"].format(n=len(orders)),
            dict.fromkeys([_order_name(concern) for concern in concerns]),
            SUMMARY_LIMIT,
        )
    reasons = dict.fromkeys(_why(concern, context) for concern in concerns)
    parts = [wording.bullets(list(reasons)) if len(reasons) > 1 else next(iter(reasons))]
    facts = _facts(concerns)
    if facts:
        parts.append(_table(facts, context))
    parts.append(context.basis([concern.source for concern in concerns]))
    return build_card(
        seed=context.seed,
        key="duplicate|" + "|".join(orders),
        summary=summary,
        indicator="info",
        detail="\n\n".join(parts),
        source=context.source("order-duplicate"),
        suggestions=_removals(context, concerns, recommended=False),
        override_reasons=override_reasons("order", texts.language),
    )
