"""Laboratory values and vital signs beyond published critical limits (``data/critical_values.csv``).

Responsible for loading the limits, choosing those that apply to the patient's age, sex and pregnancy,
and comparing the newest usable value of each analyte with them: at most one per analyte and
direction, the gravest.  It trusts the chart for units: a value in a unit that the table does not
state is not compared.  What a critical value means for the escalation is not decided here.
"""

import math
from typing import Literal, cast, get_args

import msgspec

from fhir_adapters.chart import Measurement, PatientChart
from models.assessment import CriticalValue, Fact, Urgency
from models.rules.currency import Currency, Window
from models.rules.data_rows import Row, read_rows

FILE = "critical_values.csv"
COLUMNS = (
    "id",
    "analyte",
    "loinc",
    "label",
    "window",
    "unit",
    "other_unit",
    "factor",
    "direction",
    "limit",
    "inclusive",
    "from_days",
    "to_days",
    "sex",
    "pregnancy",
    "urgency",
    "actions",
    "grade",
    "source",
)
ADULT_DAYS = 14_610  # an unknown age is read as 40 years: limits of adults apply, those of children do not
_GRAVITY = {urgency: rank for rank, urgency in enumerate(get_args(Urgency))}

Direction = Literal["low", "high"]


class Limit(msgspec.Struct, frozen=True, gc=False):
    """One critical limit.

    `limit` is in `unit`; `other_limit` is the same limit in `other_unit` (mass against amount), if any.
    `from_days`/`to_days` is the age range in whole days, both inclusive.
    """

    id: str
    analyte: str
    loincs: tuple[str, ...]
    label: str
    window: Window
    unit: str
    other_unit: str | None
    direction: Direction
    limit: float
    other_limit: float
    inclusive: bool
    from_days: int
    to_days: int
    sex: str | None
    pregnancy: bool | None
    urgency: Urgency
    actions: tuple[str, ...]
    grade: str
    source: str

    def in_unit(self, unit: str) -> float | None:
        """The limit in a unit, or `None` when the table does not state it."""
        if unit == self.unit:
            return self.limit
        return self.other_limit if unit == self.other_unit else None

    def beyond(self, value: Measurement) -> float | None:
        """The limit in the value's unit when the value is proven to lie beyond it, else `None`.

        A value with a comparator proves only its own side: ``<5`` can be below a limit and never above.
        """
        limit = self.in_unit(value.unit)
        if limit is None:
            return None
        number, comparator = value.value, value.comparator
        if comparator is not None:
            if comparator.startswith("<") != (self.direction == "low"):
                return None
            # "<5" lies below any limit from 5 on; "<=5" reaches the limit itself.
            strict = comparator in ("<", ">")
            reached = number == limit and (strict or self.inclusive)
        else:
            reached = self.inclusive and number == limit
        past = number < limit if self.direction == "low" else number > limit
        return limit if past or reached else None


class CriticalValues:
    """All limits, by LOINC and direction, gravest first."""

    __slots__ = ("_by_loinc", "_harmless", "limits")

    def __init__(self, limits: tuple[Limit, ...]) -> None:
        self.limits = limits
        by_loinc: dict[str, list[Limit]] = {}
        for limit in limits:
            for loinc in limit.loincs:
                by_loinc.setdefault(loinc, []).append(limit)
        self._by_loinc = {loinc: tuple(sorted(found, key=_order)) for loinc, found in by_loinc.items()}
        # Most values lie between all limits of all ages: one comparison tells.
        self._harmless = {loinc: _harmless(found) for loinc, found in by_loinc.items()}

    @classmethod
    def load(cls) -> "CriticalValues":
        """Read and check the packaged limits; raises `RulesInvalid` naming the row."""
        limits: dict[str, Limit] = {}
        for row in read_rows(FILE, COLUMNS):
            limit = _limit(row)
            if limit.id in limits:
                raise row.error(f"id {limit.id} occurs twice")
            for other in limits.values():
                if other.analyte == limit.analyte and (other.unit, other.loincs) != (
                    limit.unit,
                    limit.loincs,
                ):
                    raise row.error(f"{limit.analyte} stands with another unit or other codes above")
            limits[limit.id] = limit
        return cls(tuple(limits.values()))

    def evaluate(self, chart: PatientChart, currency: Currency) -> tuple[CriticalValue, ...]:
        """The critical values of a chart, gravest first; stale ones are marked and come last."""
        subject = chart.subject
        age = ADULT_DAYS if subject.age_days is None else subject.age_days
        sex = subject.sex
        maternity = bool(subject.pregnant or subject.postpartum)
        by_loinc = self._by_loinc
        # Of one analyte measured under several codes (laboratory, blood gas) each value is judged.
        found: dict[str, CriticalValue] = {}
        for loinc, series in chart.measurements.items():
            limits = by_loinc.get(loinc)
            if limits is None:
                continue
            newest = currency.newest_of(loinc, series, limits[0].window)
            if newest is None:
                continue
            value, stale = newest
            unit, low, high = self._harmless[loinc]
            if low < value.value < high and value.unit == unit and value.comparator is None:
                continue
            done: Direction | None = None
            for limit in limits:
                if limit.direction == done or not limit.from_days <= age <= limit.to_days:
                    continue
                if limit.sex is not None and limit.sex != sex:
                    continue
                if limit.pregnancy is not None and limit.pregnancy != maternity:
                    continue
                edge = limit.beyond(value)
                if edge is None:
                    continue
                done = limit.direction
                known = found.get(limit.analyte)
                if known is None or _rank(stale, limit.urgency) < _rank(known.stale, known.urgency):
                    found[limit.analyte] = _critical(limit, value, edge, stale)
        if len(found) < 2:
            return tuple(found.values())
        return tuple(
            sorted(
                found.values(), key=lambda critical: (_rank(critical.stale, critical.urgency), critical.id)
            )
        )


def _harmless(limits: list[Limit]) -> tuple[str, float, float]:
    """The unit of an analyte's limits and the open interval that lies beyond none of them."""
    low = max([limit.limit for limit in limits if limit.direction == "low"], default=-math.inf)
    high = min([limit.limit for limit in limits if limit.direction == "high"], default=math.inf)
    return limits[0].unit, low, high


def _critical(limit: Limit, value: Measurement, edge: float, stale: bool) -> CriticalValue:
    fact = Fact(
        "measurement",
        value.loinc,
        limit.label,
        (value.source, *value.also),
        value.value,
        value.unit,
        None,
        "present",
        value.time,
    )
    return CriticalValue(
        limit.id, fact, limit.direction, edge, limit.urgency, limit.actions, limit.source, stale
    )


def _rank(stale: bool, urgency: Urgency) -> int:
    """Gravest first: current before stale, then by urgency."""
    return _GRAVITY[urgency] + (len(_GRAVITY) if stale else 0)


def _order(limit: Limit) -> tuple[str, int, float]:
    """Within a direction the gravest limit first; of equal urgency the one further out."""
    further = limit.limit if limit.direction == "low" else -limit.limit
    return (limit.direction, _GRAVITY[limit.urgency], further)


def _limit(row: Row) -> Limit:
    other_unit = row.maybe("other_unit")
    factor = row.real("factor") if other_unit else 1.0
    limit = row.real("limit")
    pregnancy = row.maybe("pregnancy")
    first, last = row.maybe_real("from_days"), row.maybe_real("to_days")
    made = Limit(
        id=row.text("id"),
        analyte=row.text("analyte"),
        loincs=row.words("loinc"),
        label=row.text("label"),
        window="vital" if row.one_of("window", get_args(Window)) == "vital" else "laboratory",
        unit=row.text("unit"),
        other_unit=other_unit,
        direction="low" if row.one_of("direction", get_args(Direction)) == "low" else "high",
        limit=limit,
        other_limit=float(f"{limit * factor:.6g}"),
        inclusive=row.one_of("inclusive", ("yes", "no")) == "yes",
        from_days=0 if first is None else int(first),
        to_days=2**31 if last is None else int(last),
        sex=row.one_of("sex", ("female", "male")) if row.cells["sex"] else None,
        pregnancy=None if pregnancy is None else row.one_of("pregnancy", ("yes", "no")) == "yes",
        urgency=cast(Urgency, row.one_of("urgency", get_args(Urgency))),
        actions=row.words("actions"),
        grade=row.one_of("grade", ("A", "B", "C")),
        source=row.text("source"),
    )
    if not made.loincs or made.from_days > made.to_days or factor <= 0 or not made.actions:
        raise row.error("a limit has codes, an age range, a positive factor and at least one action")
    return made
