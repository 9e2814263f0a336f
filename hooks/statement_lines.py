"""The words of a card about red flags, critical values and scores: its summary and a line for each.

Responsible for the order in which they are said and for what needs no line of its own.  Which of them
belong on one card is decided in `statements`; the card is put together in `diagnostic_assessment`.
"""

from hooks import wording
from hooks.cards import SUMMARY_LIMIT
from hooks.context import CallContext
from hooks.markdown import escape
from hooks.priority import priorities
from hooks.statements import Group, Statement, keys_of
from hooks.titles import title_of
from models.assessment import Fact, RedFlag, Score, ScorePart

MOST_STATEMENTS = 4
"""Statements with a line of their own; the others are named in one."""
_MOST_ADDITIONS = 4
_MOST_FACTS_SAID = 3


def summary_of(members: Group, facts: list[Fact], context: CallContext) -> str:
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


def lines_of(
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
