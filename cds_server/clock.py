"""The one clock of the server: passed to whoever needs the time, replaced by a fixed one in tests."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]

EARLIEST_YEAR = 1900
"""A record's moment before this is an error of writing; reckoning back from it would leave the calendar."""


def utc_now() -> datetime:
    """The time now, aware, in UTC."""
    return datetime.now(UTC)
