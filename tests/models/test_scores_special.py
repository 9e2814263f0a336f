"""Children by age band, the pregnant, and what a score means as a probability."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_adapters.chart import CodedValue, Finding, Measurement, PatientChart, Subject
from models.assessment import Score
from models.rules.scores import ScoreRules
from models.rules.scores.risk import ScoreRisk

AT = datetime(2026, 1, 15, 12, tzinfo=UTC)
RULES = ScoreRules.load()
RISK = ScoreRisk.load()
CODES = {
    "rr": ("9279-1", "/min"),
    "hr": ("8867-4", "/min"),
    "sbp": ("8480-6", "mm[Hg]"),
    "dbp": ("8462-4", "mm[Hg]"),
    "temp": ("8310-5", "Cel"),
    "spo2": ("59408-5", "%"),
    "flow": ("3151-8", "L/min"),
    "crt": ("44963-7", "s"),
    "pain": ("72514-3", "{score}"),
    "gcs": ("9269-2", "{score}"),
}


def chart(
    age_days: int | None = None,
    *,
    pregnant: bool | None = None,
    postpartum: bool | None = None,
    precision: str = "day",
    findings: tuple[Finding, ...] = (),
    coded: dict[str, str] | None = None,
    **values: float,
) -> PatientChart:
    subject = Subject("p", "female", age_days, precision, pregnant, None, postpartum)  # type: ignore[arg-type]
    measurements = {
        CODES[name][0]: (
            Measurement(CODES[name][0], float(value), CODES[name][1], AT, f"Observation/{name}"),
        )
        for name, value in values.items()
    }
    answers = {loinc: (CodedValue(loinc, key, AT, "Observation/c"),) for loinc, key in (coded or {}).items()}
    return PatientChart(subject, AT, None, findings, (), measurements, answers)


def scores(*args: object, **kwargs: object) -> dict[str, Score]:
    return {found.id: found for found in RULES.evaluate(chart(*args, **kwargs)).scores}  # type: ignore[arg-type]


# Parshuram 2009, table 1: (age in days, value, points), the edges of every age band.
PEWS_HEART_RATE = [
    *[
        (30, v, p)
        for v, p in (
            (80, 4),
            (81, 2),
            (90, 2),
            (91, 1),
            (110, 1),
            (111, 0),
            (149, 0),
            (150, 1),
            (180, 2),
            (190, 4),
        )
    ],
    *[
        (200, v, p)
        for v, p in ((70, 4), (80, 2), (100, 1), (101, 0), (149, 0), (150, 1), (169, 1), (170, 2), (180, 4))
    ],
    *[(800, v, p) for v, p in ((60, 4), (70, 2), (90, 1), (91, 0), (119, 0), (120, 1), (150, 2), (170, 4))],
    *[
        (2500, v, p)
        for v, p in ((50, 4), (60, 2), (70, 1), (71, 0), (109, 0), (110, 1), (130, 2), (150, 2), (151, 4))
    ],
    *[(5000, v, p) for v, p in ((40, 4), (49, 2), (60, 1), (61, 0), (99, 0), (100, 1), (120, 2), (140, 4))],
]


@pytest.mark.parametrize(("age", "value", "points"), PEWS_HEART_RATE)
def test_bedside_pews_scores_heart_rate_by_age(age: int, value: float, points: int) -> None:
    assert scores(age, hr=value)["pews"].value == points


@pytest.mark.parametrize(
    ("age", "name", "value", "points"),
    [
        (30, "rr", 61, 1),
        (30, "rr", 91, 4),
        (200, "rr", 50, 0),
        (200, "rr", 51, 1),
        (800, "rr", 19, 1),
        (2500, "rr", 41, 2),
        (5000, "rr", 17, 1),
        (5000, "rr", 30, 4),
        (30, "sbp", 45, 4),
        (30, "sbp", 61, 0),
        (200, "sbp", 80, 1),
        (800, "sbp", 75, 2),
        (2500, "sbp", 91, 0),
        (5000, "sbp", 100, 1),
        (800, "spo2", 95, 0),
        (800, "spo2", 94, 1),
        (800, "spo2", 91, 1),
        (800, "spo2", 90, 2),
        (800, "crt", 2.9, 0),
        (800, "crt", 3.0, 4),
        (800, "flow", 0, 0),
        (800, "flow", 3.9, 2),
        (800, "flow", 4, 4),
    ],
)
def test_bedside_pews_gives_the_published_sub_scores(age: int, name: str, value: float, points: int) -> None:
    assert scores(age, **{name: value})["pews"].value == points


def test_bedside_pews_reaches_its_maximum_of_26_in_a_dying_infant() -> None:
    apnoea = Finding("HP:0002104", "Apnea", "present", "complaint", ("Condition/a",))
    found = scores(60, hr=60, sbp=40, crt=5, rr=8, spo2=70, flow=10, findings=(apnoea,))["pews"]
    assert (found.value, found.band, found.urgency, found.complete) == (26, "high", "immediate", True)


@pytest.mark.parametrize(("age", "points"), [(90, 0), (91, 1), (364, 1), (365, 2)])
def test_age_bands_change_on_the_day(age: int, points: int) -> None:
    # 60 breaths a minute: normal to 3 months, 1 point to 12 months, and 1 point from one year on; with a
    # heart rate of 121 that gives a second point only from one year on.
    assert scores(age, rr=60, hr=121)["pews"].value == points


def test_children_have_no_adult_scores_and_adults_no_paediatric_ones() -> None:
    assert set(scores(5843, hr=100, sbp=110, rr=20)) == {"pews", "paediatric-vitals"}
    assert {"pews", "paediatric-vitals"}.isdisjoint(scores(5844, hr=100, sbp=110, rr=20))


def test_an_infant_known_by_year_of_birth_only_is_scored_and_said_to_be_inexact() -> None:
    assert "exact-age" in scores(200, precision="year", hr=120)["pews"].missing
    assert "exact-age" not in scores(200, hr=120)["pews"].missing


@pytest.mark.parametrize(
    ("age", "name", "value", "points", "band"),
    [
        (40, "hr", 143, 0, "normal"),
        (40, "hr", 165, 1, "outlying"),
        (40, "hr", 181, 1, "outlying"),
        (40, "hr", 182, 2, "extreme"),
        (40, "hr", 106, 2, "extreme"),
        (3500, "rr", 26, 2, "extreme"),
        (3500, "rr", 22, 0, "normal"),
        (10, "sbp", 59, 3, "hypotension"),
        (10, "sbp", 60, 0, "normal"),
        (200, "sbp", 69, 3, "hypotension"),
        (1500, "sbp", 77, 3, "hypotension"),
        (1500, "sbp", 78, 0, "normal"),
        (5000, "sbp", 89, 3, "hypotension"),
    ],
)
def test_vital_signs_of_children_are_compared_with_their_age(
    age: int, name: str, value: float, points: int, band: str
) -> None:
    found = scores(age, **{name: value})["paediatric-vitals"]
    assert (found.value, found.band) == (points, band)


def test_two_signs_beyond_the_99th_centile_are_urgent() -> None:
    assert scores(3500, hr=120, rr=28)["paediatric-vitals"].urgency == "urgent"


# Singh 2012: 1 = yellow, 2 = red.
@pytest.mark.parametrize(
    ("name", "value", "points"),
    [
        *[("temp", v, p) for v, p in ((34.9, 2), (35.0, 1), (36.0, 1), (36.1, 0), (38.0, 0), (38.1, 2))],
        *[
            ("sbp", v, p)
            for v, p in ((89, 2), (90, 1), (100, 1), (101, 0), (149, 0), (150, 1), (160, 1), (161, 2))
        ],
        *[("dbp", v, p) for v, p in ((89, 0), (90, 1), (100, 1), (101, 2))],
        *[
            ("hr", v, p)
            for v, p in ((39, 2), (40, 1), (50, 1), (51, 0), (99, 0), (100, 1), (120, 1), (121, 2))
        ],
        *[("rr", v, p) for v, p in ((9, 2), (10, 0), (20, 0), (21, 1), (30, 1), (31, 2))],
        *[("spo2", v, p) for v, p in ((94, 2), (95, 0))],
        *[("pain", v, p) for v, p in ((3, 0), (4, 1), (10, 1))],
    ],
)
def test_meows_triggers_at_the_published_limits(name: str, value: float, points: int) -> None:
    assert scores(10000, pregnant=True, **{name: value})["meows"].value == points


def test_meows_triggers_on_one_red_or_two_yellow() -> None:
    def one(**values: float) -> tuple[str, str | None]:
        found = scores(10000, pregnant=True, **values)["meows"]
        return found.band, found.urgency

    assert one(hr=105) == ("yellow", None)
    assert one(hr=105, rr=22) == ("trigger", "urgent")
    assert one(sbp=165) == ("trigger", "urgent")
    assert one(sbp=165, hr=125) == ("multiple", "immediate")


def test_meows_stands_for_news2_in_pregnancy_and_the_puerperium() -> None:
    for state in ({"pregnant": True}, {"postpartum": True}):
        found = scores(10000, hr=70, **state)
        assert "meows" in found and "news2" not in found and "ctas-modifiers" not in found
    assert "meows" not in scores(10000, hr=70)


def test_meows_grades_consciousness() -> None:
    for key, points in (("alert", 0), ("voice", 1), ("pain", 2), ("unresponsive", 2)):
        assert scores(10000, pregnant=True, coded={"67775-7": key})["meows"].value == points


@given(
    score=st.sampled_from(["news2", "meows", "pews", "qsofa", "paediatric-vitals", "shock-index"]),
    low=st.integers(0, 20),
    more=st.integers(0, 10),
    missing=st.integers(0, 6),
)
def test_risk_never_falls_as_a_score_rises(score: str, low: int, more: int, missing: int) -> None:
    absent = tuple(f"m{n}" for n in range(missing))
    lower = RISK.of(Score(score, float(low), None, "", True, (), absent))
    higher = RISK.of(Score(score, float(low + more), None, "", True, (), absent))
    assert lower is not None and higher is not None
    assert 0 < lower <= higher < 1


def test_risk_falls_as_coma_score_and_triage_level_rise() -> None:
    for name, values in (("gcs", range(3, 16)), ("ctas-modifiers", range(1, 6))):
        chances = [RISK.of(Score(name, float(value), None, "", True, ())) for value in values]
        assert chances == sorted(chances, reverse=True)  # type: ignore[type-var]


def test_published_mortality_is_given_as_published_and_not_interpolated() -> None:
    def death(value: float) -> float | None:
        return RISK.of(Score("news2", value, 20, "", True, ()), "death-24h")

    assert (death(0), death(2), death(3), death(6), death(7), death(15)) == (
        0.0007,
        0.0007,
        0.018,
        0.018,
        0.078,
        0.078,
    )
    assert RISK.of(Score("gcs", 15, 15, "", True, ()), "death-24h") is None


def test_a_partial_score_carries_more_risk_than_the_same_complete_one() -> None:
    complete = RISK.of(Score("news2", 3, 20, "", True, ()))
    partial = RISK.of(Score("news2", 3, 20, "", False, (), ("heart-rate", "oxygen")))
    assert complete is not None and partial is not None and partial > complete
