"""What can be wrong with one disease file: names, ranges, sums, codes, sources, both languages.

Responsible for judging one file against the shared tables, which it is given; reading them and the
files is `models.knowledge.loader`.  Two things are asked by `training.knowledge_check` instead: whether an
ICD-10-CM code exists (the package that knows is not part of a serving install) and whether the chart
reader understands a test (this room looks nothing up in the terminology).
"""

import math
import re
import tomllib
from collections.abc import Iterable, Iterator

import msgspec

from fhir_adapters.hpo import Ontology
from models.knowledge.schema import Analyte, Disease, FindingRow, Probabilities, Risk
from models.rules import tables

MOST_ODDS = 30_000
"""Odds ratio of a risk without which the disease hardly occurs (dialysis, and a problem of its access)."""
_SOURCE = re.compile(r"[ABC]: \S")


class DiseaseChecker:
    """Checks one disease file at a time against the shared tables."""

    def __init__(
        self,
        ontology: Ontology,
        findings: Iterable[FindingRow],
        risks: Iterable[Risk],
        analytes: Iterable[Analyte],
    ) -> None:
        self._ontology = ontology
        self._labels = {row.key: row.label for row in findings}
        self._risks = {risk.id for risk in risks}
        self._analytes = {analyte.key: analyte for analyte in analytes}
        self._actions = {row["id"] for row in tables.read_toml("actions.toml")["action"]}
        self._flags = {row["id"] for row in tables.read_toml("red_flags.toml")["red_flag"]}

    def read(self, file: str, text: str) -> tuple[Disease | None, list[str]]:
        """The disease of one file and what is wrong with it (``"file: entry: fault"``)."""
        try:
            disease = msgspec.convert(tomllib.loads(text), Disease)
        except (tomllib.TOMLDecodeError, msgspec.ValidationError) as problem:
            return None, [f"{file}: {problem}"]
        if not _finite(msgspec.to_builtins(disease)):
            return disease, [f"{file}: every number must be finite (nan or inf stands somewhere)"]
        faults = (
            *_identity(disease, file),
            *_numbers(disease),
            *self._names(disease),
            *self._findings(disease),
            *self._vitals(disease),
            *self._labs(disease),
            *_results(disease),
            *self._history(disease),
            *self._relations(disease),
            *_sources(disease),
        )
        return disease, [f"{file}: {fault}" for fault in faults]

    def _names(self, disease: Disease) -> Iterator[str]:
        for name in sorted({*disease.recommend} - self._actions):
            yield f"recommend: no action {name!r}"
        for name in sorted({*disease.red_flags} - self._flags):
            yield f"red_flags: no red flag {name!r}"

    def _findings(self, disease: Disease) -> Iterator[str]:
        seen: set[str] = set()
        for key, label, chance, _ in disease.findings:
            where = f"findings {key} ({label})"
            expected = self._labels.get(key)
            if expected is None and key.startswith("HP:") and self._ontology.is_phenotype(key):
                expected = self._ontology.label(key)
                yield f"{where}: add a row for it (kind, background) to findings.csv"
            if expected is None:
                yield f"{where}: no such finding"
            elif expected != label:
                yield f"{where}: the label of this key is {expected!r}"
            if key in seen:
                yield f"{where}: stands twice"
            seen.add(key)
            yield from _chances(where, chance, len(disease.grades))
        for key, shortest, longest, _ in disease.timing:
            if key not in seen:
                yield f"timing {key}: not among the findings"
            if not 0 <= shortest < longest:
                yield f"timing {key}: shortest and longest days, rising"

    def _vitals(self, disease: Disease) -> Iterator[str]:
        for key, shift, sd, _ in disease.vitals:
            analyte = self._analytes.get(key)
            if analyte is None or analyte.kind == "laboratory":
                yield f"vitals {key}: no such vital sign"
            if sd <= 0 or (not isinstance(shift, float) and len(shift) != len(disease.grades)):
                yield f"vitals {key}: one shift, or one per grade, and sd above 0"

    def _labs(self, disease: Disease) -> Iterator[str]:
        for key, median, spread, _ in disease.labs:
            analyte = self._analytes.get(key)
            if analyte is None or analyte.kind != "laboratory":
                yield f"labs {key}: no such analyte"
                continue
            values = _values(median)
            if len(values) not in (1, len(disease.grades)):
                yield f"labs {key}: one median, or one per grade"
                continue
            log = analyte.distribution == "lognormal"
            if (log and (spread < 1.01 or spread > 12 or min(values) <= 0)) or spread <= 0:
                yield f"labs {key}: {analyte.distribution}, spread {spread:g} does not fit"

    def _history(self, disease: Disease) -> Iterator[str]:
        for risk, odds, _ in disease.risks:
            if risk not in self._risks:
                yield f"risks {risk}: not in risks.csv"
            if not 0.01 <= odds <= MOST_ODDS:
                yield f"risks {risk}: an odds ratio between 0.01 and {MOST_ODDS}"
        for atc, chance, _ in disease.medications:
            if not tables.ATC.match(atc) or not 0 <= chance <= 1:
                yield f"medications {atc}: an ATC prefix and a chance"

    def _relations(self, disease: Disease) -> Iterator[str]:
        for test, positive, negative, _, _ in disease.tests:
            if test not in self._actions and test not in self._labels:
                yield f"tests {test}: neither an action nor a finding of findings.csv"
            if positive < 1 or not 0 <= negative <= 1:
                yield f"tests {test}: LR+ of at least 1, LR- of at most 1"
        described = {row[0] for rows in (disease.findings, disease.vitals, disease.labs) for row in rows}
        for one, other, coefficient in disease.correlations:
            for key in sorted({one, other} - described):
                yield f"correlations {one} {other}: {key} is no finding, vital or lab of the file"
            if not -0.95 <= coefficient <= 0.95:
                yield f"correlations {one} {other}: between -0.95 and 0.95"


def _identity(disease: Disease, file: str) -> Iterator[str]:
    if disease.schema != 1:
        yield "schema must be 1"
    if not tables.KEBAB.match(disease.id) or file != f"{disease.id}.toml":
        yield "id must be kebab-case and the name of the file"
    if not disease.name.en.strip() or not disease.name.es.strip():
        yield "name: both languages are needed"
    if not disease.icd10:
        yield "icd10: at least one code is needed"
    for field, codes in (("icd10", disease.icd10), ("icd10cm", disease.icd10cm)):
        for code in codes:
            if tables.ICD10CM.match(code) is None:
                yield f"{field}: {code!r} is not spelt as a code"
    if disease.snomed is not None and not tables.sctid_valid(disease.snomed):
        yield f"snomed: {disease.snomed!r} has a wrong check digit; leave it out if unsure"


def _numbers(disease: Disease) -> Iterator[str]:
    low, high = disease.duration_days
    if not 0 <= low < high:
        yield "duration_days: shortest and longest, rising"
    rate = disease.rate
    if min(rate.primary_care, rate.emergency, *rate.age) < 0 or max(rate.age) == 0:
        yield "rate: no negative number, and some age above 0"
    if rate.primary_care + rate.emergency <= 0 or max(rate.primary_care, rate.emergency) > 2000:
        yield "rate: visits per 10,000, above 0 in one setting, at most 2000"
    if not 0 <= rate.female <= 1 or rate.pregnancy < 0:
        yield "rate: female lies between 0 and 1, pregnancy is not negative"
    if not 1 <= len(disease.grades) <= 4:
        yield "grades: one to four"
    if abs(sum(grade.weight for grade in disease.grades) - 1) > 0.011:
        yield "grades: the weights must sum to 1"
    if any(not 0 <= grade.immediate <= 1 or grade.weight < 0 for grade in disease.grades):
        yield "grades: weight and immediate lie between 0 and 1"


def _results(disease: Disease) -> Iterator[str]:
    for loinc, name, chance, _ in disease.results:
        where = f"results {loinc} ({name})"
        if not tables.loinc_valid(loinc):
            yield f"{where}: wrong check digit"
        yield from _chances(where, chance, len(disease.grades))


def _sources(disease: Disease) -> Iterator[str]:
    for key, value in disease.sources.items():
        if not _SOURCE.match(value):
            yield f"sources.{key}: begin with 'A: ', 'B: ' or 'C: '"
    for field in ("findings", "vitals", "labs", "results", "risks", "medications", "timing", "tests"):
        for row in getattr(disease, field):
            if row[-1] not in disease.sources:
                yield f"{field} {row[0]}: no source {row[-1]!r}"
    for field, key in (("rate", disease.rate.source), ("severity_source", disease.severity_source)):
        if key not in disease.sources:
            yield f"{field}: no source {key!r}"


def _finite(value: object) -> bool:
    """Whether all numbers in nested values are finite; comparisons with nan would let it through."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(_finite(inner) for inner in value.values())
    return all(_finite(inner) for inner in value) if isinstance(value, list | tuple) else True


def _values(value: Probabilities) -> tuple[float, ...]:
    return (value,) if isinstance(value, float) else value


def _chances(where: str, chance: Probabilities, count: int) -> Iterator[str]:
    values = _values(chance)
    if len(values) not in (1, count):
        yield f"{where}: one probability, or one for each of the {count} grades"
    elif not all(0 <= value <= 1 for value in values):
        yield f"{where}: probabilities lie between 0 and 1"
