"""What the cards about orders have in common: names of orders, reasons, drafts to add and to remove.

Everything is in the language of the call.  Which orders are spoken of, and on which card, is decided in
`order_review` and `order_tests`.
"""

from collections.abc import Sequence

from fhir_adapters.chart import Order
from hooks import wording
from hooks.cards import Suggestion
from hooks.context import CallContext
from hooks.differential_words import disease, percent
from hooks.facts import distinct
from hooks.markdown import escape, plain
from hooks.priority import RANK
from hooks.suggestions import action_title, catalogue, order_suggestion, ordered_as, removal_suggestion
from models.assessment import Fact, OrderConcern, Prediction
from models.knowledge.drug_harms import packaged
from models.order_guidance import is_grave

HARM = "harmful-in-diagnosis"
SEPARATING = "separating-test"


def one_rank(concern: OrderConcern) -> int:
    """The rank of a concern's urgency, 0 the gravest."""
    return RANK[concern.urgency]


def rank(concerns: Sequence[OrderConcern]) -> int:
    """The rank of the gravest."""
    return min(RANK[concern.urgency] for concern in concerns)


def facts_of(concerns: Sequence[OrderConcern]) -> list[Fact]:
    """The facts behind concerns, each once."""
    return distinct([concern.facts for concern in concerns])


def phrases(facts: Sequence[Fact], context: CallContext) -> list[str]:
    """The facts in words, plain text."""
    return [wording.fact_phrase(fact, context.texts, context.names) for fact in facts]


def suspected(concern: OrderConcern, context: CallContext) -> list[Prediction]:
    """The diseases a concern is about, as the differential lists them."""
    listed = {item.id: item for item in context.assessment.common}
    return [listed[name] for name in concern.diagnoses if name in listed]


def problem(concern: OrderConcern, context: CallContext) -> str | None:
    """What is wrong with an order, in a few words of plain text; `None` when no text knows the rule.

    Of a drug that harms in a suspected disease: the harm, the most probable disease and how probable;
    of a test to add: what it is to tell apart.
    """
    texts = context.texts
    if concern.kind == SEPARATING:
        pair = [disease(item, texts, inside=True) for item in suspected(concern, context)[:2]]
        return texts["order_guidance.reason"].format(diseases=wording.join(pair, texts)) if pair else None
    if concern.kind != HARM:
        return texts.maybe(f"order.{concern.rule}.summary")
    row = packaged().get(concern.rule)
    effect = texts.get(f"harm.{row.effect if row else 'unknown'}", texts["harm.unknown"])
    diseases = suspected(concern, context)
    if not diseases:
        return effect
    return texts["order_guidance.if_it_is"].format(
        effect=effect,
        disease=disease(diseases[0], texts, inside=True),
        percent=percent(diseases[0].probability, texts),
    )


def order_name(concern: OrderConcern, context: CallContext) -> str:
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


def removals(
    context: CallContext, concerns: Sequence[OrderConcern], *, recommended: bool
) -> list[Suggestion]:
    """One removal per drafted order that has an id to delete by."""
    drafts = {order.reference for order in context.chart.orders if order.draft}
    named = {concern.order: concern for concern in concerns}
    return [
        removal_suggestion(order, order_name(concern, context), context.texts, recommended=recommended)
        for order, concern in named.items()
        if order in drafts and "/" in order
    ][: context.settings.max_suggestions]


def _presses(concern: OrderConcern, context: CallContext) -> bool:
    """Whether a test is wanted within hours: always, unless it is only to tell harmless diseases apart."""
    if concern.kind != SEPARATING:
        return True
    return any(is_grave(item) for item in suspected(concern, context))


def why(concern: OrderConcern, context: CallContext) -> str:
    """What the rule says, as Markdown of our own; the kind's general sentence for an unknown rule."""
    texts = context.texts
    if concern.kind == HARM:
        row = packaged().get(concern.rule)
        said = row.sentence(texts.language) if row is not None else texts["order_guidance.harm_detail"]
        others = [
            texts["order_guidance.disease"].format(
                disease=escape(disease(item, texts, inside=True)), percent=percent(item.probability, texts)
            )
            for item in suspected(concern, context)[1:]
        ]
        if not others:
            return said
        return f"{said} {texts['order_guidance.also_if'].format(diseases=wording.join(others, texts))}"
    return texts.get(f"order.{concern.rule}.detail", texts[f"order_card.{concern.kind}_detail"])


def table(facts: list[Fact], context: CallContext) -> str:
    """The facts as a titled table."""
    table = wording.fact_table(
        facts, context.chart, context.texts, context.names, most=context.settings.max_facts
    )
    return wording.section(context.texts["card.why"], table)


def creations(context: CallContext, concerns: Sequence[OrderConcern]) -> tuple[list[str], list[Suggestion]]:
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
                        reason=problem(concern, context) or "",
                        recommended=RANK[concern.urgency] == 0,
                        pressing=_presses(concern, context),
                    )
                )
    return lines, suggestions
