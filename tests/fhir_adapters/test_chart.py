"""The chart rules of ARCHITECTURE.md, with the real terminology: what counts, what is set aside."""

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_adapters.chart import PatientChart
from fhir_adapters.chart_builder import ChartBuilder, PatientMissing, SeveralPatients, moment_of
from fhir_adapters.decode import read_bundle

AT = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
LOINC, SNOMED = "http://loinc.org", "http://snomed.info/sct"
ICD, HPO = "http://hl7.org/fhir/sid/icd-10-cm", "http://human-phenotype-ontology.org"
STATUS = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
CATEGORY = "http://terminology.hl7.org/CodeSystem/condition-category"
UCUM = "http://unitsofmeasure.org"

PATIENT = {"resourceType": "Patient", "id": "p", "gender": "female", "birthDate": "1980-11-20"}
ME = {"reference": "Patient/p"}


@cache
def _load() -> ChartBuilder:
    return ChartBuilder.load()


@pytest.fixture(scope="module")
def builder() -> ChartBuilder:
    return _load()


def concept(*codings: tuple[str, str], text: str | None = None) -> dict[str, Any]:
    built: dict[str, Any] = {"coding": [{"system": s, "code": c} for s, c in codings]} if codings else {}
    return built | ({"text": text} if text else {})


def observation(
    loinc: str, value: float, unit: str, *, hours: float = 1, number: str = "o", **more: Any
) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": number,
        "status": "final",
        "code": concept((LOINC, loinc)),
        "subject": ME,
        "effectiveDateTime": (AT - timedelta(hours=hours)).isoformat(),
        "valueQuantity": {"value": value, "unit": unit, "system": UCUM, "code": unit},
        **more,
    }


def condition(
    code: dict[str, Any], *, verification: str = "confirmed", number: str = "c", **more: Any
) -> dict[str, Any]:
    return {
        "resourceType": "Condition",
        "id": number,
        "verificationStatus": concept((STATUS, verification)),
        "code": code,
        "subject": ME,
        **more,
    }


def chart(builder: ChartBuilder, *resources: Any, patient: Any = PATIENT, **options: Any) -> PatientChart:
    entries = [{"resource": r} for r in ([patient] if patient else []) + list(resources)]
    found = read_bundle(json.dumps({"resourceType": "Bundle", "entry": entries}).encode())
    return builder.build(found, **{"at": AT, "patient_id": None, **options})


def states(built: PatientChart) -> dict[str, str]:
    return {f.hpo: f.state for f in built.findings}


FEVER = concept((SNOMED, "386661006"), text="Fever")


def test_a_value_keeps_its_source_and_canonical_unit(builder: ChartBuilder) -> None:
    built = chart(builder, observation("8310-5", 101.3, "[degF]"))
    newest = built.latest("8310-5")
    assert newest is not None
    assert (newest.value, newest.unit, newest.source) == (38.5, "Cel", "Observation/o")
    assert newest.time == AT - timedelta(hours=1)


def test_synonym_codes_fold_into_one_analyte_newest_first(builder: ChartBuilder) -> None:
    mass = observation("2345-7", 180, "mg/dL", hours=5, number="a")
    molar = observation("14749-6", 5.5, "mmol/L", hours=2, number="b")
    built = chart(builder, mass, molar)
    glucose = next(series for series in built.measurements.values() if len(series) == 2)
    assert [m.source for m in glucose] == ["Observation/b", "Observation/a"]
    assert glucose[0].value == pytest.approx(99.1, abs=0.3)


def test_panel_components_are_measurements(builder: ChartBuilder) -> None:
    panel = {
        "resourceType": "Observation",
        "id": "bp",
        "status": "final",
        "code": concept((LOINC, "85354-9")),
        "component": [
            {
                "code": concept((LOINC, "8480-6")),
                "valueQuantity": {"value": 17.0, "unit": "kPa", "code": "kPa"},
            },
            {"code": concept((LOINC, "8462-4")), "valueQuantity": {"value": 80, "unit": "mmHg"}},
        ],
    }
    built = chart(builder, panel)
    assert built.latest("8480-6").value == pytest.approx(127.5, abs=0.1)  # type: ignore[union-attr]
    assert built.latest("8462-4").value == 80  # type: ignore[union-attr]


def test_an_impossible_value_is_set_aside_and_the_older_one_stands(builder: ChartBuilder) -> None:
    built = chart(
        builder, observation("8310-5", 370, "Cel", number="typo"), observation("8310-5", 37.2, "Cel", hours=3)
    )
    assert [(i.code, i.reference) for i in built.issues] == [("impossible-value", "Observation/typo")]
    assert "370" not in str(built.issues)
    assert built.latest("8310-5").value == 37.2  # type: ignore[union-attr]


def test_an_unknown_unit_is_an_issue_never_a_guess(builder: ChartBuilder) -> None:
    built = chart(
        builder, observation("2524-7", 3.1, "furlong"), observation("2823-3", 4.1, "mmol/L", number="k")
    )
    assert [(i.code, i.reference) for i in built.issues] == [("unknown-unit", "Observation/o")]
    assert built.latest("2524-7") is None and built.latest("2823-3") is not None


@pytest.mark.parametrize("status", ["entered-in-error", "cancelled", "registered"])
def test_results_that_do_not_stand_never_count(builder: ChartBuilder, status: str) -> None:
    built = chart(builder, observation("8867-4", 190, "/min", status=status))
    assert not built.measurements


def test_the_same_value_twice_is_one_with_both_sources(builder: ChartBuilder) -> None:
    first, second = (
        observation("8867-4", 88, "/min", number="a"),
        observation("8867-4", 88, "/min", number="b"),
    )
    series = chart(builder, first, second).measurements["8867-4"]
    assert len(series) == 1
    assert {series[0].source, *series[0].also} == {"Observation/a", "Observation/b"}


def test_comparator_interpretation_and_range_travel_with_the_value(builder: ChartBuilder) -> None:
    sent = observation("2823-3", 6.1, "mmol/L")
    sent["valueQuantity"]["comparator"] = ">"
    sent["interpretation"] = [concept(("http://x", "HH"))]
    sent["referenceRange"] = [
        {"low": {"value": 3.5, "unit": "mmol/L"}, "high": {"value": 5.1, "unit": "mmol/L"}}
    ]
    newest = chart(builder, sent).latest("2823-3")
    assert newest is not None
    assert (newest.comparator, newest.interpretation, newest.low, newest.high) == (">", "HH", 3.5, 5.1)


def test_consciousness_is_read_as_a_coded_value(builder: ChartBuilder) -> None:
    sent = observation("80288-4", 0, "x")
    del sent["valueQuantity"]
    sent["valueCodeableConcept"] = concept((SNOMED, "300202002"))
    built = chart(builder, sent)
    assert [series[0].value for series in built.coded.values()] == ["voice"]


def test_a_refuted_condition_is_absence_an_error_is_nothing(builder: ChartBuilder) -> None:
    cough = concept((HPO, "HP:0012735"))
    built = chart(
        builder,
        condition(FEVER, verification="refuted", number="a"),
        condition(cough, verification="entered-in-error", number="b"),
    )
    assert states(built) == {"HP:0001945": "absent"}


@pytest.mark.parametrize("status", ["inactive", "resolved", "remission"])
def test_history_is_never_a_present_finding(builder: ChartBuilder, status: str) -> None:
    asthma = concept((SNOMED, "195967001"), (ICD, "J45.909"))
    built = chart(builder, condition(asthma, clinicalStatus=concept((CLINICAL, status))))
    assert not built.findings
    assert [(p.icd10cm, p.status) for p in built.problems] == [
        ("J45.909", "resolved" if status == "resolved" else "inactive")
    ]


def test_an_explicit_coding_beats_the_mapping_of_another(builder: ChartBuilder) -> None:
    both = concept((SNOMED, "386661006"), (HPO, "HP:0001955"), (ICD, "R50.81"))
    built = chart(builder, condition(both))
    assert states(built) == {"HP:0001955": "present"}
    assert [p.icd10cm for p in built.problems] == ["R50.81"]


def test_the_newer_denial_overrules_an_older_finding_and_not_the_reverse(builder: ChartBuilder) -> None:
    older, newer = (AT - timedelta(days=3)).isoformat(), (AT - timedelta(hours=1)).isoformat()
    present = condition(FEVER, number="a", recordedDate=older)
    absent = condition(FEVER, number="b", verification="refuted", recordedDate=newer)
    assert states(chart(builder, present, absent)) == {"HP:0001945": "absent"}
    present["recordedDate"], absent["recordedDate"] = newer, older
    assert states(chart(builder, present, absent)) == {"HP:0001945": "present"}
    del present["recordedDate"]
    assert states(chart(builder, present, absent)) == {"HP:0001945": "present"}


def test_duplicates_merge_keeping_every_source(builder: ChartBuilder) -> None:
    encounter = {
        "resourceType": "Encounter",
        "id": "e",
        "status": "in-progress",
        "class": {"code": "EMER"},
        "period": {"start": AT.isoformat()},
        "reasonCode": [FEVER],
    }
    built = chart(builder, condition(FEVER, number="a"), condition(FEVER, number="b"), encounter)
    assert len(built.findings) == 1
    assert set(built.findings[0].sources) == {"Condition/a", "Condition/b", "Encounter/e"}
    assert built.findings[0].role == "complaint"
    assert built.encounter is not None and built.encounter.setting == "emergency"


def test_an_old_symptom_is_background_a_fresh_one_is_not(builder: ChartBuilder) -> None:
    old = condition(FEVER, onsetDateTime="2019-04-01", category=[concept((CATEGORY, "encounter-diagnosis"))])
    assert chart(builder, old).findings[0].role == "problem-list"
    fresh = condition(FEVER, onsetDateTime="2026-11-18", category=[concept((CATEGORY, "problem-list-item"))])
    assert chart(builder, fresh).findings[0].role == "encounter"


def test_a_code_no_table_knows_is_kept_and_counted(builder: ChartBuilder) -> None:
    built = chart(builder, condition(concept(("urn:local", "X17"), text="zorblax")))
    assert [(u.system, u.code) for u in built.unmapped] == [("urn:local", "X17")]
    assert built.coded_total == 1
    assert "zorblax" not in str(built.unmapped)


def test_text_without_a_code_is_matched_and_marked(builder: ChartBuilder) -> None:
    built = chart(builder, condition(concept(text="shortness of breath, denies chest pain")))
    assert states(built) == {"HP:0002094": "present", "HP:0100749": "absent"}
    assert all(f.from_text for f in built.findings)


def test_a_chief_complaint_sent_as_an_observation_is_the_complaint(builder: ChartBuilder) -> None:
    written = observation("10154-3", 0, "x", valueString="fever and cough, denies chest pain")
    del written["valueQuantity"]
    coded = observation("8661-1", 0, "x", number="c", valueCodeableConcept=concept((SNOMED, "25064002")))
    del coded["valueQuantity"]
    built = chart(builder, written, coded)
    expected = {
        "HP:0001945": "present",
        "HP:0012735": "present",
        "HP:0100749": "absent",
        "HP:0002315": "present",
    }
    assert states(built) == expected
    assert {f.role for f in built.findings} == {"complaint"}


def test_another_patients_resources_are_reported_and_left_out(builder: ChartBuilder) -> None:
    stranger = observation("8867-4", 190, "/min", subject={"reference": "Patient/other"})
    mine = observation(
        "8867-4", 80, "/min", number="m", subject={"reference": "https://ehr.example.org/fhir/Patient/p"}
    )
    built = chart(builder, stranger, mine)
    assert [(i.code, i.reference) for i in built.issues] == [("other-patient", "Observation/o")]
    assert [m.value for m in built.measurements["8867-4"]] == [80]


def test_urn_uuid_references_of_a_transaction_bundle_are_the_patient(builder: ChartBuilder) -> None:
    full = "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0"
    entries = [
        {"fullUrl": full, "resource": {"resourceType": "Patient", "id": "x", "birthDate": "2000-01-01"}},
        {"resource": observation("8867-4", 80, "/min", subject={"reference": full})},
    ]
    found = read_bundle(json.dumps({"resourceType": "Bundle", "entry": entries}).encode())
    assert builder.build(found, at=AT, patient_id=None).latest("8867-4") is not None


def test_no_patient_or_two_is_no_chart(builder: ChartBuilder) -> None:
    with pytest.raises(PatientMissing):
        chart(builder, patient=None)
    with pytest.raises(PatientMissing):
        chart(builder, patient_id="someone-else")
    with pytest.raises(SeveralPatients):
        chart(builder, {**PATIENT, "id": "q"})


@pytest.mark.parametrize(("birth", "days"), [("2026-10-09", 42), ("2026-11-20", 0), ("2025-11-20", 365)])
def test_an_infants_age_is_right_to_the_day(builder: ChartBuilder, birth: str, days: int) -> None:
    assert chart(builder, patient={**PATIENT, "birthDate": birth}).subject.age_days == days


def test_pregnancy_is_read_from_statements_and_ends(builder: ChartBuilder) -> None:
    stated = condition(concept((ICD, "Z3A.20")), recordedDate=(AT - timedelta(days=70)).isoformat())
    subject = chart(builder, stated).subject
    assert subject.pregnant is True and subject.gestation_weeks == 30
    stated["recordedDate"] = (AT - timedelta(days=400)).isoformat()
    assert chart(builder, stated).subject.pregnant is None
    assert chart(builder).subject.pregnant is None


def test_medicines_carry_their_classes_and_stopped_ones_are_not_active(builder: ChartBuilder) -> None:
    def request(number: str, text: str, status: str) -> dict[str, Any]:
        return {
            "resourceType": "MedicationRequest",
            "id": number,
            "status": status,
            "intent": "order",
            "subject": ME,
            "medicationCodeableConcept": concept(text=text),
        }

    built = chart(
        builder,
        request("a", "Warfarin Sodium 5 MG Oral Tablet", "active"),
        request("b", "ibuprofeno 600 mg", "stopped"),
    )
    by_class = {m.atc[0][:4]: m.active for m in built.medications}
    assert by_class == {"B01A": True, "M01A": False}


def test_a_contained_medication_is_followed(builder: ChartBuilder) -> None:
    sent = {
        "resourceType": "MedicationRequest",
        "id": "m",
        "status": "active",
        "subject": ME,
        "contained": [
            {
                "resourceType": "Medication",
                "id": "inner",
                "code": concept(text="Metformin 500 MG Oral Tablet"),
            }
        ],
        "medicationReference": {"reference": "#inner"},
    }
    assert chart(builder, sent).medications[0].atc[0].startswith("A10BA02")


def test_an_allergy_refuted_or_denied_is_absent(builder: ChartBuilder) -> None:
    def allergy(number: str, code: str, verification: str) -> dict[str, Any]:
        return {
            "resourceType": "AllergyIntolerance",
            "id": number,
            "patient": ME,
            "verificationStatus": concept(("http://x", verification)),
            "code": concept((SNOMED, code)),
        }

    built = chart(builder, allergy("a", "91936005", "confirmed"), allergy("b", "716186003", "confirmed"))
    assert [a.absent for a in built.allergies] == [False, True]
    assert built.allergies[0].atc and built.allergies[0].atc[0].startswith("J01C")


def test_drafts_and_selections_become_orders(builder: ChartBuilder) -> None:
    draft = {
        "resourceType": "ServiceRequest",
        "id": "d1",
        "status": "draft",
        "subject": ME,
        "code": concept((LOINC, "2345-7")),
    }
    drafts = read_bundle(json.dumps({"resourceType": "Bundle", "entry": [{"resource": draft}]}).encode())
    built = chart(builder, draft_orders=drafts, selections=["ServiceRequest/d1"])
    assert [(o.reference, o.draft, o.selected) for o in built.orders] == [("ServiceRequest/d1", True, True)]


def test_the_moment_of_a_stored_bundle_is_its_own(builder: ChartBuilder) -> None:
    stored = {"resourceType": "Bundle", "timestamp": "2026-01-15T10:00:00Z", "entry": [{"resource": PATIENT}]}
    assert moment_of(read_bundle(json.dumps(stored).encode())) == datetime(2026, 1, 15, 10, tzinfo=UTC)
    del stored["timestamp"]
    stored["entry"].append({"resource": observation("8867-4", 80, "/min")})  # type: ignore[attr-defined]
    assert moment_of(read_bundle(json.dumps(stored).encode())) == AT - timedelta(hours=1)


@settings(max_examples=60, deadline=None)
@given(
    st.permutations(
        [
            observation("8867-4", 80, "/min", hours=1, number="1"),
            observation("8867-4", 95, "/min", hours=2, number="2"),
            observation("2823-3", 4.4, "mmol/L", hours=9, number="3"),
            condition(FEVER, number="4"),
            condition(FEVER, number="5", verification="refuted"),
            condition(concept((ICD, "E11.9")), number="6"),
        ]
    )
)
def test_the_order_of_resources_does_not_change_what_is_known(resources: list[Any]) -> None:
    built = chart(_load(), *resources)
    assert built.latest("8867-4").value == 80  # type: ignore[union-attr]
    assert states(built)["HP:0001945"] == "present"
    assert {p.icd10cm for p in built.problems if p.status == "active"} >= {"E11.9"}
