"""The one card of the rare-disease engine: why this patient stands out, what fits, what to check, a referral.

Responsible for what is told of an alarm; words are in `rare_words`.  Without an alarm there is no card.
"""

import msgspec

from hooks import wording
from hooks.cards import Card, Link, Source, Suggestion, build_card
from hooks.context import INDICATOR, CallContext
from hooks.markdown import escape, plain
from hooks.override_reasons import override_reasons
from hooks.rare_words import RareWords, references, told_first
from hooks.suggestions import action_title, answered, catalogue, order_suggestion
from models.assessment import Assessment, Fact, RareOpinion

HPO = "https://hpo.jax.org"
REFERRAL = "referral-genetics"
_FAMILIES = 3
_NAMED = 2
_STANDING_OUT = 5
_QUESTIONS = 4
_REFERENCES = 3
_IN_COMMON = 4
_RELATIVES = 4


def rare_facts(assessment: Assessment) -> list[Fact]:
    """The findings that the card shows, the most telling first; none without an alarm."""
    opinion = assessment.rare_opinion
    if opinion is None or not assessment.rare_alarm:
        return []
    return told_first(opinion.assessed.candidates, opinion)


def rare_card(context: CallContext) -> tuple[int, Card] | None:
    """The card, if the alarm is on and there is something to say."""
    assessment = context.assessment
    opinion = assessment.rare_opinion
    if not assessment.rare_alarm or opinion is None or not opinion.assessed.candidates:
        return None
    texts = context.texts
    words = RareWords(context, opinion, escape)
    bare = RareWords(context, opinion)
    assessed = opinion.assessed
    families = assessed.families[:_FAMILIES]
    names = ", ".join([bare.name(bare.leading(family)) for family in families[:_NAMED]])
    unknown = assessed.alarm.none_known
    facts = rare_facts(assessment)
    leading = words.leading(families[0])
    fitting = words.fitting(leading) or [fact.code for fact in facts]
    why = words.list(fitting[:_STANDING_OUT])
    parts = [texts["rare.why_none" if unknown else "rare.why"].format(findings=why)]
    lines = []
    for family in families:
        reasons = words.reasons(words.leading(family))
        named = words.family(family)
        lines.append(f"{named}: {'; '.join(reasons)}" if reasons else named)
    parts.append(wording.section(texts["rare.title"], wording.bullets(lines)))
    history = words.family_history(_RELATIVES)
    if history:
        parts.append(wording.section(texts["rare.family_history"], wording.bullets(history)))
    parts.append(wording.section(texts["rare.what_next"], wording.bullets(_steps(context, words))))
    resembling = _resembling(opinion, words, context)
    if resembling:
        parts.append(resembling)
    table = wording.fact_table(facts, context.chart, texts, context.names, most=context.settings.max_facts)
    parts.append(wording.section(texts["card.why"], table))
    limits = [texts["rare.limits"].format(n=texts.number(assessed.diseases))]
    if opinion.set_aside:
        limits.append(texts["rare.set_aside"].format(findings=words.list(opinion.set_aside)))
    limits += wording.unread_lines(context.chart, texts)
    parts.append(wording.section(texts["card.unknown"], wording.bullets(limits)))
    release = escape(assessed.release)
    parts.append(f"*{texts['rare.attribution'].format(release=release)}*")
    parts.append(context.basis(references(leading, _REFERENCES)))
    key = "rare.summary_none" if unknown else "rare.summary"
    reason = texts["rare.reason_none" if unknown else "rare.reason"].format(names=names)
    card = build_card(
        seed=context.seed,
        key="model:rare",
        summary=texts[key].format(names=names),
        indicator="warning",
        detail="\n\n".join(parts),
        source=_source(context),
        suggestions=_referral(context, reason),
        override_reasons=override_reasons("assessment", texts.language),
        links=(Link(texts["rare.link"].format(release=plain(assessed.release)), HPO, "absolute"),),
    )
    return INDICATOR.index("warning"), card


def _steps(context: CallContext, words: RareWords) -> list[str]:
    texts = context.texts
    steps = []
    questions = words.questions(_QUESTIONS)
    if questions:
        check = texts["rare.check"].format(findings=", ".join(questions))
        steps.append(f"{check} ({texts['rare.check_detail']})")
    steps.append(texts["rare.referral"].format(title=action_title(REFERRAL, texts)))
    return steps


def _resembling(opinion: RareOpinion, words: RareWords, context: CallContext) -> str:
    """The nearest paper or enrolled case, when it shares something."""
    for like in opinion.assessed.resembles[:1]:
        if len(like.shares) > 1:
            called = {one: candidate for candidate in opinion.assessed.candidates for one in candidate.ids}
            disease = called.get(like.disease)
            return context.texts["rare.resembles"].format(
                reference=escape(plain(like.reference.partition(";")[0], 40)),
                disease=words.name(disease) if disease is not None else escape(plain(like.disease, 80)),
                findings=words.list(like.shares[:_IN_COMMON]),
            )
    return ""


def _referral(context: CallContext, reason: str) -> list[Suggestion]:
    """The draft, unless another card has it or the record holds it already."""
    asked = {one.action for one in context.assessment.recommendations}
    if REFERRAL in asked or answered(REFERRAL, context.chart) is not None:
        return []
    order = catalogue()[REFERRAL]
    return [
        order_suggestion(
            order, context.chart, context.texts, reason=reason, recommended=False, pressing=False
        )
    ]


def _source(context: CallContext) -> Source:
    source = context.source("rare-disease")
    label = context.texts["rare.source_label"].format(label=context.settings.source_label)
    return msgspec.structs.replace(source, label=label)
