"""The cards of `order-review` about tests: those missing, those needless, and the one that would decide.

Builds at most one card of each kind out of what the assessment found; judges nothing itself.
"""

from hooks import order_words, wording
from hooks.advice import names_of
from hooks.cards import SUMMARY_LIMIT, Card, build_card
from hooks.context import INDICATOR, CallContext
from hooks.differential_words import disease, percent
from hooks.markdown import escape, plain
from hooks.override_reasons import override_reasons
from hooks.priority import RANK, priorities
from hooks.statements import statements_of
from hooks.suggestions import action_title
from hooks.titles import title_of
from models.assessment import OrderConcern
from models.order_guidance import strength

_MOST_MISSING = 3


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


def missing_card(context: CallContext, concerns: list[OrderConcern]) -> Card | None:
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
    lines, suggestions = order_words.creations(context, kept)
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
    facts = order_words.facts_of(kept)
    if facts:
        parts.append(order_words.table(facts, context))
    parts.append(context.basis([concern.source for concern in kept]))
    return build_card(
        seed=context.seed,
        key="missing|" + "|".join([f"{c.rule}:{','.join(c.actions)}" for c in kept]),
        summary=summary,
        # What is grave is said as such by diagnostic-assessment; here a reminder while ordering.
        indicator=INDICATOR[max(order_words.rank(kept), RANK["urgent"])],
        detail="\n\n".join(parts),
        source=context.source("order-missing"),
        suggestions=suggestions,
        override_reasons=override_reasons("order", texts.language),
    )


def duplicate_card(context: CallContext, concerns: list[OrderConcern]) -> Card:
    texts = context.texts
    head = concerns[0]
    orders = dict.fromkeys(concern.order for concern in concerns)
    if len(orders) == 1:
        summary = texts["order_card.duplicate"].format(order=order_words.order_name(head, context))
        said = []
        for fact in head.facts[:2]:
            phrase = wording.fact_phrase(fact, texts, context.names)
            ago = f" ({texts.ago(fact.time, context.chart.at)})" if fact.time is not None else ""
            said.append(phrase + ago)
        summary = wording.extend_summary(summary, said, SUMMARY_LIMIT)
    else:
        summary = wording.extend_summary(
            texts["order_card.duplicates"].format(n=len(orders)),
            dict.fromkeys([order_words.order_name(concern, context) for concern in concerns]),
            SUMMARY_LIMIT,
        )
    reasons = dict.fromkeys(order_words.why(concern, context) for concern in concerns)
    parts = [wording.bullets(list(reasons)) if len(reasons) > 1 else next(iter(reasons))]
    facts = order_words.facts_of(concerns)
    if facts:
        parts.append(order_words.table(facts, context))
    parts.append(context.basis([concern.source for concern in concerns]))
    return build_card(
        seed=context.seed,
        key="duplicate|" + "|".join(orders),
        summary=summary,
        indicator="info",
        detail="\n\n".join(parts),
        source=context.source("order-duplicate"),
        suggestions=order_words.removals(context, concerns, recommended=False),
        override_reasons=override_reasons("order", texts.language),
    )


def separating_card(context: CallContext, concern: OrderConcern) -> Card | None:
    """The test that would tell the leading diseases apart best, as a draft; `None` without its diseases."""
    texts = context.texts
    pair = order_words.suspected(concern, context)
    action = concern.actions[0] if concern.actions else ""
    step = next((s for s in context.assessment.next_steps if s.kind == "test" and s.code == action), None)
    if len(pair) < 2 or step is None:
        return None
    title = action_title(action, texts)
    first, second = [disease(item, texts, inside=True) for item in pair[:2]]
    summary = texts["order_guidance.separating"].format(test=title, first=first, second=second)
    shares = [
        texts["order_guidance.disease"].format(
            disease=escape(disease(item, texts, inside=True)), percent=percent(item.probability, texts)
        )
        for item in pair[:2]
    ]
    how = texts[f"order_guidance.strength.{strength(step.gain)}"]
    lines, suggestions = order_words.creations(context, [concern])
    parts = [
        texts["order_guidance.separating_detail"].format(
            test=title, diseases=wording.join(shares, texts), strength=how
        ),
        wording.section(texts["card.do_soon"], wording.bullets(lines)),
        context.basis([concern.source]),
    ]
    return build_card(
        seed=context.seed,
        key=f"separating|{action}",
        summary=summary,
        indicator="info",
        detail="\n\n".join(parts),
        source=context.source("order-separating", learned=True),
        suggestions=suggestions,
        override_reasons=override_reasons("order", texts.language),
    )
