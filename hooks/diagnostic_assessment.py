"""The cards of `diagnostic-assessment` (patient-view): from an assessment to at most three cards.

Responsible for what a clinician reads first, what is drafted for them, and for saying what the
advice rests on and what is not known.  Scores nothing, fetches nothing, and says nothing when there
is nothing to say.
"""

from fhir_adapters.chart import PatientChart
from hooks import wording
from hooks.cards import (
    DEFAULT_SETTINGS,
    SUMMARY_LIMIT,
    Card,
    CardSettings,
    Suggestion,
    build_card,
)
from hooks.context import INDICATOR, CallContext
from hooks.markdown import escape
from hooks.override_reasons import override_reasons
from hooks.side_cards import model_cards, outdated_card, quality_card
from hooks.statements import RANK, Group, Statement, group, keys_of, statements_of
from hooks.suggestions import action_title, catalogue, order_suggestion
from hooks.texts import texts_for
from hooks.titles import critical_phrase, title_of
from hooks.wording import Names, label_of
from models.assessment import Assessment, CriticalValue, Fact, Recommendation, RedFlag, Score, Urgency

_DO = ("card.do_now", "card.do_urgent", "card.do_soon", "card.do_soon")
_TOPIC = {"red-flag": "red-flag", "critical": "critical-value", "score": "early-warning"}
_BY_RANK: tuple[Urgency, ...] = ("immediate", "urgent", "soon", "routine")


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
    """The cards for one patient, gravest first; empty when there is nothing to say.

    Args:
        chart: what was read.
        assessment: what the engines say of it.
        language: a language tag; ``en`` unless we have its texts.
        seed: one per hook call; the same seed gives the same UUIDs.
        names: what a fact is called in a language.
        base_url: absolute address of this server, for `source.url`; left out when `None`.
        settings: limits a site may change.

    Returns:
        At most ``settings.max_cards`` cards.  A fact is explained on one card only.
    """
    context = CallContext(chart, assessment, texts_for(language), names, seed, base_url, settings)
    fresh: list[Statement] = []
    stale: list[Statement] = []
    for statement in statements_of(assessment):
        # A red flag to act on within weeks (a mass, weight loss) is not outdated after some days.
        lasting = statement.kind == "red-flag" and statement.rank >= RANK["soon"]
        (stale if statement.stale and not lasting else fresh).append(statement)
    opinions = model_cards(context, fresh)
    room = max(1, settings.max_cards - len(opinions))
    groups = group(fresh, room)
    found = _group_cards(context, groups)
    found.extend(opinions)
    found.sort(key=lambda entry: entry[0])
    if len(found) < settings.max_cards:
        spoken: set[str] = set().union(*[g.keys for g in groups]) if groups else set()
        outdated = outdated_card(context, stale, spoken)
        if outdated is not None:
            found.append(outdated)
            found.sort(key=lambda entry: entry[0])
    if not found:
        quality = quality_card(context)
        if quality is not None:
            found.append(quality)
    return tuple([card for _, card in found[: settings.max_cards]])


def _summary(members: Group, context: CallContext) -> str:
    """The gravest statement, then what makes it specific to this patient, as far as it fits."""
    head = members.head
    additions: list[str] = []
    spoken = keys_of(head.facts) if head.kind == "critical" else set()
    scores = [title_of(other, context) for other in members.statements[1:] if other.kind == "score"]
    additions.extend(scores[:1])
    if head.kind == "red-flag":
        for fact in wording.unique_facts([head]):
            # Age and the like do not tell patients apart; normal parts of a picture neither.
            if fact.kind != "demographic" and fact.state == "present":
                additions.append(wording.fact_phrase(fact, context.texts, context.names))
                spoken |= keys_of([fact])
    for statement in members.statements[1:]:
        if statement.kind == "critical" and spoken.isdisjoint(keys_of(statement.facts)):
            additions.append(critical_phrase(statement, context))
            spoken |= keys_of(statement.facts)
        elif statement.kind == "red-flag":
            additions.append(wording.mid_sentence(title_of(statement, context)))
    additions.extend(scores[1:])
    return wording.extend_summary(title_of(head, context), additions, SUMMARY_LIMIT)


def _statement_lines(members: Group, context: CallContext) -> list[str]:
    """One line per statement with what it means, finished Markdown."""
    texts = context.texts
    lines: list[str] = []
    for statement in members.statements:
        value = statement.value
        if isinstance(value, Score):
            line = f"**{wording.score_phrase(value, texts, full=True)}**"
            detail = texts.maybe(f"score.{value.id}.detail.{value.band}") or texts.maybe(
                f"score.{value.id}.detail"
            )
        elif isinstance(value, RedFlag):
            line = f"**{title_of(statement, context)}**"
            detail = texts.maybe(f"red-flag.{value.id}.detail")
        else:
            line = f"**{escape(title_of(statement, context))}**"
            limit = escape(texts.quantity(value.limit, value.fact.unit))
            detail = texts[f"critical_value.limit_{value.direction}"].format(limit=limit)
            meaning = texts.nearest("critical", value.id)
            if meaning:
                detail = f"{meaning} {detail}"
        lines.append(f"{line}. {detail}" if detail else line)
    return lines


def _names_of(statement: Statement) -> tuple[str, ...]:
    """The ids under which recommendations and missing items may speak of a statement."""
    if statement.kind == "red-flag":
        return (statement.id, f"red-flag.{statement.id}")
    if statement.kind == "critical":
        direction = statement.value.direction if isinstance(statement.value, CriticalValue) else ""
        return (
            statement.id,
            f"critical.{statement.id}",
            f"critical-value.{statement.id}",
            f"{statement.id}.{direction}",
        )
    return (statement.id, f"score.{statement.id}")


def _recommendations(groups: list[Group], assessment: Assessment) -> list[list[Recommendation]]:
    """What to do, per group; every recommendation goes to one group only, the gravest it is for."""
    owner: dict[str, int] = {}
    for position, members in enumerate(groups):
        for statement in members.statements:
            for name in _names_of(statement):
                owner.setdefault(name, position)
    shares: list[dict[str, Recommendation]] = [{} for _ in groups]
    taken: set[str] = set()
    for recommendation in assessment.recommendations:
        homes = [owner[name] for name in recommendation.because if name in owner]
        if recommendation.action not in taken and (homes or RANK[recommendation.urgency] < RANK["routine"]):
            taken.add(recommendation.action)
            shares[min(homes, default=0)][recommendation.action] = recommendation
    for position, members in enumerate(groups):
        for statement in members.statements:
            for action in statement.actions:
                if action not in taken:
                    taken.add(action)
                    shares[position][action] = Recommendation(
                        action, _BY_RANK[statement.rank], (statement.id,)
                    )
    return [sorted(share.values(), key=lambda r: RANK[r.urgency]) for share in shares]


def _do_lines(
    wanted: list[Recommendation], context: CallContext, rank: int
) -> tuple[list[str], list[Suggestion]]:
    """What to do (Markdown sections), and the drafts for what can be ordered and is not answered yet."""
    texts = context.texts
    orders = catalogue()
    parts: list[str] = []
    steps: list[str] = []
    answered: list[str] = []
    suggestions: list[Suggestion] = []
    left_out: list[str] = []
    reason = ""
    for recommendation in wanted:
        title = action_title(recommendation.action, texts)
        if recommendation.already:
            answered.append(
                texts["card.answered_item"].format(action=title, reference=escape(recommendation.already))
            )
            continue
        line = texts.maybe(f"action.{recommendation.action}.line")
        steps.append(f"**{title}**: {line}" if line else f"**{title}**")
        orderable = orders.get(recommendation.action)
        if orderable is not None and orderable.drafted:
            if len(suggestions) < context.settings.max_suggestions:
                reason = reason or _reason(recommendation, context)
                suggestions.append(
                    order_suggestion(
                        orderable,
                        context.chart,
                        texts,
                        reason=_reason(recommendation, context),
                        recommended=RANK[recommendation.urgency] == 0,
                    )
                )
            else:
                left_out.append(title)
    if steps:
        parts.append(wording.section(texts[_DO[rank]], wording.bullets(steps)))
    if answered:
        parts.append(wording.section(texts["card.answered"], wording.bullets(answered)))
    if left_out:
        parts.append(texts["card.more_suggestions"].format(actions=", ".join(left_out)))
    return parts, suggestions


def _reason(recommendation: Recommendation, context: CallContext) -> str:
    """Why an order is drafted, in plain words: the first statement that asks for it."""
    texts = context.texts
    for name in recommendation.because:
        bare = name.removeprefix("red-flag.").removeprefix("score.").removeprefix("critical.")
        known = texts.maybe(f"red-flag.{bare}.summary") or texts.maybe(f"score.{bare}.name")
        if known:
            return known
    return ""


def _unknown_lines(members: Group, context: CallContext, *, first: bool) -> list[str]:
    """What the card does not know: incomplete scores, missing items, and (first card) unread parts."""
    texts = context.texts
    lines: list[str] = []
    said: set[str] = set()
    for statement in members.statements:
        value = statement.value
        if isinstance(value, Score) and value.missing:
            said.update(value.missing)
            name = texts.get(f"score.{value.id}.name", value.id)
            lines.append(
                texts["card.partial" if wording.is_sum(value) else "card.partial_other"].format(
                    score=name, parts=wording.parameters(value.missing, texts)
                )
            )
    ids = {name for statement in members.statements for name in _names_of(statement)}
    others = [
        missing.id
        for missing in context.assessment.missing
        if missing.id not in said and not ids.isdisjoint(missing.needed_for)
    ]
    if others:
        lines.append(wording.parameters(others, texts))
    if first:
        lines.extend(wording.unread_lines(context.chart, texts))
    return lines


def _group_cards(context: CallContext, groups: list[Group]) -> list[tuple[int, Card]]:
    shares = _recommendations(groups, context.assessment) if groups else []
    shown: set[str] = set()
    found: list[tuple[int, Card]] = []
    for position, (members, wanted) in enumerate(zip(groups, shares, strict=True)):
        found.append((members.rank, _group_card(context, members, wanted, shown, first=position == 0)))
    return found


def _group_card(
    context: CallContext, members: Group, wanted: list[Recommendation], shown: set[str], *, first: bool
) -> Card:
    texts = context.texts
    settings = context.settings
    statements = members.statements
    facts: list[Fact] = []
    for fact in wording.unique_facts(statements):
        key = f"{fact.kind}:{fact.code}"
        if key not in shown:
            shown.add(key)
            facts.append(fact)
    lines = _statement_lines(members, context)
    parts = [lines[0] if len(lines) == 1 else wording.bullets(lines)]
    if first and context.assessment.escalation.code == "precaution":
        parts.append(f"{texts['model.precaution']}.")
    steps, suggestions = _do_lines(wanted, context, members.rank)
    parts.extend(steps)
    suspects = dict.fromkeys(
        code for s in statements if isinstance(s.value, RedFlag) for code in s.value.suspects
    )
    if suspects:
        named = [texts.get(f"suspect.{code}", code) for code in suspects]
        parts.append(f"**{texts['card.may_be']}:** {', '.join(named)}")
    if facts:
        table = wording.fact_table(
            facts,
            context.chart,
            texts,
            context.names,
            most=settings.max_facts,
            points=wording.points_by_fact(statements),
        )
        parts.append(wording.section(texts["card.why"], table))
    unknown = _unknown_lines(members, context, first=first)
    if unknown:
        parts.append(wording.section(texts["card.unknown"], wording.bullets(unknown)))
    parts.append(context.basis([s.source for s in statements if s.source]))
    return build_card(
        seed=context.seed,
        key="|".join([f"{s.kind}:{s.id}" for s in statements]),
        summary=_summary(members, context),
        indicator=INDICATOR[members.rank],
        detail="\n\n".join(parts),
        source=context.source(_TOPIC[members.head.kind]),
        suggestions=suggestions,
        override_reasons=override_reasons("assessment", texts.language),
    )
