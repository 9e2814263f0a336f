"""NEWS2, qSOFA, shock index, coma score and CTAS modifiers: the published tables, at every boundary."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_adapters.chart import CodedValue, Encounter, Finding, Measurement, PatientChart, Problem, Subject
from models.assessment import Score
from models.rules.scores import ScoreRules, ScoresResult

AT = datetime(2026, 1, 15, 12, tzinfo=UTC)
RULES = ScoreRules.load()
CODES = {
    "rr": ("9279-1", "/min"),
    "hr": ("8867-4", "/min"),
    "sbp": ("8480-6", "mm[Hg]"),
    "dbp": ("8462-4", "mm[Hg]"),
    "temp": ("8310-5", "Cel"),
    "spo2": ("59408-5", "%"),
    "flow": ("3151-8", "L/min"),
    "fio2": ("3150-0", "%"),
    "gcs": ("9269-2", "{score}"),
    "eye": ("9267-6", "{score}"),
    "verbal": ("9270-0", "{score}"),
    "motor": ("9268-4", "{score}"),
    "pain": ("72514-3", "{score}"),
}
NORMAL = {"rr": 16, "hr": 70, "sbp": 120, "temp": 37.0, "spo2": 98, "flow": 0, "gcs": 15}


def measured(
    name: str, value: float, time: datetime | None = AT, comparator: str | None = None
) -> Measurement:
    loinc, unit = CODES[name]
    return Measurement(loinc, float(value), unit, time, f"Observation/{name}", comparator=comparator)


def chart(
    *,
    age_years: float | None = 60,
    pregnant: bool | None = None,
    findings: tuple[Finding, ...] = (),
    problems: tuple[Problem, ...] = (),
    coded: dict[str, str] | None = None,
    encounter: Encounter | None = None,
    series: tuple[Measurement, ...] = (),
    time: datetime | None = AT,
    **values: float,
) -> PatientChart:
    measurements: dict[str, list[Measurement]] = {}
    for one in (*series, *[measured(name, value, time) for name, value in values.items()]):
        measurements.setdefault(one.loinc, []).append(one)
    return PatientChart(
        Subject("p", "male", None if age_years is None else int(age_years * 365.25 + 0.5), "day", pregnant),
        AT,
        encounter,
        findings,
        problems,
        {loinc: tuple(found) for loinc, found in measurements.items()},
        {loinc: (CodedValue(loinc, key, AT, "Observation/c"),) for loinc, key in (coded or {}).items()},
    )


def evaluate(**kwargs: object) -> ScoresResult:
    return RULES.evaluate(chart(**kwargs))  # type: ignore[arg-type]


def score(id_: str, **kwargs: object) -> Score:
    return next(found for found in evaluate(**kwargs).scores if found.id == id_)


def has(id_: str, **kwargs: object) -> bool:
    return any(found.id == id_ for found in evaluate(**kwargs).scores)


def finding(hpo: str, role: str = "complaint", state: str = "present") -> Finding:
    return Finding(hpo, hpo, state, role, ("Condition/f",))  # type: ignore[arg-type]


def problem(code: str, status: str = "active", role: str = "problem-list") -> Problem:
    return Problem(code, code, status, role, ("Condition/p",))  # type: ignore[arg-type]


# Royal College of Physicians 2017, chart 1: each boundary from both sides.
NEWS2_POINTS = [
    *[
        ("rr", v, p)
        for v, p in ((1, 3), (8, 3), (9, 1), (11, 1), (12, 0), (20, 0), (21, 2), (24, 2), (25, 3), (60, 3))
    ],
    *[("spo2", v, p) for v, p in ((70, 3), (91, 3), (92, 2), (93, 2), (94, 1), (95, 1), (96, 0), (100, 0))],
    *[
        ("sbp", v, p)
        for v, p in ((60, 3), (90, 3), (91, 2), (100, 2), (101, 1), (110, 1), (111, 0), (219, 0), (220, 3))
    ],
    *[
        ("hr", v, p)
        for v, p in (
            (30, 3),
            (40, 3),
            (41, 1),
            (50, 1),
            (51, 0),
            (90, 0),
            (91, 1),
            (110, 1),
            (111, 2),
            (130, 2),
            (131, 3),
        )
    ],
    *[
        ("temp", v, p)
        for v, p in (
            (34.0, 3),
            (35.0, 3),
            (35.1, 1),
            (36.0, 1),
            (36.1, 0),
            (38.0, 0),
            (38.1, 1),
            (39.0, 1),
            (39.1, 2),
            (41.0, 2),
            (38.04, 0),
            (38.05, 1),
            (35.04, 3),
            (35.05, 1),
        )
    ],
    ("flow", 0, 0),
    ("flow", 2, 2),
    ("gcs", 15, 0),
    ("gcs", 14, 3),
]


@pytest.mark.parametrize(("name", "value", "points"), NEWS2_POINTS)
def test_news2_gives_the_published_points_at_every_boundary(name: str, value: float, points: int) -> None:
    found = score("news2", **(NORMAL | {name: value}))
    assert found.value == points
    assert found.complete


@pytest.mark.parametrize(
    ("value", "on_air", "on_oxygen"),
    [
        (83, 3, 3),
        (84, 2, 2),
        (85, 2, 2),
        (86, 1, 1),
        (87, 1, 1),
        (88, 0, 0),
        (92, 0, 0),
        (93, 0, 1),
        (94, 0, 1),
        (95, 0, 2),
        (96, 0, 2),
        (97, 0, 3),
        (100, 0, 3),
    ],
)
def test_news2_uses_scale_2_only_with_documented_hypercapnic_failure(
    value: float, on_air: int, on_oxygen: int
) -> None:
    failure = (problem("J96.12", status="inactive"),)
    assert score("news2", problems=failure, **(NORMAL | {"spo2": value})).value == on_air
    assert score("news2", problems=failure, **(NORMAL | {"spo2": value, "flow": 2})).value == on_oxygen + 2
    past = score("news2", problems=(problem("J96.02", status="resolved"),), **(NORMAL | {"spo2": 89}))
    assert past.value == 3, "an acute failure that is over does not choose scale 2"
    copd = score("news2", problems=(problem("J44.9"),), **(NORMAL | {"spo2": 89}))
    assert copd.value == 3, "COPD alone does not choose scale 2"


def test_news2_worked_example_of_a_septic_patient_reaches_the_emergency_band() -> None:
    # RR 26 (3), SpO2 92 (2) on oxygen (2), SBP 98 (2), HR 115 (2), new confusion (3), 38.6 (1): 15.
    found = score("news2", rr=26, spo2=92, flow=4, sbp=98, hr=115, temp=38.6, coded={"67775-7": "confusion"})
    assert (found.value, found.band, found.urgency) == (15, "high", "immediate")
    assert {part.parameter: part.points for part in found.parts}["consciousness"] == 3
    assert all(part.fact is not None and part.fact.sources for part in found.parts)


@pytest.mark.parametrize(
    ("changes", "value", "band", "urgency"),
    [
        ({}, 0, "low", None),
        ({"rr": 21, "hr": 91, "sbp": 110}, 4, "low", None),
        ({"rr": 25}, 3, "low-medium", "urgent"),
        ({"rr": 21, "hr": 111, "temp": 38.5}, 5, "medium", "urgent"),
        ({"rr": 21, "hr": 111, "sbp": 95}, 6, "medium", "urgent"),
        ({"rr": 25, "hr": 111, "sbp": 95}, 7, "high", "immediate"),
    ],
)
def test_news2_bands_are_those_of_the_royal_college(
    changes: dict[str, float], value: int, band: str, urgency: str | None
) -> None:
    found = score("news2", **(NORMAL | changes))
    assert (found.value, found.band, found.urgency) == (value, band, urgency)


def test_a_partial_news2_counts_what_was_measured_and_names_the_rest() -> None:
    found = score("news2", rr=26, spo2=90, sbp=95)
    assert (found.value, found.urgency, found.complete) == (8, "immediate", False)
    assert set(found.missing) == {"oxygen", "heart-rate", "consciousness", "temperature"}
    missing = {entry.id: entry.needed_for for entry in evaluate(rr=26, spo2=90, sbp=95).missing}
    assert "news2" in missing["heart-rate"]


def test_nothing_measured_gives_no_score() -> None:
    assert evaluate().scores == ()


def test_news2_is_for_16_years_and_older_and_not_in_pregnancy() -> None:
    assert has("news2", age_years=16, **NORMAL)
    assert not has("news2", age_years=15.9, **NORMAL)
    assert not has("news2", pregnant=True, **NORMAL)
    unknown = score("news2", age_years=None, **NORMAL)
    assert unknown.missing == ("age",)


def test_oxygen_is_read_from_flow_fraction_code_and_long_term_oxygen() -> None:
    without = {name: value for name, value in NORMAL.items() if name != "flow"}
    assert score("news2", fio2=28, **without).value == 2
    assert score("news2", fio2=21, **without).complete
    assert score("news2", problems=(problem("Z99.81"),), **without).value == 2
    assert score("news2", problems=(problem("Z99.81"),), **NORMAL).value == 0, "measured on room air"


def test_new_confusion_counts_from_findings_and_problems_of_this_encounter_only() -> None:
    without = {name: value for name, value in NORMAL.items() if name != "gcs"}
    assert score("news2", findings=(finding("HP:0001289"),), **without).value == 3
    assert score("news2", problems=(problem("R41.0", role="encounter"),), **without).value == 3
    chronic = score("news2", findings=(finding("HP:0001289", role="problem-list"),), **without)
    assert (chronic.value, chronic.missing) == (0, ("consciousness",))
    absent = score("news2", findings=(finding("HP:0001289", state="absent"),), **without)
    assert absent.value == 0
    assert score("news2", findings=(finding("HP:0001289"),), **NORMAL).value == 3, "the worse evidence counts"


def test_measurements_of_yesterday_are_stale_and_last_months_are_not_used() -> None:
    fresh = score("news2", time=AT - timedelta(hours=23), rr=26)
    assert not fresh.stale
    old = score("news2", time=AT - timedelta(hours=25), rr=26)
    assert old.stale and old.value == 3
    assert not has("news2", time=AT - timedelta(days=31), rr=26)


def test_the_window_reaches_back_to_the_start_of_the_encounter() -> None:
    visit = Encounter("Encounter/1", "emergency", AT - timedelta(hours=40))
    assert not score("news2", encounter=visit, time=AT - timedelta(hours=39), rr=26).stale
    stay = Encounter("Encounter/1", "inpatient", AT - timedelta(days=25))
    assert score("news2", encounter=stay, time=AT - timedelta(days=20), rr=26).stale, (
        "a long stay is not one moment"
    )


def test_values_of_the_future_are_ignored_and_undated_ones_are_current() -> None:
    assert not has("news2", time=AT + timedelta(minutes=6), rr=26)
    assert has("news2", time=AT + timedelta(minutes=4), rr=26)
    undated = score("news2", time=None, rr=26)
    assert not undated.stale and undated.observed_at is None


def test_a_current_value_is_never_paired_with_a_stale_one() -> None:
    old = measured("sbp", 80, AT - timedelta(days=3))
    found = score("news2", series=(old,), rr=26)
    assert found.value == 3 and "systolic" in found.missing and not found.stale


def test_a_bounded_value_gives_the_points_it_proves() -> None:
    below = score("news2", series=(measured("spo2", 90, comparator="<"),))
    assert below.value == 3 and "spo2" not in below.missing
    above = score("news2", series=(measured("spo2", 90, comparator=">"),))
    assert above.value == 0 and "spo2" in above.missing


def test_a_value_in_a_unit_the_table_does_not_know_is_not_scored() -> None:
    fahrenheit = msgspec.structs.replace(measured("temp", 101), unit="[degF]")
    assert not has("news2", series=(fahrenheit,))


def test_qsofa_is_urgent_only_when_an_infection_is_suspected() -> None:
    vitals = {"rr": 22, "sbp": 100, "gcs": 15}
    assert score("qsofa", **vitals).value == 2
    assert (score("qsofa", **vitals).band, score("qsofa", **vitals).urgency) == ("raised", None)
    for evidence in (
        {"findings": (finding("HP:0001945"),)},
        {"problems": (problem("J18.9", role="encounter"),)},
        {"temp": 38.1},
        {"temp": 35.9},
    ):
        assert score("qsofa", **vitals, **evidence).urgency == "immediate", evidence
    for evidence in ({"problems": (problem("J18.9", status="resolved"),)}, {"temp": 38.0}):
        assert score("qsofa", **vitals, **evidence).urgency is None, evidence


@pytest.mark.parametrize(
    ("changes", "value"),
    [({"rr": 21}, 0), ({"rr": 22}, 1), ({"sbp": 101}, 0), ({"sbp": 100}, 1), ({"gcs": 14}, 1)],
)
def test_qsofa_boundaries_are_those_of_sepsis_3(changes: dict[str, float], value: int) -> None:
    assert score("qsofa", **(NORMAL | changes)).value == value


@pytest.mark.parametrize(
    ("hr", "sbp", "band", "urgency"),
    [
        (69, 100, "normal", None),
        (70, 100, "raised", None),
        (90, 100, "high", "soon"),
        (100, 100, "shock", "urgent"),
        (140, 100, "severe-shock", "immediate"),
    ],
)
def test_shock_index_bands(hr: float, sbp: float, band: str, urgency: str | None) -> None:
    found = score("shock-index", hr=hr, sbp=sbp)
    assert (found.value, found.band, found.urgency) == (hr / sbp, band, urgency)


def test_shock_index_needs_both_values_of_the_same_layer() -> None:
    assert not has("shock-index", hr=120)
    assert not has("shock-index", series=(measured("sbp", 90, AT - timedelta(days=2)),), hr=120)
    assert not has("shock-index", age_years=10, hr=120, sbp=90)
    assert score("shock-index", pregnant=True, hr=90, sbp=100).urgency == "urgent"


@pytest.mark.parametrize(
    ("total", "band"),
    [
        (15, "normal"),
        (14, "mild"),
        (13, "mild"),
        (12, "moderate"),
        (9, "moderate"),
        (8, "severe"),
        (3, "severe"),
    ],
)
def test_coma_score_bands(total: int, band: str) -> None:
    assert score("gcs", gcs=total).band == band


def test_coma_score_adds_its_parts_and_says_which_is_missing() -> None:
    assert score("gcs", eye=2, verbal=2, motor=4).value == 8
    partial = score("gcs", eye=1, motor=4)
    assert (partial.value, partial.missing) == (10, ("gcs-verbal",))


@pytest.mark.parametrize(
    ("values", "level", "urgency"),
    [
        ({"spo2": 89}, 1, "immediate"),
        ({"spo2": 90}, 2, "urgent"),
        ({"spo2": 91}, 2, "urgent"),
        ({"spo2": 92}, 3, None),
        ({"spo2": 94}, 3, None),
        ({"spo2": 95}, 5, None),
        ({"gcs": 9}, 1, "immediate"),
        ({"gcs": 13}, 2, "urgent"),
        ({"temp": 38.4, "hr": 95, "rr": 22}, 2, "urgent"),
        ({"temp": 38.4, "hr": 95, "rr": 16}, 3, None),
        ({"temp": 38.4, "hr": 80, "rr": 16}, 4, None),
        ({"sbp": 225}, 3, None),
        ({"pain": 9}, 3, None),
    ],
)
def test_ctas_modifiers_give_the_level_of_the_guideline(
    values: dict[str, float], level: int, urgency: str | None
) -> None:
    found = score("ctas-modifiers", **values)
    assert (found.value, found.urgency) == (level, urgency)


def test_ctas_reads_pain_by_its_site_and_pain_alone_does_not_escalate() -> None:
    chest = score("ctas-modifiers", pain=9, findings=(finding("HP:0100749"),))
    assert (chest.value, chest.urgency) == (2, "soon")
    hypoxic = score("ctas-modifiers", pain=9, spo2=91, findings=(finding("HP:0100749"),))
    assert (hypoxic.value, hypoxic.urgency) == (2, "urgent")


def test_ctas_hypertension_is_graver_with_symptoms() -> None:
    assert score("ctas-modifiers", sbp=225, findings=(finding("HP:0002315"),)).value == 2


def test_every_band_that_is_urgent_says_what_to_do() -> None:
    for result in (
        evaluate(rr=30, spo2=80, sbp=70, hr=140, temp=39.5),
        evaluate(pregnant=True, sbp=170, dbp=115),
    ):
        for found in result.scores:
            if found.urgency in ("immediate", "urgent"):
                assert RULES.actions(found), found.id


def test_the_same_chart_gives_the_same_bytes() -> None:
    one, two = evaluate(**NORMAL), ScoreRules.load().evaluate(chart(**NORMAL))
    assert msgspec.json.encode(one) == msgspec.json.encode(two)


WORSE = {
    "rr": (20, 60, 1),
    "hr": (90, 220, 1),
    "sbp": (110, 40, -1),
    "spo2": (96, 50, -1),
    "temp": (37.5, 42, 0.1),
}


@given(name=st.sampled_from(sorted(WORSE)), near=st.floats(0, 1), far=st.floats(0, 1))
def test_a_worse_vital_sign_never_lowers_news2(name: str, near: float, far: float) -> None:
    start, end, _ = WORSE[name]
    near, far = sorted((near, far))
    better = score("news2", **(NORMAL | {name: start + (end - start) * near}))
    worse = score("news2", **(NORMAL | {name: start + (end - start) * far}))
    assert worse.value >= better.value
