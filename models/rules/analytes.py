"""The analytes that the rules read (``data/measurements.csv``), with the units rules are written in.

Responsible for loading the table and for the factors from a unit a chart may carry to the rules' unit.
Which limit a rule puts on an analyte is not decided here.
"""

import msgspec

from models.rules import tables
from models.rules.currency import Window
from models.rules.errors import RulesInvalid

FILE = "measurements.csv"


class Analyte(msgspec.Struct, frozen=True, gc=False):
    """One row of ``measurements.csv``: an analyte that a rule may read, with the unit rules are written in.

    `factors` turns a value in a unit that a chart may carry into `unit`.
    """

    loinc: str
    also: tuple[str, ...]
    unit: str
    factors: dict[str, float]
    window: Window
    label: str


def load_analytes() -> dict[str, Analyte]:
    """The analytes by canonical LOINC, each also under its other codes; raises `RulesInvalid`."""
    analytes: dict[str, Analyte] = {}
    for row, cells in tables.read_csv(FILE, ("loinc", "also", "units", "window", "label", "source")):
        also = tuple(cells["also"].split())
        for code in (cells["loinc"], *also):
            if not tables.loinc_valid(code):
                raise RulesInvalid(FILE, row, f"{code!r} is not a LOINC code")
            if code in analytes:
                raise RulesInvalid(FILE, row, f"{code} stands twice")
        if not all(cells[name] for name in ("units", "label", "source")):
            raise RulesInvalid(FILE, row, "units, label and source must not be empty")
        window = cells["window"]
        if window not in ("vital", "laboratory"):
            raise RulesInvalid(FILE, row, f"window {window!r} is neither vital nor laboratory")
        factors = _factors(cells["units"], FILE, row)
        analyte = Analyte(
            loinc=cells["loinc"],
            also=also,
            unit=next(iter(factors)),
            factors=factors,
            window="vital" if window == "vital" else "laboratory",
            label=cells["label"],
        )
        for code in (analyte.loinc, *also):
            analytes[code] = analyte
    return analytes


def _factors(units: str, file: str, row: str) -> dict[str, float]:
    """``mg/dL mmol/L=18.016`` as factors to the first unit, which is the one rules are written in."""
    factors: dict[str, float] = {}
    for position, item in enumerate(units.split()):
        unit, _, factor = item.partition("=")
        try:
            factors[unit] = float(factor) if position or factor else 1.0
        except ValueError:
            raise RulesInvalid(file, row, f"units: {item!r} has no factor") from None
        if factors[unit] <= 0 or (position == 0 and factors[unit] != 1.0):
            raise RulesInvalid(file, row, f"units: {item!r}")
    return factors
