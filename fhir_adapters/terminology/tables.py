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
    """Whether a LOINC code or part (``LA6576-8``) ends in its mod-10 check digit.

    Source: LOINC Users' Guide, appendix "Calculating mod 10 check digits" (loinc.org).
    """
    body, dash, check = code.removeprefix("LA").removeprefix("LP").rpartition("-")
    if not dash or not body.isascii() or not body.isdigit() or not check.isdigit() or len(check) != 1:
        return False
    total = 0
    for place, digit in enumerate(reversed(body)):
        doubled = int(digit) * (2 if place % 2 == 0 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return (10 - total % 10) % 10 == int(check)


_DIHEDRAL = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    (1, 2, 3, 4, 0, 6, 7, 8, 9, 5),
    (2, 3, 4, 0, 1, 7, 8, 9, 5, 6),
    (3, 4, 0, 1, 2, 8, 9, 5, 6, 7),
    (4, 0, 1, 2, 3, 9, 5, 6, 7, 8),
    (5, 9, 8, 7, 6, 0, 4, 3, 2, 1),
    (6, 5, 9, 8, 7, 1, 0, 4, 3, 2),
    (7, 6, 5, 9, 8, 2, 1, 0, 4, 3),
    (8, 7, 6, 5, 9, 3, 2, 1, 0, 4),
    (9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
)
_FIRST_PERMUTATION = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def _permutations() -> tuple[tuple[int, ...], ...]:
    rows: list[tuple[int, ...]] = [tuple(range(10))]
    for _ in range(7):
        rows.append(tuple(_FIRST_PERMUTATION[digit] for digit in rows[-1]))
    return tuple(rows)


_PERMUTATION = _permutations()


def sctid_is_valid(code: str) -> bool:
    """Whether a SNOMED CT concept identifier has its Verhoeff check digit and concept partition.

    Source: SNOMED CT Release File Specification, 6 "SCTID" (6 to 18 digits, partition 00 or 10 for
    concepts, Verhoeff's dihedral check).
    """
    if (
        not code.isascii()
        or not code.isdigit()
        or not 6 <= len(code) <= 18
        or code[-3:-1] not in ("00", "10")
    ):
        return False
    check = 0
    for place, digit in enumerate(reversed(code)):
        check = _DIHEDRAL[check][_PERMUTATION[place % 8][int(digit)]]
    return check == 0
