"""The cards of `order-review` (order-select): what to know about the orders being picked.

Responsible for wording allergies, contraindications, duplicate tests and missing tests that the
assessment found among the drafts, with suggestions that remove or add a draft.  Judges no order
itself, and leaves everything else about the patient to `diagnostic_assessment`.
"""

from collections.abc import Sequence

from fhir_adapters.chart import Order, PatientChart
from hooks import wording
from hooks.advice import names_of
from hooks.cards import DEFAULT_SETTINGS, SUMMARY_LIMIT, Card, CardSettings, Suggestion, build_card
from hooks.context import INDICATOR, CallContext
from hooks.facts import distinct
from hooks.markdown import escape, plain
from hooks.override_reasons import override_reasons
from hooks.priority import RANK, priorities
from hooks.statements import statements_of
from hooks.suggestions import action_title, catalogue, order_suggestion, ordered_as, removal_suggestion
from hooks.texts import texts_for
from hooks.titles import title_of
from hooks.wording import Names, label_of
from models.assessment import Assessment, Fact, OrderConcern

_SAFETY = frozenset({"allergy", "contraindicated"})
_MOST_MISSING = 3


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
    urgent asks for; arguments as for `diagnostic_assessment.cards`.  When there are more unsafe
    orders than room, the last card takes the remaining ones, so that none is lost.
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
        elif RANK[concern.urgency] <= RANK["urgent"]:
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
        card = _missing_card(context, missing)
        if card is not None:
            found.append((max(_rank(missing), RANK["urgent"]), card))
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
    return distinct([concern.facts for concern in concerns])


def _phrases(facts: Sequence[Fact], context: CallContext) -> list[str]:
    return [wording.fact_phrase(fact, context.texts, context.names) for fact in facts]


def _allergens(concern: OrderConcern, context: CallContext) -> str:
    """What the patient is allergic to; the title says "allergy" already."""
    named = [
        plain(wording.mid_sentence(wording.name_of(fact, context.texts, context.names)), 60)
        for fact in concern.facts
    ]
    return wording.join(list(dict.fromkeys(named)), context.texts)


def _order_name(concern: OrderConcern, context: CallContext) -> str:
    """What an order is called in the language of the card: test or drug; else the label it was sent with."""
    label = concern.order_label
    for order in context.chart.orders:
        if order.reference == concern.order:
            label = _named(order, label, context)
            break
    return plain(label, 60) or concern.order


def _named(order: Order, label: str, context: CallContext) -> str:
    """A drug keeps its label (with its strength) where the language allows; a test has our own name."""
    if order.atc:
        code = max(order.atc, key=len)
        return context.names(Fact("medication", code, label), context.texts.language)
    actions = ordered_as()
    for code in order.codes:
        action = actions.get(code)
        if action is not None:
            return action_title(action, context.texts)
    if order.loinc:
        return context.names(Fact("measurement", order.loinc, label), context.texts.language)
    return label


def _removals(
    context: CallContext, concerns: Sequence[OrderConcern], *, recommended: bool
) -> list[Suggestion]:
    """One removal per drafted order that has an id to delete by."""
    drafts = {order.reference for order in context.chart.orders if order.draft}
    named = {concern.order: concern for concern in concerns}
    return [
        removal_suggestion(order, _order_name(concern, context), context.texts, recommended=recommended)
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
    order = _order_name(head, context)
    same = [concern for concern in concerns if concern.order == head.order]
    others = dict.fromkeys([_order_name(c, context) for c in concerns if c.order != head.order])
    facts = _facts(concerns)
    summary = wording.extend_summary(
        *_problems(order, same, context), SUMMARY_LIMIT, mark="; " if len(same) > 1 else ": "
    )
    if others:
        summary = wording.extend_summary(summary, others, SUMMARY_LIMIT, mark="; ")
    lines = []
    for concern in concerns:
        problem = texts.maybe(f"order.{concern.rule}.summary")
        name = f"**{escape(_order_name(concern, context))}**"
        lines.append(
            f"{name}, {problem}: {_why(concern, context)}" if problem else f"{name}: {_why(concern, context)}"
        )
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


def _problems(order: str, concerns: Sequence[OrderConcern], context: CallContext) -> tuple[str, list[str]]:
    """The order with the gravest reason against it, and what else fits: its facts, or the other reasons."""
    texts = context.texts
    said: list[str] = []
    for concern in concerns:
        rule = texts.maybe(f"order.{concern.rule}.summary")
        if concern.kind == "allergy":
            allergens = _allergens(concern, context)
            key = "order_card.problem_allergy_to" if allergens else "order_card.problem_allergy"
            problem = texts[key].format(allergens=allergens) if allergens else texts[key]
        else:
            problem = rule or texts["order_card.problem"]
            first = [f for f in concern.facts if f.kind != "demographic"][:1]
            if len(concerns) > 1 and first:
                problem = f"{problem} ({_phrases(first, context)[0]})"
        if problem not in said:
            said.append(problem)
    head = texts["order_card.ordered"].format(order=order, problem=said[0])
    if len(concerns) > 1 or concerns[0].kind == "allergy":
        return head, said[1:]
    facts = [fact for fact in distinct([concerns[0].facts]) if fact.kind != "demographic"]
    return head, _phrases(facts, context)


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


def _askers(context: CallContext) -> dict[str, str]:
    """Action to the suspicion or critical value that asks for it; empty when only restating scores do."""
    assessment = context.assessment
    texts = context.texts
    restating = priorities().restating
    titles: dict[str, str] = {}
    for statement in reversed(statements_of(assessment)):
        for name in names_of(statement):
            titles[name] = "" if statement.id in restating else title_of(statement, context)
    found: dict[str, str] = {}
    for recommendation in assessment.recommendations:
        named = [titles.get(name) for name in recommendation.because]
        if any(title is None for title in named) or not named:
            named = [*named, texts["order_card.missing_reason"]]
        found[recommendation.action] = next((title for title in named if title), "")
    return found


def _missing_card(context: CallContext, concerns: list[OrderConcern]) -> Card | None:
    """The tests that something urgent asks for and nobody drafted; `None` when only scores restate vitals."""
    texts = context.texts
    askers = _askers(context)
    kept: list[OrderConcern] = []
    wanted: dict[str, list[str]] = {}
    for concern in concerns:
        reasons = [askers.get(action, texts["order_card.missing_reason"]) for action in concern.actions]
        if reasons and not any(reasons):
            continue
        new = [action for action in concern.actions if all(action not in a for a in wanted.values())]
        if len(kept) == _MOST_MISSING:
            break
        kept.append(concern)
        for action in new:
            reason = askers.get(action) or texts["order_card.missing_reason"]
            wanted.setdefault(reason, []).append(action)
    if not kept:
        return None
    lines, suggestions = _creations(context, kept)
    groups = [
        texts["order_card.missing_for"].format(
            tests=", ".join([wording.mid_sentence(action_title(action, texts)) for action in actions]),
            reason=wording.mid_sentence(plain(reason, 90)),
        )
        for reason, actions in wanted.items()
    ]
    first = groups[0] if groups else texts["order_card.missing_reason"]
    summary = f"{texts['order_card.missing']}: {first}"
    summary = wording.extend_summary(summary, groups[1:], SUMMARY_LIMIT, mark="; ")
    parts = [texts["order_card.missing_detail"]]
    if len(groups) > 1:
        parts.append(wording.bullets([escape(group, 300) for group in groups]))
    if lines:
        parts.append(wording.section(texts["card.do_soon"], wording.bullets(lines)))
    facts = _facts(kept)
    if facts:
        parts.append(_table(facts, context))
    parts.append(context.basis([concern.source for concern in kept]))
    return build_card(
        seed=context.seed,
        key="missing|" + "|".join([f"{c.rule}:{','.join(c.actions)}" for c in kept]),
        summary=summary,
        # What is grave is said as such by diagnostic-assessment; here a reminder while ordering.
        indicator=INDICATOR[max(_rank(kept), RANK["urgent"])],
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
        summary = texts["order_card.duplicate"].format(order=_order_name(head, context))
        said = []
        for fact in head.facts[:2]:
            phrase = wording.fact_phrase(fact, texts, context.names)
            ago = f" ({texts.ago(fact.time, context.chart.at)})" if fact.time is not None else ""
            said.append(phrase + ago)
        summary = wording.extend_summary(summary, said, SUMMARY_LIMIT)
    else:
        summary = wording.extend_summary(
            texts["order_card.duplicates"].format(n=len(orders)),
            dict.fromkeys([_order_name(concern, context) for concern in concerns]),
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
