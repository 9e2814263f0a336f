"""From the unit an EHR sent to the canonical UCUM unit of an analyte: a factor and an offset, or nothing.

Answers come from a compiled table (``unit_conversions.csv``, made by ``training/units_table.py`` with
ucumvert) and a table of the spellings real EHRs use instead of UCUM (``unit_aliases.csv``).  The UCUM
library itself takes most of a second and 25 MB to import, so it is loaded only when a unit is in
neither.  It never guesses: a unit that is unknown, or not of the same kind, gives `None`.  What an
analyte is, and its plausible range, is not known here.
"""

import re
from functools import lru_cache
from typing import Any, NamedTuple

from fhir_adapters.terminology.errors import TerminologyInvalid
from fhir_adapters.terminology.tables import read_rows, real, required

_MAX_UNIT = 40
_ANNOTATION = re.compile(r"\{[^{}]*\}")
_EQUIVALENTS = re.compile(r"(?<![A-Za-z])[munk]?eq(?![A-Za-z])")
# "U" (enzyme unit) and the international unit are written for one another by laboratories; within one
# analyte they are the same (UCUM: [IU] and [iU] are synonyms, [arb'U] is by definition per assay).
_UNIT_SYMBOLS = re.compile(r"\[(?:IU|iU|arb'U)\]")
# Fibrinogen-equivalent and D-dimer units are different quantities although both are masses.
_BASIS = re.compile(r"(?<![A-Za-z])(FEU|DDU)(?![A-Za-z])", re.IGNORECASE)
_MARKS = ("[HPF]", "[LPF]", "[CFU]")
_PURE = "annotation"
_NUMBER = "number"
_PERCENT_UNITS = frozenset({"1", "%", "[ppth]"})


class Conversion(NamedTuple):
    """canonical value = sent value * `factor` + `offset`."""

    factor: float
    offset: float


class Measure(NamedTuple):
    """What a unit measures: its dimension and how its values become coherent SI base values."""

    dimension: str
    factor: float
    offset: float


class _Tables(NamedTuple):
    measures: dict[str, Measure]
    aliases: dict[str, tuple[str, ...]]
    folded: dict[str, tuple[str, ...]]


@lru_cache(maxsize=1)
def _tables() -> _Tables:
    file = "unit_conversions.csv"
    measures: dict[str, Measure] = {}
    for number, row in read_rows(file, ("unit", "dimension", "factor", "offset", "source")):
        required(file, number, row, "unit", "dimension", "factor", "offset", "source")
        factor, offset = real(file, number, row, "factor"), real(file, number, row, "offset")
        if not factor or factor < 0 or offset is None:
            raise TerminologyInvalid(file, number, "column factor is not positive")
        if row["unit"] in measures:
            raise TerminologyInvalid(file, number, f"unit {row['unit']} is there twice")
        measures[row["unit"]] = Measure(row["dimension"], factor, offset)
    file = "unit_aliases.csv"
    aliases: dict[str, tuple[str, ...]] = {}
    for number, row in read_rows(file, ("alias", "ucum", "source")):
        required(file, number, row, "alias", "ucum", "source")
        if _bare(row["ucum"]) not in (*measures, _PURE, "[pH]"):
            raise TerminologyInvalid(file, number, f"{row['ucum']} is not in unit_conversions.csv")
        key = _lexical(row["alias"])
        if row["ucum"] in aliases.get(key, ()):
            raise TerminologyInvalid(file, number, f"alias {row['alias']} is there twice")
        aliases[key] = (*aliases.get(key, ()), row["ucum"])
    folded: dict[str, tuple[str, ...]] = {}
    for unit in measures:
        folded[unit.casefold()] = (*folded.get(unit.casefold(), ()), unit)
    for alias, targets in aliases.items():
        known = folded.get(alias.casefold(), ())
        folded[alias.casefold()] = known + tuple(t for t in targets if t not in known)
    return _Tables(measures, aliases, folded)


@lru_cache(maxsize=4096)
def conversion(
    sent_unit: str, canonical_unit: str, molar_mass: float | None = None, charge: float | None = None
) -> Conversion | None:
    """How values in `sent_unit` become values in `canonical_unit` (UCUM); `None` when they cannot.

    `molar_mass` (g/mol) allows mass <-> amount of substance, `charge` (mol of charge per mol) allows
    equivalents <-> amount of substance.  UCUM is tried as it is first, then the spelling as an
    alias, then without regard to case if all readings that are of the right kind agree.
    """
    if sent_unit == canonical_unit:
        return Conversion(1.0, 0.0)
    if len(sent_unit) > _MAX_UNIT:
        return None
    text = _lexical(sent_unit)
    bases = {m.upper() for m in _BASIS.findall(text)}
    wanted = {m.upper() for m in _BASIS.findall(canonical_unit)}
    if bases and bases != wanted:
        return None
    target = _measure(_lexical(canonical_unit))
    if target is None or not text:
        return None
    tables = _tables()
    bare = _bare(text)
    for reading in (text, bare):
        # An alias that is also a UCUM expression ("K/uL": kelvin per microlitre) is meant as the alias.
        units = tables.aliases.get(reading)
        if units is None and reading in tables.measures:
            units = (reading,)
        if units is None:
            units = tables.folded.get(reading.casefold())
        if units is not None:
            found = {_between(unit, canonical_unit, target, molar_mass, charge) for unit in units} - {None}
            return found.pop() if len(found) == 1 else None
    return _between(text, canonical_unit, target, molar_mass, charge)


def _lexical(text: str) -> str:
    """The spelling without what never carries meaning: blanks at the ends, micro signs, superscripts."""
    text = text.strip().replace("µ", "u").replace("μ", "u").replace("²", "2").replace("³", "3")
    return (
        text.replace("⁹", "^9")
        .replace("⁶", "^6")
        .replace("×", "x")
        .replace("mcg", "u" + "g")
        .replace("−", "-")
    )


def _bare(text: str) -> str:
    """A UCUM expression without its annotations: ``{beats}/min`` is ``/min``; none left: pure."""
    if "{" not in text:
        return text
    bare = _ANNOTATION.sub("", text).rstrip("/.").lstrip(".")
    return bare if bare.strip("/") else _PURE


@lru_cache(maxsize=1024)
def _measure(unit: str) -> Measure | None:
    bare = _bare(unit)
    if bare == _PURE or unit == "[pH]":
        return Measure(_PURE, 1.0, 0.0)
    known = _tables().measures.get(bare)
    return known if known is not None else ucum_measure(bare)


def _between(
    unit: str, canonical_unit: str, target: Measure, molar_mass: float | None, charge: float | None
) -> Conversion | None:
    sent = _measure(unit)
    if sent is None:
        return None
    factor, offset = sent.factor, sent.offset
    from_equivalents, to_equivalents = _EQUIVALENTS.search(unit), _EQUIVALENTS.search(canonical_unit)
    if bool(from_equivalents) != bool(to_equivalents):
        if charge is None:
            return None
        factor = factor / charge if from_equivalents else factor * charge
    if sent.dimension != target.dimension:
        if {sent.dimension, target.dimension} == {_NUMBER, _PURE} and sent.factor != target.factor:
            return None  # a percentage is no score
        scale = _scale(sent.dimension, target.dimension, molar_mass)
        if scale is None:
            return None
        factor *= scale
    return Conversion(_rounded(factor / target.factor), _rounded((offset - target.offset) / target.factor))


def _scale(sent: str, target: str, molar_mass: float | None) -> float | None:
    """Between a count and a pure annotation 1; between mass and amount of substance the molar mass."""
    if {sent, target} == {_NUMBER, _PURE}:
        return 1.0
    if molar_mass is None or _NUMBER in (sent, target) or _PURE in (sent, target):
        return None
    ours, theirs = _exponents(sent), _exponents(target)
    mass = ours.pop("mass", 0) - theirs.pop("mass", 0)
    substance = ours.pop("substance", 0) - theirs.pop("substance", 0)
    if ours != theirs or mass != -substance or abs(mass) != 1:
        return None
    return 1000.0 / molar_mass if mass == 1 else molar_mass / 1000.0  # base masses are kilograms


def _exponents(dimension: str) -> dict[str, int]:
    return {name: int(power) for name, _, power in (part.partition("^") for part in dimension.split())}


def _rounded(value: float) -> float:
    """Without the last bits, which are noise of the division (0.1 and not 0.09999999999999999)."""
    return float(f"{value:.12g}")


# Implementation details of the UCUM library below this line.


@lru_cache(maxsize=1)
def _registry() -> Any:
    from ucumvert import PintUcumRegistry  # noqa: PLC0415 - costs 0.9 s and 25 MB, so only on a miss

    return PintUcumRegistry()


def ucum_measure(unit: str) -> Measure | None:
    """What ucumvert says about a UCUM expression without annotations; `None` when it is not UCUM.

    Slow (about a millisecond, and most of a second the first time): this fills the compiled table and
    answers for units that are not in it.
    """
    from lark.exceptions import LarkError  # noqa: PLC0415
    from pint.errors import PintError  # noqa: PLC0415

    if not unit.isascii() or len(unit) > _MAX_UNIT:
        return None
    registry = _registry()
    try:
        units = registry.from_ucum(_UNIT_SYMBOLS.sub("U", unit))
        if not hasattr(units, "dimensionality"):
            return None
        amount, units = (units.magnitude, units.units) if hasattr(units, "magnitude") else (1, units)
        zero = registry.Quantity(0.0, units).to_base_units()
        one = registry.Quantity(1.0, units).to_base_units()
    except (LarkError, PintError, AttributeError, ValueError, TypeError, KeyError, ArithmeticError):
        return None
    powers = {name.strip("[]"): power for name, power in dict(zero.dimensionality).items()}
    if any(power != int(power) for power in powers.values()):
        return None
    offset = float(zero.magnitude)
    factor = (float(one.magnitude) - offset) * float(amount)
    if factor <= 0:
        return None
    names = [f"{name}^{int(powers[name])}" for name in sorted(powers) if powers[name]]
    names += [f"{mark}^{unit.count(mark)}" for mark in _MARKS if mark in unit]
    if not names:
        # A bare power of ten or a percentage is a number; "mmol/mol" is a ratio of amounts and no percentage.
        names = [_NUMBER] if unit in _PERCENT_UNITS or "/" in unit or "*" in unit else [f"{unit}^1"]
    return Measure(" ".join(names), factor, offset)
