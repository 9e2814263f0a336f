"""What a card asks for: which recommendations go on which card, said in few lines, and the drafts of orders.

Responsible for the order of the steps (those of the problem that leads first), for saying nothing
twice (``data/covers.toml``) and for what the record answers already.  Decides nothing about what is
recommended: that is the assessment's.
"""

import tomllib
from collections.abc import Sequence
from datetime import datetime
from functools import cache, lru_cache
from importlib import resources

from hooks import wording
from hooks.cards import Suggestion
from hooks.context import CallContext
from hooks.errors import DataInvalid
from hooks.markdown import escape
from hooks.priority import RANK, priorities
from hooks.statements import Group, Statement
from hooks.suggestions import Orderable, action_title, catalogue, order_suggestion
from hooks.texts import texts_for
from models.assessment import Assessment, CriticalValue, Fact, Recommendation, Urgency

MOST_STEPS = 6
"""Steps with a line of their own, and as many more by name: what is read in ten seconds."""

_DO = ("card.do_now", "card.do_urgent", "card.do_soon", "card.do_soon")
_BY_RANK: tuple[Urgency, ...] = ("immediate", "urgent", "soon", "routine")


@cache
def covers() -> dict[str, frozenset[str]]:
    """Action to the actions it holds; raises `DataInvalid` (also for an action of no catalogue)."""
    text = resources.files("hooks").joinpath("data", "covers.toml").read_text(encoding="utf-8")
    known = catalogue()
    found: dict[str, frozenset[str]] = {}
    for number, row in enumerate(tomllib.loads(text).get("covers", ()), start=1):
        action, holds = row.get("action"), row.get("holds")
        if not (action and holds and row.get("source")):
            raise DataInvalid(f"covers.toml, entry {number}: needs action, holds and source")
        for name in (action, *holds):
            if name not in known:
                raise DataInvalid(f"covers.toml, entry {number}: there is no action {name}")
        found[action] = frozenset(holds)
    return found


def names_of(statement: Statement) -> tuple[str, ...]:
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


def shares(groups: Sequence[Group], assessment: Assessment) -> list[list[Recommendation]]:
    """What to do, per group; every recommendation goes to one group only, the gravest it is for."""
    owner: dict[str, int] = {}
    for position, members in enumerate(groups):
        for statement in members.statements:
            for name in names_of(statement):
                owner.setdefault(name, position)
    found: list[dict[str, Recommendation]] = [{} for _ in groups]
    taken: set[str] = set()
    for recommendation in assessment.recommendations:
        if recommendation.action in taken:
            continue
        home = len(groups)
        for name in recommendation.because:
            place = owner.get(name, home)
            home = min(home, place)
        if home < len(groups) or RANK[recommendation.urgency] < RANK["routine"]:
            taken.add(recommendation.action)
            found[home if home < len(groups) else 0][recommendation.action] = recommendation
    for position, members in enumerate(groups):
        for statement in members.statements:
            for action in statement.actions:
                if action not in taken:
                    taken.add(action)
                    found[position][action] = Recommendation(
                        action, _BY_RANK[statement.rank], (statement.id,)
                    )
    return [list(share.values()) for share in found]


def advice(
    wanted: list[Recommendation], members: Group, shown: Sequence[Statement], context: CallContext
) -> tuple[list[str], list[Suggestion]]:
    """The Markdown sections on what to do and what is there already, and the drafts.

    Args:
        wanted: the group's share of the recommendations.
        members: the group.
        shown: the statements that have a line on the card; only what they ask for is drafted, and only
            what a leader asks for on a card that is immediate is recommended.
    """
    texts = context.texts
    orders = catalogue()
    restating = priorities().restating
    leading = {name for statement in members.leaders for name in names_of(statement)}
    related = leading.union(*[names_of(s) for s in shown if s.id not in restating])
    place = {
        action: number
        for number, action in enumerate(action for leader in members.leaders for action in leader.actions)
    }
    ranked = [
        (leading.isdisjoint(r.because), place.get(r.action, len(place)), RANK[r.urgency], number, r)
        for number, r in enumerate(wanted)
    ]
    ranked.sort()
    asked = {recommendation.action for recommendation in wanted if not recommendation.already}
    table = covers()
    held: set[str] = set().union(*[table[action] for action in asked if action in table])
    steps: list[str] = []
    answered: list[str] = []
    suggestions: list[Suggestion] = []
    for elsewhere, _, rank, _, recommendation in ranked:
        action = recommendation.action
        ours = not related.isdisjoint(recommendation.because)
        if recommendation.already:
            if ours and len(answered) < MOST_STEPS:
                answered.append(_answered(recommendation, context))
            continue
        if action not in held:
            steps.append(action)
        orderable = orders.get(action)
        if (
            ours
            and not (elsewhere and action in held)
            and orderable is not None
            and orderable.drafted
            and len(suggestions) < context.settings.max_suggestions
        ):
            suggestions.append(
                order_suggestion(
                    orderable,
                    context.chart,
                    texts,
                    reason=_reason(recommendation, context),
                    recommended=not elsewhere and members.rank == 0 and rank <= RANK["urgent"],
                    pressing=rank <= RANK["urgent"],
                )
            )
    parts: list[str] = []
    if steps:
        pressing = members.rank <= RANK["urgent"]
        lines = [_step(action, texts.language, pressing) for action in steps[:MOST_STEPS]]
        parts.append(wording.section(texts[_DO[members.rank]], wording.bullets(lines)))
    if len(steps) > MOST_STEPS:
        more = [wording.mid_sentence(action_title(a, texts)) for a in steps[MOST_STEPS : 2 * MOST_STEPS]]
        if len(steps) > 2 * MOST_STEPS:
            more.append(texts["list.more"].format(n=len(steps) - 2 * MOST_STEPS))
        parts.append(wording.inline(texts["card.then"], more))
    if answered:
        parts.append(wording.inline(texts["card.answered"], answered))
    return parts, suggestions


@lru_cache(maxsize=1024)
def _step(action: str, language: str, pressing: bool) -> str:
    """A step with its line; what the line says of an emergency is left out where there is none."""
    texts = texts_for(language)
    title = action_title(action, texts)
    orderable = catalogue().get(action)
    calm = pressing or orderable is None or orderable.priority == "routine"
    line = texts.maybe(f"action.{action}.line") if calm else None
    return f"**{title}**: {line}" if line else f"**{title}**"


def _answered(recommendation: Recommendation, context: CallContext) -> str:
    """``Lactate 4.3 mmol/L (42 min ago)``; a panel by its name and when."""
    texts = context.texts
    chart = context.chart
    title = action_title(recommendation.action, texts)
    orderable = catalogue().get(recommendation.action)
    for loinc in orderable.answered_by if orderable is not None else ():
        for measurement in chart.measurements.get(loinc, ()):
            if measurement.source == recommendation.already:
                if orderable is not None and _is_one_analyte(orderable):
                    fact = Fact("measurement", loinc, title, (), measurement.value, measurement.unit)
                    title = wording.fact_phrase(fact, texts, context.names)
                    title = escape(title[0].upper() + title[1:])
                return _dated(title, measurement.time, context)
        for coded in chart.coded.get(loinc, ()):
            if coded.source == recommendation.already:
                return _dated(title, coded.time, context)
    for order in chart.orders:
        if order.reference == recommendation.already:
            return f"{title} ({texts['card.ordered']})"
    return title


def _is_one_analyte(orderable: Orderable) -> bool:
    """Whether the result is one value: what answers it is what is ordered, or the same by another method."""
    answers = orderable.answered_by
    return len(answers) == 1 or any(code in answers for _, code, _ in orderable.codings)


def _dated(title: str, time: datetime | None, context: CallContext) -> str:
    return title if time is None else f"{title} ({context.texts.ago(time, context.chart.at)})"


def _reason(recommendation: Recommendation, context: CallContext) -> str:
    """Why an order is drafted, in plain words: the first statement that asks for it."""
    texts = context.texts
    for name in recommendation.because:
        bare = name.removeprefix("red-flag.").removeprefix("score.").removeprefix("critical.")
        known = texts.maybe(f"red-flag.{bare}.summary") or texts.maybe(f"score.{bare}.name")
        if known:
            return known
    return ""
