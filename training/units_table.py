"""Compiles ``unit_conversions.csv``: what ucumvert says about every unit that EHRs commonly send.

Run as ``python -m training.units_table``.  The list below is the build-time choice of units; what
they measure comes from the UCUM library alone, never from this file.  A unit that is missing here
still converts at run time, only slower (`fhir_adapters.units` asks the library then).
"""

import csv
from pathlib import Path

import fhir_adapters.terminology
from fhir_adapters.units import ucum_measure

_MASS = ("kg", "g", "mg", "ug", "ng", "pg", "fg")
_AMOUNT = ("mol", "mmol", "umol", "nmol", "pmol", "fmol")
_VOLUME = ("L", "dL", "mL", "uL", "nL", "fL")
_CONCENTRATION_VOLUME = ("L", "dL", "mL", "uL", "nL")
_UNITS = (
    "U",
    "mU",
    "uU",
    "kU",
    "nU",
    "[IU]",
    "m[IU]",
    "u[IU]",
    "k[IU]",
    "[iU]",
    "m[iU]",
    "u[iU]",
    "k[iU]",
    "[arb'U]",
)
_OTHERS = (
    # temperature, pressure, rates, lengths, times
    *("Cel", "[degF]", "K", "mm[Hg]", "kPa", "Pa", "hPa", "mbar", "bar", "cm[H2O]", "[psi]"),
    *("/min", "/s", "/h", "/d", "Hz", "d/wk", "h/d", "min/d", "min/wk", "h/wk"),
    *(
        "m",
        "cm",
        "mm",
        "um",
        "km",
        "[in_i]",
        "[ft_i]",
        "[in_us]",
        "[ft_us]",
        "m2",
        "cm2",
        "mm2",
        "m3",
        "cm3",
        "mm3",
    ),
    *(
        "s",
        "ms",
        "min",
        "h",
        "d",
        "wk",
        "mo",
        "a",
        "L/min",
        "L/s",
        "L/h",
        "mL/min",
        "mL/s",
        "mL/h",
        "mL/d",
        "mL/kg/h",
    ),
    *("mL/kg", "mL/m2", "mm/h", "kg/m2", "g/m2", "m/s", "cm/s", "[lb_av]", "[oz_av]", "[stone_av]", "t"),
    # numbers and ratios
    *("1", "%", "[ppth]", "L/L", "g/g", "mg/mg", "mg/g", "ug/g", "ug/mg", "ng/mg", "g/kg", "mg/kg", "ug/kg"),
    *("mmol/mol", "mol/mol", "umol/mol", "mg/mmol", "g/mol", "ug/mmol", "g/mmol", "mg/umol", "/100"),
    # counts of cells and particles
    *(
        "/L",
        "/dL",
        "/mL",
        "/uL",
        "/nL",
        "/mm3",
        "10*3/L",
        "10*6/L",
        "10*9/L",
        "10*12/L",
        "10*3/mL",
        "10*6/mL",
    ),
    *("10*3/uL", "10*6/uL", "10*9/uL", "10*3/mm3", "10*6/mm3", "10*4/uL", "10*5/uL", "10*2/uL", "10*9/mL"),
    *("/[HPF]", "/[LPF]", "[CFU]/mL", "[CFU]/L"),
    # electrolytes, osmoles, catalysis, excretion
    *(
        "eq/L",
        "meq/L",
        "ueq/L",
        "meq/dL",
        "meq/mL",
        "osm/kg",
        "mosm/kg",
        "osm/L",
        "mosm/L",
        "mmol/kg",
        "mol/kg",
    ),
    *(
        "kat/L",
        "mkat/L",
        "ukat/L",
        "nkat/L",
        "meq",
        "meq/(24.h)",
        "meq/d",
        "mmol/d",
        "umol/d",
        "mmol/(24.h)",
        "umol/(24.h)",
    ),
    *(
        "g/(24.h)",
        "mg/(24.h)",
        "ug/(24.h)",
        "g/d",
        "mg/d",
        "ug/d",
        "ug/min",
        "L/(24.h)",
        "mL/(24.h)",
        "U/g",
        "mg/h",
    ),
)


def units() -> tuple[str, ...]:
    """Every unit of the table, in its order."""
    concentrations = [
        f"{top}/{bottom}" for top in (*_MASS, *_AMOUNT, *_UNITS) for bottom in _CONCENTRATION_VOLUME
    ]
    return tuple(dict.fromkeys((*_OTHERS, *_MASS, *_AMOUNT, *_VOLUME, *_UNITS, *concentrations)))


def main() -> None:
    """Write the table beside the loader that reads it; raises `ValueError` for a unit UCUM does not know."""
    path = Path(fhir_adapters.terminology.__file__).parent / "data" / "unit_conversions.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("unit", "dimension", "factor", "offset", "source"))
        for unit in units():
            measure = ucum_measure(unit)
            if measure is None:
                raise ValueError(f"ucumvert does not know {unit}")
            writer.writerow(
                (unit, measure.dimension, repr(measure.factor), repr(measure.offset), "ucumvert (UCUM 2.2)")
            )


if __name__ == "__main__":
    main()
