"""The cards of `diagnostic-assessment` (patient-view): from an assessment to at most three cards.

Responsible for what a clinician reads in the ten seconds there are: the problem that leads, the facts
that decide it, what to do, and what the advice rests on and does not know.  Scores nothing, fetches
nothing, and says nothing when there is nothing to say.
"""

from collections.abc import Callable, Sequence

from fhir_adapters.chart import PatientChart
from hooks import wording
from hooks.advice import advice, covers, names_of, shares
from hooks.cards import DEFAULT_SETTINGS, Card, CardSettings, build_card
from hooks.context import INDICATOR, CallContext
from hooks.differential import Differential, categories, differential_of
from hooks.differential_card import Section, differential_card, section
from hooks.differential_words import Key
from hooks.facts import distinct
from hooks.override_reasons import override_reasons
from hooks.priority import RANK, priorities
from hooks.side_cards import model_cards, outdated_card, quality_card
from hooks.statement_lines import lines_of, summary_of
from hooks.statements import Group, Statement, group, keys_of, statements_of
from hooks.suspects import suspects
from hooks.texts import texts_for
from hooks.wording import Names, label_of
from models.assessment import Assessment, Fact, Recommendation, Score

_MOST_UNKNOWN = 4
_MOST_SOURCES = 4
_TOPIC = {"red-flag": "red-flag", "critical": "critical-value", "score": "early-warning"}


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
    told = differential_of(chart, assessment)
    opinions = model_cards(context, fresh, told)
    room = max(1, settings.max_cards - len(opinions.cards))
    groups = group(fresh, room)
    # The card that leads holds the differential: an opinion only speaks before rules that can wait.
    found = _group_cards(context, groups, None if opinions.hosts else told, opinions.shown)
    found.extend(opinions.cards)
    quality: tuple[int, Card] | None = None
    if told is not None and told.alone and not groups and not opinions.hosts:
        quality = quality_card(context)
        found.append(differential_card(context, told, said=opinions.shown, unread=quality is None))
    found.sort(key=_rank_of)
    if stale and len(found) < settings.max_cards:
        spoken = set().union(*[keys_of(s.facts) for members in groups for s in members.statements])
        outdated = outdated_card(context, stale, spoken)
        if outdated is not None:
            found.append(outdated)
            found.sort(key=_rank_of)
    if not found:
        quality = quality_card(context)
    if quality is not None:
        found.append(quality)
    return tuple([card for _, card in found[: settings.max_cards]])


def _rank_of(entry: tuple[int, Card]) -> int:
    return entry[0]


def _group_cards(
    context: CallContext, groups: list[Group], told: Differential | None, shown: frozenset[Key]
) -> list[tuple[int, Card]]:
    """One card per group; the first holds the differential.  `shown` are facts that other cards show."""
    if not groups:
        return []
    several = context.several
    # A fact that a red flag or critical value rests on is shown on its card, not where a score used it.
    owner: dict[Key, int] = {}
    for scores in (False, True):
        for position, members in enumerate(groups):
            for statement in members.statements:
                if (statement.kind == "score") is scores:
                    for fact in statement.facts:
                        owner.setdefault((fact.kind, fact.code), position)
    wanted = shares(groups, context.assessment)
    tables: list[list[Fact]] = []
    for position, members in enumerate(groups):
        facts = [
            fact
            for fact in distinct([s.facts for s in members.statements], several)
            if owner[(fact.kind, fact.code)] == position
        ]
        # Age and sex stand in every EHR's banner: last, so that they are what is cut.
        tables.append(sorted(facts, key=_is_demographic))
    most = context.settings.max_facts
    said = {(fact.kind, fact.code) for facts in tables for fact in facts[:most]} | shown
    taken = {recommendation.action for share in wanted for recommendation in share}
    taken.update([action for name in taken for action in covers().get(name, ())])

    def host(drafts: int) -> Section:
        if told is None:
            return Section()
        pressing = groups[0].rank <= RANK["urgent"]
        return section(context, told, said=said, taken=taken, drafts=drafts, pressing=pressing)

    listed = categories(told) if told is not None else frozenset()
    return [
        (
            members.rank,
            _group_card(context, members, share, facts, host if members is groups[0] else None, listed),
        )
        for members, share, facts in zip(groups, wanted, tables, strict=True)
    ]


def _unknown_lines(members: Group, context: CallContext, also: Sequence[str], *, first: bool) -> list[str]:
    """What the card does not know: incomplete scores, missing items, `also`, on the first unread parts."""
    texts = context.texts
    restating = priorities().restating
    lines: list[str] = []
    said: set[str] = set()
    ids: set[str] = set()
    for statement in members.statements:
        value = statement.value
        if statement.kind == "score" and statement.id in restating and statement is not members.head:
            continue
        ids.update(names_of(statement))
        if isinstance(value, Score) and value.missing and not said.issuperset(value.missing):
            said.update(value.missing)
            name = texts.get(f"score.{value.id}.name", value.id)
            lines.append(
                texts["card.partial" if wording.is_sum(value) else "card.partial_other"].format(
                    score=name, parts=wording.parameters(value.missing, texts)
                )
            )
    others = [
        missing.id
        for missing in context.assessment.missing
        if missing.id not in said and not ids.isdisjoint(missing.needed_for)
    ]
    if others:
        lines.append(wording.parameters(others, texts))
    lines = [*lines[: max(0, _MOST_UNKNOWN - len(also))], *also]
    if first:
        unread = wording.unread_lines(context.chart, texts)
        # What could not be read is never what is cut.
        lines = [*lines[: max(0, _MOST_UNKNOWN - len(unread))], *unread]
    return lines[:_MOST_UNKNOWN]


def _is_demographic(fact: Fact) -> bool:
    return fact.kind == "demographic"


def _group_card(
    context: CallContext,
    members: Group,
    wanted: list[Recommendation],
    facts: list[Fact],
    host: Callable[[int], Section] | None,
    listed: frozenset[str],
) -> Card:
    """The card of a group; the first of all has a `host`, which gives the differential for its room."""
    texts = context.texts
    first = host is not None
    statements = members.statements
    shown, lined, lines, others = lines_of(members, context)
    parts = [lines[0] if len(lines) == 1 else wording.bullets(lines)]
    if others:
        parts.append(wording.inline(texts["card.also"], others))
    if first and context.assessment.escalation.code == "precaution":
        parts.append(f"{texts['model.precaution']}.")
    steps, suggestions = advice(wanted, members, shown, context)
    parts.extend(steps)
    hosted = host(context.settings.max_suggestions - len(suggestions)) if host is not None else Section()
    parts.extend(hosted.blocks)
    thought_of = suspects(shown, context, listed)
    if thought_of:
        parts.append(wording.inline(texts["card.may_be"], thought_of))
    if facts:
        table = wording.fact_table(
            facts,
            context.chart,
            texts,
            context.names,
            most=context.settings.max_facts,
            points=wording.marks_by_fact(statements, texts),
        )
        parts.append(wording.section(texts["card.why"], table))
    unknown = _unknown_lines(members, context, hosted.unknown, first=first)
    if unknown:
        parts.append(wording.section(texts["card.unknown"], wording.bullets(unknown)))
    parts.append(context.basis([s.source for s in lined], most=_MOST_SOURCES))
    return build_card(
        seed=context.seed,
        key="|".join([f"{s.kind}:{s.id}" for s in statements]),
        summary=summary_of(members, facts, context),
        indicator=INDICATOR[members.rank],
        detail="\n\n".join(parts),
        source=context.source(_TOPIC[members.head.kind]),
        suggestions=[*suggestions, *hosted.suggestions],
        override_reasons=override_reasons("assessment", texts.language),
    )
