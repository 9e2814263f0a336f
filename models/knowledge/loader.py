"""Reads and checks the knowledge base: shape, ranges, codes, sources, both languages.

Responsible for turning ``data/diseases/*.toml`` and the three tables into a `Knowledge`, or into one
error that lists everything that is wrong.  It checks what can be checked without a package that serving
lacks; whether ICD-10-CM codes exist is checked by `training.knowledge_check` (and in CI).
"""

import csv
import hashlib
import re
import tomllib
from collections.abc import Iterable
from importlib import resources
from importlib.resources.abc import Traversable
from typing import cast

import msgspec

from fhir_adapters.hpo import Ontology
from models.knowledge.schema import AGE_BANDS, Analyte, Disease, FindingRow, Knowledge, Name, Risk
from models.rules import tables

DATA = resources.files("models.knowledge").joinpath("data")
_SOURCE = re.compile(r"[ABC]: \S")
_EVIDENCE = re.compile(
    r"(icd:[A-Z][0-9A-Z.]*|hp:HP:\d{7}|coded:[\d-]+=[a-z-]+|atc:[A-Z0-9]+|fam:[A-Z][0-9A-Z.]*)\Z"
)


class KnowledgeInvalid(ValueError):
    """The knowledge base is wrong somewhere; `problems` names file and entry of each fault."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load_knowledge(ontology: Ontology, data: Traversable = DATA) -> Knowledge:
    """Read the packaged knowledge base; raises `KnowledgeInvalid` with everything that is wrong."""
    problems: list[str] = []
    findings = _findings(data, ontology, problems)
    risks = _risks(data, problems)
    analytes = _analytes(data, problems)
    files = sorted(
        (entry for entry in data.joinpath("diseases").iterdir() if entry.name.endswith(".toml")),
        key=lambda entry: entry.name,
    )
    checker = DiseaseChecker(ontology, findings, risks, analytes)
    diseases: list[Disease] = []
    for entry in files:
        disease, faults = checker.read(entry.name, entry.read_text(encoding="utf-8"))
        problems += faults
        if disease is not None:
            diseases.append(disease)
    ids = {disease.id for disease in diseases}
    for disease in diseases:
        others = {*disease.mimics, *(other for row in disease.tests for other in row[3])}
        problems += [f"{disease.id}.toml: no disease {other!r}" for other in sorted(others - ids)]
    if problems:
        raise KnowledgeInvalid(problems)
    known = {row.key for row in findings}
    found: dict[str, FindingRow] = {}
    for disease in diseases:
        for key, label, _, _ in disease.findings:
            if key not in known and key not in found:
                found[key] = FindingRow(key, label, "symptom", "", 0.003, "grade C: default of this project")
    return Knowledge(
        tuple(sorted(diseases, key=lambda disease: disease.id)),
        tuple(sorted((*findings, *found.values()), key=lambda row: row.key)),
        tuple(risks),
        tuple(analytes),
        _digest(data),
        ontology.version,
    )


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

    @classmethod
    def load(cls, ontology: Ontology, data: Traversable = DATA) -> "DiseaseChecker":
        """A checker over the packaged tables; raises `KnowledgeInvalid` when one of them is wrong."""
        problems: list[str] = []
        findings = _findings(data, ontology, problems)
        checker = cls(ontology, findings, _risks(data, problems), _analytes(data, problems))
        if problems:
            raise KnowledgeInvalid(problems)
        return checker

    def read(self, file: str, text: str) -> tuple[Disease | None, list[str]]:
        """The disease of one file and what is wrong with it (``"file: entry: fault"``)."""
        try:
            disease = msgspec.convert(tomllib.loads(text), Disease)
        except (tomllib.TOMLDecodeError, msgspec.ValidationError) as problem:
            return None, [f"{file}: {problem}"]
        faults = [*self._head(disease, file), *self._rows(disease), *self._finding_rows(disease)]
        return disease, [f"{file}: {fault}" for fault in faults]

    def _head(self, disease: Disease, file: str) -> list[str]:
        faults: list[str] = []
        if disease.schema != 1:
            faults.append("schema must be 1")
        if not tables.KEBAB.match(disease.id) or file != f"{disease.id}.toml":
            faults.append("id must be kebab-case and the name of the file")
        if not disease.name.en.strip() or not disease.name.es.strip():
            faults.append("name: both languages are needed")
        if not disease.icd10:
            faults.append("icd10: at least one code is needed")
        for field, codes in (("icd10", disease.icd10), ("icd10cm", disease.icd10cm)):
            faults += [f"{field}: {code!r} is not spelt as a code" for code in codes if not _icd(code)]
        if disease.snomed is not None and not tables.sctid_valid(disease.snomed):
            faults.append(f"snomed: {disease.snomed!r} has a wrong check digit; leave it out if unsure")
        low, high = disease.duration_days
        if not 0 <= low < high:
            faults.append("duration_days: shortest and longest, rising")
        faults += [
            f"sources.{key}: begin with 'A: ', 'B: ' or 'C: '"
            for key, value in disease.sources.items()
            if not _SOURCE.match(value)
        ]
        rate = disease.rate
        if min(rate.primary_care, rate.emergency, *rate.age) < 0 or max(rate.age) == 0:
            faults.append("rate: no negative number, and some age above 0")
        if rate.primary_care + rate.emergency <= 0 or max(rate.primary_care, rate.emergency) > 2000:
            faults.append("rate: visits per 10,000, above 0 in one setting, at most 2000")
        if not 0 <= rate.female <= 1 or rate.pregnancy < 0:
            faults.append("rate: female lies between 0 and 1, pregnancy is not negative")
        if not 1 <= len(disease.grades) <= 4:
            faults.append("grades: one to four")
        if abs(sum(grade.weight for grade in disease.grades) - 1) > 0.011:
            faults.append("grades: the weights must sum to 1")
        if any(not 0 <= grade.immediate <= 1 or grade.weight < 0 for grade in disease.grades):
            faults.append("grades: weight and immediate lie between 0 and 1")
        for name in sorted({*disease.recommend} - self._actions):
            faults.append(f"recommend: no action {name!r}")
        for name in sorted({*disease.red_flags} - self._flags):
            faults.append(f"red_flags: no red flag {name!r}")
        return faults

    def _finding_rows(self, disease: Disease) -> list[str]:
        faults: list[str] = []
        seen: set[str] = set()
        for key, label, chance, _ in disease.findings:
            where = f"findings {key} ({label})"
            expected = self._labels.get(key)
            if expected is None and key.startswith("HP:") and self._ontology.is_phenotype(key):
                expected = self._ontology.label(key)
            if expected is None:
                faults.append(f"{where}: no such finding")
            elif expected != label:
                faults.append(f"{where}: the label of this key is {expected!r}")
            if key in seen:
                faults.append(f"{where}: stands twice")
            seen.add(key)
            faults += _chances(where, chance, len(disease.grades))
        for key, _, _, _ in disease.timing:
            if key not in seen:
                faults.append(f"timing {key}: not among the findings")
        return faults

    def _rows(self, disease: Disease) -> list[str]:
        faults: list[str] = []
        count = len(disease.grades)
        for key, shift, sd, _ in disease.vitals:
            analyte = self._analytes.get(key)
            if analyte is None or analyte.kind == "laboratory":
                faults.append(f"vitals {key}: no such vital sign")
            if sd <= 0 or (not isinstance(shift, float) and len(shift) != count):
                faults.append(f"vitals {key}: one shift, or one per grade, and sd above 0")
        for key, median, spread, _ in disease.labs:
            analyte = self._analytes.get(key)
            if analyte is None or analyte.kind != "laboratory":
                faults.append(f"labs {key}: no such analyte")
                continue
            values = (median,) if isinstance(median, float) else median
            if len(values) not in (1, count):
                faults.append(f"labs {key}: one median, or one per grade")
            log = analyte.distribution == "lognormal"
            if (log and (spread < 1.01 or spread > 12 or min(values) <= 0)) or spread <= 0:
                faults.append(f"labs {key}: {analyte.distribution}, spread {spread:g} does not fit")
        for loinc, name, chance, _ in disease.results:
            if not tables.loinc_valid(loinc):
                faults.append(f"results {loinc} ({name}): wrong check digit")
            faults += _chances(f"results {loinc}", chance, count)
        for risk, odds, _ in disease.risks:
            if risk not in self._risks:
                faults.append(f"risks {risk}: not in risks.csv")
            if not 0.01 <= odds <= 300:
                faults.append(f"risks {risk}: an odds ratio between 0.01 and 300")
        for atc, chance, _ in disease.medications:
            if not tables.ATC.match(atc) or not 0 <= chance <= 1:
                faults.append(f"medications {atc}: an ATC prefix and a chance")
        for test, positive, negative, _, _ in disease.tests:
            named = test in self._actions or test in self._labels or test in self._ontology
            if not named or positive < 1 or not 0 <= negative <= 1:
                faults.append(f"tests {test}: an action or finding, LR+ of at least 1, LR- of at most 1")
        for one, other, coefficient in disease.correlations:
            if not -0.95 <= coefficient <= 0.95:
                faults.append(f"correlations {one} {other}: between -0.95 and 0.95")
        every: list[tuple[str, tuple[object, ...]]] = [
            (name, row)
            for name in ("findings", "vitals", "labs", "results", "risks", "medications", "timing", "tests")
            for row in getattr(disease, name)
        ]
        faults += [
            f"{name} {row[0]}: no source {row[-1]!r}" for name, row in every if row[-1] not in disease.sources
        ]
        faults += [
            f"{name}: no source {key!r}"
            for name, key in (("rate", disease.rate.source), ("severity_source", disease.severity_source))
            if key not in disease.sources
        ]
        return faults


def _icd(code: str) -> bool:
    return tables.ICD10CM.match(code) is not None


def _chances(where: str, chance: float | tuple[float, ...], count: int) -> list[str]:
    values = (chance,) if isinstance(chance, float) else chance
    if len(values) not in (1, count):
        return [f"{where}: one probability, or one for each of the {count} grades"]
    if not all(0 <= value <= 1 for value in values):
        return [f"{where}: probabilities lie between 0 and 1"]
    return []


def _table(data: Traversable, file: str) -> Iterable[tuple[int, dict[str, str]]]:
    lines = data.joinpath(file).read_text(encoding="utf-8").splitlines()
    return enumerate(csv.DictReader(lines), start=2)


def _findings(data: Traversable, ontology: Ontology, problems: list[str]) -> list[FindingRow]:
    rows: dict[str, FindingRow] = {}
    for number, cells in _table(data, "findings.csv"):
        where = f"findings.csv row {number}"
        key = cells["key"]
        if key.startswith("HP:"):
            if ontology.canonical(key) != key:
                problems.append(f"{where}: {key} is not a current HPO id")
            elif ontology.label(key) != cells["label"]:
                problems.append(f"{where}: {key} is called {ontology.label(key)!r}")
        elif not (key.startswith("ICD:") and tables.ICD10CM_PREFIX.match(key[4:])):
            problems.append(f"{where}: {key!r} is neither an HPO id nor ICD:<code>")
        if key in rows:
            problems.append(f"{where}: {key} stands twice")
        if cells["kind"] not in ("symptom", "sign", "test") or not cells["source"]:
            problems.append(f"{where}: kind is symptom, sign or test, and a source is needed")
        background = float(cells["background"])
        if not 0 < background < 0.5:
            problems.append(f"{where}: background lies between 0 and 0.5")
        rows[key] = msgspec.convert({**cells, "background": background}, FindingRow)
    for row in rows.values():
        if row.parent and row.parent not in rows:
            problems.append(f"findings.csv {row.key}: no parent {row.parent!r}")
    return list(rows.values())


def _risks(data: Traversable, problems: list[str]) -> list[Risk]:
    rows: list[Risk] = []
    for number, cells in _table(data, "risks.csv"):
        where = f"risks.csv row {number}"
        prevalence = tuple(float(cells[name]) for name in ("child", "adult", "middle", "old"))
        evidence = tuple(cells["evidence"].split())
        drugs = tuple((code, float(share)) for code, share in (d.split(":") for d in cells["drugs"].split()))
        if not all(0 <= value < 1 for value in prevalence) or not 0 <= float(cells["female"]) <= 1:
            problems.append(f"{where}: prevalence and share of women lie between 0 and 1")
        if not evidence or not all(_EVIDENCE.match(item) for item in evidence):
            problems.append(f"{where}: evidence {cells['evidence']!r} is not spelt right")
        if not (cells["en"] and cells["es"] and cells["source"]) or not tables.KEBAB.match(cells["id"]):
            problems.append(f"{where}: id, both names and source are needed")
        rows.append(
            Risk(
                cells["id"],
                Name(cells["en"], cells["es"]),
                cast(tuple[float, float, float, float], prevalence),
                float(cells["female"]),
                evidence,
                drugs,
                cells["source"],
            )
        )
    return rows


def _analytes(data: Traversable, problems: list[str]) -> list[Analyte]:
    rows: list[Analyte] = []
    numbers = ("male", "female", "spread", "ordered_emergency", "ordered_primary_care")
    for number, cells in _table(data, "analytes.csv"):
        where = f"analytes.csv row {number}"
        row = msgspec.convert({**cells, **{name: float(cells[name]) for name in numbers}}, Analyte)
        if not tables.loinc_valid(row.loinc):
            problems.append(f"{where}: {row.loinc} has a wrong check digit")
        if row.distribution == "lognormal" and (row.spread <= 1 or min(row.male, row.female) <= 0):
            problems.append(f"{where}: a lognormal analyte has positive medians and a factor above 1")
        if row.spread <= 0 or not row.source:
            problems.append(f"{where}: spread above 0 and a source are needed")
        rows.append(row)
    return rows


def age_band(years: float) -> int:
    """The number of the age band (0 to 8) of an age in years."""
    return next(index for index, (_, end) in enumerate(AGE_BANDS) if years < end)


def _digest(data: Traversable) -> str:
    total = hashlib.sha256()
    folders = (data, data.joinpath("diseases"))
    for entry in sorted((e for folder in folders for e in folder.iterdir()), key=lambda item: item.name):
        if entry.is_file():
            content = entry.read_bytes()
            total.update(f"{entry.name}\0{len(content)}\0".encode())
            total.update(content)
    return total.hexdigest()
