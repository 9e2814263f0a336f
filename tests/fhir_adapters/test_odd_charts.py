"""Charts as real systems send them, each of which was once read wrongly or lost without a word."""

import json
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest

from fhir_adapters.chart import PatientChart
from fhir_adapters.chart_builder import ChartBuilder
from fhir_adapters.decode import read_bundle

AT = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
LOINC, SNOMED, ICD = "http://loinc.org", "http://snomed.info/sct", "http://hl7.org/fhir/sid/icd-10-cm"
PATIENT = {"resourceType": "Patient", "id": "p", "gender": "female", "birthDate": "1980-11-20"}
PRESSURES = [
    {
        "code": {"coding": [{"system": LOINC, "code": code}]},
        "valueQuantity": {"value": value, "unit": "mmHg", "code": "mm[Hg]"},
    }
    for code, value in (("8480-6", 85), ("8462-4", 50))
]


@cache
def _builder() -> ChartBuilder:
    return ChartBuilder.load()


def read(*resources: dict[str, Any], patient: dict[str, Any] = PATIENT, full_url: str = "") -> PatientChart:
    entries: list[dict[str, Any]] = [
        {"resource": patient} | ({"fullUrl": full_url} if full_url else {}),
        *({"resource": {"id": f"r{n}", **resource}} for n, resource in enumerate(resources)),
    ]
    body = json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}).encode()
    return _builder().build(read_bundle(body), at=AT, patient_id=None)


def coded(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}


def condition(code: str, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Condition",
        "code": coded(ICD, code),
        "subject": {"reference": "Patient/p"},
    } | more


def observation(code: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": code,
        "subject": {"reference": "Patient/p"},
        "effectiveDateTime": "2026-11-20T09:00:00Z",
    } | more


def written(loinc: str, text: str) -> PatientChart:
    return read(observation(coded(LOINC, loinc), valueString=text))


@pytest.mark.parametrize("code", [{"text": "Vitals"}, coded("urn:site", "5"), None])
def test_parts_of_a_panel_count_whatever_the_panel_is_called(code: dict[str, Any] | None) -> None:
    panel = observation(code or {}, component=PRESSURES)
    if code is None:
        del panel["code"]
    systolic = read(panel).latest("8480-6")
    assert systolic is not None and systolic.value == 85


def test_a_condition_that_ended_is_resolved_where_no_status_says_it() -> None:
    for ended in (
        {"abatementDateTime": "2026-01-01"},
        {"abatementPeriod": {"end": "2026-01-01"}},
        {"abatementAge": {"value": 40, "code": "a"}},
    ):
        chart = read(condition("J18.9", **ended))
        assert [p.status for p in chart.problems] == ["resolved"]
        assert not chart.findings
    status = {"clinicalStatus": {"coding": [{"code": "active"}]}}
    for going_on in (
        {"abatementDateTime": "2027-01-01"},
        {"abatementDateTime": "2026-01-01", **status},
        {"abatementPeriod": {"start": "2026-01-01"}},
    ):
        assert [p.status for p in read(condition("J18.9", **going_on)).problems] == ["active"]


def test_a_result_written_as_text_is_read_with_its_unit_and_comparator() -> None:
    troponin = written("10839-9", "<0.01 ng/mL").latest("10839-9")
    assert troponin is not None and (troponin.value, troponin.comparator) == (0.01, "<")
    potassium = written("2823-3", "6,9 mmol/L").latest("2823-3")
    assert potassium is not None and potassium.value == 6.9
    for text in ("7.1", "about 7 mmol/L", "1,234 mmol/L", "-5 mmol/L", "hemolyzed", "6.9-7.1 mmol/L"):
        chart = written("2823-3", text)
        assert chart.latest("2823-3") is None and len(chart.issues) == 1


def test_a_result_of_the_future_is_set_aside_and_said() -> None:
    rate = coded(LOINC, "8867-4")
    value = {"valueQuantity": {"value": 180, "code": "/min"}}
    chart = read(
        observation(rate, **value, effectiveDateTime="2036-11-20T09:00:00Z"),
        observation(rate, valueQuantity={"value": 80, "code": "/min"}),
    )
    assert [m.value for m in chart.measurements["8867-4"]] == [80]
    assert [(i.code, i.reference) for i in chart.issues] == [("invalid-date", "Observation/r0")]


def test_a_symptom_answered_in_words_keeps_its_answer() -> None:
    fever = coded(SNOMED, "386661006")
    assert [f.state for f in read(observation(fever, valueString="no")).findings] == ["absent"]
    assert [f.state for f in read(observation(fever, valueString="Yes")).findings] == ["present"]
    unknown = read(observation(fever, valueCodeableConcept=coded("urn:site", "7")))
    assert not unknown.findings and [u.code for u in unknown.unmapped] == ["7"]
    number = read(observation(fever, valueQuantity={"value": 3, "unit": "d"}))
    assert not number.findings and [i.code for i in number.issues] == ["missing-value"]


def test_a_conclusion_in_words_is_read() -> None:
    report = {
        "resourceType": "DiagnosticReport",
        "status": "final",
        "conclusionCode": [{"text": "Pneumothorax"}, {"text": "xyzzy"}],
    }
    chart = read(report)
    assert "J93.9" in {p.icd10cm for p in chart.problems}
    assert len(chart.unmapped) == 1


@pytest.mark.parametrize("text", ["No known allergies", "NKDA.", "Sin alergias conocidas"])
def test_no_known_allergies_is_no_allergy(text: str) -> None:
    chart = read({"resourceType": "AllergyIntolerance", "code": {"text": text}})
    assert [a.absent for a in chart.allergies] == [True]


def test_an_allergy_refuted_in_words_is_absent_and_an_unknown_one_is_counted() -> None:
    refuted = {
        "resourceType": "AllergyIntolerance",
        "code": {"text": "penicillin"},
        "verificationStatus": {"text": "Refuted"},
    }
    chart = read(refuted, {"resourceType": "AllergyIntolerance", "code": {"text": "xyzzy"}})
    assert [a.absent for a in chart.allergies] == [True, False]
    assert [u.reference for u in chart.unmapped] == ["AllergyIntolerance/r1"]


def test_a_relatives_disease_is_read_from_the_display_of_an_unknown_code() -> None:
    code = {"coding": [{"system": "urn:site", "code": "1", "display": "breast cancer"}]}
    chart = read({"resourceType": "FamilyMemberHistory", "condition": [{"code": code}]})
    assert [c.icd10cm for c in chart.family_history] == ["C50.919"]


def test_a_pregnancy_ends_with_the_delivery_or_a_newer_denial() -> None:
    pregnant = condition("Z33.1", recordedDate="2026-05-20")
    assert read(pregnant).subject.pregnant is True
    for day in ("2026-08-20", "2026-10-25"):
        assert read(pregnant, condition("O80", recordedDate=day)).subject.pregnant is None
    denied = observation(coded(LOINC, "82810-3"), valueCodeableConcept=coded(SNOMED, "60001007"))
    assert read(pregnant, denied).subject.pregnant is False
    older = denied | {"effectiveDateTime": "2026-03-01"}
    assert read(pregnant, older).subject.pregnant is True
    again = condition("Z33.1", recordedDate="2026-11-01")
    assert read(condition("O80", recordedDate="2026-03-01"), again).subject.pregnant is True


def test_a_gestational_age_does_not_make_a_newborn_or_a_man_pregnant() -> None:
    weeks = observation(coded(LOINC, "18185-9"), valueQuantity={"value": 38, "unit": "wk", "code": "wk"})
    assert read(weeks).subject.pregnant is True
    for patient in (PATIENT | {"birthDate": "2026-11-15"}, PATIENT | {"gender": "male"}):
        subject = read(weeks, patient=patient).subject
        assert subject.pregnant is None and subject.gestation_weeks is None


@pytest.mark.parametrize("born", ["1980-13-40", "2036-01-01"])
def test_a_birth_date_that_cannot_be_is_said(born: str) -> None:
    chart = read(patient=PATIENT | {"birthDate": born})
    assert chart.subject.age_days is None
    assert [(i.code, i.path) for i in chart.issues] == [("invalid-date", "birthDate")]


def test_a_patient_without_id_is_known_by_the_end_of_its_full_url() -> None:
    nameless = {"resourceType": "Patient", "gender": "female"}
    chart = read(condition("J18.9"), patient=nameless, full_url="https://ehr.example/fhir/Patient/p")
    assert [p.icd10cm for p in chart.problems] == ["J18.9"]
    other = read(condition("J18.9"), patient=nameless, full_url="https://ehr.example/fhir/Patient/q")
    assert [i.code for i in other.issues] == ["other-patient"]


@pytest.mark.parametrize(
    "text", ["ha comido", "HA COMIDO", "Ha visto", "no ha dormido", "ha ya comido", "el paciente ha"]
)
def test_the_spanish_verb_is_no_headache(text: str) -> None:
    assert not [m for m in _builder().tables.matcher.match(text) if m.hpo == "HP:0002315"]


@pytest.mark.parametrize(
    "text", ["HA", "ha", "H/A x3d", "h/a", "HA, N/V", "ha since yesterday", "fever and ha"]
)
def test_the_english_abbreviation_is_a_headache(text: str) -> None:
    assert [m.state for m in _builder().tables.matcher.match(text) if m.hpo == "HP:0002315"] == ["present"]
