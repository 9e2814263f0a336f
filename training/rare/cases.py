"""Published cases and everyday patients in the exchange format of the benchmark (JSON lines).

Responsible for reading `--cases` and `--negatives` files and for saying what is wrong with them; never
what is in them.
"""

from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from models.rare.phenotype import Phenotype

_T = TypeVar("_T")


class CasesInvalid(Exception):
    """A file that is not in the exchange format; the text names file and line."""


class Case(msgspec.Struct, frozen=True):
    """One published patient (fields as the README of the cases describes them)."""

    id: str
    dx: tuple[str, ...]
    observed: tuple[str, ...]
    excluded: tuple[str, ...]
    dx_equiv: tuple[str | None, ...] = ()
    family: str | None = None
    sex: Literal["MALE", "FEMALE"] | None = None
    age_years: float | None = None
    onset_years: float | None = None
    pmid: str | None = None
    reachable: bool = True
    own_pmid_in_hpoa: bool | None = None

    def phenotype(self) -> Phenotype:
        """What an engine is told."""
        return Phenotype(self.observed, self.excluded, self.sex, self.age_years, self.onset_years)


class Negative(msgspec.Struct, frozen=True):
    """One patient of everyday diseases."""

    id: str
    observed: tuple[str, ...]
    excluded: tuple[str, ...]
    mode: str = "single"
    sex: Literal["MALE", "FEMALE"] | None = None
    age_years: float | None = None

    def phenotype(self) -> Phenotype:
        """What an engine is told."""
        return Phenotype(self.observed, self.excluded, self.sex, self.age_years, None)


def read_cases(path: Path) -> tuple[Case, ...]:
    """The cases of a file.  Raises `CasesInvalid`."""
    return tuple(_read(path, Case))


def read_negatives(path: Path) -> tuple[Negative, ...]:
    """The everyday patients of a file.  Raises `CasesInvalid`."""
    return tuple(_read(path, Negative))


def _read(path: Path, kind: type[_T]) -> list[_T]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as fault:
        raise CasesInvalid(f"{path.name} cannot be read: {fault.strerror}") from None
    found = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append(msgspec.json.decode(line, type=kind))
            except (msgspec.MsgspecError, UnicodeDecodeError):
                raise CasesInvalid(f"{path.name}, line {number}: not a case in the exchange format") from None
    return found
