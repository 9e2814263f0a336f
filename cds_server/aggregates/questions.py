"""What may be asked: how many decisions, by one property, over whole months; and the cells of each answer.

The cells are known beforehand and always all given: which of them exist must not tell anything.
"""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Literal, cast, get_args

import msgspec

from cds_server.errors import RequestMalformed
from hooks.services import BY_ID
from models.assessment import SEVERITIES, EscalationCode

Property = Literal["severity", "escalation", "service", "day", "outcome"]
PROPERTIES: tuple[str, ...] = get_args(Property)
MOST_MONTHS = 12
_MONTH = re.compile(r"(20\d\d)-(0[1-9]|1[0-2])\Z")


class Question(msgspec.Struct, frozen=True):
    """Counts by a property over the months `first` to `last` (``YYYY-MM``), until the day `until` comes.

    `until` is the day of asking while the last month is not over (UTC): then the same question on another
    day is another question.
    """

    by: Property
    first: str
    last: str
    until: date
    epsilon: float

    @classmethod
    def of(cls, by: str, first: str, last: str, epsilon: float, now: datetime) -> "Question":
        """A checked question.  Raises `RequestMalformed` naming the parameter."""
        if by not in PROPERTIES:
            raise RequestMalformed(f"expected one of {', '.join(PROPERTIES)}", "by")
        for name, value in (("from", first), ("to", last)):
            if not _MONTH.match(value):
                raise RequestMalformed("expected a month such as 2026-11", name)
        if not 0.01 <= epsilon <= 4:
            raise RequestMalformed("expected a number from 0.01 to 4", "epsilon")
        if not first <= last <= now.astimezone(UTC).strftime("%Y-%m"):
            raise RequestMalformed("expected a month not before `from` and not after this one", "to")
        if len(months(first, last)) > MOST_MONTHS:
            raise RequestMalformed(f"at most {MOST_MONTHS} months in one question", "to")
        end = min(_after(last), now.astimezone(UTC).date() + timedelta(days=1))
        return cls(cast(Property, by), first, last, end, epsilon)

    @property
    def begin(self) -> datetime:
        """The first moment asked about."""
        return datetime.fromisoformat(f"{self.first}-01T00:00:00+00:00")

    @property
    def end(self) -> datetime:
        """The first moment not asked about any more."""
        return datetime.combine(self.until, datetime.min.time(), UTC)

    @property
    def months(self) -> tuple[str, ...]:
        """The months whose data the answer is about."""
        return months(self.first, self.last)

    @property
    def cells(self) -> tuple[str, ...]:
        """The names of all cells of the answer."""
        match self.by:
            case "severity":
                return tuple(SEVERITIES)
            case "escalation":
                return tuple(get_args(EscalationCode))
            case "service":
                return (*BY_ID, "$assess", "predict")
            case "outcome":
                return ("accepted", "overridden")
            case "day":
                days = (self.until - self.begin.date()).days
                return tuple((self.begin.date() + timedelta(days=n)).isoformat() for n in range(days))

    @property
    def text(self) -> str:
        """The question as one line: the same question gives the same line."""
        return f"decisions by {self.by}, {self.begin.date()} to {self.until}, epsilon {self.epsilon:g}"


def months(first: str, last: str) -> tuple[str, ...]:
    """All months from `first` to `last`."""
    found = []
    month = first
    while month <= last:
        found.append(month)
        month = _after(month).strftime("%Y-%m")
    return tuple(found)


def _after(month: str) -> date:
    day = date.fromisoformat(f"{month}-28") + timedelta(days=4)
    return day.replace(day=1)
