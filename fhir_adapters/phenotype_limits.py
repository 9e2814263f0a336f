"""The table of laboratory values and vital signs that are HPO abnormalities (``phenotype_values.csv``).

Responsible for loading and checking the limits by age and sex and for choosing the row that applies.
What a series of values amounts to is decided in `fhir_adapters.phenotype_measured`.
"""

import math
from collections.abc import Iterable, Iterator

import msgspec

from fhir_adapters.hpo import Ontology
from fhir_adapters.terminology.analytes import Analyte, AnalyteTable
from fhir_adapters.terminology.errors import TerminologyInvalid
from fhir_adapters.terminology.tables import loinc_is_valid, read_rows, real, required

FILE = "phenotype_values.csv"
COLUMNS = (
    "loinc", "analyte", "unit", "sex", "from_days", "to_days", "low", "high", "hpo_below", "label_below",
    "hpo_above", "label_above", "factor_low", "factor_high", "days_apart", "excludes", "unless_atc", "source",
)  # fmt: skip
_FOREVER = 2**31
_EXCLUDES = {"": (False, False), "below": (True, False), "above": (False, True), "both": (True, True)}


class Limits(msgspec.Struct, frozen=True, gc=False):
    """What is abnormal in one analyte for one sex and age band, and which HPO term says so.

    `low`/`high` are in `unit` (canonical UCUM), and the limit itself is normal.  `from_days`/`to_days`
    is the age band, both ends inclusive.  A value below ``low * factor_low`` (above ``high *
    factor_high``) is clear on its own; `None` means that one value never suffices.  Otherwise two
    abnormal values `days_apart` days apart are needed.  `excludes_below`/`excludes_above`: repeatedly
    normal values exclude the term.  `unless_atc`: classes of drugs that forbid any conclusion.
    """

    sex: str | None
    from_days: int
    to_days: int
    low: float | None
    high: float | None
    below: str | None
    above: str | None
    factor_low: float | None
    factor_high: float | None
    days_apart: int
    excludes_below: bool
    excludes_above: bool
    unless_atc: tuple[str, ...]


class AnalyteLimits(msgspec.Struct, frozen=True, gc=False):
    """All limits of one analyte.  `ageless` serves when the age is unknown: the row of all ages, or the
    last row without its limits, so that only a reference range sent with the value can tell."""

    loinc: str
    unit: str
    rows: tuple[Limits, ...]
    ageless: Limits
    unless_atc: tuple[str, ...]

    def at(self, age_days: int | None, sex: str) -> Limits | None:
        """The row for an age and sex; for an unknown sex the widest range of both."""
        if age_days is None:
            return self.ageless
        found: Limits | None = None
        for row in self.rows:
            if row.from_days <= age_days <= row.to_days and (row.sex is None or row.sex == sex):
                return row
        if sex in ("female", "male"):
            return None
        for row in self.rows:
            if row.from_days <= age_days <= row.to_days:
                found = row if found is None else _widest(found, row)
        return found


def _widest(one: Limits, other: Limits) -> Limits:
    low = None if one.low is None or other.low is None else min(one.low, other.low)
    high = None if one.high is None or other.high is None else max(one.high, other.high)
    return msgspec.structs.replace(one, low=low, high=high)


def load_limits(analytes: AnalyteTable, ontology: Ontology) -> dict[str, AnalyteLimits]:
    """The limits by canonical LOINC code; raises `TerminologyInvalid` naming file and row."""
    rows: dict[str, list[Limits]] = {}
    units: dict[str, str] = {}
    for number, cells in read_rows(FILE, COLUMNS):
        required(FILE, number, cells, "loinc", "analyte", "unit", "from_days", "days_apart", "source")
        loinc = cells["loinc"]
        _check_analyte(number, cells, analytes.by_loinc.get(loinc))
        made = _limits(number, cells, ontology)
        for other in rows.get(loinc, ()):
            apart = made.from_days > other.to_days or other.from_days > made.to_days
            if not apart and (made.sex is None or other.sex is None or made.sex == other.sex):
                raise TerminologyInvalid(
                    FILE, number, f"the age band of {loinc} overlaps another of its rows"
                )
        rows.setdefault(loinc, []).append(made)
        units[loinc] = cells["unit"]
    return {
        loinc: AnalyteLimits(
            loinc,
            units[loinc],
            tuple(found),
            _ageless(found),
            tuple(sorted({atc for row in found for atc in row.unless_atc})),
        )
        for loinc, found in rows.items()
    }


def _ageless(rows: Iterable[Limits]) -> Limits:
    last = max(rows, key=lambda row: row.from_days)
    if last.from_days == 0 and last.to_days == _FOREVER and last.sex is None:
        return last
    return msgspec.structs.replace(last, low=None, high=None)


def _check_analyte(number: int, cells: dict[str, str], analyte: Analyte | None) -> None:
    loinc = cells["loinc"]
    if not loinc_is_valid(loinc):
        raise TerminologyInvalid(FILE, number, f"{loinc} has no valid LOINC check digit")
    if analyte is None or analyte.loinc != loinc or analyte.kind != "quantity":
        raise TerminologyInvalid(FILE, number, f"{loinc} is no canonical analyte with a quantity")
    if cells["unit"] != analyte.unit:
        raise TerminologyInvalid(
            FILE, number, f"unit {cells['unit']} is not {analyte.unit}, its canonical one"
        )


def _term(number: int, cells: dict[str, str], side: str, ontology: Ontology) -> str | None:
    term, label = cells[f"hpo_{side}"], cells[f"label_{side}"]
    if not term and not label:
        return None
    if not ontology.is_phenotype(term):
        raise TerminologyInvalid(FILE, number, f"{term!r} is not a current HPO phenotype")
    if ontology.label(term) != label:
        raise TerminologyInvalid(FILE, number, f"{label!r} is not the label of {term}")
    return term


def _limits(number: int, cells: dict[str, str], ontology: Ontology) -> Limits:
    numbers = {name: real(FILE, number, cells, name) for name in COLUMNS[4:8] + COLUMNS[12:15]}
    below, above = _term(number, cells, "below", ontology), _term(number, cells, "above", ontology)
    first, last = int(numbers["from_days"] or 0), numbers["to_days"]
    low, high = numbers["low"], numbers["high"]
    factor_low, factor_high = numbers["factor_low"], numbers["factor_high"]
    days = int(numbers["days_apart"] or 0)
    for problem in _problems(cells, first, last, low, high, below, above, factor_low, factor_high, days):
        raise TerminologyInvalid(FILE, number, problem)
    excludes_below, excludes_above = _EXCLUDES[cells["excludes"]]
    return Limits(
        cells["sex"] or None,
        first,
        _FOREVER if last is None else int(last),
        low,
        high,
        below,
        above,
        factor_low,
        factor_high,
        days,
        excludes_below,
        excludes_above,
        tuple(cells["unless_atc"].split()),
    )


def _problems(
    cells: dict[str, str],
    first: int,
    last: float | None,
    low: float | None,
    high: float | None,
    below: str | None,
    above: str | None,
    factor_low: float | None,
    factor_high: float | None,
    days: int,
) -> Iterator[str]:
    if cells["sex"] not in ("", "female", "male"):
        yield "column sex is female, male or empty"
    if first < 0 or first > (math.inf if last is None else last):
        yield "from_days is not before to_days"
    if low is not None and high is not None and low >= high:
        yield "low is not below high"
    if (low is None) != (below is None) and below is not None:
        yield "hpo_below needs a low limit"
    if (high is None) != (above is None) and above is not None:
        yield "hpo_above needs a high limit"
    if below is None and above is None:
        yield "neither hpo_below nor hpo_above"
    if factor_low is not None and (below is None or not 0 < factor_low <= 1):
        yield "factor_low is at most 1 and belongs to hpo_below"
    if factor_high is not None and (above is None or factor_high < 1):
        yield "factor_high is at least 1 and belongs to hpo_above"
    if days < 1:
        yield "days_apart is at least 1"
    if cells["excludes"] not in _EXCLUDES:
        yield "column excludes is below, above, both or empty"
    elif (below is None and _EXCLUDES[cells["excludes"]][0]) or (
        above is None and _EXCLUDES[cells["excludes"]][1]
    ):
        yield "excludes a side that has no term"
