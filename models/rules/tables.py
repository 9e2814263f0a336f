"""Reads the packaged tables of the pattern rules (TOML and CSV) and checks their shape and codes.

Responsible for turning files of ``data/`` into plain Python values with errors that name file and
entry, for the spelling of codes (ICD-10-CM, ATC, HPO, LOINC and SNOMED CT check digits) and for the
digest over all data files.  It knows no rule and is never called while a chart is assessed.
"""

import csv
import hashlib
import re
import tomllib
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from models.rules.errors import RulesInvalid

DATA = resources.files("models.rules").joinpath("data")

HPO = re.compile(r"HP:\d{7}\Z")
ICD10CM = re.compile(r"[A-Z]\d[0-9A-Z](\.[0-9A-Z]{1,4})?\Z")
ICD10CM_PREFIX = re.compile(r"[A-Z](\d([0-9A-Z](\.[0-9A-Z]{1,4})?)?)?\Z")
ATC = re.compile(r"[A-DGHJLMNPRSV](\d{2}([A-Z]([A-Z](\d{2})?)?)?)?\Z")
KEBAB = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\Z")
LOINC = re.compile(r"\d{1,6}-\d\Z")

_VERHOEFF_D = (
    "0123456789",
    "1234067895",
    "2340178956",
    "3401289567",
    "4012395678",
    "5987604321",
    "6598710432",
    "7659821043",
    "8765932104",
    "9876543210",
)
_VERHOEFF_P = (
    "0123456789",
    "1576283094",
    "5803796142",
    "8916043527",
    "9453126870",
    "4286573901",
    "2793806415",
    "7046913258",
)


def loinc_valid(code: str) -> bool:
    """Whether a LOINC code has its mod-10 check digit (LOINC Users' Guide, appendix C)."""
    if not LOINC.match(code):
        return False
    body, check = code.split("-")
    total = 0
    for position, digit in enumerate(reversed(body)):
        doubled = int(digit) * (2 if position % 2 == 0 else 1)
        total += doubled // 10 + doubled % 10
    return (10 - total % 10) % 10 == int(check)


def sctid_valid(code: str) -> bool:
    """Whether a SNOMED CT identifier has its Verhoeff check digit (SNOMED CT release file specification)."""
    if not code.isdigit() or not 6 <= len(code) <= 18:
        return False
    state = 0
    for position, digit in enumerate(reversed(code)):
        state = int(_VERHOEFF_D[state][int(_VERHOEFF_P[position % 8][int(digit)])])
    return state == 0


def read_toml(file: str) -> dict[str, Any]:
    """The content of ``data/<file>``; raises `RulesInvalid` when it is not TOML."""
    try:
        return tomllib.loads(DATA.joinpath(file).read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as problem:
        raise RulesInvalid(file, "whole file", str(problem)) from problem


def read_csv(file: str, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of ``data/<file>`` as (``"row n"``, cells); raises `RulesInvalid` for a wrong shape."""
    reader = csv.reader(DATA.joinpath(file).read_text(encoding="utf-8").splitlines())
    header = tuple(next(reader, ()))
    if header != columns:
        raise RulesInvalid(file, "row 1", f"the header is {header}, expected {columns}")
    for number, cells in enumerate(reader, start=2):
        if len(cells) != len(columns):
            raise RulesInvalid(file, f"row {number}", f"{len(cells)} cells, expected {len(columns)}")
        yield f"row {number}", dict(zip(columns, (cell.strip() for cell in cells), strict=True))


def digest(*others: Traversable) -> str:
    """The SHA-256 over the names and contents of all data files and some others, by their names."""
    total = hashlib.sha256()
    for entry in sorted([*DATA.iterdir(), *others], key=lambda item: item.name):
        if entry.is_file():
            content = entry.read_bytes()
            total.update(f"{entry.name}\0{len(content)}\0".encode())
            total.update(content)
    return total.hexdigest()
