"""Reading the packaged tables of the scores: rows, cells and errors that name the file and the row.

Responsible for turning CSV cells into checked Python values at load; it knows no clinical fact and
is never called while a chart is assessed.
"""

import csv
import math
import tomllib
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any, TypeVar

from models.rules.errors import RulesInvalid

T = TypeVar("T")
PACKAGE = "models.rules"


class Row:
    """One row of a CSV table: cells by column name, converted on request.

    Every conversion raises `RulesInvalid` naming file, row (1 is the header) and column.
    """

    __slots__ = ("cells", "file", "number")

    def __init__(self, file: str, number: int, cells: dict[str, str]) -> None:
        self.file = file
        self.number = number
        self.cells = cells

    def error(self, message: str) -> RulesInvalid:
        """An error that points at this row."""
        return RulesInvalid(self.file, f"row {self.number}", message)

    def text(self, column: str) -> str:
        """The cell, which must not be empty."""
        value = self.cells[column]
        if not value:
            raise self.error(f"column {column} is empty")
        return value

    def maybe(self, column: str) -> str | None:
        """The cell, or `None` when it is empty."""
        return self.cells[column] or None

    def one_of(self, column: str, allowed: tuple[str, ...]) -> str:
        """The cell, which must be one of `allowed`."""
        value = self.text(column)
        if value not in allowed:
            raise self.error(f"column {column}: {value!r} is not one of {', '.join(allowed)}")
        return value

    def words(self, column: str) -> tuple[str, ...]:
        """The space-separated words of the cell (none when it is empty)."""
        return tuple(self.cells[column].split())

    def number_in(self, column: str, convert: Callable[[str], T]) -> T:
        """The cell through `convert` (`int`, `float`)."""
        try:
            return convert(self.text(column))
        except ValueError as problem:
            if isinstance(problem, RulesInvalid):
                raise
            raise self.error(f"column {column} is not a number") from problem

    def integer(self, column: str) -> int:
        """The cell as a whole number."""
        return self.number_in(column, int)

    def real(self, column: str) -> float:
        """The cell as a finite number."""
        value = self.number_in(column, float)
        if not math.isfinite(value):
            raise self.error(f"column {column} is not finite")
        return value

    def maybe_real(self, column: str) -> float | None:
        """The cell as a finite number, or `None` when it is empty."""
        return self.real(column) if self.cells[column] else None


def read_rows(file: str, columns: tuple[str, ...]) -> Iterator[Row]:
    """The rows of ``data/<file>``, whose header must be exactly `columns`.

    Raises `RulesInvalid` for a wrong header, a row of the wrong width, or no row at all.
    """
    text = resources.files(PACKAGE).joinpath("data", file).read_text(encoding="utf-8")
    reader = csv.reader(text.splitlines())
    header = tuple(next(reader, ()))
    if header != columns:
        raise RulesInvalid(file, "row 1", f"the header is {header}, expected {columns}")
    number = 1
    for number, cells in enumerate(reader, start=2):
        if len(cells) != len(columns):
            raise RulesInvalid(file, f"row {number}", f"{len(cells)} cells, expected {len(columns)}")
        yield Row(file, number, {name: cell.strip() for name, cell in zip(columns, cells, strict=True)})
    if number == 1:
        raise RulesInvalid(file, "row 2", "no rows")


def read_toml(file: str) -> dict[str, Any]:
    """The content of ``data/<file>``; raises `RulesInvalid` when it is not TOML."""
    try:
        return tomllib.loads(resources.files(PACKAGE).joinpath("data", file).read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as problem:
        raise RulesInvalid(file, "file", str(problem)) from problem
