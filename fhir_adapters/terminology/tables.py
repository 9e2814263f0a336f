"""Reading the packaged CSV tables of the terminology: rows, required cells, numbers, check digits.

Responsible for naming file and row when a cell is wrong; it knows no clinical fact and runs only
while tables are loaded, never while a chart is read.
"""

import csv
import math
from collections.abc import Iterator, Sequence
from importlib import resources

from fhir_adapters.terminology.errors import TerminologyInvalid

PACKAGE = "fhir_adapters.terminology"
SNOMED = "http://snomed.info/sct"
LOINC = "http://loinc.org"


def read_rows(file: str, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of ``data/<file>`` as ``(row number, cells by column)``; the header is row 1.

    The header must be exactly `columns`; cells are stripped.  Raises `TerminologyInvalid` for a
    missing file, another header, a row of the wrong width, or no row at all.
    """
    try:
        text = resources.files(PACKAGE).joinpath("data", file).read_text(encoding="utf-8")
    except FileNotFoundError as problem:
        raise TerminologyInvalid(file, 0, "the file is missing") from problem
    reader = csv.DictReader(text.splitlines(), restkey="", restval=None)
    if tuple(reader.fieldnames or ()) != tuple(columns):
        raise TerminologyInvalid(file, 1, f"the header is {reader.fieldnames}, expected {list(columns)}")
    number = 1
    for number, row in enumerate(reader, start=2):
        if "" in row or None in row.values():
            raise TerminologyInvalid(file, number, f"not {len(columns)} cells")
        yield number, {name: cell.strip() for name, cell in row.items()}
    if number == 1:
        raise TerminologyInvalid(file, 0, "no rows")


def required(file: str, number: int, row: dict[str, str], *columns: str) -> None:
    """Raise `TerminologyInvalid` when one of the cells is empty."""
    for column in columns:
        if not row[column]:
            raise TerminologyInvalid(file, number, f"column {column} is empty")


def real(file: str, number: int, row: dict[str, str], column: str) -> float | None:
    """The cell as a finite number, `None` when it is empty; raises `TerminologyInvalid` otherwise."""
    cell = row[column]
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError as problem:
        raise TerminologyInvalid(file, number, f"column {column} is not a number") from problem
    if not math.isfinite(value):
        raise TerminologyInvalid(file, number, f"column {column} is not finite")
    return value


def loinc_is_valid(code: str) -> bool:
    """Whether a LOINC code, or a LOINC answer code (``LA6576-8``), ends in its mod-10 check digit.

    Source: LOINC Users' Guide, appendix "Calculating mod 10 check digits" (loinc.org).  The guide does
    not say how the letters of an answer code count; that they add 5 before an even and 8 before an odd
    number of digits was observed on published answer codes and holds for every one in our tables.
    """
    answer = code.startswith("LA")
    body, dash, check = code.removeprefix("LA").rpartition("-")
    if not dash or not body.isascii() or not body.isdigit() or not check.isdigit() or len(check) != 1:
        return False
    total = (8 if len(body) % 2 else 5) if answer else 0
    for place, digit in enumerate(reversed(body)):
        doubled = int(digit) * (2 if place % 2 == 0 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return (10 - total % 10) % 10 == int(check)
