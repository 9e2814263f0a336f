"""The words of a differential in both languages: diseases, facts for and against, what would change it.

Everything is plain text (`fhir_api` and the simple form send it as it is); a caller that writes
Markdown passes `escape` as `finish`, which is applied to whatever comes from the record or a bundle.
Decides nothing about which diseases are told.
"""

import itertools
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import lru_cache

from hooks import wording
from hooks.context import CallContext
from hooks.differential import IMMEDIATE, Differential, contributions_to, facts_behind, table
from hooks.facts import distinct
from hooks.families import Entry
from hooks.markdown import plain
from hooks.suggestions import action_title
from hooks.texts import Texts
from models.assessment import Assessment, Counterfactual, Fact, NextStep, Prediction
from models.policy import PolicySettings

_UNLIKE = PolicySettings().similarity_threshold
Finish = Callable[[str], str]
Key = tuple[str, str]

MOST_FOR = 3
MOST_AGAINST = 1
_LONGEST_NAME = 60
# A value older than this is said with its age: it may no longer hold.  grade C: estimate of this project.
_OLD = timedelta(hours=24)
# What a kind of fact is called beyond its name; texts differential.<kind>.
_PHRASED = frozenset({"medication", "family", "immunization"})


def percent(probability: float, texts: Texts) -> str:
    """``62 %``; never 0 % or 100 %, which no model can promise."""
    if probability < 0.01:
        return texts["differential.under"]
    if probability > 0.99:
        return texts["differential.over"]
    return texts["differential.percent"].format(n=round(100 * probability))


def disease(prediction: Prediction, texts: Texts, *, inside: bool = False) -> str:
    """The name of a disease; inside a sentence with a small letter, unless it begins with an eponym."""
    label = prediction.label_es if texts.language == "es" and prediction.label_es else prediction.label
    return _disease(label or prediction.id, inside)


@lru_cache(maxsize=2048)
def _disease(label: str, inside: bool) -> str:
    """Names of diseases come from the model bundle, never from a patient, so they may be kept."""
    name = plain(label, _LONGEST_NAME) or "?"
    if not inside or name.partition(" ")[0] in table().eponyms:
        return name
    return wording.mid_sentence(name)


def entry_name(entry: Entry, texts: Texts, *, inside: bool = False) -> str:
    """The name of an entry: of its disease, or of the family."""
    family = entry.family
    if family is None:
        return disease(entry.leading, texts, inside=inside)
    return _disease(family.es if texts.language == "es" else family.en, inside)


def item(entry: Entry, texts: Texts) -> str:
    """An entry in the list: ``pneumonia 62 %``."""
    return texts["differential.item"].format(
        name=entry_name(entry, texts, inside=True), percent=percent(entry.probability, texts)
    )


def members(entry: Entry, texts: Texts) -> str:
    """What a family holds: ``(unstable angina 17 %, myocardial infarction 13 %)``; empty for a disease."""
    if entry.family is None:
        return ""
    items = [
        texts["differential.item"].format(
            name=disease(one, texts, inside=True), percent=percent(one.probability, texts)
        )
        for one in entry.members
    ]
    return f"({', '.join(items)})"


def fact_words(fact: Fact, context: CallContext, *, bare: bool = False) -> str:
    """A fact in a list of reasons: ``body temperature 39.4 °C``, ``no cough``; `bare` without value."""
    texts = context.texts
    name = plain(wording.mid_sentence(wording.name_of(fact, texts, context.names)), _LONGEST_NAME)
    if fact.state == "absent" and fact.value is None:
        return texts["differential.absent"].format(name=name)
    if fact.kind in _PHRASED:
        return texts[f"differential.{fact.kind}"].format(name=name)
    if fact.kind == "demographic" and fact.text_value:
        return texts.get(f"differential.{fact.code}.{fact.text_value}", name)
    if bare:
        return name
    phrase = wording.fact_phrase(fact, texts, context.names)
    at = context.chart.at
    if fact.kind == "measurement" and fact.time is not None and at - fact.time > _OLD:
        phrase = f"{phrase} ({texts.ago(fact.time, at)})"
    return phrase


def reasons(target: str, context: CallContext, said: set[Key], finish: Finish = plain) -> list[str]:
    """The facts for a disease and the strongest against it: ``For: ...``, ``Against: ...``.

    Args:
        target: id of the disease.
        context: the call.
        said: facts whose value the reader has before him; what is said here is added.
        finish: applied to what comes from the record.
    """
    texts = context.texts
    several = context.several
    supporting, opposing = contributions_to(target, context.assessment)
    found: list[str] = []
    facts = distinct([[one.fact for one in supporting]], several)[:MOST_FOR]
    phrases = list(dict.fromkeys([_said(fact, context, said, finish) for fact in facts]))
    if len(phrases) > 1:
        phrases[0] = texts["differential.most"].format(fact=phrases[0])
    if phrases:
        found.append(texts["differential.for"].format(facts=wording.join(phrases, texts)))
    against = distinct([[one.fact for one in opposing]], several)[:MOST_AGAINST]
    phrases = [_said(fact, context, said, finish) for fact in against]
    if phrases:
        found.append(texts["differential.against"].format(facts=wording.join(phrases, texts)))
    return found


def _said(fact: Fact, context: CallContext, said: set[Key], finish: Finish) -> str:
    key = (fact.kind, fact.code)
    words = fact_words(fact, context, bare=key in said)
    said.add(key)
    return finish(words)


def rationale(prediction: Prediction, context: CallContext) -> str:
    """Why a disease stands where it stands, in one line of plain text; empty when nothing is known of it."""
    return ". ".join(reasons(prediction.id, context, set())) or plain(prediction.rationale)


def names_of(assessment: Assessment, texts: Texts) -> dict[str, str]:
    """What may be the target of a statement, as called inside a sentence."""
    found = {one.id: disease(one, texts, inside=True) for one in assessment.common}
    found[IMMEDIATE] = texts["differential.attention"]
    return found


def change(one: Counterfactual, target: str, context: CallContext) -> str | None:
    """``With oxygen saturation 97 %: pneumonia 41 % instead of 62 %``; `None` when nothing changes."""
    texts = context.texts
    before, after = percent(one.before, texts), percent(one.after, texts)
    if before == after:
        return None
    changed = _imagined(one, context, set(), plain)
    return texts["differential.change"].format(change=changed, target=target, before=before, after=after)


def change_lines(
    counterfactuals: Iterable[Counterfactual],
    context: CallContext,
    said: set[Key],
    most: int,
    finish: Finish = plain,
) -> list[str]:
    """One sentence for each target: ``the chance of pneumonia would be 41 % with ..., 30 % without ...``.

    At most `most` changes are said; those that round to the same figure, or whose target is not listed,
    are not.  `said` as for `reasons`.
    """
    texts = context.texts
    called = names_of(context.assessment, texts)
    found: dict[str, list[str]] = {}
    count = 0
    for one in counterfactuals:
        after = percent(one.after, texts)
        if one.target not in called or count == most or after == percent(one.before, texts):
            continue
        count += 1
        changed = wording.mid_sentence(_imagined(one, context, said, finish))
        said_so = texts["differential.changes_item"].format(after=after, change=changed)
        found.setdefault(one.target, []).append(said_so)
    return [
        texts["differential.changes"].format(target=finish(called[target]), items="; ".join(items))
        for target, items in found.items()
    ]


def _imagined(one: Counterfactual, context: CallContext, said: set[Key], finish: Finish) -> str:
    """What a fact is imagined to be, with what it is unless the reader has that before him."""
    texts = context.texts
    fact = one.fact
    name = finish(plain(wording.mid_sentence(wording.name_of(fact, texts, context.names)), _LONGEST_NAME))
    if one.value is not None:
        unit = None if fact.unit in wording.IN_THE_NAME else fact.unit
        value = finish(plain(texts.quantity(one.value, unit), 40))
        if fact.value is None or (fact.kind, fact.code) in said:
            return texts["differential.with_value"].format(name=name, value=value)
        now = finish(plain(wording.value_of(fact, texts), 40))
        return texts["differential.with_value_now"].format(name=name, value=value, now=now)
    state = one.state or "unknown"
    key = f"{state}_result" if fact.kind == "coded" and state != "unknown" else state
    return texts[f"differential.with_{key}"].format(name=name)


def step_name(step: NextStep, context: CallContext) -> str:
    """What to find out, as called inside a sentence."""
    texts = context.texts
    if step.kind == "test":
        return wording.mid_sentence(action_title(step.code, texts))
    own = texts.maybe(f"finding.{step.code}")
    if own is None:
        system, _, code = step.code.partition(":")
        fact = (
            Fact("problem", code, step.label) if system == "ICD" else Fact("finding", step.code, step.label)
        )
        own = context.names(fact, texts.language) or step.label
    return plain(wording.mid_sentence(own), _LONGEST_NAME)


def step_lines(steps: Iterable[NextStep], context: CallContext, finish: Finish = plain) -> list[str]:
    """What to find out next, one line for each pair of diseases it tells apart, asking before testing."""
    texts = context.texts
    called = {one.id: one for one in context.assessment.common}
    pairs: dict[tuple[str, ...], list[NextStep]] = {}
    for step in steps:
        pair = step.separates[:2]
        known = len(pair) == 2 and all(name in called for name in pair)
        reverse = pair[::-1]
        pairs.setdefault(reverse if reverse in pairs else pair if known else (), []).append(step)
    lines: list[str] = []
    for pair, members in pairs.items():
        sentences: list[str] = []
        for kind in ("ask", "test"):
            names = [step_name(step, context) for step in members if step.kind == kind]
            items = [finish(name) for name in dict.fromkeys(names)]
            if items:
                sentences.append(texts[f"differential.{kind}"].format(items=wording.join(items, texts)))
        line = ". ".join(sentences)
        if pair:
            first, second = disease(called[pair[0]], texts), disease(called[pair[1]], texts, inside=True)
            question = texts["differential.pair"].format(
                first=finish(first), second=finish(second), link=texts.link("or", second)
            )
            line = f"**{question}** {line}" if finish is not plain else f"{question} {line}"
        lines.append(line)
    return lines


def footing(differential: Differential, context: CallContext) -> str:
    """What the list rests on and how far it reaches: the simulated patients, and the conformal set."""
    texts = context.texts
    assessment = context.assessment
    sentences = [texts["differential.simulated"]]
    covered = set_sentence(differential, assessment, texts)
    if covered:
        sentences.append(covered)
    return f"{'; '.join(sentences)}."


def set_sentence(differential: Differential, assessment: Assessment, texts: Texts) -> str:
    """How many diseases hold the true one, and in how many of such patients; empty without a learned set."""
    size, coverage = assessment.set_size, assessment.coverage
    if size is None or coverage is None:
        return ""
    if size == 0:
        return texts["differential.set_none"]
    # As they are shown, which beside an alarm is not by probability.
    first = [one for entry in differential.entries for one in entry.members][:size]
    falling = all(one.probability >= two.probability for one, two in itertools.pairwise(first))
    plain = all(entry.family is None for entry in differential.entries)
    if len(first) < size or not (plain and falling) or not all(one.in_set for one in first):
        key = "differential.set_among"
    else:
        key = "differential.set_one" if size == 1 else "differential.set_first"
    return texts[key].format(coverage=round(100 * coverage), n=size)


def unknown_lines(context: CallContext) -> list[str]:
    """What the model does not know of this patient, one plain line each."""
    texts = context.texts
    assessment = context.assessment
    lines: list[str] = []
    similarity = assessment.similarity
    unlike = similarity is not None and similarity < _UNLIKE
    if unlike or assessment.escalation.code == "atypical-case":
        lines.append(texts["differential.unlike"])
    facts = facts_behind(assessment)
    if facts == 0:
        lines.append(texts["differential.no_facts"])
    elif facts < table().limits.few_facts:
        key = "differential.one_fact" if facts == 1 else "differential.few_facts"
        lines.append(texts[key].format(n=facts))
    return lines
