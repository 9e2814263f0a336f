"""Critical values: limits by age and pregnancy, comparators, units, staleness, and the table itself."""

from datetime import UTC, datetime, timedelta

import pytest

from fhir_adapters.chart import Measurement, PatientChart, Subject
from models.assessment import CriticalValue
from models.rules.critical_values import Limit
from models.rules.scores import ScoreRules

AT = datetime(2026, 1, 15, 12, tzinfo=UTC)
RULES = ScoreRules.load()
LIMITS = RULES.critical_values.limits
BY_ANALYTE = {limit.analyte: limit for limit in LIMITS}
ADULT = 15000


def critical(
    analyte: str,
    value: float,
    *,
    age: int | None = ADULT,
    pregnant: bool | None = None,
    comparator: str | None = None,
    unit: str | None = None,
    time: datetime | None = AT,
) -> tuple[CriticalValue, ...]:
    row = BY_ANALYTE[analyte]
    loinc = row.loincs[0]
    measured = Measurement(loinc, value, unit or row.unit, time, "Observation/1", comparator=comparator)
    subject = Subject("p", "female", age, "day", pregnant)
    return RULES.evaluate(PatientChart(subject, AT, None, (), (), {loinc: (measured,)}, {})).critical_values


def ids(analyte: str, value: float, **kwargs: object) -> list[str]:
    return [found.id for found in critical(analyte, value, **kwargs)]  # type: ignore[arg-type]


def someone_within(limit: Limit) -> tuple[int, bool]:
    return max(limit.from_days, 0) if limit.to_days < ADULT else max(
        limit.from_days, ADULT
    ), limit.pregnancy is True


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.id)
def test_every_limit_fires_beyond_and_not_before(limit: Limit) -> None:
    age, pregnant = someone_within(limit)
    step = 1e-6 if limit.direction == "high" else -1e-6
    beyond = critical(limit.analyte, limit.limit + step, age=age, pregnant=pregnant)
    assert [found.id for found in beyond] == [limit.id]
    assert beyond[0].limit == limit.limit and beyond[0].urgency == limit.urgency and beyond[0].actions
    at = critical(limit.analyte, limit.limit, age=age, pregnant=pregnant)
    assert (limit.id in [found.id for found in at]) == limit.inclusive
    before = critical(limit.analyte, limit.limit - step, age=age, pregnant=pregnant)
    assert limit.id not in [found.id for found in before]


def test_a_normal_patient_has_none() -> None:
    normal = {
        "potassium": 4.2,
        "sodium": 140,
        "glucose": 95,
        "haemoglobin": 13.5,
        "lactate": 1.1,
        "ph": 7.4,
        "spo2": 97,
    }
    for analyte, value in normal.items():
        assert ids(analyte, value) == [], analyte


def test_the_gravest_limit_of_a_direction_is_named_once() -> None:
    assert ids("potassium", 7.1) == ["potassium-high-severe"]
    assert ids("potassium", 6.2) == ["potassium-high"]


def test_limits_follow_age() -> None:
    assert ids("potassium", 6.6, age=5) == []
    assert ids("potassium", 7.0, age=5) == ["potassium-high-newborn"]
    assert ids("bilirubin", 16, age=3) == ["bilirubin-high-newborn"]
    assert ids("bilirubin", 16, age=ADULT) == []
    assert ids("heart-rate", 185, age=1200) == ["heart-rate-high-child"]
    assert ids("heart-rate", 150, age=1200) == []


def test_an_unknown_age_has_the_limits_of_adults() -> None:
    assert ids("potassium", 6.6, age=None) == ["potassium-high-severe"]
    assert ids("bilirubin", 16, age=None) == []


def test_limits_follow_pregnancy() -> None:
    assert ids("fibrinogen", 150) == []
    assert ids("fibrinogen", 150, pregnant=True) == ["fibrinogen-low-pregnancy"]
    assert ids("systolic", 165) == []
    assert ids("systolic", 165, pregnant=True) == ["systolic-high-pregnancy"]
    assert ids("magnesium", 5.5, pregnant=True) == [], "treatment of pre-eclampsia aims there"


@pytest.mark.parametrize(
    ("comparator", "value", "found"),
    [
        (">", 6.5, ["potassium-high-severe"]),
        (">=", 6.5, ["potassium-high-severe"]),
        (">", 6.2, ["potassium-high"]),
        ("<", 6.6, []),
        ("<=", 9.0, []),
        ("<", 2.5, ["potassium-low-severe"]),
        ("<", 2.6, ["potassium-low"]),
        ("<", 3.0, []),
        (">", 2.0, []),
    ],
)
def test_a_comparator_proves_only_its_own_side(comparator: str, value: float, found: list[str]) -> None:
    assert ids("potassium", value, comparator=comparator) == found


def test_a_limit_that_excludes_itself_is_proven_by_a_strict_comparator_only() -> None:
    assert ids("sodium", 125) == []
    assert ids("sodium", 125, comparator="<") == ["sodium-low"]
    assert ids("sodium", 125, comparator="<=") == []


def test_amounts_and_masses_have_the_same_limits_and_other_units_are_not_guessed() -> None:
    assert ids("glucose", 2.9, unit="mmol/L") == ["glucose-low"]
    assert ids("glucose", 4.5, unit="mmol/L") == []
    assert ids("creatinine", 360, unit="umol/L") == ["creatinine-high"]
    assert ids("potassium", 7.5, unit="mg/dL") == []


def test_an_old_value_is_marked_stale_and_a_very_old_one_is_not_used() -> None:
    assert not critical("potassium", 6.8, time=AT - timedelta(hours=71))[0].stale
    assert critical("potassium", 6.8, time=AT - timedelta(hours=73))[0].stale
    assert critical("potassium", 6.8, time=AT - timedelta(days=31)) == ()
    assert critical("temperature", 41.5, time=AT - timedelta(hours=25))[0].stale


def test_the_gravest_come_first_and_the_stale_last() -> None:
    codes = {analyte: BY_ANALYTE[analyte] for analyte in ("potassium", "sodium", "lactate")}
    values = {"potassium": (6.1, AT), "sodium": (115.0, AT - timedelta(days=5)), "lactate": (5.0, AT)}
    chart = PatientChart(
        Subject("p", "male", ADULT, "day"),
        AT,
        None,
        (),
        (),
        {
            row.loincs[0]: (
                Measurement(row.loincs[0], values[name][0], row.unit, values[name][1], f"Observation/{name}"),
            )
            for name, row in codes.items()
        },
        {},
    )
    found = RULES.evaluate(chart).critical_values
    assert [one.id for one in found] == ["lactate-high-severe", "potassium-high", "sodium-low-severe"]
    assert [one.stale for one in found] == [False, False, True]


def test_the_newest_value_decides() -> None:
    row = BY_ANALYTE["potassium"]
    series = tuple(
        Measurement(row.loincs[0], value, row.unit, AT - timedelta(hours=hours), f"Observation/{hours}")
        for value, hours in ((4.4, 1), (6.9, 5))
    )
    chart = PatientChart(Subject("p", "male", ADULT, "day"), AT, None, (), (), {row.loincs[0]: series}, {})
    assert RULES.evaluate(chart).critical_values == ()


def test_the_table_is_broad_and_every_row_says_where_it_is_from() -> None:
    assert len(LIMITS) >= 60 and len(BY_ANALYTE) >= 35
    assert "d-dimer" not in BY_ANALYTE
    for limit in LIMITS:
        assert limit.source and limit.grade in "ABC" and limit.actions
        assert (limit.grade == "C") == ("grade C" in limit.source), limit.id


def test_no_limit_calls_a_value_within_its_own_opposite_critical() -> None:
    for low in LIMITS:
        for high in LIMITS:
            if low.analyte == high.analyte and low.direction == "low" and high.direction == "high":
                overlap = low.from_days <= high.to_days and high.from_days <= low.to_days
                assert not overlap or low.limit < high.limit, (low.id, high.id)
