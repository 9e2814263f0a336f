"""Conditions over terms: the `all` / `any` / `at_least` / `none` of a rule, compiled and evaluated.

A condition is a conjunction of clauses; a clause asks for at least n of its alternatives, an
alternative is a term or a conjunction of terms.  Responsible for the syntax of conditions in the rule
files, for who a rule is about (`Population`) and for saying which evidence a met condition rests on.
"""

from typing import Any

import msgspec

from fhir_adapters.chart import Subject
from models.assessment import Fact
from models.rules.errors import RulesInvalid
from models.rules.facts import Evidence
from models.rules.matching import Hits
from models.rules.terms import TermTable

INFANT_DAYS = 366
# A rule for people older than this (40 years) is not applied to somebody of unknown age.
ADULT_UNTIL_DAYS = 40 * 366


class Population(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """Who a rule is about.  Ages in completed days; `None` asks for nothing.

    `pregnant` ``"yes"`` needs it known; ``"possible"`` a person of 12 to 55 years not known to be male
    nor not pregnant; ``"postpartum"`` within the time the chart calls so.  `gestation_min_weeks` shuts
    out a pregnancy known to be younger.
    """

    age_min_days: int | None = None
    age_max_days: int | None = None
    sex: str | None = None
    pregnant: str | None = None
    gestation_min_weeks: float | None = None

    def fits(self, subject: Subject) -> bool:
        """Whether the rule is about this patient.

        An unknown age is taken for an adult's, and an age that is not known to the day never makes an
        infant; an unknown sex is not taken for the other one.
        """
        if self.sex is not None and subject.sex != self.sex and subject.sex not in ("unknown", "other"):
            return False
        return self._fits_age(subject) and (self.pregnant is None or self._fits_pregnancy(subject))

    def _fits_age(self, subject: Subject) -> bool:
        low, high, age = self.age_min_days, self.age_max_days, subject.age_days
        if age is None:
            return high is None and (low or 0) <= ADULT_UNTIL_DAYS
        if (low is not None and age < low) or (high is not None and age > high):
            return False
        return high is None or high > INFANT_DAYS or subject.birth_date_precision == "day"

    def _fits_pregnancy(self, subject: Subject) -> bool:
        known, weeks = subject.pregnant, subject.gestation_weeks
        if self.gestation_min_weeks is not None and weeks is not None and weeks < self.gestation_min_weeks:
            return False
        if self.pregnant == "postpartum":
            return subject.postpartum is True
        if self.pregnant == "yes" or known is not None:
            return (known is True) != (self.pregnant == "no")
        age = subject.age_days
        fertile = subject.sex != "male" and age is not None and 12 * 365 <= age <= 56 * 365
        return self.pregnant == "no" or fertile

    def facts(self, subject: Subject, reference: tuple[str, ...] = ()) -> tuple[Fact, ...]:
        """What of the patient the rule rests on, as demographic facts."""
        facts: list[Fact] = []
        if (self.age_min_days is not None or self.age_max_days is not None) and subject.age_days is not None:
            days = subject.age_days
            if days <= 2 * 365:
                facts.append(Fact("demographic", "age", "Age", reference, value=float(days), unit="d"))
            else:
                facts.append(
                    Fact("demographic", "age", "Age", reference, value=float(int(days / 365.25)), unit="a")
                )
        if self.sex is not None and subject.sex == self.sex:
            facts.append(Fact("demographic", "sex", "Sex", reference, text_value=subject.sex))
        if self.pregnant in ("yes", "possible") and subject.pregnant:
            facts.append(Fact("demographic", "pregnancy", "Pregnancy", reference, text_value="pregnant"))
        elif self.pregnant == "postpartum":
            facts.append(Fact("demographic", "pregnancy", "Pregnancy", reference, text_value="postpartum"))
        return tuple(facts)

    def check(self, file: str, entry: str) -> None:
        """Raise `RulesInvalid` for a population that can hold nobody or is misspelt."""
        if self.sex not in (None, "female", "male"):
            raise RulesInvalid(file, entry, f"population.sex {self.sex!r}")
        if self.pregnant not in (None, "yes", "no", "possible", "postpartum"):
            raise RulesInvalid(file, entry, f"population.pregnant {self.pregnant!r}")
        low, high = self.age_min_days or 0, self.age_max_days
        if low < 0 or (high is not None and high < low):
            raise RulesInvalid(file, entry, "population holds nobody")
        if self.sex == "male" and self.pregnant in ("yes", "possible", "postpartum"):
            raise RulesInvalid(file, entry, "population holds nobody")


class Clause(msgspec.Struct, frozen=True, gc=False):
    """At least `least` of the alternatives; each alternative is a conjunction of term numbers."""

    least: int
    alternatives: tuple[tuple[int, ...], ...]


class Condition(msgspec.Struct, frozen=True, gc=False):
    """Clauses that must all be met, and term numbers none of which may be."""

    clauses: tuple[Clause, ...]
    none: tuple[int, ...] = ()

    def met_now(self, hits: Hits) -> bool:
        """Whether the chart meets the condition with evidence that speaks of the present."""
        now = hits.now
        for clause in self.clauses:
            least = clause.least
            for alternative in clause.alternatives:
                for index in alternative:
                    if index not in now:
                        break
                else:
                    least -= 1
                    if least == 0:
                        break
            if least > 0:
                return False
        return not self.none or all(index not in now for index in self.none)

    def met_with_older(self, hits: Hits) -> bool:
        """Whether it is met when older evidence counts too."""
        now, before = hits.now, hits.before
        for clause in self.clauses:
            met = sum(
                1
                for alternative in clause.alternatives
                if all(index in now or index in before for index in alternative)
            )
            if met < clause.least:
                return False
        return all(index not in now for index in self.none)

    def sure(self, hits: Hits) -> bool:
        """Whether at least one clause is met by sure evidence: neither uncertain nor from free text."""
        strong = hits.strong
        return any(
            sum(1 for alternative in clause.alternatives if all(index in strong for index in alternative))
            >= clause.least
            for clause in self.clauses
        )

    def evidence(self, hits: Hits) -> list[Evidence]:
        """Everything of the chart that the met alternatives rest on, each once, in the rule's order."""
        now, before = hits.now, hits.before
        seen: set[int] = set()
        evidence: list[Evidence] = []
        for clause in self.clauses:
            for alternative in clause.alternatives:
                if not all(index in now or index in before for index in alternative):
                    continue
                for index in alternative:
                    for item in now.get(index) or before[index]:
                        if id(item) not in seen:
                            seen.add(id(item))
                            evidence.append(item)
        return evidence

    def triggers(self, common: frozenset[int]) -> tuple[int, ...]:
        """Term numbers of which a chart must meet one for the condition to be worth a look.

        Of an alternative the first term that is not `common` (met by many charts) is taken, and the
        clause whose choice of triggers is rarest.
        """
        best: tuple[int, ...] = ()
        rank: tuple[int, int] | None = None
        for clause in self.clauses:
            chosen = tuple(
                dict.fromkeys(
                    [
                        next((index for index in alternative if index not in common), alternative[0])
                        for alternative in clause.alternatives
                    ]
                )
            )
            cost = (len([index for index in chosen if index in common]), len(chosen))
            if rank is None or cost < rank:
                best, rank = chosen, cost
        return best


def compile_condition(raw: dict[str, Any], terms: TermTable, file: str, entry: str) -> Condition:
    """The compiled form of a rule's `all`, `any`, `at_least` + `of` and `none`; raises `RulesInvalid`."""
    unknown = set(raw) - {"all", "any", "at_least", "of", "none"}
    if unknown:
        raise RulesInvalid(file, entry, f"unknown condition {', '.join(sorted(unknown))}")
    clauses: list[Clause] = []
    for item in _listed(raw, "all", file, entry):
        if isinstance(item, dict):
            clauses.append(_nested(item, terms, file, entry))
        else:
            clauses.append(Clause(1, ((_number(item, terms, file, entry),),)))
    if "any" in raw:
        clauses.append(Clause(1, _alternatives(raw, "any", terms, file, entry)))
    if "at_least" in raw or "of" in raw:
        clauses.append(_at_least(raw, terms, file, entry))
    if not clauses:
        raise RulesInvalid(file, entry, "the condition asks for nothing")
    none = tuple(_number(item, terms, file, entry) for item in _listed(raw, "none", file, entry))
    return Condition(tuple(clauses), none)


def _nested(item: dict[str, Any], terms: TermTable, file: str, entry: str) -> Clause:
    if set(item) == {"any"}:
        return Clause(1, _alternatives(item, "any", terms, file, entry))
    if set(item) == {"at_least", "of"}:
        return _at_least(item, terms, file, entry)
    raise RulesInvalid(file, entry, f"a nested condition is any, or at_least with of; not {sorted(item)}")


def _at_least(item: dict[str, Any], terms: TermTable, file: str, entry: str) -> Clause:
    least = item.get("at_least")
    alternatives = _alternatives(item, "of", terms, file, entry)
    if not isinstance(least, int) or not 1 <= least <= len(alternatives):
        raise RulesInvalid(file, entry, f"at_least {least} of {len(alternatives)} cannot be asked")
    return Clause(least, alternatives)


def _alternatives(
    item: dict[str, Any], key: str, terms: TermTable, file: str, entry: str
) -> tuple[tuple[int, ...], ...]:
    alternatives: list[tuple[int, ...]] = []
    for choice in _listed(item, key, file, entry):
        if isinstance(choice, dict):
            if set(choice) != {"all"}:
                raise RulesInvalid(file, entry, f"a choice is a term or all of several; not {sorted(choice)}")
            parts = tuple(_number(term, terms, file, entry) for term in _listed(choice, "all", file, entry))
            alternatives.append(parts)
        else:
            alternatives.append((_number(choice, terms, file, entry),))
    if not alternatives or not all(alternatives):
        raise RulesInvalid(file, entry, f"{key} is empty")
    if len(set(alternatives)) != len(alternatives):
        raise RulesInvalid(file, entry, f"{key} says the same twice")
    return tuple(alternatives)


def _listed(raw: dict[str, Any], key: str, file: str, entry: str) -> list[Any]:
    value = raw.get(key, [])
    if not isinstance(value, list):
        raise RulesInvalid(file, entry, f"{key} is not a list")
    return value


def _number(term: object, terms: TermTable, file: str, entry: str) -> int:
    if not isinstance(term, str):
        raise RulesInvalid(file, entry, f"{term!r} is not a term")
    return terms.number(term, file, entry)
