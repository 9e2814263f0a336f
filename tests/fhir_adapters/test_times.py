"""FHIR dates: partial ones never look newer than they are; infants' ages are right to the day."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_adapters.times import age_days, parse_datetime

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-03", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-03-04", datetime(2026, 3, 4, tzinfo=UTC)),
        ("2026-03-04T05:06:07+02:00", datetime(2026, 3, 4, 3, 6, 7, tzinfo=UTC)),
        ("2026-03-04T05:06:07.123Z", datetime(2026, 3, 4, 5, 6, 7, 123000, tzinfo=UTC)),
        ("2026-03-04T05:06:07", datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)),
        ("yesterday", None),
        ("2026-13", None),
        ("2026-02-30", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("", None),
    ],
)
def test_a_fhir_datetime_becomes_utc_or_nothing(text: str, expected: datetime | None) -> None:
    assert parse_datetime(text) == expected


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2100, 1, 1)), st.integers(-12, 14))
def test_any_instant_survives_its_offset(moment: datetime, hours: int) -> None:
    aware = moment.replace(tzinfo=timezone(timedelta(hours=hours)))
    assert parse_datetime(aware.isoformat()) == aware


@pytest.mark.parametrize(
    ("birth", "expected"),
    [
        ("2026-02-08", (21, "day")),
        ("2026-03-01", (0, "day")),
        ("2026-03-02", (0, "day")),
        ("2026-03-03", (None, "unknown")),
        ("2025-03", (351, "month")),
        ("1980", (16679, "year")),
        ("2026", (0, "year")),
        ("2027", (None, "unknown")),
        (None, (None, "unknown")),
        ("unknown", (None, "unknown")),
    ],
)
def test_age_is_counted_in_days_with_its_precision(
    birth: str | None, expected: tuple[int | None, str]
) -> None:
    assert age_days(birth, NOON) == expected
