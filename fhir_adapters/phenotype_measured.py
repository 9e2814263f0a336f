"""Series of values into HPO terms: what is abnormal clearly or again and again, what is normal each time.

Responsible for judging values against the range sent with them or the table of `phenotype_limits`, and
for how much evidence a lifelong phenotype needs.  One mildly abnormal value of an acute illness is none.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from fhir_adapters.chart import Measurement
from fhir_adapters.phenotype_limits import AnalyteLimits, Limits

NEWEST = 60
"""How many values of a series are looked at, newest first: more would cost time and say the same."""
_SAID = {"N": 0, "L": -1, "LL": -1, "LU": -1, "<": -1, "H": 1, "HH": 1, "HU": 1, ">": 1}
_CRITICAL = frozenset({"LL", "HH"})


class Judged(msgspec.Struct, frozen=True, gc=False):
    """What the values of one analyte amount to for one HPO term.

    `verdict`: ``present``, ``excluded`` or ``unconfirmed`` (abnormal, but neither clear nor repeated).
    """

    hpo: str
    verdict: str
    sources: tuple[str, ...]
    onset_age_days: int | None = None
    resolved: bool = False


class _Side:
    """The values of one analyte on one side: where they come from, and when they were."""

    __slots__ = ("clear", "onset", "sources", "times")

    def __init__(self) -> None:
        self.clear = False
        self.onset: int | None = None
        self.sources: list[str] = []
        self.times: list[datetime] = []

    def add(self, value: Measurement, age: int | None, clear: bool) -> None:
        self.clear = self.clear or clear
        self.sources.append(value.source)
        self.sources.extend(value.also)
        if value.time is not None:
            self.times.append(value.time)
            if age is not None and (self.onset is None or age < self.onset):
                self.onset = age

    def lasts(self, span: timedelta) -> bool:
        """Whether two of the values are that far apart."""
        return len(self.times) > 1 and max(self.times) - min(self.times) >= span

    def all_sources(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.sources)))


class _Tally:
    """One series being judged: its values by side, and the newest with the row that judged it."""

    __slots__ = ("high", "low", "newest", "normal", "row", "total")

    def __init__(self) -> None:
        self.low: _Side | None = None
        self.high: _Side | None = None
        self.normal: list[Measurement] = []
        self.newest = 0
        self.row: Limits | None = None
        self.total = 0

    def add(self, value: Measurement, age: int | None, row: Limits) -> None:
        where, clear = judge(value, row)
        if where is None:
            return
        if self.row is None:
            self.row, self.newest = row, where
        self.total += 1
        if where == 0:
            self.normal.append(value)
        elif where < 0:
            self.low = self.low or _Side()
            self.low.add(value, age, clear)
        else:
            self.high = self.high or _Side()
            self.high.add(value, age, clear)

    def verdicts(self) -> list[Judged]:
        row = self.row
        if row is None:
            return []
        span = timedelta(days=row.days_apart)
        if self.low is None and self.high is None:
            return self._exclusions(row, span)
        found: list[Judged] = []
        for term, where, side in ((row.below, -1, self.low), (row.above, 1, self.high)):
            if term is None or side is None:
                continue
            if side.clear or (side.lasts(span) and 2 * len(side.times) >= self.total):
                over = self.newest != where
                found.append(Judged(term, "present", side.all_sources(), side.onset, over))
            else:
                found.append(Judged(term, "unconfirmed", side.all_sources()))
        return found

    def _exclusions(self, row: Limits, span: timedelta) -> list[Judged]:
        """What values that are all normal exclude."""
        if len(self.normal) < 2 or not (row.excludes_below or row.excludes_above):
            return []
        normal = _Side()
        for value in self.normal:
            normal.add(value, None, False)
        if not normal.lasts(span):
            return []
        sources = normal.all_sources()
        terms = (row.below if row.excludes_below else None, row.above if row.excludes_above else None)
        return [Judged(term, "excluded", sources) for term in terms if term is not None]


def judge(value: Measurement, limits: Limits) -> tuple[int | None, bool]:
    """Where one value lies: -1 below, 0 normal, 1 above, `None` unknown; and whether it is clear.

    The interpretation sent comes first, then the range sent, then the table.  The limit is normal.
    """
    low, high = value.low, value.high
    if low is not None and high is not None and low >= high:
        low = high = None
    low = limits.low if low is None else low
    high = limits.high if high is None else high
    number = value.value
    said = _SAID.get(value.interpretation) if value.interpretation is not None else None
    side = _side(number, value.comparator, low, high) if said is None else said
    if side == -1 and limits.factor_low is not None:
        return -1, value.interpretation in _CRITICAL or _clear_below(number, low, limits.factor_low)
    if side == 1 and limits.factor_high is not None:
        return 1, value.interpretation in _CRITICAL or _clear_above(number, high, limits.factor_high)
    return side, False


def _clear_below(number: float, low: float | None, factor: float) -> bool:
    return low is not None and number < low * factor


def _clear_above(number: float, high: float | None, factor: float) -> bool:
    return high is not None and number > high * factor


def _side(number: float, comparator: str | None, low: float | None, high: float | None) -> int | None:
    if low is None and high is None:
        return None
    if comparator is not None:
        return _proven(number, comparator, low, high)
    if low is not None and number < low:
        return -1
    return 1 if high is not None and number > high else 0


def _proven(number: float, comparator: str, low: float | None, high: float | None) -> int | None:
    """Where a value with a comparator must lie; `None` when it could lie on either side."""
    strict = len(comparator) == 1
    if comparator[0] == "<":
        # "<5" proves what lies below 5, and is normal only where nothing can be too low.
        if low is not None:
            return -1 if number < low or (strict and number == low) else None
        return 0 if high is not None and number <= high else None
    if high is not None:
        return 1 if number > high or (strict and number == high) else None
    return 0 if low is not None and number >= low else None


def judge_series(
    table: AnalyteLimits,
    series: Sequence[Measurement],
    *,
    at: datetime,
    age_days: int | None,
    sex: str,
    not_since: datetime | None,
) -> list[Judged]:
    """What a series (newest first) amounts to: at most one verdict for each HPO term of its analyte.

    `not_since` leaves out values from then on (a pregnancy).  Present: one clear value, or two abnormal ones
    the row's days apart with at least half of all values abnormal.  Excluded, where the row allows:
    all values normal, two of them the row's days apart.
    """
    tally = _Tally()
    single = len(series) == 1
    row: Limits | None = None
    for position in range(min(len(series), NEWEST)):
        value = series[position]
        time = value.time
        if value.unit != table.unit or (not_since is not None and (time is None or time >= not_since)):
            continue
        age = age_days
        if age is not None and time is not None:
            age = max(0, age - (at - time).days)
        if row is None or age is None or not row.from_days <= age <= row.to_days:
            row = table.at(age, sex)
        if row is not None:
            if single and judge(value, row)[0] == 0:
                return []  # one normal value says nothing, and most are that
            tally.add(value, age, row)
    return tally.verdicts()
