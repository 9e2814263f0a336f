"""Laboratory values and vital signs as HPO terms: how much evidence a lifelong phenotype needs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phenotype_charts import patient, profile_of, reader, value

from fhir_adapters.chart import Measurement
from fhir_adapters.phenotype_limits import Limits
from fhir_adapters.phenotype_measured import judge

THROMBOCYTOPENIA, THROMBOCYTOSIS, CK, ANEMIA = "HP:0001873", "HP:0001894", "HP:0003236", "HP:0001903"
PLATELETS = "777-3"
BABY = patient("2026-10-20")


def test_one_mildly_abnormal_value_is_not_a_phenotype() -> None:
    profile = profile_of(value(PLATELETS, 130, "10*9/L", name="low"))
    assert profile.present == ()
    assert [(i.code, i.detail, i.sources) for i in profile.issues] == [
        ("unconfirmed", THROMBOCYTOPENIA, ("Observation/low",))
    ]


def test_a_value_clearly_beyond_the_limit_is_one() -> None:
    (term,) = profile_of(value("2157-6", 8000, "U/L", name="ck")).present
    assert (term.hpo, term.sources, term.derivation) == (CK, ("Observation/ck",), "measurement")
    assert term.basis == "LOINC 2157-6"


def test_mildly_abnormal_values_that_persist_are_one() -> None:
    low = [value(PLATELETS, 130, "10*9/L", days=days, name=f"p{days}") for days in (2, 40)]
    (term,) = profile_of(*low).present
    assert (term.hpo, term.sources) == (THROMBOCYTOPENIA, ("Observation/p2", "Observation/p40"))
    assert not term.resolved


def test_values_of_the_same_days_do_not_persist() -> None:
    low = [value(PLATELETS, 130, "10*9/L", days=days) for days in (2, 4, 6)]
    assert profile_of(*low).present == ()


def test_two_slips_among_many_normal_values_are_not_a_phenotype() -> None:
    series = [value(PLATELETS, 140, "10*9/L", days=days) for days in (10, 400)]
    series += [value(PLATELETS, 250, "10*9/L", days=days) for days in (50, 100, 150, 200)]
    assert profile_of(*series).present == ()


def test_what_was_clear_once_and_is_normal_now_is_resolved() -> None:
    (term,) = profile_of(
        value(PLATELETS, 20, "10*9/L", days=800), value(PLATELETS, 240, "10*9/L", days=1)
    ).present
    assert term.resolved
    assert term.onset_age_days is not None


def test_an_acute_lactate_is_no_phenotype_however_high() -> None:
    assert profile_of(value("2524-7", 12, "mmol/L")).present == ()


def test_repeatedly_normal_values_exclude_where_that_is_sound() -> None:
    normal = [value(PLATELETS, 250, "10*9/L", days=days) for days in (1, 60)]
    assert profile_of(*normal).excluded_ids == (THROMBOCYTOPENIA, THROMBOCYTOSIS)
    assert profile_of(normal[0]).excluded == ()
    glucose = [value("2345-7", 90, "mg/dL", days=days) for days in (1, 60)]
    assert profile_of(*glucose).excluded == ()


def test_the_range_sent_with_the_value_comes_before_the_table() -> None:
    own = {"referenceRange": [{"low": {"value": 100}, "high": {"value": 300}}]}
    low = [value(PLATELETS, 130, "10*9/L", days=days, **own) for days in (1, 60)]
    assert THROMBOCYTOPENIA in profile_of(*low).excluded_ids
    high = [value(PLATELETS, 350, "10*9/L", days=days, **own) for days in (1, 60)]
    assert profile_of(*high).observed_ids == (THROMBOCYTOSIS,)


def test_the_interpretation_sent_comes_first() -> None:
    said_normal = [value(PLATELETS, 130, "10*9/L", days=d, interpretation="N") for d in (1, 60)]
    assert profile_of(*said_normal).present == ()
    said_low = [value(PLATELETS, 160, "10*9/L", days=d, interpretation="L") for d in (1, 60)]
    assert profile_of(*said_low).observed_ids == (THROMBOCYTOPENIA,)
    assert profile_of(value(PLATELETS, 110, "10*9/L", interpretation="LL")).observed_ids == (
        THROMBOCYTOPENIA,
    )


def test_the_limits_are_those_of_the_age_and_sex() -> None:
    woman, man = patient(gender="female"), patient(gender="male")
    series = [value("718-7", 12.5, "g/dL", days=days) for days in (1, 60)]
    assert profile_of(*series, who=woman).present == ()
    assert profile_of(*series, who=man).observed_ids == (ANEMIA,)
    assert profile_of(*series, who=patient(gender="unknown")).present == ()
    bone = [value("6768-6", 300, "U/L", days=days) for days in (1, 60)]
    assert profile_of(*bone, who=patient("2020-01-01")).present == ()
    assert profile_of(*bone, who=man).observed_ids == ("HP:0003155",)
    assert profile_of(value("718-7", 10, "g/dL"), who=BABY).present == ()


def test_old_values_are_judged_by_the_age_they_were_taken_at() -> None:
    bone = [value("6768-6", 300, "U/L", days=days) for days in (20 * 365, 21 * 365)]
    assert profile_of(*bone, who=patient("2000-01-01")).present == ()


def test_without_an_age_only_the_range_sent_tells() -> None:
    ageless = patient(None)
    assert profile_of(value("718-7", 5, "g/dL"), who=ageless).present == ()
    own = {"referenceRange": [{"low": {"value": 12}}]}
    assert profile_of(value("718-7", 5, "g/dL", **own), who=ageless).observed_ids == (ANEMIA,)


def test_a_comparator_proves_only_its_own_side() -> None:
    assert profile_of(value("2465-3", 100, "mg/dL", comparator="<")).observed_ids == ("HP:0004315",)
    assert profile_of(value("2465-3", 900, "mg/dL", comparator="<")).present == ()
    assert profile_of(value("2157-6", 5000, "U/L", comparator=">")).observed_ids == (CK,)


def test_values_under_a_drug_that_explains_them_are_left_out() -> None:
    warfarin = {
        "resourceType": "MedicationRequest",
        "id": "m",
        "status": "active",
        "subject": {"reference": "Patient/p"},
        "medicationCodeableConcept": {
            "coding": [{"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": "11289"}]
        },
    }
    inr = value("6301-6", 3.0, "{INR}")
    assert profile_of(inr).observed_ids == ("HP:0008151",)
    treated = profile_of(inr, warfarin)
    assert treated.present == ()
    assert [(i.code, i.detail) for i in treated.issues] == [("treated", "LOINC 6301-6")]


def test_values_of_a_pregnancy_are_left_out() -> None:
    pregnant = {
        "resourceType": "Condition",
        "id": "z",
        "subject": {"reference": "Patient/p"},
        "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "Z33.1"}]},
        "recordedDate": "2026-11-01",
        "clinicalStatus": {"coding": [{"code": "active"}]},
    }
    profile = profile_of(value(PLATELETS, 60, "10*9/L"), pregnant, who=patient(gender="female"))
    assert profile.present == ()
    assert "pregnancy" in {issue.code for issue in profile.issues}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_value_at_the_limit_is_normal(data: st.DataObject) -> None:
    tables = reader()._limits
    table = tables[data.draw(st.sampled_from(sorted(tables)))]
    row = data.draw(st.sampled_from(table.rows))
    for limit in (row.low, row.high):
        if limit is not None:
            exact = Measurement(table.loinc, limit, table.unit, None, "Observation/x")
            assert judge(exact, row) == (0, False)


def _limits(low: float, high: float) -> Limits:
    return Limits(None, 0, 10**6, low, high, "HP:1", "HP:2", 0.5, 2.0, 30, True, True, ())


@given(st.floats(1, 100), st.floats(1, 2), st.floats(0, 400))
def test_more_extreme_is_never_judged_milder(low: float, width: float, number: float) -> None:
    row = _limits(low, low * (1 + width))
    side, clear = judge(Measurement("1-8", number, "1", None, "x"), row)
    if side == 1:
        further = judge(Measurement("1-8", number * 1.5, "1", None, "x"), row)
        assert further[0] == 1 and (further[1] or not clear)


CONVERTED = [
    ("718-7", "g/dL", "g/L", 10.0),
    ("2160-0", "mg/dL", "umol/L", 88.42),
    ("2345-7", "mg/dL", "mmol/L", 1 / 18.016),
    ("17861-6", "mg/dL", "mmol/L", 1 / 4.008),
    ("14875-9", "umol/L", "mg/dL", 1 / 60.54),
    ("8302-2", "cm", "m", 0.01),
]


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(CONVERTED), st.floats(0.1, 6))
def test_the_unit_does_not_change_the_result(pair: tuple[str, str, str, float], times: float) -> None:
    loinc, unit, other, factor = pair
    usual = {"718-7": 10, "2160-0": 1.2, "2345-7": 60, "17861-6": 8, "14875-9": 100, "8302-2": 40}[loinc]
    # Two figures away from any limit: the conversion factors here are rounded.
    number = float(f"{usual * times:.2g}") + usual * 0.003
    one = profile_of(*[value(loinc, number, unit, days=d, name=f"n{d}") for d in (1, 100)])
    two = profile_of(*[value(loinc, number * factor, other, days=d, name=f"n{d}") for d in (1, 100)])
    assert one == two


def test_the_table_covers_at_least_120_loinc_codes() -> None:
    assert len(reader()._limits) >= 120


@pytest.mark.parametrize("unit", ["furlong", ""])
def test_a_value_in_an_unknown_unit_says_nothing(unit: str) -> None:
    assert profile_of(value(PLATELETS, 10, unit)).present == ()
