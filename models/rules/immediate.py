"""The probability that a patient needs attention within minutes, from the rules alone, and its explanation.

A logistic sum with the weights of ``data/immediate.toml``: setting, early-warning scores and critical
values, red flags, presenting complaint, age and pain.  Every weight is shared among the facts it rests
on, so the contributions of the facts add up to the logit exactly.  It is monotone: more evidence of
danger never lowers it.  It ranks and is graded C; decisions are made in `models.policy`.
"""

import math
from typing import Any, get_args

import msgspec

from fhir_adapters.chart import PatientChart
from models.assessment import Contribution, CriticalValue, Fact, RedFlag, Score, Urgency
from models.rules import tables
from models.rules.analytes import Analyte
from models.rules.complaints import Complaint
from models.rules.errors import RulesInvalid
from models.rules.facts import fact_of
from models.rules.scores.risk import ScoreRisk

FILE = "immediate.toml"
TARGET = "immediate-attention"
PAIN = "72514-3"
TRIAGE_SCORES = ("ctas-modifiers",)
GROUPS = ("physiology", "picture", "context")


class AgeBand(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """Weight of an age between two ages in completed days, both included."""

    min_days: int
    max_days: int
    weight: float


class PainBand(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """Weight of a pain score of at least `min` (0 to 10)."""

    min: float
    weight: float


class Weights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of ``immediate.toml``; all weights in logits, `base` as probabilities."""

    schema: int
    source: str
    base: dict[str, float]
    decay: dict[str, tuple[float, ...]]
    red_flag: dict[str, float]
    critical_value: dict[str, float]
    score: dict[str, float]
    complaint: dict[str, float]
    age: tuple[AgeBand, ...]
    pain: tuple[PainBand, ...]

    @classmethod
    def load(cls) -> "Weights":
        """Read and check the packaged weights; raises `RulesInvalid`."""
        return cls.from_data(tables.read_toml(FILE))

    @classmethod
    def from_data(cls, raw: dict[str, Any]) -> "Weights":
        """The same from data already read."""
        try:
            weights = msgspec.convert(raw, cls)
        except msgspec.ValidationError as problem:
            raise RulesInvalid(FILE, "whole file", str(problem)) from problem
        settings = {"emergency", "inpatient", "ambulatory", "home", "virtual", "unknown"}
        if set(weights.base) != settings or not all(0 < value < 1 for value in weights.base.values()):
            raise RulesInvalid(FILE, "base", "one probability for each encounter setting is needed")
        if set(weights.decay) != set(GROUPS):
            raise RulesInvalid(FILE, "decay", f"exactly {', '.join(GROUPS)} are needed")
        for name, factors in weights.decay.items():
            if (
                not factors
                or factors[0] != 1.0
                or list(factors) != sorted(factors, reverse=True)
                or factors[-1] < 0
            ):
                raise RulesInvalid(FILE, f"decay.{name}", "factors start at 1 and never rise")
        for name in ("red_flag", "critical_value", "score", "complaint"):
            if any(value < 0 for value in getattr(weights, name).values()):
                raise RulesInvalid(FILE, name, "evidence of danger never weighs below 0")
        for name in ("critical_value", "score"):
            if set(getattr(weights, name)) != set(get_args(Urgency)):
                raise RulesInvalid(FILE, name, "one weight for each urgency is needed")
        if not set(weights.red_flag) >= {"immediate", "urgent", "soon"}:
            raise RulesInvalid(FILE, "red_flag", "one weight for each urgency is needed")
        if set(weights.complaint) != {"1", "2", "3", "4", "5"}:
            raise RulesInvalid(FILE, "complaint", "one weight for each level 1 to 5 is needed")
        return weights


class Evidence(msgspec.Struct, gc=False):
    """One reason with its weight and the facts that share it (share, fact)."""

    weight: float
    shares: tuple[tuple[float, Fact], ...]


class Immediate(msgspec.Struct, frozen=True):
    """The probability, the base logit it starts from, and the contribution of each fact."""

    probability: float
    base_logit: float
    contributions: tuple[Contribution, ...]


class _Entry(msgspec.Struct, gc=False):
    fact: Fact
    amount: float


class _Totals:
    """Amounts by fact, in the order of first mention.  Looked up by code: hashing whole facts costs more."""

    __slots__ = ("_by_code", "entries")

    def __init__(self) -> None:
        self.entries: list[_Entry] = []
        self._by_code: dict[str, list[_Entry]] = {}

    def add(self, fact: Fact, amount: float) -> None:
        """Add to the amount of a fact (of an equal one, if it was mentioned before)."""
        held = self._by_code.get(fact.code)
        if held is None:
            entry = _Entry(fact, amount)
            self._by_code[fact.code] = [entry]
            self.entries.append(entry)
            return
        for entry in held:
            if entry.fact is fact or entry.fact == fact:
                entry.amount += amount
                return
        entry = _Entry(fact, amount)
        held.append(entry)
        self.entries.append(entry)


class ImmediateModel:
    """The weights, prepared; immutable."""

    def __init__(self, weights: Weights, risk: ScoreRisk, analytes: dict[str, Analyte]) -> None:
        self._analytes = analytes
        self._risk = risk
        self._base = {name: math.log(p / (1 - p)) for name, p in weights.base.items()}
        self._weights = weights
        self._levels = {int(level): weight for level, weight in weights.complaint.items()}

    def assess(
        self,
        chart: PatientChart,
        *,
        scores: tuple[Score, ...],
        critical_values: tuple[CriticalValue, ...],
        red_flags: tuple[RedFlag, ...],
        complaints: list[Complaint],
        pain: Fact | None,
    ) -> Immediate:
        """The probability of immediate attention and what it rests on.

        `red_flags` holds all that are met (also those another one hides), `complaints` what the
        patient has now, `pain` the current pain score.  Stale evidence is left out.
        """
        weights = self._weights
        physiology: list[Evidence] = []
        picture: list[Evidence] = []
        for score in scores:
            evidence = None if score.stale else self._score(score)
            if evidence is not None:
                # Triage modifiers judge the same complaint as the picture does.
                (picture if score.id in TRIAGE_SCORES else physiology).append(evidence)
        for value in critical_values:
            weight = weights.critical_value[value.urgency]
            if not value.stale and weight > 0:
                physiology.append(Evidence(weight, ((1.0, value.fact),)))
        # A red flag is made of complaints: both are one picture, and its parts count once in full.
        picture += [
            _even(weights.red_flag[flag.urgency], flag.facts)
            for flag in red_flags
            if not flag.stale and flag.facts
        ]
        levels = self._levels
        picture += [
            Evidence(levels[item.level], ((1.0, fact_of(item.item, self._analytes)),))
            for item in complaints
            if levels[item.level] > 0
        ]
        context = self._context(chart, pain)
        encounter = chart.encounter
        base = self._base["unknown" if encounter is None else encounter.setting]
        totals = _Totals()
        for name, group in zip(GROUPS, (physiology, picture, context), strict=True):
            _add(group, weights.decay[name], totals)
        contributions = [
            Contribution(TARGET, entry.fact, entry.amount) for entry in totals.entries if entry.amount != 0.0
        ]
        contributions.sort(key=_falling)
        logit = base + math.fsum([item.amount for item in contributions])
        return Immediate(logistic(logit), base, tuple(contributions))

    def _score(self, score: Score) -> Evidence | None:
        """The weight of a score, shared among its parameters by their points."""
        triage = score.id in TRIAGE_SCORES
        scored = [
            part
            for part in score.parts
            if part.fact is not None and not (triage and part.parameter == "pain")
        ]
        if not scored:
            return None
        # A risk of the score's own table speaks relative to the emergency setting, where scores were studied.
        risk = self._risk.of(score)
        if risk is not None:
            weight = math.log(risk / (1 - risk)) - self._base["emergency"]
            if weight < 0 and not score.complete:
                return None
        else:
            weight = self._weights.score[score.urgency] if score.urgency is not None else 0.0
        if weight == 0.0:
            return None
        points = sum([part.points for part in scored if part.points > 0])
        if points == 0 and weight > 0 and score.urgency is None:
            # A ratio in its normal band (shock index) is no evidence of danger.
            return None
        if points > 0 and weight > 0:
            return Evidence(
                weight,
                tuple([(part.points / points, part.fact) for part in scored if part.points > 0]),  # type: ignore[misc]
            )
        return _even(weight, tuple([part.fact for part in scored if part.fact is not None]))

    def _context(self, chart: PatientChart, pain: Fact | None) -> list[Evidence]:
        context: list[Evidence] = []
        age = chart.subject.age_days
        if age is not None:
            for band in self._weights.age:
                if band.min_days <= age <= band.max_days:
                    days = age <= 2 * 365
                    fact = Fact(
                        "demographic",
                        "age",
                        "Age",
                        value=float(age) if days else float(int(age / 365.25)),
                        unit="d" if days else "a",
                    )
                    context.append(Evidence(band.weight, ((1.0, fact),)))
        if pain is not None and pain.value is not None:
            weight = max((band.weight for band in self._weights.pain if pain.value >= band.min), default=0.0)
            if weight > 0:
                context.append(Evidence(weight, ((1.0, pain),)))
        return context


def logistic(logit: float) -> float:
    """The probability of a logit."""
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    power = math.exp(logit)
    return power / (1.0 + power)


def _even(weight: float, facts: tuple[Fact, ...]) -> Evidence:
    share = 1.0 / len(facts)
    return Evidence(weight, tuple([(share, fact) for fact in facts]))


def _add(group: list[Evidence], decay: tuple[float, ...], totals: _Totals) -> None:
    """Add a group's evidence to the totals per fact, gravest first, with falling factors.

    Reassuring (negative) evidence counts only when nothing in its group speaks of danger.
    """
    if not group:
        return
    group.sort(key=_weight)
    last = len(decay) - 1
    for rank, evidence in enumerate(group):
        if evidence.weight < 0 and rank > 0:
            break
        weight = evidence.weight * decay[min(rank, last)]
        for share, fact in evidence.shares:
            totals.add(fact, weight * share)


def _weight(evidence: Evidence) -> float:
    return -evidence.weight


def _falling(contribution: Contribution) -> float:
    return -abs(contribution.amount)
