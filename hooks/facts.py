"""Says each clinical fact once: merges what the record holds in two vocabularies or as word and number.

Responsible for which facts are the same (``data/readings.toml`` and shared sources).  Words for
facts are in `wording`.
"""

import tomllib
from collections.abc import Iterable
from functools import cache
from importlib import resources

from fhir_adapters.chart import PatientChart
from hooks.errors import DataInvalid
from models.assessment import Fact

_WORDS = frozenset({"finding", "problem"})
_VALUES = frozenset({"measurement", "coded"})
_NONE: frozenset[str] = frozenset()


@cache
def readings() -> dict[str, frozenset[str]]:
    """HPO finding to the LOINC codes of which it is only the word; raises `DataInvalid`."""
    text = resources.files("hooks").joinpath("data", "readings.toml").read_text(encoding="utf-8")
    found: dict[str, frozenset[str]] = {}
    for number, row in enumerate(tomllib.loads(text).get("reading", ()), start=1):
        if not (row.get("finding") and row.get("loinc") and row.get("source")):
            raise DataInvalid(f"readings.toml, entry {number}: needs finding, loinc and source")
        if row["finding"] in found:
            raise DataInvalid(f"readings.toml, entry {number}: {row['finding']} occurs twice")
        found[row["finding"]] = frozenset(row["loinc"])
    return found


def saying_several(chart: PatientChart) -> frozenset[str]:
    """Conditions that hold more than one finding (free text): they make no two facts the same."""
    once: set[str] = set()
    several: set[str] = set()
    for finding in chart.findings:
        for source in finding.sources:
            if source in once:
                several.add(source)
            else:
                once.add(source)
    return frozenset(several) if several else _NONE


def _same(first: Fact, second: Fact, several: frozenset[str]) -> bool:
    """Whether a finding and a problem are one fact: the same name, or read from the same Condition."""
    if first.kind == second.kind or first.state != second.state:
        return False
    if first.label.casefold() == second.label.casefold():
        return True
    for source in first.sources:
        if source.startswith("Condition/") and source not in several and source in second.sources:
            return True
    return False


def distinct(groups: Iterable[Iterable[Fact]], several: frozenset[str] = _NONE) -> list[Fact]:
    """The facts of statements (one group each), in order, each clinical fact once.

    Left out are: a second fact of the same kind and code; of a finding and a problem that are one
    (`_same`) the later; a finding that was read from a shown measurement, or is only its word within
    one statement (fever beside the temperature; a coded answer counts across statements).

    Args:
        groups: the facts of each statement.
        several: references of `saying_several`.
    """
    kept: list[Fact] = []
    words: list[Fact] = []
    seen: set[tuple[str, str]] = set()
    dropped: list[Fact] = []
    measured: set[str] = set()
    answered: set[str] = set()
    for facts in groups:
        for fact in facts:
            key = (fact.kind, fact.code)
            if key in seen:
                continue
            seen.add(key)
            if fact.value is not None:
                measured.update(fact.sources)
            elif fact.kind == "coded":
                answered.add(fact.code)
            if fact.kind not in _WORDS:
                kept.append(fact)
                continue
            reading = _is_reading(fact, facts, answered)
            twin = next((other for other in words if _same(fact, other, several)), None)
            if twin is None:
                words.append(fact)
                if not reading:
                    kept.append(fact)
            elif reading:
                dropped.append(twin)
    if not measured and not dropped:
        return kept
    return [fact for fact in kept if fact not in dropped and not _is_read_from(fact, measured)]


def _is_reading(fact: Fact, facts: Iterable[Fact], answered: set[str]) -> bool:
    """Whether a finding only says in a word what a value beside it, or a coded answer, says."""
    codes = readings().get(fact.code) if fact.kind == "finding" else None
    if codes is None:
        return False
    return not codes.isdisjoint(answered) or any(
        other.code in codes and other.kind in _VALUES for other in facts
    )


def _is_read_from(fact: Fact, measured: set[str]) -> bool:
    return fact.kind == "finding" and bool(fact.sources) and measured.issuperset(fact.sources)
