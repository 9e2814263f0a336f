"""Which diseases of a differential are told to a clinician, and when: the selection, without a word.

Responsible for the thresholds (``data/differential.toml``): a list that is too flat, a patient who is
well and a diagnosis that is already made are not told.  Words are in `differential_words`, the card
and the section in `differential_card`.
"""

import tomllib
from functools import cache
from importlib import resources

import msgspec

from fhir_adapters.chart import PatientChart, Problem
from fhir_adapters.feature_reading import NO_DISEASE
from hooks.errors import DataInvalid
from hooks.families import Entry, entries
from models.assessment import Assessment, Contribution, Prediction

IMMEDIATE = "immediate-attention"
"""The target of contributions and counterfactuals that speak of no disease."""
MOST_NAMED = 5
"""Entries named in the list; a conformal set of one more is named whole."""
_MOST_LINED = 3
_ILL = frozenset({"mild-disease", "acute-disease", "chronic-disease"})
_ICD = "http://hl7.org/fhir/sid/icd-10"
_SAID = frozenset({"complaint", "encounter"})


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The thresholds of ``data/differential.toml``; probabilities 0 to 1, `telling` in log-odds."""

    leading: float
    certain: float
    named: float
    lined: float
    telling: float
    few_facts: float
    dangerous: float


class Table(msgspec.Struct, frozen=True):
    """What ``data/differential.toml`` holds: limits, ids that are no disease, first words of eponyms."""

    limits: Limits
    well: frozenset[str]
    eponyms: frozenset[str]


class _Limit(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    value: float
    source: str


class _Well(msgspec.Struct, forbid_unknown_fields=True):
    diseases: list[str]
    source: str


class _Eponyms(msgspec.Struct, forbid_unknown_fields=True):
    words: list[str]
    source: str


class _File(msgspec.Struct, forbid_unknown_fields=True):
    limit: list[_Limit]
    well: _Well
    eponyms: _Eponyms


class Differential(msgspec.Struct, frozen=True):
    """What is told of a differential.

    `lined` are the leading entries (diseases, or families of them) with their facts, `entries` these and
    the ones that are only named, `rest` the probability of all others together.  `alone` says whether it is
    worth a card of its own, `flat` that what is not named is more probable than anything that is.
    """

    lined: tuple[Entry, ...]
    entries: tuple[Entry, ...]
    rest: float
    alone: bool
    flat: bool

    @property
    def named(self) -> tuple[Prediction, ...]:
        """The diseases of all entries, by falling probability."""
        return tuple(sorted([one for entry in self.entries for one in entry.members], key=_by_probability))


@cache
def table() -> Table:
    """The table, read once per process; raises `DataInvalid` naming the entry."""
    return read_table(
        resources.files("hooks").joinpath("data", "differential.toml").read_text(encoding="utf-8")
    )


def read_table(text: str) -> Table:
    """Check and read the text of a ``differential.toml``; raises `DataInvalid`."""
    try:
        file = msgspec.convert(tomllib.loads(text), _File)
        limits = {row.name: row.value for row in file.limit}
        known = msgspec.convert(limits, Limits)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as problem:
        raise DataInvalid(f"differential.toml: {problem}") from problem
    if len(limits) != len(file.limit):
        raise DataInvalid("differential.toml, limit: a name occurs twice")
    if not all([*[row.source for row in file.limit], file.well.source, file.eponyms.source]):
        raise DataInvalid("differential.toml: an entry has no source")
    if min(limits.values()) <= 0 or max(known.leading, known.certain, known.named, known.lined) >= 1:
        raise DataInvalid("differential.toml, limit: every value is above 0, a probability below 1")
    if not known.named <= known.lined <= known.leading:
        raise DataInvalid("differential.toml, limit: named is at most lined, and lined at most leading")
    return Table(known, frozenset(file.well.diseases), frozenset(file.eponyms.words))


def differential_of(chart: PatientChart, assessment: Assessment) -> Differential | None:
    """What of `Assessment.common` is told; `None` when it is empty or flat, or the patient is well.

    Args:
        chart: says whether there is a complaint and which diagnoses are made already.
        assessment: `common` by falling probability.
    """
    common = assessment.common
    if not common or assessment.severity == "no-disease":
        return None
    limits = table().limits
    found = entries(common, limits.named)
    if not found or found[0].probability < limits.leading or found[0].leading.id in table().well:
        return None
    leading = found[0]
    size = assessment.set_size
    kept = found[: size if size == MOST_NAMED + 1 else MOST_NAMED]
    rest = 1.0 - sum([entry.probability for entry in kept])
    flat = rest > leading.probability
    if flat:
        # What is not to be missed stays, however improbable.
        kept = tuple([e for e in kept if e.probability >= limits.lined or e.immediate >= limits.dangerous])
        rest = 1.0 - sum([entry.probability for entry in kept])
    lined = tuple([entry for entry in kept[:_MOST_LINED] if entry.probability >= limits.lined])
    telling = assessment.severity in _ILL or leading.probability >= limits.certain
    made = any(_is_made(one, chart, assessment) for one in leading.members)
    alone = telling and has_complaint(chart) and not made
    return Differential(lined, kept, max(0.0, rest), alone, flat)


def not_to_miss(differential: Differential) -> tuple[Entry, ...]:
    """The dangerous entries of a list that a harmless one leads, likeliest first; empty otherwise."""
    least = table().limits.dangerous
    if differential.entries[0].immediate >= least:
        return ()
    return tuple([entry for entry in differential.entries if entry.immediate >= least])


def has_complaint(chart: PatientChart) -> bool:
    """Whether the patient came with, or is seen for, a sign, a symptom or a problem."""
    return any(one.role in _SAID and one.state != "absent" for one in chart.findings) or any(
        one.role in _SAID and one.status in {"active", "uncertain"} for one in chart.problems
    )


def _is_made(disease: Prediction, chart: PatientChart, assessment: Assessment) -> bool:
    """Whether the record holds a diagnosis: of this encounter, or known while nothing is acute."""
    categories = categories_of(disease)
    calm = assessment.severity != "acute-disease"
    return any(
        problem.status == "active"
        and problem.icd10cm[:3] in categories
        and (problem.role == "encounter" or (calm and _known(problem)))
        for problem in chart.problems
    )


def _known(problem: Problem) -> bool:
    """Whether a diagnosis is known: on the problem list, or the reason for the visit (a follow-up)."""
    return problem.role == "problem-list" or (
        problem.role == "complaint" and problem.icd10cm[0] not in NO_DISEASE
    )


def categories_of(prediction: Prediction) -> frozenset[str]:
    """The ICD-10 categories (three characters) a disease is coded under."""
    return frozenset([code[:3] for system, code, _ in prediction.codings if system.startswith(_ICD)])


def categories(differential: Differential) -> frozenset[str]:
    """The ICD-10 categories of the diseases that are named."""
    return frozenset().union(*[categories_of(one) for one in differential.named])


def contributions_to(target: str, assessment: Assessment) -> tuple[list[Contribution], list[Contribution]]:
    """The telling contributions to a disease, for and against it, each by falling weight."""
    least = table().limits.telling
    ours = [one for one in assessment.explanation if one.target == target]
    supporting = sorted([one for one in ours if one.amount >= least], key=_by_weight)
    opposing = sorted([one for one in ours if one.amount <= -least], key=_by_weight)
    return supporting, opposing


def facts_behind(assessment: Assessment) -> int:
    """How many facts beside age and sex moved any of the diseases."""
    least = table().limits.telling
    return len(
        {
            (one.fact.kind, one.fact.code)
            for one in assessment.explanation
            if one.target != IMMEDIATE and one.fact.kind != "demographic" and abs(one.amount) >= least
        }
    )


def _by_probability(prediction: Prediction) -> float:
    return -prediction.probability


def _by_weight(contribution: Contribution) -> float:
    return -abs(contribution.amount)
