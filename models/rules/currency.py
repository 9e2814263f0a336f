"""Which measurement counts as *current*: the one place that compares a value's time with the chart's moment.

A value is current inside an acute window before `chart.at` (vital signs and laboratory differ) or
since the start of the encounter being looked at, stale up to 30 days, and not used beyond that or
when it lies in the future.  A value without a time is taken as current.  The windows are data
(``data/currency.toml``).  What a score does with a stale value is not decided here.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from fhir_adapters.chart import PatientChart
from models.rules.data_rows import read_toml
from models.rules.errors import RulesInvalid

Window = Literal["vital", "laboratory"]
FILE = "currency.toml"


class Timed(Protocol):
    """Anything with a time: a measurement or a coded value."""

    @property
    def time(self) -> datetime | None:
        """Aware time, or `None` when the record does not say."""


V = TypeVar("V", bound=Timed)


class Windows(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The windows of ``currency.toml``; units are in the names."""

    source: str
    vital_hours: float
    laboratory_hours: float
    inpatient_extension_hours: float
    stale_days: float
    future_minutes: float
    pairing_hours: float

    @classmethod
    def load(cls) -> "Windows":
        """Read and check the packaged windows; raises `RulesInvalid`."""
        try:
            windows = msgspec.convert(read_toml(FILE), cls)
        except msgspec.ValidationError as problem:
            raise RulesInvalid(FILE, "file", str(problem)) from problem
        ranges = {
            "vital_hours": (1.0, 72.0),
            "laboratory_hours": (1.0, 336.0),
            "inpatient_extension_hours": (24.0, 720.0),
            "stale_days": (7.0, 90.0),
            "future_minutes": (0.0, 60.0),
            "pairing_hours": (1.0, 72.0),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(windows, name) <= high:
                raise RulesInvalid(FILE, name, f"must lie between {low:g} and {high:g}")
        return windows


# A sign or symptom recorded longer ago than this (and before this encounter) is not an acute one.
# grade C: estimate of this project.
ACUTE = timedelta(days=7)
STALE = timedelta(days=90)


def acute_since(chart: PatientChart) -> datetime:
    """From when on a sign, symptom or problem speaks of the present illness.

    The last week, or the encounter at hand when it began before that (at most `STALE` ago).
    """
    since = chart.at - ACUTE
    encounter = chart.encounter
    if encounter is not None and encounter.start is not None and encounter.start < since:
        return max(encounter.start, chart.at - STALE)
    return since


class Currency:
    """The windows laid over one chart: moments to compare a value's time with."""

    __slots__ = ("_laboratory", "_laboratory_since", "_stale_since", "_until", "_vital", "_vital_since")

    def __init__(self, chart: PatientChart, windows: Windows) -> None:
        at = chart.at
        vital = at - timedelta(hours=windows.vital_hours)
        laboratory = at - timedelta(hours=windows.laboratory_hours)
        encounter = chart.encounter
        start = encounter.start if encounter is not None else None
        if encounter is not None and start is not None and start <= at:
            if encounter.setting == "inpatient":
                start = max(start, at - timedelta(hours=windows.inpatient_extension_hours))
            vital = min(vital, start)
            laboratory = min(laboratory, start)
        self._vital_since = vital
        self._laboratory_since = laboratory
        self._stale_since = min(at - timedelta(days=windows.stale_days), vital, laboratory)
        self._until = at + timedelta(minutes=windows.future_minutes)
        self._vital: dict[str, Any] = {}
        self._laboratory: dict[str, Any] = {}

    def newest_of(self, code: str, series: Sequence[V], window: Window) -> tuple[V, bool] | None:
        """`newest` of the chart's series under a canonical code, worked out once for all rules."""
        seen = self._vital if window == "vital" else self._laboratory
        if code in seen:
            found: tuple[V, bool] | None = seen[code]
            return found
        found = seen[code] = self.newest(series, window)
        return found

    def newest(self, series: Sequence[V], window: Window) -> tuple[V, bool] | None:
        """The newest usable value of a series (newest first, undated last) and whether it is stale.

        A dated current value goes before an undated one; an undated one goes before a stale one.
        Returns `None` when nothing in the series may be used.
        """
        since = self._vital_since if window == "vital" else self._laboratory_since
        if not series:
            return None
        value = series[0]
        time = value.time
        # The first one nearly always is it.
        if time is None or since <= time <= self._until:
            return value, False
        stale: V | None = None
        for value in series:
            time = value.time
            if time is None:
                return value, False
            if time > self._until:
                continue
            if time >= since:
                return value, False
            if stale is None and time >= self._stale_since:
                stale = value
        return None if stale is None else (stale, True)
