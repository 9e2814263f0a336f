"""Puts facts, scores and what is missing into the words and tables of a card's detail.

Everything that comes from the record goes through `markdown.escape` here, so the card modules
handle only finished Markdown (and plain text for summaries).  Decides nothing about which cards
there are.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from fhir_adapters.chart import PatientChart, ReadIssue
from hooks.markdown import escape, plain
from hooks.statements import Statement
from hooks.texts import Texts
from models.assessment import CriticalValue, Fact, Score

Names = Callable[[Fact, str], str]
"""What a fact is called in a language; the server wires the terminology in."""


# "pH 7.12" and "INR 5", not "pH 7.12 pH".
IN_THE_NAME = frozenset({"[pH]", "{INR}", "{ratio}"})
_LASTING = frozenset({"finding", "problem", "medication", "allergy", "family"})
_RECENT = timedelta(hours=48)


def label_of(fact: Fact, language: str) -> str:
    """The default `Names`: the label the fact carries, whatever the language."""
    return fact.label


def name_of(fact: Fact, texts: Texts, names: Names) -> str:
    """What a fact is called: ours for age, sex, pregnancy and findings whose HPO name nobody says at the
    bedside ("hyperhidrosis"), the caller's for everything else.
    """
    if fact.kind == "demographic":
        return texts.maybe(f"demographic.{fact.code}") or names(fact, texts.language)
    if fact.kind == "finding":
        return texts.maybe(f"finding.{fact.code}") or names(fact, texts.language)
    return names(fact, texts.language)


def mid_sentence(name: str) -> str:
    """A name inside a sentence: ``Potassium`` becomes ``potassium``, ``NEWS2`` and ``pH`` stay."""
    return name[0].lower() + name[1:] if len(name) > 1 and name[1].islower() else name


def join(items: Sequence[str], texts: Texts) -> str:
    """``a, b and c``."""
    if len(items) <= 1:
        return "".join(items)
    return f"{', '.join(items[:-1])} {texts.link('and', items[-1])} {items[-1]}"


def value_of(fact: Fact, texts: Texts) -> str:
    """The value of a fact for people, as plain text; empty when presence is all there is to say."""
    if fact.value is not None:
        return texts.quantity(fact.value, None if fact.unit in IN_THE_NAME else fact.unit)
    if fact.text_value:
        return texts.get(f"coded.{fact.text_value}", fact.text_value.replace("-", " "))
    return "" if fact.state == "present" else texts[f"state.{fact.state}"]


def fact_phrase(fact: Fact, texts: Texts, names: Names) -> str:
    """A fact in a sentence, plain text: ``lactate 4.2 mmol/L``, ``chest pain``, ``fever (absent)``."""
    # A label of characters that nobody can read is none.
    name = plain(mid_sentence(name_of(fact, texts, names)), 60) or fact.code
    if fact.kind == "allergy":
        return texts["card.allergy_to"].format(name=name)
    value = value_of(fact, texts)
    if not value:
        return name
    return f"{name} {plain(value, 40)}" if fact.value is not None else f"{name} ({plain(value, 40)})"


def when(fact: Fact, at: datetime, texts: Texts) -> str:
    """When a fact was measured, or since when it holds: no more exact than the record, nor than needed.

    A time at midnight UTC is a date without a time (so the chart keeps what FHIR gives as a date).
    """
    time = fact.time
    if time is None:
        return ""
    age = at - time
    dated = time.hour == 0 and time.minute == 0 and time.second == 0
    if age < _RECENT and not dated:
        return texts.ago(time, at)
    if fact.kind in _LASTING:
        if age.days >= 365:
            return texts["time.since"].format(date=time.year)
        if age.days >= 60:
            return texts["time.since"].format(date=texts.month(time))
        return texts["time.since"].format(date=texts.date(time))
    return texts.date(time) if dated else f"{texts.date(time)} ({texts.ago(time, at)})"


def is_sum(score: Score) -> bool:
    """Whether a score is the sum of its parts (NEWS2), so that a missing part can only raise it (not GCS)."""
    return abs(sum([part.points for part in score.parts]) - score.value) < 0.5


def score_phrase(score: Score, texts: Texts, *, full: bool = False) -> str:
    """A score in a sentence: ``NEWS2 9 (high)``, ``NEWS2 at least 5 of 20 (medium)`` when incomplete."""
    name = texts.get(f"score.{score.id}.name", score.id)
    band = texts.get(f"score.{score.id}.band.{score.band}", score.band.replace("-", " "))
    of = full and score.maximum is not None
    key = ("card.score" if score.complete or not is_sum(score) else "card.score_at_least") + (
        "_of" if of else ""
    )
    return texts[key].format(
        name=name,
        value=texts.number(score.value),
        maximum=texts.number(score.maximum) if score.maximum is not None else "",
        band=band,
    )


def marks_by_fact(statements: Iterable[Statement], texts: Texts) -> dict[tuple[str, str], str]:
    """What to add to a fact's value: the points it gave to the first score, and that it is critical."""
    points: dict[tuple[str, str], str] = {}
    for statement in statements:
        value = statement.value
        if isinstance(value, CriticalValue):
            points[(value.fact.kind, value.fact.code)] = texts["card.critical"]
        elif isinstance(value, Score) and is_sum(value):
            for part in value.parts:
                if part.fact is not None and part.points > 0:
                    key = (part.fact.kind, part.fact.code)
                    if key not in points:
                        points[key] = texts["card.points"].format(n=part.points)
    return points


def fact_table(
    facts: Sequence[Fact],
    chart: PatientChart,
    texts: Texts,
    names: Names,
    *,
    most: int,
    points: dict[tuple[str, str], str] | None = None,
) -> str:
    """A GitHub-flavoured Markdown table of facts: name, value, when, source."""
    points = points or {}
    lines = [
        f"| {texts['card.column_fact']} | {texts['card.column_value']} | {texts['card.column_when']} "
        f"| {texts['card.column_source']} |",
        "|---|---|---|---|",
    ]
    at = chart.at
    for fact in facts[:most]:
        value = escape(value_of(fact, texts)) or texts["state.present"]
        mark = points.get((fact.kind, fact.code))
        if mark:
            value = f"{value} ({mark})"
        time = when(fact, at, texts) if fact.time is not None else ""
        name = escape(name_of(fact, texts, names))
        if fact.kind == "allergy":
            name = texts["card.allergy_to"].format(name=name)
        source = escape(fact.sources[0]) if fact.sources else ""
        if len(fact.sources) > 1:
            source = f"{source} +{len(fact.sources) - 1}"
        lines.append(f"| {name} | {value} | {time} | {source} |")
    table = "\n".join(lines)
    if len(facts) > most:
        table += "\n\n" + texts["card.more_facts"].format(n=len(facts) - most)
    return table


def parameters(ids: Iterable[str], texts: Texts) -> str:
    """Names of score parameters or missing items: ``temperature and level of consciousness``."""
    named = [texts.maybe(f"parameter.{name}") or texts.get(f"missing.{name}", name) for name in ids]
    return join(named, texts)


def unread_lines(chart: PatientChart, texts: Texts) -> list[str]:
    """What of the record could not be used, one line per kind, as Markdown."""
    lines: list[str] = []
    if chart.issues:
        counts: dict[str, int] = {}
        for issue in chart.issues:
            counts[issue.code] = counts.get(issue.code, 0) + 1
        reasons = ", ".join([f"{texts.get(f'issue.{code}', code)} ({n})" for code, n in counts.items()])
        key = "card.unread_one" if len(chart.issues) == 1 else "card.unread"
        lines.append(texts[key].format(n=len(chart.issues), reasons=reasons))
    if chart.unmapped:
        key = "card.unmapped_one" if len(chart.unmapped) == 1 else "card.unmapped"
        lines.append(texts[key].format(n=len(chart.unmapped)))
    if chart.sections_missing:
        named = join([texts.get(f"section.{name}", name) for name in chart.sections_missing], texts)
        lines.append(texts["card.no_sections"].format(sections=escape(named, 400)))
    return lines


def issue_list(issues: Sequence[ReadIssue], texts: Texts, most: int = 10) -> str:
    """Issues as a Markdown list with the resource and element each is about."""
    lines = [
        f"- {escape(issue.reference)}"
        + (f", {escape(issue.path)}" if issue.path else "")
        + f": {texts.get(f'issue.{issue.code}', issue.code)}"
        for issue in issues[:most]
    ]
    if len(issues) > most:
        lines.append("- " + texts["list.more"].format(n=len(issues) - most))
    return "\n".join(lines)


def bullets(lines: Iterable[str]) -> str:
    """A Markdown list."""
    return "\n".join([f"- {line}" for line in lines])


def inline(title: str, items: Iterable[str]) -> str:
    """A titled line: ``**Also:** a; b``.  Semicolons, for names hold commas."""
    return f"**{title}:** {'; '.join(items)}"


def section(title: str, body: str) -> str:
    """A titled paragraph of the detail."""
    return f"**{title}**\n\n{body}"


def extend_summary(head: str, additions: Iterable[str], limit: int, *, mark: str = ": ") -> str:
    """A summary with as many additions as fit: ``head: a, b``."""
    text = head
    for addition in additions:
        longer = text + mark + addition
        if len(longer) <= limit:
            text = longer
            mark = ", "
    return text
