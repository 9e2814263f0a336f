"""Reads and checks the tables that all diseases share; every fault is named by file and row.

Responsible for ``findings.csv``, ``risks.csv``, ``analytes.csv``, ``complaints.csv``,
``not_asked.csv`` and ``unrelated.csv`` as values, and for checking the three tables that are read
elsewhere (``modifiers.csv``, ``vital_ages.csv``, ``coded_findings.csv``) against them.  Faults are added
to the list that is passed in, so that an author sees all of them at once.
"""

import csv
import math
import re
from collections.abc import Callable, Iterator
from importlib.resources.abc import Traversable
from typing import TypeVar

import msgspec

from fhir_adapters.hpo import Ontology
from models.knowledge.schema import Analyte, FindingRow, Name, Risk
from models.rules import tables

COLUMNS = {
    "findings.csv": ("key", "label", "kind", "parent", "background", "source"),
    "risks.csv": (
        "id", "en", "es", "child", "adult", "middle", "old", "female", "evidence", "drugs", "source",
    ),
    "analytes.csv": (
        "key", "loinc", "label", "unit", "kind", "distribution", "male", "female", "spread",
        "ordered_emergency", "ordered_primary_care", "source",
    ),
    "modifiers.csv": ("risk", "target", "effect", "value", "source"),
    "vital_ages.csv": ("key", "below_years", "normal", "spread", "source"),
    "coded_findings.csv": ("loinc", "answer", "finding", "state", "source"),
    "complaints.csv": ("key", "label", "weight", "source"),
    "not_asked.csv": ("key", "label", "below_years", "source"),
    "unrelated.csv": ("key", "label", "not_a", "source"),
}  # fmt: skip
"""The shared tables and their columns, in the order of the files."""
_EVIDENCE = re.compile(
    r"(icd:[A-Z][0-9A-Z.]*|hp:HP:\d{7}|coded:[\d-]+=[a-z-]+|atc:[A-Z0-9]+|fam:[A-Z][0-9A-Z.]*)\Z"
)
_Row = TypeVar("_Row")


class SharedTables(msgspec.Struct, frozen=True):
    """The shared tables that diseases are checked against, in the order of the files.

    `complaints` is how readily a finding is named as the reason for a visit (0 to 1), `asked_from` the
    age in years from which a finding can be asked for (infinite: never), `unrelated` pairs of which
    HPO says that the first is a kind of the second, but a chart's words do not.
    """

    findings: tuple[FindingRow, ...]
    risks: tuple[Risk, ...]
    analytes: tuple[Analyte, ...]
    complaints: dict[str, float]
    asked_from: dict[str, float]
    unrelated: frozenset[tuple[str, str]]


def read_shared(data: Traversable, ontology: Ontology, problems: list[str]) -> SharedTables:
    """All shared tables of a folder; what is wrong is added to `problems` (``"file row n: fault"``)."""
    findings = _rows(data, "findings.csv", _finding, problems)
    risks = _rows(data, "risks.csv", _risk, problems)
    analytes = _rows(data, "analytes.csv", _analyte, problems)
    problems += [
        f"{file} row 1: the columns are {', '.join(names)}"
        for file, names in COLUMNS.items()
        if data.joinpath(file).read_text(encoding="utf-8").partition("\n")[0] != ",".join(names)
    ]
    shared = SharedTables(
        tuple(row for _, row in findings),
        tuple(row for _, row in risks),
        tuple(row for _, row in analytes),
        {row["key"]: _number(row["weight"]) or 0.0 for _, row in _table(data, "complaints.csv")},
        {row["key"]: _number(row["below_years"]) or math.inf for _, row in _table(data, "not_asked.csv")},
        frozenset((row["key"], row["not_a"]) for _, row in _table(data, "unrelated.csv")),
    )
    problems += [
        *_finding_faults(findings, ontology),
        *_risk_faults(risks),
        *_analyte_faults(analytes),
        *_modifier_faults(data, shared),
        *_age_faults(data, shared),
        *_coded_faults(data, shared),
        *_complaint_faults(data, shared),
        *_asking_faults(data, shared),
        *_unrelated_faults(data, shared, ontology),
    ]
    return shared


def _table(data: Traversable, file: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a table with where they stand, e.g. ``"findings.csv row 7"``."""
    lines = data.joinpath(file).read_text(encoding="utf-8").splitlines()
    names = COLUMNS[file]
    for number, cells in enumerate(csv.reader(lines[1:]), start=2):
        padded = [*cells, *[""] * len(names)][: len(names)]
        yield f"{file} row {number}", dict(zip(names, padded, strict=True))


def _rows(
    data: Traversable, file: str, make: Callable[[dict[str, str]], _Row], problems: list[str]
) -> list[tuple[str, _Row]]:
    rows: list[tuple[str, _Row]] = []
    for where, cells in _table(data, file):
        try:
            rows.append((where, make(cells)))
        except ValueError as problem:  # msgspec.ValidationError is one
            problems.append(f"{where}: {problem}")
    return rows


def _real(text: str) -> float:
    found = float(text)
    if not math.isfinite(found):
        raise ValueError(f"{text!r} is no finite number")
    return found


def _finding(cells: dict[str, str]) -> FindingRow:
    return msgspec.convert({**cells, "background": _real(cells["background"])}, FindingRow)


def _analyte(cells: dict[str, str]) -> Analyte:
    numbers = ("male", "female", "spread", "ordered_emergency", "ordered_primary_care")
    return msgspec.convert({**cells, **{name: _real(cells[name]) for name in numbers}}, Analyte)


def _risk(cells: dict[str, str]) -> Risk:
    low, middle, high, oldest = (_real(cells[name]) for name in ("child", "adult", "middle", "old"))
    drugs = [drug.partition(":") for drug in cells["drugs"].split()]
    return Risk(
        cells["id"],
        Name(cells["en"], cells["es"]),
        (low, middle, high, oldest),
        _real(cells["female"]),
        tuple(cells["evidence"].split()),
        tuple((code, _real(share)) for code, _, share in drugs),
        cells["source"],
    )


def _finding_faults(rows: list[tuple[str, FindingRow]], ontology: Ontology) -> Iterator[str]:
    keys = {row.key for _, row in rows}
    seen: set[str] = set()
    for where, row in rows:
        key = row.key
        if key.startswith("HP:"):
            if ontology.canonical(key) != key:
                yield f"{where}: {key} is not a current HPO id"
            elif ontology.label(key) != row.label:
                yield f"{where}: {key} is called {ontology.label(key)!r}"
        elif not (key.startswith("ICD:") and tables.ICD10CM_PREFIX.match(key[4:])):
            yield f"{where}: {key!r} is neither an HPO id nor ICD:<code>"
        if key in seen:
            yield f"{where}: {key} stands twice"
        seen.add(key)
        if not row.label or not row.source:
            yield f"{where}: {key} needs a label and a source"
        if not 0 < row.background < 0.5:
            yield f"{where}: background lies between 0 and 0.5"
        if row.parent and (row.parent not in keys or row.parent == key):
            yield f"{where}: {key} has no parent {row.parent!r} in this table"


def _risk_faults(rows: list[tuple[str, Risk]]) -> Iterator[str]:
    seen: set[str] = set()
    for where, row in rows:
        if not all(0 <= value < 1 for value in row.prevalence) or not 0 <= row.female <= 1:
            yield f"{where}: prevalence and share of women lie between 0 and 1"
        if not row.evidence or not all(_EVIDENCE.match(item) for item in row.evidence):
            yield f"{where}: evidence {' '.join(row.evidence)!r} is not spelt right"
        if not (row.name.en and row.name.es and row.source) or not tables.KEBAB.match(row.id):
            yield f"{where}: id, both names and source are needed"
        if not all(tables.ATC.match(code) and 0 < share <= 1 for code, share in row.drugs):
            yield f"{where}: drugs are ATC:share, the share between 0 and 1"
        if row.id in seen:
            yield f"{where}: {row.id} stands twice"
        seen.add(row.id)


def _analyte_faults(rows: list[tuple[str, Analyte]]) -> Iterator[str]:
    seen: set[str] = set()
    for where, row in rows:
        if not tables.loinc_valid(row.loinc):
            yield f"{where}: {row.loinc} has a wrong check digit"
        if row.distribution == "lognormal" and (row.spread <= 1 or min(row.male, row.female) <= 0):
            yield f"{where}: a lognormal analyte has positive medians and a factor above 1"
        if row.spread <= 0 or not row.source:
            yield f"{where}: spread above 0 and a source are needed"
        if not 0 <= row.ordered_emergency <= 1 or not 0 <= row.ordered_primary_care <= 1:
            yield f"{where}: how often it is ordered lies between 0 and 1"
        if row.key in seen:
            yield f"{where}: {row.key} stands twice"
        seen.add(row.key)


def _number(text: str) -> float | None:
    try:
        return _real(text)
    except ValueError:
        return None


def _modifier_faults(data: Traversable, shared: SharedTables) -> Iterator[str]:
    risks = {risk.id for risk in shared.risks}
    findings = {row.key for row in shared.findings}
    scale = {row.key: "factor" if row.distribution == "lognormal" else "shift" for row in shared.analytes}
    for where, row in _table(data, "modifiers.csv"):
        value = _number(row["value"])
        if row["risk"] not in risks:
            yield f"{where}: no risk {row['risk']!r}"
        if row["effect"] == "chance":
            if row["target"] not in findings or value is None or not 0 < value < 1:
                yield f"{where}: a chance is between 0 and 1, of a finding of findings.csv"
        elif scale.get(row["target"]) != row["effect"] or value is None:
            yield f"{where}: {row['target']!r} takes a {scale.get(row['target'], 'chance')} and a number"
        elif row["effect"] == "factor" and value <= 0:
            yield f"{where}: a factor is above 0"
        if not row["source"]:
            yield f"{where}: a source is needed"


def _age_faults(data: Traversable, shared: SharedTables) -> Iterator[str]:
    keys = {row.key for row in shared.analytes}
    for where, row in _table(data, "vital_ages.csv"):
        numbers = [_number(row[name]) for name in ("below_years", "normal", "spread")]
        if row["key"] not in keys:
            yield f"{where}: no analyte {row['key']!r}"
        if not all(value is not None and value > 0 for value in numbers) or not row["source"]:
            yield f"{where}: age, normal and spread are above 0, and a source is needed"


def _coded_faults(data: Traversable, shared: SharedTables) -> Iterator[str]:
    findings = {row.key for row in shared.findings}
    for where, row in _table(data, "coded_findings.csv"):
        if not tables.loinc_valid(row["loinc"]) or not row["answer"]:
            yield f"{where}: a LOINC and the key of its answer are needed"
        if row["finding"] not in findings or row["state"] not in ("present", "absent"):
            yield f"{where}: a finding of findings.csv, present or absent"
        if not row["source"]:
            yield f"{where}: a source is needed"


def _complaint_faults(data: Traversable, shared: SharedTables) -> Iterator[str]:
    labels = {row.key: row.label for row in shared.findings}
    seen: set[str] = set()
    for where, row in _table(data, "complaints.csv"):
        weight = _number(row["weight"])
        yield from _named_finding(where, row, labels, seen)
        if weight is None or not 0 < weight <= 1:
            yield f"{where}: a weight lies above 0 and is at most 1"


def _asking_faults(data: Traversable, shared: SharedTables) -> Iterator[str]:
    labels = {row.key: row.label for row in shared.findings}
    seen: set[str] = set()
    for where, row in _table(data, "not_asked.csv"):
        yield from _named_finding(where, row, labels, seen)
        years = _number(row["below_years"])
        if row["below_years"] and (years is None or not 0 < years < 18):
            yield f"{where}: below_years is an age of childhood, or empty for never"


def _unrelated_faults(data: Traversable, shared: SharedTables, ontology: Ontology) -> Iterator[str]:
    labels = {row.key: row.label for row in shared.findings}
    pairs: set[tuple[str, str]] = set()
    for where, row in _table(data, "unrelated.csv"):
        key, other = row["key"], row["not_a"]
        yield from _named_finding(where, row, labels, set())
        if (key, other) in pairs:
            yield f"{where}: {key} and {other} stand twice"
        pairs.add((key, other))
        if other not in labels or not key.startswith("HP:") or other not in ontology.ancestors(key):
            yield f"{where}: {other!r} is no finding that HPO has above {key!r}"


def _named_finding(where: str, row: dict[str, str], labels: dict[str, str], seen: set[str]) -> Iterator[str]:
    """Faults of a row that speaks of one finding of ``findings.csv``."""
    key = row["key"]
    if labels.get(key) != row["label"]:
        yield f"{where}: findings.csv has no {key!r} called {row['label']!r}"
    if key in seen:
        yield f"{where}: {key} stands twice"
    seen.add(key)
    if not row["source"]:
        yield f"{where}: a source is needed"
