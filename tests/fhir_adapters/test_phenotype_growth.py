"""Growth for age and sex: z-scores of the CDC 2000 charts and the terms that follow."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phenotype_charts import AT, patient, profile_of, value

from fhir_adapters.growth import MONTH_DAYS, GrowthReference

REFERENCE = GrowthReference.load()
SHORT, TALL, MICRO, MACRO, THRIVE = "HP:0004322", "HP:0000098", "HP:0000252", "HP:0000256", "HP:0001508"
BOY_4, GIRL_12 = patient("2022-11-20"), patient("2014-11-20", "female")
INFANT = patient("2026-05-20")
NORMAL_SD = 1.880793608  # the 97th percentile of the normal distribution


@pytest.mark.parametrize(
    ("months", "third", "median", "last"),
    # statage.csv of the CDC, boys: P3, P50 and P97.
    [(24.5, 80.26037074, 86.86160934, 93.45923029), (60.5, 100.331847, 109.1751441, 117.831386)],
)
def test_published_percentiles_are_reproduced(
    months: float, third: float, median: float, last: float
) -> None:
    for height, z in ((third, -NORMAL_SD), (median, 0.0), (last, NORMAL_SD)):
        assert REFERENCE.z("stature", "male", months * MONTH_DAYS, height) == pytest.approx(z, abs=2e-6)


def test_ages_and_measures_outside_the_reference_have_no_score() -> None:
    assert REFERENCE.z("head", "male", 5 * 365.25, 50) is None
    assert REFERENCE.z("bmi", "female", 365, 17) is None
    assert REFERENCE.z("weight", "male", 30 * 365.25, 70) is None
    assert REFERENCE.z("stature", "other", 3650, 140) is None
    assert REFERENCE.z("stature", "male", -1, 50) is None


@given(
    st.sampled_from(["stature", "weight", "bmi", "head"]),
    st.sampled_from(["female", "male"]),
    st.floats(0, 90 * 365),
    st.floats(5, 220),
)
def test_a_larger_child_never_has_a_lower_score(measure: str, sex: str, days: float, size: float) -> None:
    one = REFERENCE.z(measure, sex, days, size)  # type: ignore[arg-type]
    two = REFERENCE.z(measure, sex, days, size * 1.1)  # type: ignore[arg-type]
    assert (one is None) == (two is None)
    if one is not None and two is not None and math.isfinite(two):
        assert one <= two


def test_a_small_child_is_short_and_a_large_one_tall() -> None:
    (short,) = profile_of(value("8302-2", 90, "cm", name="h"), who=BOY_4).present
    assert (short.hpo, short.derivation, short.sources) == (SHORT, "growth", ("Observation/h",))
    assert profile_of(value("8302-2", 115, "cm"), who=BOY_4).observed_ids == (TALL,)
    assert profile_of(value("8302-2", 102, "cm"), who=BOY_4).excluded_ids == (TALL, SHORT)


def test_the_newest_height_decides() -> None:
    heights = [value("8302-2", 102, "cm", days=1), value("8302-2", 80, "cm", days=300)]
    assert profile_of(*heights, who=BOY_4).present == ()


def test_adults_are_compared_with_twenty_years() -> None:
    assert profile_of(value("8302-2", 150, "cm")).observed_ids == (SHORT,)
    assert profile_of(value("8302-2", 152, "cm"), who=patient(gender="female")).present == ()


def test_head_circumference_is_judged_to_three_years() -> None:
    assert profile_of(value("9843-4", 39, "cm"), who=INFANT).observed_ids == (MICRO,)
    assert profile_of(value("9843-4", 48, "cm"), who=INFANT).observed_ids == (MACRO,)
    assert profile_of(value("9843-4", 39, "cm"), who=GIRL_12).present == ()


def test_low_weight_of_an_infant_is_failure_to_thrive() -> None:
    assert profile_of(value("29463-7", 5.0, "kg"), who=INFANT).observed_ids == (THRIVE,)


def test_the_age_of_a_preterm_infant_is_corrected() -> None:
    born = [value("9843-4", 39.3, "cm"), value("76516-4", 28, "wk", days=180)]
    assert MICRO in profile_of(born[0], who=INFANT).observed_ids
    assert profile_of(*born, who=INFANT).present == ()


def test_the_body_mass_index_is_worked_out_when_it_is_not_sent() -> None:
    heavy = [value("8302-2", 150, "cm", name="h"), value("29463-7", 85, "kg", name="w")]
    terms = {term.hpo: term.sources for term in profile_of(*heavy, who=GIRL_12).present}
    assert terms["HP:0001513"] == ("Observation/h", "Observation/w")


def test_what_cannot_be_true_is_set_aside() -> None:
    profile = profile_of(value("8302-2", 60, "cm"), who=GIRL_12)
    assert profile.present == ()
    assert {issue.code for issue in profile.issues} == {"implausible-growth"}


@pytest.mark.parametrize(
    ("who", "code"), [(patient("2020"), "age-unknown"), (patient("2020-01-01", "other"), "sex-unknown")]
)
def test_without_a_birth_date_or_sex_growth_is_not_judged(who: dict[str, object], code: str) -> None:
    profile = profile_of(value("8302-2", 60, "cm"), who=who)
    assert profile.present == ()
    assert {issue.code for issue in profile.issues} == {code}
    assert AT.tzinfo is not None
