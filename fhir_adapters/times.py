"""FHIR dates and times to aware datetimes, and ages in days.

FHIR's `dateTime` may stop at the year, the month or the day; a partial one is taken at its
beginning (UTC), because a value must never look newer than it is.  It guesses nothing else.
Source: https://hl7.org/fhir/R4/datatypes.html#dateTime.
"""

import re
from datetime import UTC, date, datetime
from typing import Literal

_PARTIAL = re.compile(r"^\d{4}(-\d{2})?$")
Precision = Literal["day", "month", "year", "unknown"]


def parse_datetime(text: str) -> datetime | None:
    """Turn a FHIR `date`, `dateTime` or `instant` into an aware UTC datetime.

    Returns `None` when the text is not one.  A time without an offset (not allowed by FHIR, but sent)
    is read as UTC.
    """
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        if not _PARTIAL.match(text):
            return None
        try:
            value = datetime.fromisoformat(f"{text}-01" if len(text) == 7 else f"{text}-01-01")
        except ValueError:
            return None
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        return None


def age_days(birth_date: str | None, at: datetime) -> tuple[int | None, Precision]:
    """Age in whole days at `at`, with the precision of the birth date.

    A birth date given as a year or month counts from its middle (1 July, the 15th), which halves the
    largest error.  A birth date after `at` gives ``(None, "unknown")``, except by less than a day
    (a newborn in another time zone), which is age 0.
    """
    if not birth_date:
        return None, "unknown"
    precision: Precision
    try:
        if len(birth_date) == 4:
            born, precision = date(int(birth_date), 7, 1), "year"
        elif len(birth_date) == 7:
            born, precision = date.fromisoformat(f"{birth_date}-15"), "month"
        else:
            born, precision = date.fromisoformat(birth_date[:10]), "day"
    except ValueError:
        return None, "unknown"
    days = (at.date() - born).days
    if days < 0:
        # Middle-of-period reckoning may put this year's infants a little into the future.
        tolerated = {"day": 1, "month": 16, "year": 184}[precision]
        return (0, precision) if -days <= tolerated else (None, "unknown")
    return days, precision
