"""The cards of `diagnostic-assessment` (patient-view): from an assessment to at most three cards.

Responsible for what a clinician reads in the ten seconds there are: the problem that leads, the facts
that decide it, what to do, and what the advice rests on and does not know.  Scores nothing, fetches
nothing, and says nothing when there is nothing to say.
"""

from functools import lru_cache
from unicodedata import category, normalize

from fhir_adapters.chart import PatientChart
from hooks import wording
from hooks.advice import advice, names_of, shares
from hooks.cards import DEFAULT_SETTINGS, SUMMARY_LIMIT, Card, CardSettings, build_card
from hooks.context import INDICATOR, CallContext
from hooks.facts import distinct, saying_several
from hooks.markdown import escape
from hooks.override_reasons import override_reasons
from hooks.priority import RANK, priorities
from hooks.side_cards import model_cards, outdated_card, quality_card
from hooks.statements import Group, Statement, group, keys_of, statements_of
from hooks.texts import texts_for
from hooks.titles import title_of
from hooks.wording import Names, label_of
from models.assessment import Assessment, Fact, Recommendation, RedFlag, Score, ScorePart

MOST_STATEMENTS = 4
"""Statements with a line of their own; the others are named in one."""
_MOST_ADDITIONS = 4
_MOST_FACTS_SAID = 3
_MOST_SUSPECTS = 5
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
    opinions = model_cards(context, fresh)
    room = max(1, settings.max_cards - len(opinions))
    groups = group(fresh, room)
    found = _group_cards(context, groups)
    found.extend(opinions)
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


def _group_cards(context: CallContext, groups: list[Group]) -> list[tuple[int, Card]]:
    if not groups:
        return []
    several = saying_several(context.chart)
    # A fact that a red flag or critical value rests on is shown on its card, not where a score used it.
    owner: dict[tuple[str, str], int] = {}
    for scores in (False, True):
        for position, members in enumerate(groups):
            for statement in members.statements:
                if (statement.kind == "score") is scores:
                    for fact in statement.facts:
                        owner.setdefault((fact.kind, fact.code), position)
    found: list[tuple[int, Card]] = []
    wanted = shares(groups, context.assessment)
    for position, members in enumerate(groups):
        facts = [
            fact
            for fact in distinct([s.facts for s in members.statements], several)
            if owner[(fact.kind, fact.code)] == position
        ]
        card = _group_card(context, members, wanted[position], facts, first=position == 0)
        found.append((members.rank, card))
    return found


def _summary(members: Group, facts: list[Fact], context: CallContext) -> str:
    """The problem that leads, how ill the patient is, and the facts that decide it, as far as they fit."""
    texts, names = context.texts, context.names
    head = members.head
    title = title_of(head, context)
    restating = priorities().restating
    additions = [title_of(s, context) for s in members.leaders[1:]]
    own: set[tuple[str, str]] = {(fact.kind, fact.code) for fact in head.facts}
    if head.kind == "score":
        own = _decisive(head)
    else:
        score = next((s for s in members.statements if s.kind == "score" and s.id not in restating), None)
        if score is not None:
            additions.append(title_of(score, context))
    said = keys_of(head.facts) if head.kind == "critical" else set()
    critical = {
        (fact.kind, fact.code) for s in members.statements if s.kind == "critical" for fact in s.facts
    }
    # What a critical limit marks is said before what only belongs to the picture.
    chosen = [f for f in facts if (f.kind, f.code) in own and (f.kind, f.code) in critical]
    chosen += [f for f in facts if (f.kind, f.code) in own and (f.kind, f.code) not in critical]
    chosen += [f for f in facts if (f.kind, f.code) not in own and (f.kind, f.code) in critical]
    phrases = 0
    for fact in chosen:
        # Age and the like do not tell patients apart; normal parts of a picture neither.
        if fact.kind == "demographic" or fact.state != "present" or not said.isdisjoint(keys_of([fact])):
            continue
        if phrases == _MOST_FACTS_SAID or len(additions) >= _MOST_ADDITIONS:
            break
        phrase = wording.fact_phrase(fact, texts, names)
        if phrase not in additions and phrase not in title.lower():
            additions.append(phrase)
            phrases += 1
    return wording.extend_summary(title, additions, SUMMARY_LIMIT)


def _decisive(head: Statement) -> set[tuple[str, str]]:
    """The facts that gave a score most of its points; none for a score that is no sum (GCS)."""
    value = head.value
    if not isinstance(value, Score) or not wording.is_sum(value):
        return set()
    parts = sorted([part for part in value.parts if part.fact is not None], key=_by_points)
    return {
        (part.fact.kind, part.fact.code) for part in parts[:_MOST_FACTS_SAID] if part.fact and part.points > 0
    }


def _by_points(part: ScorePart) -> int:
    return -part.points


def _lines(
    members: Group, context: CallContext
) -> tuple[list[Statement], list[Statement], list[str], list[str]]:
    """What the card shows, what of it has a line, the lines, and the names of the others, finished Markdown.

    A critical value that a shown red flag rests on has no line (the table marks it); a score that only
    restates the vital signs is named without one, unless it leads.
    """
    restating = priorities().restating
    shown: list[Statement] = []
    lined: list[Statement] = []
    lines: list[str] = []
    others: list[str] = []
    explained: set[tuple[str, str]] = set()
    for statement in members.statements:
        part = statement.kind == "critical" and all(
            (fact.kind, fact.code) in explained for fact in statement.facts
        )
        restates = statement.kind == "score" and statement.id in restating
        if lines and part:
            shown.append(statement)
            continue
        if lines and (restates or len(lines) >= MOST_STATEMENTS):
            others.append(escape(wording.mid_sentence(title_of(statement, context))))
            continue
        lines.append(_line(statement, context))
        shown.append(statement)
        lined.append(statement)
        if statement.kind == "red-flag":
            explained.update([(fact.kind, fact.code) for fact in statement.facts])
    return shown, lined, lines, others


def _line(statement: Statement, context: CallContext) -> str:
    """A statement with what it means."""
    texts = context.texts
    value = statement.value
    if isinstance(value, Score):
        line = f"**{wording.score_phrase(value, texts, full=True)}**"
        detail = texts.maybe(f"score.{value.id}.advice.{value.band}") or texts.maybe(
            f"score.{value.id}.detail"
        )
    elif isinstance(value, RedFlag):
        line = f"**{title_of(statement, context)}**"
        detail = texts.maybe(f"red-flag.{value.id}.detail")
    else:
        line = f"**{escape(title_of(statement, context))}**"
        detail = texts.nearest("critical", value.id)
        if detail is None:
            limit = escape(texts.quantity(value.limit, value.fact.unit))
            detail = texts[f"critical_value.limit_{value.direction}"].format(limit=limit)
    return f"{line}. {detail}" if detail else line


def _suspects(shown: list[Statement], context: CallContext) -> list[str]:
    """Diseases to think of that the card has not named: each once, also when two names are nearly one."""
    texts = context.texts
    titles = [_words(title_of(s, context)) for s in shown if s.kind == "red-flag"]
    taken: list[tuple[str, frozenset[str]]] = []
    named: list[str] = []
    for statement in shown:
        if not isinstance(statement.value, RedFlag):
            continue
        for code in statement.value.suspects:
            name = texts.get(f"suspect.{code}", code)
            words = _words(name)
            if len(named) == _MOST_SUSPECTS or any(words <= title for title in titles):
                continue
            if not any(_nearly(code, words, other) for other in taken):
                taken.append((code, words))
                named.append(name)
    return named


def _nearly(code: str, words: frozenset[str], other: tuple[str, frozenset[str]]) -> bool:
    """Whether two diseases are nearly one: one name within the other, or one ICD category."""
    named, among = other
    if words <= among or among <= words:
        return True
    return code[:3] == named[:3] and (code[3:5] == ".9" or named[3:5] == ".9")


@lru_cache(maxsize=1024)
def _words(name: str) -> frozenset[str]:
    """The beginnings of the words that tell a disease's name from another, without accents."""
    bare = "".join([c for c in normalize("NFD", name.lower()) if category(c) != "Mn"]).replace(":", " ")
    words = bare.split()
    return frozenset([word[:6] for word in words if len(word) > 4]) or frozenset(words)


def _unknown_lines(members: Group, context: CallContext, *, first: bool) -> list[str]:
    """What the card does not know: incomplete scores, missing items, and (first card) unread parts."""
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
    if first:
        unread = wording.unread_lines(context.chart, texts)
        # What could not be read is never what is cut.
        lines = [*lines[: max(0, _MOST_UNKNOWN - len(unread))], *unread]
    return lines[:_MOST_UNKNOWN]


def _is_demographic(fact: Fact) -> bool:
    return fact.kind == "demographic"


def _group_card(
    context: CallContext, members: Group, wanted: list[Recommendation], facts: list[Fact], *, first: bool
) -> Card:
    texts = context.texts
    statements = members.statements
    shown, lined, lines, others = _lines(members, context)
    parts = [lines[0] if len(lines) == 1 else wording.bullets(lines)]
    if others:
        parts.append(wording.inline(texts["card.also"], others))
    if first and context.assessment.escalation.code == "precaution":
        parts.append(f"{texts['model.precaution']}.")
    steps, suggestions = advice(wanted, members, shown, context)
    parts.extend(steps)
    suspects = _suspects(shown, context)
    if suspects:
        parts.append(wording.inline(texts["card.may_be"], suspects))
    if facts:
        # Age and sex stand in every EHR's banner: last, so that they are what is cut.
        facts = sorted(facts, key=_is_demographic)
        table = wording.fact_table(
            facts,
            context.chart,
            texts,
            context.names,
            most=context.settings.max_facts,
            points=wording.marks_by_fact(statements, texts),
        )
        parts.append(wording.section(texts["card.why"], table))
    unknown = _unknown_lines(members, context, first=first)
    if unknown:
        parts.append(wording.section(texts["card.unknown"], wording.bullets(unknown)))
    parts.append(context.basis([s.source for s in lined], most=_MOST_SOURCES))
    return build_card(
        seed=context.seed,
        key="|".join([f"{s.kind}:{s.id}" for s in statements]),
        summary=_summary(members, facts, context),
        indicator=INDICATOR[members.rank],
        detail="\n\n".join(parts),
        source=context.source(_TOPIC[members.head.kind]),
        suggestions=suggestions,
        override_reasons=override_reasons("assessment", texts.language),
    )
