"""The feature vector: what a chart says, what follows from it, and what it leaves at exactly nothing."""

import functools
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_adapters.chart import (
    CodedValue,
    Encounter,
    FamilyCondition,
    Finding,
    Measurement,
    Medication,
    PatientChart,
    Problem,
    Subject,
)
from fhir_adapters.chart_builder import ChartBuilder
from fhir_adapters.decode import read_bundle
from fhir_adapters.features import AnalyteFeature, FeatureReader, Features, age_feature, duration_feature
from fhir_adapters.hpo import load_ontology
from models.knowledge.loader import load_knowledge
from training.feature_schema import build_schema

AT = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
ONTOLOGY = load_ontology()
SCHEMA = build_schema(load_knowledge(ONTOLOGY), ONTOLOGY)
READER = FeatureReader(SCHEMA, ONTOLOGY)
PLACE = {name: number for number, name in enumerate(SCHEMA.names())}
ANALYTES = {analyte.key: analyte for analyte in SCHEMA.analytes}
COUGH, BARKING, PRODUCTIVE = "HP:0012735", "HP:0033121", "HP:0031245"
PAIN, HEADACHE, THUNDERCLAP = "HP:0012531", "HP:0002315", "HP:0030907"
REDUCED, CONFUSION, COMA = "HP:0004372", "HP:0001289", "HP:0001259"
ADULT = 40 * 365


def said(hpo: str, state: str = "present", role: str = "encounter", **changes: Any) -> Finding:
    return Finding(hpo, hpo, state, role, (f"Condition/{hpo[3:]}",), **changes)  # type: ignore[arg-type]


def measured(key: str, number: float, hours_ago: float | None = 0.0) -> Measurement:
    time = None if hours_ago is None else AT - timedelta(hours=hours_ago)
    return Measurement(ANALYTES[key].loinc, number, "1", time, f"Observation/{key}-{hours_ago}")


def problem(code: str, status: str = "active", role: str = "problem-list", **changes: Any) -> Problem:
    return Problem(code, code, status, role, (f"Condition/{code}",), **changes)  # type: ignore[arg-type]


def chart(*items: Any, subject: Subject | None = None, **changes: Any) -> PatientChart:
    """A chart of an emergency visit that holds the items; series keep the order given, newest first."""
    series: dict[str, tuple[Measurement, ...]] = {}
    coded: dict[str, tuple[CodedValue, ...]] = {}
    for item in items:
        if isinstance(item, Measurement):
            series[item.loinc] = (*series.get(item.loinc, ()), item)
        elif isinstance(item, CodedValue):
            coded[item.loinc] = (*coded.get(item.loinc, ()), item)
    values: dict[str, Any] = {
        "subject": subject or Subject("p", "male", ADULT, "day"),
        "at": AT,
        "encounter": Encounter("Encounter/1", "emergency", AT - timedelta(hours=1)),
        "findings": tuple(item for item in items if isinstance(item, Finding)),
        "problems": tuple(item for item in items if isinstance(item, Problem)),
        "medications": tuple(item for item in items if isinstance(item, Medication)),
        "family_history": tuple(item for item in items if isinstance(item, FamilyCondition)),
        "measurements": series,
        "coded": coded,
        **changes,
    }
    return PatientChart(**values)


def vector(features: Features) -> dict[str, float]:
    names = SCHEMA.names()
    return {names[i]: value for i, value in zip(features.index, features.values, strict=True)}


def read(*items: Any, **changes: Any) -> dict[str, float]:
    return vector(READER.read(chart(*items, **changes)))


# --- findings


def test_what_is_present_makes_everything_it_is_a_kind_of_present() -> None:
    found = read(said(THUNDERCLAP))
    assert found[THUNDERCLAP] == found[HEADACHE] == found[PAIN] == 1.0
    assert COUGH not in found


def test_what_is_denied_denies_every_kind_of_it() -> None:
    found = read(said(COUGH, "absent"))
    assert {found[key] for key in (COUGH, BARKING, PRODUCTIVE)} == {-1.0}


def test_denying_one_kind_says_nothing_of_the_general() -> None:
    found = read(said(BARKING, "absent"))
    assert found[BARKING] == -1.0
    assert COUGH not in found and PRODUCTIVE not in found


def test_denying_a_kind_that_has_no_feature_says_nothing_at_all() -> None:
    spasms = "HP:0033362"
    assert spasms in ONTOLOGY.descendants(COUGH) and spasms not in PLACE
    assert read(said(spasms, "absent")) == read()


def test_presence_of_a_kind_outweighs_the_denial_of_the_general() -> None:
    found = read(said(COUGH, "absent"), said(PRODUCTIVE))
    assert found[COUGH] == found[PRODUCTIVE] == 1.0
    assert BARKING not in found


@pytest.mark.parametrize(
    ("state", "role", "value"),
    [
        ("present", "complaint", 1.5),
        ("present", "encounter", 1.0),
        ("present", "derived", 1.0),
        ("present", "problem-list", 0.5),
        ("uncertain", "encounter", 0.5),
        ("uncertain", "complaint", 0.5),
        ("absent", "complaint", -1.0),
    ],
)
def test_how_it_is_said_decides_how_much_it_counts(state: str, role: str, value: float) -> None:
    assert read(said(COUGH, state, role))[COUGH] == value


def test_the_surest_statement_counts_for_the_general() -> None:
    found = read(said(COUGH, "uncertain"), said(PRODUCTIVE, role="complaint"))
    assert found[COUGH] == found[PRODUCTIVE] == 1.5
    found = read(said(COUGH, role="complaint"), said(PRODUCTIVE, "uncertain"))
    assert (found[COUGH], found[PRODUCTIVE]) == (1.5, 0.5)


def test_a_term_without_a_feature_counts_as_the_nearest_it_is_a_kind_of() -> None:
    cluster_headache = "HP:0012199"
    assert cluster_headache not in PLACE
    found = read(said(cluster_headache))
    assert found[HEADACHE] == found[PAIN] == 1.0
    stated = READER.read(chart(said(cluster_headache))).stated
    named = [SCHEMA.findings[item.finding] for item in stated]
    # The nearest only: nothing stated is a kind of something else that is stated.
    assert not any(PLACE[b] in SCHEMA.above[PLACE[a]] for a in named for b in named)
    assert PAIN not in named


def test_a_code_without_a_feature_counts_as_its_category() -> None:
    assert "ICD:W54.0" not in PLACE and "ICD:W54" in PLACE
    assert read(problem("W54.0", role="encounter"))["ICD:W54"] == 1.0
    assert "ICD:W54" not in read(problem("W54.0", "absent", role="encounter"))


def test_unknown_terms_and_codes_are_no_features() -> None:
    assert read(said("HP:9999999"), problem("Q99.9")) == read()


def test_only_the_most_specific_is_stated() -> None:
    features = READER.read(chart(said(PAIN), said(HEADACHE), said(THUNDERCLAP), said(COUGH, "absent")))
    found = {SCHEMA.findings[item.finding]: item.value for item in features.stated}
    assert found == {THUNDERCLAP: 1.0, COUGH: -1.0}
    item = next(item.item for item in features.stated if item.value > 0)
    assert features.items[item] == said(THUNDERCLAP)


def test_every_feature_names_the_chart_item_it_comes_from() -> None:
    features = READER.read(chart(said(THUNDERCLAP), measured("crp", 80.0)))
    owner = dict(zip((SCHEMA.names()[i] for i in features.index), features.owner, strict=True))
    assert features.items[owner[PAIN]] == said(THUNDERCLAP)
    assert features.items[owner["value:crp"]] == features.items[owner["measured:crp"]]
    assert features.items[owner["age"]] == "age"
    assert owner["emergency"] == -1  # the visit itself is no fact


def test_a_problem_that_is_over_is_a_risk_and_no_finding() -> None:
    over = read(problem("K62.5", "resolved"), problem("F17.210", "resolved"))
    assert "ICD:K62.5" not in over and over["risk:smoking-current"] == 1.0
    assert read(problem("K62.5", role="encounter"))["ICD:K62.5"] == 1.0


# --- coded values, risks


def acvpu(level: str, hours_ago: float = 0.0) -> CodedValue:
    return CodedValue("67775-7", level, AT - timedelta(hours=hours_ago), "Observation/acvpu")


def test_the_consciousness_scale_is_read_as_findings() -> None:
    awake = read(acvpu("alert"))
    assert awake[REDUCED] == -1.0 and awake[COMA] == -1.0
    assert read(acvpu("confusion"))[CONFUSION] == 1.0
    for level in ("voice", "pain"):
        drowsy = read(acvpu(level))
        assert drowsy[REDUCED] == 1.0 and COMA not in drowsy
    gone = read(acvpu("unresponsive"))
    assert gone[COMA] == gone[REDUCED] == 1.0


def test_only_the_newest_coded_value_counts() -> None:
    assert read(acvpu("alert"), acvpu("unresponsive", 2))[REDUCED] == -1.0


@pytest.mark.parametrize(("hours", "counts"), [(23, True), (25, False), (24 * 365, False)])
def test_consciousness_of_long_ago_is_not_that_of_now(hours: float, counts: bool) -> None:
    assert (REDUCED in read(acvpu("voice", hours))) == counts


@pytest.mark.parametrize(("hours", "counts"), [(71, True), (73, False), (24 * 700, False)])
def test_a_test_of_long_ago_says_nothing_of_now(hours: float, counts: bool) -> None:
    code = SCHEMA.results[0]
    found = read(CodedValue(code, "positive", AT - timedelta(hours=hours), "Observation/1"))
    assert (f"result:{code}" in found) == counts


def test_coded_tests_are_positive_negative_or_not_done() -> None:
    code = SCHEMA.results[0]

    def answered(value: str) -> dict[str, float]:
        return read(CodedValue(code, value, AT, "Observation/1"))

    name = f"result:{code}"
    assert (answered("positive")[name], answered("negative")[name], answered("trace")[name]) == (1, -1, 0.5)
    assert name not in answered("borderline") and name not in read()


@pytest.mark.parametrize(
    ("item", "risk"),
    [
        (problem("F17.210"), "smoking-current"),
        (CodedValue("72166-2", "current", AT, "Observation/2"), "smoking-current"),
        (CodedValue("72166-2", "former", AT - timedelta(days=400), "Observation/2"), "smoking-former"),
        (problem("Z82.49", "active"), "family-early-cad"),
        (
            FamilyCondition("FTH", "infarction", ("FamilyMemberHistory/1",), icd10cm="I21.9"),
            "family-early-cad",
        ),
        (said("HP:0001513"), "obesity"),
    ],
)
def test_every_spelling_of_a_risk_counts(item: Any, risk: str) -> None:
    assert read(item)[f"risk:{risk}"] == 1.0
    assert f"risk:{risk}" not in read()


def test_active_drugs_are_evidence_of_a_risk_and_stopped_ones_are_not() -> None:
    name, spellings = next(
        (name, spellings) for name, spellings in SCHEMA.risks if any(s.startswith("atc:") for s in spellings)
    )
    atc = next(s for s in spellings if s.startswith("atc:"))[4:]
    taken = Medication("drug", True, ("MedicationStatement/1",), atc=((atc + "AA01")[:7],))
    assert read(taken)[f"risk:{name}"] == 1.0
    assert f"risk:{name}" not in read(msgspec.structs.replace(taken, active=False))


def test_risks_are_denied_doubted_and_affirmed_the_surest_last() -> None:
    name = "risk:smoking-current"
    assert read(problem("F17.210", "absent"))[name] == -1.0
    assert read(problem("F17.210", "uncertain"))[name] == 0.5
    assert read(problem("F17.210", "absent"), problem("F17.200"))[name] == 1.0


# --- measurements


def test_vital_signs_are_distances_from_the_normal_of_the_age() -> None:
    baby = Subject("p", "female", 100, "day")
    # Fleming 2011: 140/min (SD 16) from three to six months; the adult woman 82/min (SD 14).
    assert read(measured("heart-rate", 156), subject=baby)["value:heart-rate"] == pytest.approx(1.0)
    woman = Subject("p", "female", ADULT, "day")
    assert read(measured("heart-rate", 156), subject=woman)["value:heart-rate"] == pytest.approx(74 / 14)


def test_the_normal_of_adults_depends_on_sex_and_is_assumed_where_the_age_is_unknown() -> None:
    for sex, normal in (("female", 13.4), ("male", 15.0), ("unknown", 15.0)):
        subject = Subject("p", sex, None)  # type: ignore[arg-type]
        found = read(measured("haemoglobin", 12.8), subject=subject)["value:haemoglobin"]
        assert found == pytest.approx((12.8 - normal) / 1.1)


def test_skewed_values_are_distances_of_logarithms() -> None:
    assert read(measured("crp", 2.0 * 2.4**3))["value:crp"] == pytest.approx(3.0)


@given(
    st.sampled_from(SCHEMA.analytes),
    st.floats(0, 1e6),
    st.floats(0, 110),
    st.sampled_from(["female", "male"]),
)
def test_a_distance_is_limited_and_never_nothing(
    analyte: AnalyteFeature, number: float, years: float, sex: str
) -> None:
    found = analyte.distance(number, years, sex)
    assert 0 < abs(found) <= 12
    normal, _ = analyte.normal(years, sex)
    # Exactly normal is not the same as not measured.
    assert 0 < abs(analyte.distance(normal, years, sex)) < 0.001


@pytest.mark.parametrize(
    ("key", "hours", "counts"),
    [
        ("temperature", 23.9, True),
        ("temperature", 24.1, False),
        ("crp", 71.9, True),
        ("crp", 72.1, False),
        ("weight", 24 * 300, True),
        ("temperature", None, True),
    ],
)
def test_a_value_speaks_of_now_for_a_while_only(key: str, hours: float | None, counts: bool) -> None:
    found = read(measured(key, 39.0, hours))
    assert (f"value:{key}" in found) == (f"measured:{key}" in found) == counts


def test_the_window_reaches_back_to_the_start_of_the_encounter() -> None:
    stay = Encounter("Encounter/1", "inpatient", AT - timedelta(hours=60))
    assert "value:temperature" in read(measured("temperature", 39.0, 48), encounter=stay)
    assert "value:temperature" not in read(measured("temperature", 39.0, 61), encounter=stay)


def test_of_a_long_stay_only_the_last_week_is_now() -> None:
    stay = Encounter("Encounter/1", "inpatient", AT - timedelta(days=30))
    assert "value:crp" in read(measured("crp", 90.0, 24 * 6.9), encounter=stay)
    assert "value:crp" not in read(measured("crp", 90.0, 24 * 7.1), encounter=stay)


def test_trends_compare_with_the_last_day_and_with_the_week_before() -> None:
    series = [
        measured("creatinine", value, hours) for value, hours in ((3.0, 0), (2.0, 12), (1.5, 60), (1.0, 160))
    ]
    found = read(*series)
    z = functools.partial(ANALYTES["creatinine"].distance, years=ADULT / 365.25, sex="male")
    assert found["trend-24h:creatinine"] == pytest.approx(z(3.0) - z(2.0))
    assert found["trend-7d:creatinine"] == pytest.approx(z(3.0) - z(1.5))
    assert not any(name.startswith("trend") for name in read(series[0]))


def test_a_value_of_the_last_hours_is_no_trend_and_a_steady_one_is() -> None:
    assert "trend-24h:crp" not in read(measured("crp", 90), measured("crp", 10, 3))
    steady = read(measured("crp", 90), measured("crp", 90, 10))["trend-24h:crp"]
    assert 0 < abs(steady) < 0.001
    old = read(measured("crp", 90), measured("crp", 10, 24 * 8))
    assert not any(name.startswith("trend") for name in old)


# --- the person and the visit


def test_the_person_and_the_visit_are_features() -> None:
    woman = Subject("p", "female", 30 * 365, "day", pregnant=True)
    complaint = said(COUGH, role="complaint", onset_age_days=30 * 365 - 10)
    found = read(complaint, subject=woman)
    assert found["age"] == pytest.approx(age_feature(30 * 365 / 365.25))
    assert (found["sex"], found["pregnancy"], found["emergency"]) == (1.0, 1.0, 1.0)
    assert found["risk:pregnancy"] == 1.0
    assert found["complaint"] == 1.0
    assert found["duration"] == pytest.approx(1.0)  # ten days
    assert found["age-band:6"] == 1.0 and sum(name.startswith("age-band") for name in found) == 1


def test_an_unknown_person_at_an_unknown_place_has_no_features() -> None:
    nobody = Subject("p", "unknown", None)
    assert read(subject=nobody, encounter=None) == {}
    assert read(subject=nobody)["emergency"] == 1.0
    clinic = Encounter("Encounter/1", "ambulatory", AT)
    assert read(subject=nobody, encounter=clinic) == {"emergency": -1.0}


@pytest.mark.parametrize("days", [0, 1, 2, 30, 100_000])
def test_a_duration_is_never_nothing(days: int) -> None:
    assert duration_feature(days) != 0


# --- whole charts

LEVELS = ("alert", "confusion", "voice", "pain", "unresponsive")
ITEMS = st.one_of(
    st.builds(
        said,
        st.sampled_from([key for key in SCHEMA.findings if key.startswith("HP:")]),
        st.sampled_from(["present", "absent", "uncertain"]),
        st.sampled_from(["complaint", "encounter", "problem-list"]),
    ),
    st.builds(
        measured, st.sampled_from(sorted(ANALYTES)), st.floats(0.01, 500), st.sampled_from([0, 5, 30, 100])
    ),
    st.builds(acvpu, st.sampled_from(LEVELS)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ITEMS, max_size=12))
def test_reading_is_deterministic_closed_upwards_and_without_zeros(items: list[Any]) -> None:
    patient = chart(*items)
    features = READER.read(patient)
    assert features == FeatureReader(SCHEMA, ONTOLOGY).read(patient)
    assert all(features.values) and list(features.index) == sorted(set(features.index))
    value = dict(zip(features.index, features.values, strict=True))
    for number, above in enumerate(SCHEMA.above):
        for higher in above:
            if value.get(number, 0) > 0:
                assert value[higher] >= value[number]
            if value.get(higher, 0) < 0:
                assert value[number] < 0


@functools.cache
def builder() -> ChartBuilder:
    return ChartBuilder.load()


def coding(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}


def resources() -> list[dict[str, Any]]:
    """A record of one visit as FHIR resources: complaints, denials, values old and new, history."""
    hpo, icd, loinc = (
        "http://human-phenotype-ontology.org",
        "http://hl7.org/fhir/sid/icd-10-cm",
        "http://loinc.org",
    )
    status = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
    found: list[dict[str, Any]] = []
    for system, code, verified in (
        (hpo, THUNDERCLAP, "confirmed"),
        (hpo, HEADACHE, "confirmed"),
        (hpo, COUGH, "refuted"),
        (hpo, BARKING, "unconfirmed"),
        (icd, "F17.210", "confirmed"),
        (icd, "R10.31", "confirmed"),
    ):
        found.append(
            {
                "resourceType": "Condition",
                "code": coding(system, code),
                "verificationStatus": coding(status, verified),
            }
        )
    for code, value, unit, hours in (
        ("8310-5", 39.2, "Cel", 0),
        ("8310-5", 37.0, "Cel", 12),
        ("8867-4", 128, "/min", 1),
        ("1988-5", 120, "mg/L", 2),
        ("1988-5", 60, "mg/L", 50),
    ):
        quantity = {"value": value, "unit": unit, "code": unit, "system": "http://unitsofmeasure.org"}
        at = (AT - timedelta(hours=hours)).isoformat()
        found.append(
            {
                "resourceType": "Observation",
                "status": "final",
                "code": coding(loinc, code),
                "effectiveDateTime": at,
                "valueQuantity": quantity,
            }
        )
    found.append(
        {"resourceType": "MedicationStatement", "status": "active"}
        | {"medicationCodeableConcept": coding("http://www.whocc.no/atc", "B01AA03")}
    )
    for number, resource in enumerate(found):
        resource |= {"id": f"r{number}", "subject": {"reference": "Patient/p"}}
    encounter = {
        "resourceType": "Encounter",
        "id": "e",
        "status": "in-progress",
        "class": {"code": "EMER"},
        "period": {"start": (AT - timedelta(hours=1)).isoformat()},
        "subject": {"reference": "Patient/p"},
        "reasonCode": [coding(hpo, HEADACHE), coding(hpo, "HP:0002013")],
    }
    patient = {"resourceType": "Patient", "id": "p", "birthDate": "1980-02-03", "gender": "female"}
    return [patient, encounter, *found]


def read_bundle_of(found: list[dict[str, Any]]) -> Features:
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": item} for item in found]}
    return READER.read(builder().build(read_bundle(msgspec.json.encode(bundle)), at=AT, patient_id="p"))


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_resources_does_not_matter(shuffler: random.Random) -> None:
    usual = read_bundle_of(resources())
    shuffled = resources()
    shuffler.shuffle(shuffled)
    other = read_bundle_of(shuffled)
    assert (other.index, other.values) == (usual.index, usual.values)
    assert [(s.finding, s.value) for s in other.stated] == [(s.finding, s.value) for s in usual.stated]


def test_a_bundle_is_read_as_a_doctor_would() -> None:
    found = vector(read_bundle_of(resources()))
    assert found[THUNDERCLAP] == 1.0 and found[HEADACHE] == 1.5 and found["HP:0002013"] == 1.5
    assert found["ICD:R10.31"] == found["HP:0002027"] == 1.0
    assert found["risk:smoking-current"] == 1.0
    assert found["value:temperature"] > 4 and found["trend-24h:temperature"] > 4
    assert found["trend-7d:crp"] > 0
