"""The cards beside the main ones: outdated values, an incomplete record, and the learned engines' opinion.

Responsible for saying these only when they matter (rules and learned engines may have nothing to
say; a record that could not be read may hide something).  What red flags, critical values and scores
say of the patient now is in `diagnostic_assessment`.
"""

from datetime import timedelta

import msgspec

from hooks import wording
from hooks.cards import Card, Indicator, build_card
from hooks.context import INDICATOR, CallContext
from hooks.differential import IMMEDIATE, Differential, contributions_to, has_complaint
from hooks.differential_card import Section, section
from hooks.differential_words import Key
from hooks.facts import distinct
from hooks.markdown import escape, plain
from hooks.override_reasons import override_reasons
from hooks.priority import RANK, priorities
from hooks.rare_card import rare_card, rare_facts
from hooks.statements import Statement, keys_of
from hooks.titles import title_of
from models.assessment import Fact

# Read issues that may have hidden an abnormal value.
_HIDING = frozenset({"unknown-unit", "impossible-value", "unreadable-resource", "missing-value"})
_FETCHING = frozenset({"fetch-failed", "truncated", "operation-outcome"})
# Vital signs are due at triage; a reminder before that would meet everyone at the door.
# grade C: estimate of this project.
_VITALS_DUE = timedelta(hours=1)
_ACUTE = frozenset({"emergency", "inpatient"})
_NOTHING = Section()


def outdated_card(context: CallContext, stale: list[Statement], spoken: set[str]) -> tuple[int, Card] | None:
    """One warning at most for grave values that are too old to act on: measure again."""
    texts = context.texts
    chart = context.chart
    acute = _acute_stay(context)
    order = priorities()
    kept: list[Statement] = []
    times = []
    for statement in stale:
        moments = [fact.time for fact in statement.facts if fact.time is not None]
        newest = max(moments, default=None)
        score = statement.kind == "score"
        # In a clinic visit an old middling score is history; on a ward or in an emergency it is overdue.
        grave = statement.rank <= (RANK["urgent"] if acute or not score else RANK["immediate"])
        if score and (
            statement.id in order.restating or not order.stands_alone(statement.id, statement.rank)
        ):
            continue
        hours = context.settings.stale_vitals_hours if score else context.settings.stale_horizon_hours
        recent = newest is None or newest >= chart.at - timedelta(hours=hours)
        if grave and recent and spoken.isdisjoint(keys_of(statement.facts)):
            kept.append(statement)
            times.append(newest)
    if not kept:
        return None
    head = kept[0]
    vital = any(statement.kind == "score" for statement in kept)
    key = "stale.summary" if vital or head.kind == "red-flag" else "stale.summary_lab"
    time = times[0]
    what = title_of(head, context)
    if time is None:
        summary = texts[key + "_undated"].format(what=what)
    else:
        summary = texts[key].format(what=what, ago=texts.ago(time, chart.at))
    parts = [texts["stale.detail"]]
    if len(kept) > 1:
        parts.append(wording.bullets([escape(title_of(statement, context)) for statement in kept[:4]]))
    facts = distinct([statement.facts for statement in kept])
    table = wording.fact_table(facts, chart, texts, context.names, most=context.settings.max_facts)
    parts.append(wording.section(texts["card.why"], table))
    parts.append(context.basis([s.source for s in kept if s.source]))
    card = build_card(
        seed=context.seed,
        key="outdated|" + "|".join([f"{s.kind}:{s.id}" for s in kept]),
        summary=summary,
        indicator="warning",
        detail="\n\n".join(parts),
        source=context.source("outdated-values"),
        override_reasons=override_reasons("assessment", texts.language),
    )
    return RANK["urgent"], card


def _acute_stay(context: CallContext) -> bool:
    encounter = context.chart.encounter
    return encounter is not None and encounter.setting in _ACUTE and encounter.end is None


def quality_card(context: CallContext) -> tuple[int, Card] | None:
    """When nothing else is said: what was not read, if it may have hidden something.

    An unreadable unit matters while someone is acutely ill; in a clinic visit only what can not be a
    true value or could not be fetched is worth a card.
    """
    chart = context.chart
    texts = context.texts
    encounter = chart.encounter
    acute = encounter is not None and encounter.setting in _ACUTE
    values = [
        issue
        for issue in chart.issues
        if issue.code in _HIDING
        and issue.reference.startswith("Observation/")
        and (acute or issue.code == "impossible-value")
    ]
    fetches = [issue for issue in chart.issues if issue.code in _FETCHING]
    vitals_missing = (
        encounter is not None
        and acute
        and not chart.measurements
        and "Observation" not in chart.sections_missing
        and encounter.end is None
        and encounter.start is not None
        and chart.at - encounter.start >= _VITALS_DUE
    )
    if values:
        key = "quality.summary_unread_one" if len(values) == 1 else "quality.summary_unread"
        summary = texts[key].format(n=len(values))
    elif fetches or (acute and chart.sections_missing):
        sections = dict.fromkeys(
            [*chart.sections_missing, *[i.reference.partition("/")[0].partition("?")[0] for i in fetches]]
        )
        named = wording.join([texts.get(f"section.{name}", name) for name in sections], texts)
        summary = texts["quality.summary_sections"].format(sections=plain(named))
    elif vitals_missing:
        summary = texts["quality.summary_vitals"]
    else:
        return None
    parts = [texts["quality.detail_vitals"] if vitals_missing else texts["quality.detail_unread"]]
    issues = [*values, *fetches]
    if issues:
        parts.append(wording.issue_list(issues, texts))
    unread = wording.unread_lines(chart, texts)
    if unread:
        parts.append(wording.section(texts["card.unknown"], wording.bullets(unread)))
    parts.append(context.basis([]))
    card = build_card(
        seed=context.seed,
        key="data-quality",
        summary=summary,
        indicator="info",
        detail="\n\n".join(parts),
        source=context.source("data-quality"),
        override_reasons=override_reasons("assessment", texts.language),
    )
    return RANK["soon"], card


class Opinions(msgspec.Struct, frozen=True):
    """Cards of the learned engines; whether one of them holds the differential, and what they show."""

    cards: tuple[tuple[int, Card], ...]
    hosts: bool
    shown: frozenset[Key]


def model_cards(context: CallContext, fresh: list[Statement], told: Differential | None) -> Opinions:
    """What the learned engines add to the published rules: a rare-disease alarm, or attention now.

    `told` is the differential; an opinion about the patient now holds it.  Engines that disagree are
    said on the differential's own card when there is one, and elsewhere only when it may be acute.
    """
    assessment = context.assessment
    texts = context.texts
    most = context.settings.max_facts
    found: list[tuple[int, Card]] = []
    suspected = rare_card(context)
    rare = rare_facts(assessment)
    said: set[Key] = {(fact.kind, fact.code) for fact in rare[:most]}
    code = assessment.escalation.code
    grave = any(statement.rank <= RANK["urgent"] for statement in fresh)
    hosts = True
    if assessment.immediate and not grave:
        probability = texts["model.probability"].format(
            percent=texts.number(round(100 * assessment.immediate_probability))
        )
        facts = _supporting(context, IMMEDIATE)
        said.update([(fact.kind, fact.code) for fact in facts[:most]])
        found.append(
            _opinion(
                context,
                key="immediate",
                summary=texts["model.immediate"].format(probability=probability),
                indicator="warning",
                topic="model-assessment",
                body=[texts["model.immediate_detail"]],
                facts=facts,
                hosted=_hosted(context, told, said, pressing=True),
            )
        )
    elif not fresh and _is_worth_saying(context, told):
        key = "model.precaution" if code == "precaution" else "model.atypical"
        indicator: Indicator = "info" if assessment.severity == "no-disease" else "warning"
        severity = texts["card.severity"].format(severity=texts[f"severity.{assessment.severity}"])
        found.append(
            _opinion(
                context,
                key=code,
                summary=texts[key],
                indicator=indicator,
                topic="model-assessment",
                body=[f"{severity}."],
                facts=[],
                hosted=_hosted(context, told, said, pressing=False),
            )
        )
    else:
        hosts = False
    if suspected is not None:
        found.append(suspected)
    return Opinions(tuple(found), hosts, frozenset(said))


def _is_worth_saying(context: CallContext, told: Differential | None) -> bool:
    """Whether a disagreement or an atypical picture deserves a card where no rule speaks.

    The common engine sees every chart: what it only doubts of somebody without complaint is no card.
    """
    assessment = context.assessment
    code = assessment.escalation.code
    if code == "precaution":
        alone = told is not None and told.alone
        return not assessment.common or (assessment.severity == "acute-disease" and not alone)
    return code == "atypical-case" and (not assessment.common or has_complaint(context.chart))


def _supporting(context: CallContext, target: str) -> list[Fact]:
    """The facts that speak for something: those that tell, else whatever does."""
    telling, _ = contributions_to(target, context.assessment)
    if telling:
        return distinct([[one.fact for one in telling]], context.several)
    return [one.fact for one in context.assessment.explanation if one.target == target and one.amount > 0]


def _hosted(context: CallContext, told: Differential | None, said: set[Key], *, pressing: bool) -> Section:
    if told is None:
        return Section()
    most = context.settings.max_suggestions
    return section(context, told, said=said, taken=(), drafts=most, pressing=pressing)


def _opinion(
    context: CallContext,
    *,
    key: str,
    summary: str,
    indicator: Indicator,
    topic: str,
    body: list[str],
    facts: list[Fact],
    hosted: Section = _NOTHING,
) -> tuple[int, Card]:
    texts = context.texts
    parts = [*body, *hosted.blocks]
    if facts:
        table = wording.fact_table(
            facts, context.chart, texts, context.names, most=context.settings.max_facts
        )
        parts.append(wording.section(texts["card.why"], table))
    unknown = [*hosted.unknown, *wording.unread_lines(context.chart, texts)]
    if unknown:
        parts.append(wording.section(texts["card.unknown"], wording.bullets(unknown)))
    parts.append(context.basis([]))
    card = build_card(
        seed=context.seed,
        key=f"model:{key}",
        summary=summary,
        indicator=indicator,
        detail="\n\n".join(parts),
        source=context.source(topic),
        suggestions=hosted.suggestions,
        override_reasons=override_reasons("assessment", texts.language),
    )
    return INDICATOR.index(indicator), card
