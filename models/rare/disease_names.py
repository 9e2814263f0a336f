"""Diseases by the names people write: what a text or a code of a relative's record means in the knowledge.

Exact after normalisation only: a name that merely resembles one names nothing.  Reads no chart.
"""

import csv
import re
import string
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources

from models.rare.diseases import Diseases

FILE = "family_codes.csv"
_COLUMNS = ["system", "code", "label", "ids", "source"]
_TAG = re.compile(r"\s*\((?:disorder|finding|situation|disease)\)\s*$")
_POSSESSIVE = re.compile("[\u2018\u2019\u00b4`]")
_MARKS = {ord(mark): " " for mark in string.punctuation + "\u2013\u2014\u00b7"}
_OMIM = re.compile(r"(?:O?MIM:?\s*)?[#*%+]?(\d{6})", re.IGNORECASE)
_ORPHA = re.compile(r"(?:ORPHA(?:NET)?:?\s*)?(\d{1,7})", re.IGNORECASE)
_ROMAN = {"i": "1", "ii": "2", "iii": "3", "iv": "4", "v": "5", "vi": "6", "vii": "7", "viii": "8", "ix": "9"}


MOST_TYPES = 30
"""Types up to which the name of their group names them.  Grade C."""


class FamilyDataInvalid(ValueError):
    """A row of the packaged data on relatives is wrong; names file and row."""


def normal(name: str) -> str:
    """A name as names are compared: lower case, no accents, no possessive, no punctuation, 1 for I.

    ``"Marfan's syndrome (disorder)"`` and ``"MARFAN SYNDROME"`` are the same; ``"type II"`` is ``"type 2"``.
    """
    text = name.casefold()
    if text.endswith(")"):
        text = _TAG.sub("", text)
    if not text.isascii():
        text = _POSSESSIVE.sub("'", text)
        text = unicodedata.normalize("NFKD", text)
        text = "".join([letter for letter in text if not unicodedata.combining(letter)])
    # "s" after an apostrophe is a possessive only at the end of a word.
    words = (text + " ").replace("'s ", " ").translate(_MARKS).split()
    return " ".join([words[0], *[_ROMAN.get(word, word) for word in words[1:]]]) if words else ""


class DiseaseNames:
    """The diseases of a knowledge by name, registry id, ICD-10-CM and SNOMED CT code; immutable.

    A name that is also that of a group of types (``Loeys-Dietz syndrome``) means them all, unless they are
    so many that the name says little (``Deafness``).
    """

    def __init__(self, diseases: Diseases) -> None:
        self._by_id = {one: number for number, ids in enumerate(diseases.ids) for one in ids}
        names: dict[str, list[int]] = {}
        for number, name in enumerate(diseases.names):
            names.setdefault(normal(name), []).append(number)
            turned = _turned(name)
            if turned:
                names.setdefault(normal(turned), []).append(number)
        types: dict[int, list[int]] = {}
        for number, family in enumerate(diseases.family.tolist()):
            types.setdefault(family, []).append(number)
        for family, numbers in types.items():
            if 1 < len(numbers) <= MOST_TYPES:
                names.setdefault(normal(diseases.families[family]), []).extend(numbers)
        self._names = {name: tuple(sorted(set(numbers))) for name, numbers in names.items()}

    def named(self, text: str) -> tuple[int, ...]:
        """The diseases of a name, ascending; none for a name that the knowledge does not have."""
        return self._names.get(normal(text), ())

    def coded(self, system: str, code: str) -> tuple[int, ...]:
        """The diseases of a FHIR coding: OMIM, Orphanet, ICD-10-CM or SNOMED CT."""
        system = system.lower()
        ids: Iterable[str] = ()
        if "omim" in system or system.endswith("2.16.840.1.113883.6.174"):
            found = _OMIM.fullmatch(code.strip())
            ids = (f"OMIM:{found[1]}",) if found else ()
        elif "orpha" in system:
            found = _ORPHA.fullmatch(code.strip())
            ids = (f"ORPHA:{found[1]}",) if found else ()
        elif "snomed" in system:
            ids = family_codes().get(("snomed", code), ())
        elif "icd-10-cm" in system:
            ids = _longest(family_codes(), code)
        return tuple([self._by_id[one] for one in ids if one in self._by_id])


def _turned(name: str) -> str:
    """OMIM's ``"Porphyria, acute intermittent"`` as people say it: ``"acute intermittent Porphyria"``."""
    head, comma, rest = name.partition(", ")
    return f"{rest} {head}" if comma and "," not in rest else ""


def _longest(codes: Mapping[tuple[str, str], tuple[str, ...]], code: str) -> tuple[str, ...]:
    while len(code) >= 3:
        found = codes.get(("icd-10-cm", code))
        if found is not None:
            return found
        code = code[:-1].rstrip(".")
    return ()


@cache
def family_codes() -> Mapping[tuple[str, str], tuple[str, ...]]:
    """ICD-10-CM codes (and what is below them) and SNOMED CT concepts that mean one disease or its types,
    by ``(system, code)``: OMIM or ORPHA ids.  Raises `FamilyDataInvalid`."""
    text = resources.files("models.rare").joinpath("data", FILE).read_text(encoding="utf-8")
    reader = csv.DictReader(text.splitlines())
    if reader.fieldnames != _COLUMNS:
        raise FamilyDataInvalid(f"{FILE}, row 1: the columns are {', '.join(_COLUMNS)}")
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for number, row in enumerate(reader, start=2):
        ids = tuple((row["ids"] or "").split())
        key = (row["system"], row["code"])
        good = all(re.fullmatch(r"(OMIM|ORPHA):\d+", one) for one in ids)
        if not ids or not good or not row["source"] or key in found or key[0] not in ("icd-10-cm", "snomed"):
            raise FamilyDataInvalid(f"{FILE}, row {number}: a system, code, ids and source, once")
        found[key] = ids
    return found
