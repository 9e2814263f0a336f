"""Growth for age and sex as a z-score, by the LMS method, from the CDC 2000 growth charts.

Responsible for the table ``growth_lms_cdc2000.csv`` and the arithmetic.  What a z-score means is decided
elsewhere.  The reference covers birth to 20 years (head circumference to 36 months); from 20 years on
the stature of an adult is compared with that of 20 years.
Method: Cole TJ, Green PJ.  Stat Med 1992;11:1305-1319.  Data: Kuczmarski RJ et al.  2000 CDC growth charts
for the United States.  Vital Health Stat 11 (246), 2002; a work of the United States government.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping
from typing import Literal, cast, get_args

import msgspec

from fhir_adapters.terminology.errors import TerminologyInvalid
from fhir_adapters.terminology.tables import read_rows, real, required

FILE = "growth_lms_cdc2000.csv"
COLUMNS = ("measure", "sex", "age_months", "l", "m", "s", "source")
MONTH_DAYS = 30.4375
ADULT_MONTHS = 240.0

Measure = Literal["stature", "weight", "bmi", "head"]
_TABLES = ("length", "stature", "weight", "bmi", "head")


class Curve(msgspec.Struct, frozen=True):
    """L, M and S by age in months, ascending (all tuples of one length)."""

    months: tuple[float, ...]
    power: tuple[float, ...]
    median: tuple[float, ...]
    variation: tuple[float, ...]

    def z(self, value: float, months: float) -> float:
        """The z-score of `value` at an age, L, M and S interpolated between the ages of the table."""
        at = self.months
        if months <= at[0]:
            power, median, variation = self.power[0], self.median[0], self.variation[0]
        elif months >= at[-1]:
            power, median, variation = self.power[-1], self.median[-1], self.variation[-1]
        else:
            right = bisect_right(at, months)
            left = right - 1
            part = (months - at[left]) / (at[right] - at[left])
            power = self.power[left] + part * (self.power[right] - self.power[left])
            median = self.median[left] + part * (self.median[right] - self.median[left])
            variation = self.variation[left] + part * (self.variation[right] - self.variation[left])
        ratio = value / median
        return math.log(ratio) / variation if power == 0 else (ratio**power - 1) / (power * variation)


class GrowthReference:
    """The curves by measure and sex; immutable."""

    __slots__ = ("_curves",)

    def __init__(self, curves: Mapping[tuple[str, str], Curve]) -> None:
        self._curves = dict(curves)

    @classmethod
    def load(cls) -> "GrowthReference":
        """Read and check the packaged table; raises `TerminologyInvalid` naming file and row."""
        rows: dict[tuple[str, str], list[tuple[float, float, float, float]]] = {}
        for number, cells in read_rows(FILE, COLUMNS):
            required(FILE, number, cells, *COLUMNS)
            if cells["measure"] not in _TABLES or cells["sex"] not in ("female", "male"):
                raise TerminologyInvalid(FILE, number, "unknown measure or sex")
            months, power, median, variation = (
                real(FILE, number, cells, name) or 0.0 for name in COLUMNS[2:6]
            )
            if median <= 0 or variation <= 0:
                raise TerminologyInvalid(FILE, number, "m and s are positive")
            found = rows.setdefault((cells["measure"], cells["sex"]), [])
            if found and months <= found[-1][0]:
                raise TerminologyInvalid(FILE, number, "ages do not ascend")
            found.append((months, power, median, variation))
        for table in _TABLES:
            for sex in ("female", "male"):
                if (table, sex) not in rows:
                    raise TerminologyInvalid(FILE, 0, f"no rows for {table} of the {sex} sex")
        return cls({key: Curve(*zip(*found, strict=True)) for key, found in rows.items()})

    def z(self, measure: Measure, sex: str, age_days: float, value: float) -> float | None:
        """The z-score of a value in cm (stature, head), kg (weight) or kg/m2 (bmi).

        `None` when the reference does not cover the sex, the age or the measure.  Below 24 months
        stature is recumbent length.
        """
        months = age_days / MONTH_DAYS
        if months < 0 or value <= 0:
            return None
        table: str = measure
        if measure == "stature" and months < 24:
            table = "length"
        curve = self._curves.get((table, sex))
        if curve is None:
            return None
        if measure == "stature":
            months = min(months, ADULT_MONTHS)
        first, last = curve.months[0], curve.months[-1]
        if months < first or (months > last and table != "length"):
            return None
        return curve.z(value, months)


def measure_of(text: str) -> Measure | None:
    """`text` as a measure, `None` when it is none."""
    return cast(Measure, text) if text in get_args(Measure) else None
