"""The values of one analyte, checked and ordered at once, made into `Measurement`s when they are looked at.

A chart may hold thousands of old values of which the rules read the newest few.  Conversion and the
check for impossible values are done for every value when it is taken; only the value objects wait.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import overload

from fhir_adapters import resources as r
from fhir_adapters.chart import Measurement, ReadIssue
from fhir_adapters.terminology.analytes import Analyte
from fhir_adapters.units import Conversion

SAME = Conversion(1.0, 0.0)
LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)
_COMPARATORS = frozenset({"<", "<=", ">=", ">"})

Carrier = r.Observation | r.ObservationComponent
UnitTable = Callable[[Analyte, str], Conversion | None]
# Sort key (undated values last), value in the canonical unit, reference, and, only where there is more to
# read than the value (a range, an interpretation, a comparator), what carries it with its conversion.
Row = tuple[datetime, float, str, tuple[Carrier, Conversion] | None]


class Bucket:
    """Collects the values of one analyte; `unit`/`conversion` remember the unit of the value before."""

    __slots__ = (
        "analyte",
        "coded",
        "conversion",
        "high",
        "issues",
        "low",
        "quantity",
        "rows",
        "unit",
        "units",
    )

    def __init__(self, analyte: Analyte, units: UnitTable, issues: list[ReadIssue]) -> None:
        self.analyte = analyte
        self.quantity = analyte.kind == "quantity"
        self.coded: list[tuple[str, r.Observation, Carrier]] | None = [] if analyte.kind == "coded" else None
        self.low, self.high = analyte.low, analyte.high
        self.units = units
        self.issues = issues
        self.unit: str | None = "\x00 no unit seen yet"
        self.conversion: Conversion | None = None
        self.rows: list[Row] = []

    def take(self, reference: str, carrier: Carrier, quantity: r.Quantity, time: datetime | None) -> None:
        """Convert, check and keep one value; what cannot be used becomes a read issue."""
        value = quantity.value
        if value is None:
            return
        unit = quantity.code or quantity.unit
        if unit != self.unit:
            self.unit, self.conversion = unit, convert(self.analyte, quantity, self.units)
        conversion = self.conversion
        if conversion is None:
            loinc = self.analyte.loinc
            self.issues.append(
                ReadIssue("unknown-unit", reference, f"LOINC {loinc}", (unit or "no unit")[:40])
            )
            return
        if conversion is not SAME:
            # Seven digits: what a laboratory reports, without the noise of binary fractions.
            value = float(f"{value * conversion.factor + conversion.offset:.7g}")
        if not self.low <= value <= self.high:
            analyte = self.analyte
            self.issues.append(
                ReadIssue("impossible-value", reference, f"LOINC {analyte.loinc}", analyte.unit)
            )
            return
        more = None
        if carrier.referenceRange or carrier.interpretation or quantity.comparator:
            more = (carrier, conversion)
        self.rows.append((time or LONG_AGO, value, reference, more))

    def series(self, until: datetime) -> "Series":
        """All that was kept, newest first, undated last; what is dated after `until` is set aside."""
        rows = self.rows
        rows.sort(key=itemgetter(0), reverse=True)
        if rows and rows[0][0] > until:
            ahead = [row for row in rows if row[0] > until]
            path = f"LOINC {self.analyte.loinc}"
            self.issues.extend(ReadIssue("invalid-date", row[2], path, "in the future") for row in ahead)
            rows = rows[len(ahead) :]
        return Series(self.analyte, rows, self.units)


class Series(Sequence[Measurement]):
    """Measurements of one analyte, newest first; immutable, equal to the tuple of its values."""

    __slots__ = ("_analyte", "_made", "_rows", "_units")

    def __init__(self, analyte: Analyte, rows: list[Row], units: UnitTable) -> None:
        self._analyte = analyte
        self._units = units
        self._rows = _merged(rows)
        self._made: list[Measurement | None] = [None] * len(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Measurement: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Measurement, ...]: ...

    def __getitem__(self, index: int | slice) -> Measurement | tuple[Measurement, ...]:
        if isinstance(index, slice):
            return tuple([self[i] for i in range(*index.indices(len(self._rows)))])
        made = self._made[index]
        if made is None:
            made = self._made[index] = self._make(self._rows[index])
        return made

    def said(self, position: int) -> tuple[datetime | None, float]:
        """Time and value of one measurement, without making it."""
        entry = self._rows[position]
        time, value, _, _ = entry[0] if isinstance(entry, list) else entry
        return None if time is LONG_AGO else time, value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"<Series of {len(self._rows)} values of LOINC {self._analyte.loinc}>"

    def _make(self, entry: Row | list[Row]) -> Measurement:
        group = entry if isinstance(entry, list) else [entry]
        time, value, reference, _ = group[0]
        interpretation, low, high = None, None, None
        for row in group:
            if row[3] is None:
                continue
            twin, used = row[3]
            if interpretation is None and twin.interpretation:
                interpretation = _interpretation(twin.interpretation)
            if low is None and high is None and twin.referenceRange:
                low, high = _range(self._analyte, twin.referenceRange, used, self._units)
        others = tuple(dict.fromkeys(row[2] for row in group[1:] if row[2] != reference))
        return Measurement(
            self._analyte.loinc,
            value,
            self._analyte.unit,
            None if time is LONG_AGO else time,
            reference,
            interpretation,
            low,
            high,
            _comparator(group[0]),
            others,
        )


def said(series: Sequence[Measurement], position: int) -> tuple[datetime | None, float]:
    """Time and value of one measurement of a series, which is not made for that."""
    if isinstance(series, Series):
        return series.said(position)
    one = series[position]
    return one.time, one.value


def _merged(rows: list[Row]) -> list[Row | list[Row]]:
    """The same value at the same time is one measurement with several sources (a list of rows)."""
    merged: list[Row | list[Row]] = []
    last: Row | None = None
    for row in rows:
        if last is None or row[0] != last[0]:
            merged.append(row)
        else:
            _add_to_its_like(merged, row)
        last = row
    return merged


def _add_to_its_like(merged: list[Row | list[Row]], row: Row) -> None:
    """Put a row beside the one of the same time, value and comparator, if there is one among the last."""
    key = row[1], _comparator(row)
    for position in range(len(merged) - 1, -1, -1):
        entry = merged[position]
        first = entry[0] if isinstance(entry, list) else entry
        if first[0] != row[0]:
            break
        if (first[1], _comparator(first)) == key:
            if isinstance(entry, list):
                entry.append(row)
            else:
                merged[position] = [entry, row]
            return
    merged.append(row)


def _comparator(row: Row) -> str | None:
    if row[3] is None:
        return None
    quantity = row[3][0].valueQuantity
    sent = quantity.comparator if quantity is not None else None
    return sent if sent in _COMPARATORS else None


def convert(analyte: Analyte, quantity: r.Quantity, units: UnitTable) -> Conversion | None:
    """By the UCUM code, then by the unit as written; without either only if the analyte allows it."""
    if quantity.code is None and quantity.unit is None:
        return SAME if analyte.unitless_ok else None
    for sent in (quantity.code, quantity.unit):
        if sent is not None:
            if sent == analyte.unit:
                return SAME
            found = units(analyte, sent)
            if found is not None:
                return SAME if found == SAME else found
    return None


def _interpretation(sent: list[r.CodeableConcept]) -> str | None:
    return next((coding.code for concept in sent for coding in concept.coding or () if coding.code), None)


def _range(
    analyte: Analyte, sent: list[r.ReferenceRange], conversion: Conversion, units: UnitTable
) -> tuple[float | None, float | None]:
    """The normal range among those sent, in the canonical unit (`None` where a bound is not stated)."""
    for candidate in sent:
        kinds = {c.code for c in (candidate.type.coding or ())} if candidate.type is not None else set()
        if kinds and "normal" not in kinds:
            continue
        bounds: list[float | None] = []
        for quantity in (candidate.low, candidate.high):
            if quantity is None or quantity.value is None:
                bounds.append(None)
                continue
            stated = quantity.code is not None or quantity.unit is not None
            used = convert(analyte, quantity, units) if stated else conversion
            bounds.append(None if used is None else quantity.value * used.factor + used.offset)
        return bounds[0], bounds[1]
    return None, None
