"""Units: what EHRs send becomes the canonical unit, exactly as UCUM says, or nothing."""

import csv
import subprocess
import sys
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_adapters.terminology.analytes import AnalyteTable
from fhir_adapters.units import Measure, conversion, ucum_measure

TABLE = AnalyteTable.load()
FILE = resources.files("fhir_adapters.terminology").joinpath("data", "unit_conversions.csv")
UNITS = list(csv.DictReader(FILE.read_text(encoding="utf-8").splitlines()))


def convert(loinc: str, value: float, unit: str) -> float | None:
    found = TABLE.unit_conversion(TABLE.by_loinc[loinc], unit)
    return None if found is None else value * found.factor + found.offset


def test_the_compiled_table_is_what_ucumvert_says() -> None:
    for row in UNITS:
        assert ucum_measure(row["unit"]) == Measure(
            row["dimension"], float(row["factor"]), float(row["offset"])
        )


def test_common_units_never_load_the_ucum_library() -> None:
    code = (
        "import sys; from fhir_adapters.terminology.analytes import AnalyteTable; t = AnalyteTable.load()\n"
        "t.unit_conversion(t.by_loinc['2345-7'], 'mmol/l'); t.unit_conversion(t.by_loinc['6690-2'], 'K/uL')\n"
        "assert 'pint' not in sys.modules and 'ucumvert' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("loinc", "value", "unit", "expected"),
    [
        ("2345-7", 1.0, "mmol/L", 18.0156),
        ("2160-0", 88.4, "µmol/L", 1.0),
        ("2160-0", 88.4, "μmol/l", 1.0),
        ("8310-5", 98.6, "[degF]", 37.0),
        ("8310-5", 98.6, "°F", 37.0),
        ("8310-5", 310.15, "K", 37.0),
        ("2019-8", 5.3, "kPa", 39.753),
        ("29463-7", 154.32, "lbs", 70.0),
        ("29463-7", 3200, "g", 3.2),
        ("8302-2", 70, "[in_i]", 177.8),
        ("8302-2", 1.7, "m", 170.0),
        ("6690-2", 11.2, "K/uL", 11.2),
        ("6690-2", 11200, "cells/uL", 11.2),
        ("6690-2", 11.2, "x10^3/uL", 11.2),
        ("6690-2", 11.2, "G/L", 11.2),
        ("718-7", 140, "G/L", 14.0),
        ("718-7", 8.69, "mmol/L", 14.0),
        ("4544-3", 0.41, "L/L", 41.0),
        ("3150-0", 0.21, "1", 21.0),
        ("17861-6", 5.0, "mEq/L", 10.02),
        ("2823-3", 4.1, "mEq/L", 4.1),
        ("4548-4", 53, "mmol/mol", 7.0),
        ("89579-7", 0.05, "ng/mL", 50.0),
        ("48065-7", 0.5, "mg/L FEU", 500.0),
        ("48065-7", 0.5, "ug{FEU}/mL", 500.0),
        ("1742-6", 40, "IU/L", 40.0),
        ("1742-6", 0.5, "ukat/L", 30.0),
        ("3016-3", 2.5, "uIU/mL", 2.5),
        ("62238-1", 60, "mL/min/1.73 m2", 60.0),
        ("8867-4", 80, "bpm", 80.0),
        ("72514-3", 7, "(score)", 7.0),
        ("2345-7", 90, "MG/DL", 90.0),
        ("3094-0", 5.0, "mmol/L", 14.007),
        ("2890-2", 30, "mg/mmol", 265.2),
    ],
)
def test_what_ehrs_send_becomes_the_canonical_unit(
    loinc: str, value: float, unit: str, expected: float
) -> None:
    assert convert(loinc, value, unit) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize(
    ("loinc", "unit"),
    [
        ("8310-5", "mm[Hg]"),
        ("2345-7", "bananas"),
        ("2345-7", ""),
        ("59408-5", "{score}"),
        ("72514-3", "%"),
        ("6301-6", "%"),
        ("48065-7", "ng/mL DDU"),
        ("48066-5", "ng/mL{FEU}"),
        ("2777-1", "mEq/L"),
        ("5821-4", "%"),
        ("1988-5", "mmol/L"),
        ("8867-4", "x" * 5000),
        ("8867-4", "((((("),
    ],
)
def test_an_unknown_or_foreign_unit_is_never_guessed(loinc: str, unit: str) -> None:
    assert convert(loinc, 1.0, unit) is None


def test_a_unit_outside_the_table_is_asked_of_the_library() -> None:
    assert conversion("10*8/L", "10*9/L") == (0.1, 0.0)


@given(st.sampled_from([row["unit"] for row in UNITS]), st.sampled_from([row["unit"] for row in UNITS]))
def test_there_and_back_is_the_same_value(ours: str, theirs: str) -> None:
    there, back = conversion(ours, theirs, 180.156, 2.0), conversion(theirs, ours, 180.156, 2.0)
    assert (there is None) == (back is None)
    if there is not None and back is not None:
        value = 37.5
        again = (value * there.factor + there.offset) * back.factor + back.offset
        assert again == pytest.approx(value, rel=1e-8)


@given(st.text(max_size=12))
def test_any_text_as_a_unit_is_survived(text: str) -> None:
    conversion(text, "mg/dL", 180.156)
