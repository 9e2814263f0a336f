"""A dataset from a CSV file: every row becomes FHIR resources and goes the way of serving from there.

A cell that cannot be read says nothing and is counted; a row without a usable label is rejected with its
number and a reason.
"""

import csv
import math
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from rich.console import Console

from fhir_adapters.decode import read_bundle
from fhir_adapters.times import age_days, parse_datetime
from training.datasets.buckets import Buckets
from training.datasets.context import DatasetContext
from training.datasets.format import DatasetInfo, InputUnreadable, Row
from training.datasets.labels import DISEASE_SYSTEM, Person
from training.datasets.mapping import SYSTEMS, Choice, Mapping, check_header
from training.datasets.moments import Resource
from training.datasets.progress import bars
from training.datasets.pseudonym import Pseudonyms
from training.datasets.statements import number_of, statements
from training.datasets.writer import DatasetWriter

UNDATED = datetime(2000, 1, 1, 12, 0, tzinfo=UTC)
"""The moment of visits in a file without dates: features know only distances in time."""
_DAYS = {"years": 365.25, "months": 30.4375, "days": 1.0}
_OLDEST = 130 * 366
_CLASSES = {
    "emergency": "EMER", "inpatient": "IMP", "ambulatory": "AMB", "home": "HH", "virtual": "VR"
}  # fmt: skip
Cells = dict[str, str]


def build_from_csv(
    source: Path,
    mapping: Mapping,
    target: Path,
    context: DatasetContext,
    *,
    created: datetime,
    key: bytes | None = None,
    console: Console | None = None,
    scratch: Path | None = None,
    replace: bool = False,
) -> DatasetInfo:
    """Build the dataset of a CSV file in `target`; the arguments are those of `build_from_ndjson`.

    Raises:
        MappingInvalid: the file lacks a column.
        InputUnreadable: the file is not CSV text in the mapping's encoding.
        DatasetExists: `target` holds something.
    """
    pseudonyms = Pseudonyms(key)
    maker = TableRows(context, mapping)
    size = source.stat().st_size
    with (
        bars(console) as shown,
        # Every cell travels with the name of its column.
        Buckets(3 * size, scratch) as buckets,
        DatasetWriter(target, context.knowledge, context.schema, replace=replace) as writer,
    ):
        bar = shown.start("Reading", size)
        for number, cells in _read(source, mapping):
            owner = cells.get(mapping.patient.column, "").strip() if mapping.patient is not None else ""
            owner = owner or f"row {number}"
            buckets.add(pseudonyms.of(owner), msgspec.json.encode((number, cells)))
            bar.advance(sum(map(len, cells.values())))
        bar = shown.start("Building rows", buckets.count)
        for group in buckets.groups():
            for pseudonym, lines in group:
                rows = [msgspec.json.decode(line, type=tuple[int, Cells]) for line in lines]
                ordered = sorted((maker.start(cells) or UNDATED, number, cells) for number, cells in rows)
                for visit, (_, number, cells) in enumerate(ordered):
                    row = maker.row(cells, pseudonym, visit)
                    if isinstance(row, Row):
                        writer.add(row)
                    else:
                        writer.reject(f"row {number}", row)
            bar.advance()
        writer.left_out.update(maker.left_out)
        return writer.finish("csv", created, {})


def _read(source: Path, mapping: Mapping) -> Iterator[tuple[int, Cells]]:
    """The rows with their numbers; the first one below the header is 1."""
    try:
        with source.open(encoding=mapping.encoding, newline="") as text:
            reader = csv.DictReader(text, delimiter=mapping.delimiter, restval="")
            check_header(mapping, reader.fieldnames or ())
            wanted = {name for _, name in mapping.columns()}
            for number, row in enumerate(reader, start=1):
                yield number, {name: row[name] for name in wanted}
    except (UnicodeDecodeError, LookupError):
        raise InputUnreadable(f"{source.name}: not text in {mapping.encoding}; set encoding") from None
    except csv.Error as fault:
        raise InputUnreadable(f"{source.name}: {fault}") from None


def chosen(choice: Choice | None, cells: Cells) -> str:
    """What a choice says of a row; empty when it says nothing."""
    if choice is None:
        return ""
    if choice.column is None:
        return choice.constant or ""
    cell = cells[choice.column].strip()
    return choice.values.get(cell, "" if choice.values else cell)


class TableRows:
    """Makes rows of one CSV file; counts unreadable cells in `left_out`."""

    def __init__(self, context: DatasetContext, mapping: Mapping) -> None:
        self._context = context
        self._mapping = mapping
        self.left_out: Counter[str] = Counter()

    def start(self, cells: Cells) -> datetime | None:
        """The start of the visit of a row, `None` when it has none that can be read."""
        if self._mapping.start is None:
            return UNDATED
        return parse_datetime(cells[self._mapping.start.column].strip())

    def row(self, cells: Cells, pseudonym: str, visit: int) -> Row | str:
        """The row, or the reason why there is none."""
        at = self.start(cells)
        if at is None:
            return "start-unreadable"
        counted: Counter[str] = Counter()
        birth_date = self._birth_date(cells, at, counted)
        sex = chosen(self._mapping.sex, cells)
        sex = sex if sex in ("female", "male", "other") else "unknown"
        days, _ = age_days(birth_date, at)
        person = Person(None if days is None else days / 365.25, {"female": True, "male": False}.get(sex))
        disease = self._label(cells, person)
        if isinstance(disease, tuple):
            return disease[0]
        resources = self._resources(cells, at, birth_date, sex, counted)
        bundle = {
            "resourceType": "Bundle",
            "type": "collection",
            "entry": [{"resource": resource} for resource in resources],
        }
        row = self._context.row(
            read_bundle(msgspec.json.encode(bundle)),
            at,
            counted,
            patient=pseudonym,
            visit=visit,
            disease=disease,
            severity=chosen(self._mapping.severity, cells) or None,
            immediate={"yes": True, "no": False}.get(chosen(self._mapping.immediate, cells)),
            encounter_id="visit",
        )
        if isinstance(row, Row):
            self.left_out.update(counted)
        return row

    def _label(self, cells: Cells, person: Person) -> str | tuple[str]:
        """The disease, or in a tuple the reason why there is none."""
        label = self._mapping.label
        cell = cells[label.column].strip()
        code = label.values.get(cell, cell)
        if not code:
            return ("no-confirmed-diagnosis",)
        system = DISEASE_SYSTEM if label.system == "disease" else SYSTEMS[label.system]
        meaning = self._context.labels.meaning([(system, code)], person)
        if meaning.disease is not None:
            return meaning.disease
        return ("code-of-several-diseases" if meaning.diseases else "diagnosis-not-in-knowledge",)

    def _birth_date(self, cells: Cells, at: datetime, left_out: Counter[str]) -> str | None:
        """The birth date, from the age where the file has that: the chart counts the same age again."""
        mapping = self._mapping
        if mapping.birth_date is not None:
            return cells[mapping.birth_date.column].strip() or None
        if mapping.age is None or not (cell := cells[mapping.age.column].strip()):
            return None
        value = number_of(cell)
        if value is None or not 0 <= value * _DAYS[mapping.age.unit] <= _OLDEST:
            left_out["unreadable-age"] += 1
            return None
        # Rounded up: five years are 1,827 days, not the last day of the fifth year of life.
        days = math.ceil(value * _DAYS[mapping.age.unit])
        return (at - timedelta(days=days)).date().isoformat()

    def _resources(
        self, cells: Cells, at: datetime, birth_date: str | None, sex: str, left_out: Counter[str]
    ) -> list[Resource]:
        patient: Resource = {"resourceType": "Patient", "id": "patient", "gender": sex}
        if birth_date is not None:
            patient["birthDate"] = birth_date
        encounter: Resource = {
            "resourceType": "Encounter",
            "id": "visit",
            "status": "in-progress",
            "period": {"start": at.isoformat()},
        }
        setting = chosen(self._mapping.setting, cells)
        if setting in _CLASSES:
            encounter["class"] = {"code": _CLASSES[setting]}
        said = statements(self._mapping, cells, at, left_out)
        encounter["reasonCode"] = said.reasons
        for number, resource in enumerate(said.resources):
            resource["id"] = f"s{number}"
        return [patient, encounter, *said.resources]
