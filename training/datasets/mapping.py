"""The mapping file of a CSV: which column says what (TOML, checked before a row is read).

Responsible for the shape and the checks of the file; rows are made by `table`.  docs/training-data.md
explains it by an example.
"""

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from fhir_adapters.terminology.analytes import AnalyteTable
from models.assessment import SEVERITIES
from training.datasets.format import SETTINGS

System = Literal["hpo", "icd-10-cm", "icd-10", "snomed", "text"]
SYSTEMS = {
    "hpo": "http://human-phenotype-ontology.org",
    "icd-10-cm": "http://hl7.org/fhir/sid/icd-10-cm",
    "icd-10": "http://hl7.org/fhir/sid/icd-10",
    "snomed": "http://snomed.info/sct",
    "atc": "http://www.whocc.no/atc",
}


class MappingInvalid(ValueError):
    """The mapping file or the CSV's columns are wrong; names the field and the fix."""


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A column as it is."""

    column: str


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A column whose cells are translated by `values` (as they are, where it has none), or a `constant`."""

    column: str | None = None
    constant: str | None = None
    values: dict[str, str] = {}


class Age(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The age in a column, in `unit`."""

    column: str
    unit: Literal["years", "months", "days"] = "years"


class Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The column of the diagnosis; `system` ``"disease"`` means ids of the knowledge base."""

    column: str
    system: Literal["icd-10-cm", "icd-10", "snomed", "disease"]
    values: dict[str, str] = {}


class Codes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A column of findings, history or drugs.

    With `code` the cell says whether that code holds (`present`, `absent`; anything else says nothing).
    Without it the cell holds the codes or texts themselves, parted by `separator` if set, each translated
    by `values` if listed there.  `role` ``"complaint"`` makes it the reason of the visit, and `days` names
    the column of how many days it has lasted.
    """

    column: str
    system: Literal["hpo", "icd-10-cm", "icd-10", "snomed", "text", "atc"] = "text"
    code: str | None = None
    separator: str | None = None
    values: dict[str, str] = {}
    present: tuple[str, ...] = ("1", "yes", "true", "y")
    absent: tuple[str, ...] = ("0", "no", "false", "n")
    role: Literal["finding", "complaint"] = "finding"
    days: str | None = None


class Measurement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A numeric column: its LOINC code and UCUM unit."""

    column: str
    loinc: str
    unit: str
    decimal: Literal[".", ","] = "."


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A column of answers in words: consciousness, pregnancy, a test's result."""

    column: str
    loinc: str
    values: dict[str, str] = {}


class Mapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole mapping file.  `start` is the column of the visit's date and time, `patient` of its person."""

    version: Literal[1]
    label: Label
    delimiter: str = ","
    encoding: str = "utf-8"
    patient: Column | None = None
    start: Column | None = None
    setting: Choice | None = None
    age: Age | None = None
    birth_date: Column | None = None
    sex: Choice | None = None
    immediate: Choice | None = None
    severity: Choice | None = None
    finding: tuple[Codes, ...] = ()
    history: tuple[Codes, ...] = ()
    medication: tuple[Codes, ...] = ()
    measurement: tuple[Measurement, ...] = ()
    answer: tuple[Answer, ...] = ()

    def columns(self) -> Iterator[tuple[str, str]]:
        """Every column named, with the field that names it."""
        for name in (
            "label",
            "patient",
            "start",
            "setting",
            "age",
            "birth_date",
            "sex",
            "immediate",
            "severity",
        ):
            entry = getattr(self, name)
            if entry is not None and entry.column is not None:
                yield name, entry.column
        for name in ("finding", "history", "medication", "measurement", "answer"):
            for number, entry in enumerate(getattr(self, name)):
                yield f"{name}[{number}]", entry.column
                if isinstance(entry, Codes) and entry.days is not None:
                    yield f"{name}[{number}].days", entry.days


def load_mapping(path: Path, analytes: AnalyteTable) -> Mapping:
    """Read and check a mapping file; raises `MappingInvalid` naming every field that is wrong."""
    try:
        mapping = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Mapping)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as fault:
        raise MappingInvalid(f"{path.name}: {fault}") from None
    problems = [*_choices(mapping), *_lists(mapping, analytes)]
    if len(mapping.delimiter) != 1:
        problems.append("delimiter: give one character")
    if mapping.age is not None and mapping.birth_date is not None:
        problems.append("age, birth_date: give one of them")
    if mapping.birth_date is not None and mapping.start is None:
        problems.append("birth_date: needs start, to know the age at the visit")
    if problems:
        raise MappingInvalid("; ".join(f"{path.name}: {problem}" for problem in problems))
    return mapping


def check_header(mapping: Mapping, header: Sequence[str]) -> None:
    """Raise `MappingInvalid` when the file lacks a column that the mapping names."""
    lacking = [f"{field}: no column {name!r}" for field, name in mapping.columns() if name not in header]
    if lacking:
        raise MappingInvalid(f"{'; '.join(lacking)} (the file has: {', '.join(header)})")


def _choices(mapping: Mapping) -> Iterator[str]:
    allowed = {
        "setting": SETTINGS,
        "sex": ("female", "male", "other", "unknown", ""),
        "immediate": ("yes", "no", ""),
        "severity": (*SEVERITIES, ""),
    }
    for name, values in allowed.items():
        choice: Choice | None = getattr(mapping, name)
        if choice is None:
            continue
        if (choice.column is None) == (choice.constant is None):
            yield f"{name}: give a column or a constant"
        for value in (*choice.values.values(), *([choice.constant] if choice.constant else [])):
            if value not in values:
                yield f"{name}: {value!r} is none of {', '.join(values)}"


def _lists(mapping: Mapping, analytes: AnalyteTable) -> Iterator[str]:
    for name in ("finding", "history", "medication"):
        for number, entry in enumerate(getattr(mapping, name)):
            where = f"{name}[{number}]"
            if entry.code is not None and entry.system == "text":
                yield f"{where}.system: say of which system the code is"
            if entry.system == "atc" and name != "medication":
                yield f"{where}.system: atc is for medication"
            if name == "medication" and entry.system not in ("atc", "text"):
                yield f"{where}.system: give atc or text"
            if name != "finding" and (entry.role != "finding" or entry.days is not None):
                yield f"{where}: role and days are for finding"
    for name in ("measurement", "answer"):
        for number, entry in enumerate(getattr(mapping, name)):
            if entry.loinc not in analytes.by_loinc:
                yield f"{name}[{number}].loinc: {entry.loinc} is no code that charts are read for"
