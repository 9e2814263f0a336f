"""The differential as a clinician reads it: a section of the card that leads, or a card of its own.

Responsible for ten seconds: the list in one line, the facts for and against the leading diseases, what
would change it, what to find out next with drafts of the tests, and what the model does not know.  A
value that a table of the call shows is not written again.  Which diseases are told is decided in
`differential`, their words are in `differential_words`.
"""

from collections.abc import Iterable

import msgspec

from hooks import wording
from hooks.cards import SUMMARY_LIMIT, Card, Suggestion, build_card
from hooks.context import CallContext
from hooks.differential import Differential, not_to_miss
from hooks.differential_words import (
    Key,
    change_lines,
    entry_name,
    footing,
    item,
    members,
    percent,
    reasons,
    step_lines,
    unknown_lines,
)
from hooks.families import Entry
from hooks.markdown import escape
from hooks.override_reasons import override_reasons
from hooks.priority import RANK
from hooks.suggestions import action_title, answered, catalogue, order_suggestion
from hooks.texts import Texts
from models.assessment import NextStep


class Room(msgspec.Struct, frozen=True):
    """How much of a differential fits: diseases with reasons, changes, next steps, drafts of tests."""

    lined: int
    changes: int
    steps: int
    drafts: int


_SECTION = Room(lined=2, changes=2, steps=3, drafts=2)
_CARD = Room(lined=3, changes=3, steps=4, drafts=4)
_MOST_CONSIDERED = 4
# Characters of an entry: the longest family of the table with all its members, in either language.
_LONGEST_ENTRY = 400


class Section(msgspec.Struct, frozen=True):
    """What a hosting card takes over: blocks of its detail, lines of what is not known, drafts."""

    blocks: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    suggestions: tuple[Suggestion, ...] = ()


def section(
    context: CallContext,
    differential: Differential,
    *,
    said: Iterable[Key],
    taken: Iterable[str],
    drafts: int,
    pressing: bool,
) -> Section:
    """The differential on a card that something graver leads.

    Args:
        context: the call.
        differential: what is told.
        said: facts whose values the tables of the call show.
        taken: actions the cards ask for already.
        drafts: how many suggestions the card has room for.
        pressing: whether what the card asks for is asked for within hours.
    """
    steps = _steps(context, differential, taken, _SECTION.steps)
    shown = set(said)
    dangerous = not_to_miss(differential) if pressing else ()
    if dangerous:
        # Beside an alarm the harmless leads the list only by being common: it must not calm anybody.
        differential = msgspec.structs.replace(
            differential,
            lined=(*dangerous, *[one for one in differential.lined if one not in dangerous]),
            entries=(*dangerous, *[one for one in differential.entries if one not in dangerous]),
        )
    blocks = [_listed(context, differential, len(dangerous))]
    if not differential.flat:
        blocks += _reasons(context, differential, shown, _SECTION.lined, figures=False)
        blocks += _changes(context, shown, _SECTION.changes)
        blocks += _next(context, steps)
    tests = [step.code for step in steps if step.kind == "test"]
    return Section(
        tuple(blocks),
        tuple(unknown_lines(context)),
        tuple(_drafts(context, differential, tests, min(drafts, _SECTION.drafts), pressing)),
    )


def differential_card(
    context: CallContext, differential: Differential, *, said: Iterable[Key], unread: bool
) -> tuple[int, Card]:
    """The differential as an information of its own, when no rule has spoken.

    Args:
        context: the call.
        differential: what is told.
        said: facts whose values other cards of the call show.
        unread: whether this card names what could not be read (else another one does).
    """
    texts = context.texts
    assessment = context.assessment
    steps = _steps(context, differential, (), _CARD.steps)
    shown = set(said)
    flat = differential.flat
    # A list in which nothing stands out is only a list: reasons would make a finding of it.
    parts = [] if flat else _reasons(context, differential, shown, _CARD.lined, figures=True)
    named = _list(context, differential, skip=0 if flat else len(differential.lined))
    if flat:
        parts.append(wording.bullets(named))
    elif named:
        parts.append(wording.inline(texts["card.also"], named))
    overall = texts["card.severity"].format(severity=texts[f"severity.{assessment.severity}"])
    parts.append(f"{overall}. {footing(differential, context)}")
    if assessment.escalation.code == "precaution":
        parts.append(f"{texts['model.precaution']}.")
    if not flat:
        parts += _changes(context, shown, _CARD.changes)
    parts += _next(context, steps)
    tests = [step.code for step in steps if step.kind == "test"]
    leading = differential.entries[0].leading
    considered = [
        action
        for action in dict.fromkeys(leading.recommend)
        if action not in tests and not answered(action, context.chart)
    ][:_MOST_CONSIDERED]
    if considered:
        parts.append(
            wording.inline(texts["differential.consider"], [action_title(a, texts) for a in considered])
        )
    unknown = unknown_lines(context)
    if unread:
        unknown += wording.unread_lines(context.chart, texts)
    if unknown:
        parts.append(wording.section(texts["card.unknown"], wording.bullets(unknown)))
    parts.append(context.basis([]))
    most = min(_CARD.drafts, context.settings.max_suggestions)
    card = build_card(
        seed=context.seed,
        key="model:differential",
        summary=wording.extend_summary(
            _title(differential, texts), [item(one, texts) for one in differential.entries], SUMMARY_LIMIT
        ),
        indicator="info",
        detail="\n\n".join(parts),
        source=context.source("model-assessment", learned=True),
        suggestions=_drafts(context, differential, [*tests, *considered], most, pressing=False),
        override_reasons=override_reasons("assessment", texts.language),
    )
    return RANK["soon"], card


def _listed(context: CallContext, differential: Differential, dangerous: int) -> str:
    """The list of a section as one paragraph, those not to miss by themselves and first."""
    texts = context.texts
    items = _list(context, differential)
    paragraph = ""
    if dangerous:
        paragraph = f"**{texts['differential.not_to_miss']}:** {'; '.join(items[:dangerous])}. "
    return (
        f"{paragraph}**{_title(differential, texts)}:** {'; '.join(items[dangerous:])}. "
        f"*{footing(differential, context)}*"
    )


def _title(differential: Differential, texts: Texts) -> str:
    """``Differential``, or that nothing in it stands out."""
    return texts["differential.flat" if differential.flat else "differential.title"]


def _list(context: CallContext, differential: Differential, *, skip: int = 0) -> list[str]:
    """The entries with their probabilities, and what is left for all others; finished Markdown."""
    texts = context.texts
    found = [
        escape(f"{item(one, texts)} {members(one, texts)}".rstrip(), _LONGEST_ENTRY)
        for one in differential.entries[skip:]
    ]
    if differential.rest >= 0.01:
        found.append(texts["differential.others"].format(percent=percent(differential.rest, texts)))
    return found


def _reasons(
    context: CallContext, differential: Differential, said: set[Key], most: int, *, figures: bool
) -> list[str]:
    """A list of the leading diseases with their reasons; without figures, those only that have reasons."""
    texts = context.texts
    lines: list[str] = []
    for one in differential.lined[:most]:
        sentences = reasons(one.leading.id, context, said, escape)
        title = escape(entry_name(one, texts))
        within = ""
        if figures:
            title = f"{title} {percent(one.probability, texts)}"
            within = f" {escape(members(one, texts), _LONGEST_ENTRY)}".rstrip()
        if sentences or figures:
            lines.append(" ".join([f"**{title}**{within}.", *[f"{sentence}." for sentence in sentences]]))
    return [wording.bullets(lines)] if lines else []


def _changes(context: CallContext, said: set[Key], most: int) -> list[str]:
    """What would change the differential: the first counterfactuals, as the engine ranks them."""
    lines = change_lines(context.assessment.counterfactuals, context, said, most, escape)
    return _titled(context.texts["differential.what_changes"], lines)


def _next(context: CallContext, steps: list[NextStep]) -> list[str]:
    return _titled(context.texts["differential.what_next"], step_lines(steps, context, escape))


def _titled(title: str, lines: list[str]) -> list[str]:
    """One line after its title, several as a list below it."""
    if not lines:
        return []
    if len(lines) == 1:
        return [f"**{title}:** {lines[0]}"]
    return [wording.section(title, wording.bullets(lines))]


def _steps(
    context: CallContext, differential: Differential, taken: Iterable[str], most: int
) -> list[NextStep]:
    """The most telling steps about what is named that no card asks for already and the record leaves open."""
    asked = set(taken)
    named = {one.id: entry for entry in differential.entries for one in entry.members}
    ranked = sorted(context.assessment.next_steps, key=_by_gain)
    return [
        step
        for step in ranked
        if _worth_asking([named.get(name) for name in step.separates[:2]])
        and (step.kind == "ask" or not (step.code in asked or answered(step.code, context.chart)))
    ][:most]


def _worth_asking(pair: list[Entry | None]) -> bool:
    """Whether both diseases are named, and not as one (what is done is then the same)."""
    return None not in pair and (len(pair) < 2 or pair[0] is not pair[1])


def _by_gain(step: NextStep) -> float:
    return -step.gain


def _drafts(
    context: CallContext, differential: Differential, actions: list[str], most: int, pressing: bool
) -> list[Suggestion]:
    """One-click drafts of tests.  None is recommended: that is for what the published rules ask for."""
    texts = context.texts
    orders = catalogue()
    names = "; ".join([entry_name(one, texts, inside=True) for one in differential.lined[:2]])
    found: list[Suggestion] = []
    for action in actions:
        orderable = orders.get(action)
        if orderable is not None and orderable.drafted and len(found) < most:
            found.append(
                order_suggestion(
                    orderable,
                    context.chart,
                    texts,
                    reason=texts["differential.reason"].format(names=names),
                    recommended=False,
                    pressing=pressing,
                )
            )
    return found
