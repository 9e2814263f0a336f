"""Which disease a visit is labelled with, and why a visit has no label."""

import pytest
from datasets_support import (
    ICD,
    LOINC,
    SNOMED,
    Resource,
    appendicitis,
    at,
    condition,
    context,
    diagnosis,
    encounter,
    evidence,
    outcomes,
    patient,
    row,
)

from models.assessment import SEVERITIES
from training.datasets.context import usual_severity
from training.datasets.export import codings
from training.datasets.format import Row
from training.datasets.labels import DISEASE_SYSTEM, Person

VISIT = {"reference": "Encounter/v"}


def label(*diagnoses: Resource, visit: Resource | None = None, **options: object) -> str:
    """The label (or the reason why there is none) of the visit with these diagnoses."""
    resources = [*appendicitis()[:-1], *diagnoses]
    if visit is not None:
        resources[1] = visit
    found = outcomes(resources, **options)["Encounter/v"]
    return found.disease if isinstance(found, Row) else found


@pytest.mark.parametrize(
    ("system", "code", "expected"),
    [
        (ICD, "K35.80", "acute-appendicitis"),
        (ICD, "K3580", "acute-appendicitis"),
        (ICD, "K35.891", "acute-appendicitis"),
        ("http://hl7.org/fhir/sid/icd-10", "K35", "acute-appendicitis"),
        (SNOMED, "85189001", "acute-appendicitis"),
        (ICD, "E87.5", "hyperkalaemia"),
        (ICD, "I21.02", "stemi"),
        (ICD, "I21.4", "nstemi"),
        (ICD, "I21", None),
        (DISEASE_SYSTEM, "stemi", "stemi"),
        (ICD, "Q99.9", None),
        (ICD, "nonsense", None),
        (DISEASE_SYSTEM, "nonsense", None),
    ],
)
def test_a_code_means_the_disease_under_whose_longest_code_it_lies(
    system: str, code: str, expected: str | None
) -> None:
    assert context().labels.meaning([(system, code)]).disease == expected


def test_age_tells_diseases_of_one_code_apart() -> None:
    meaning = context().labels.meaning
    assert meaning([(ICD, "K59.00")], Person(3.0)).disease == "constipation-child"
    assert meaning([(ICD, "K59.00")], Person(70.0)).disease == "constipation"
    assert meaning([(ICD, "K59.00")]).disease is None


def test_the_subsequent_encounter_of_an_injury_is_still_that_injury() -> None:
    meaning = context().labels.meaning
    first = meaning([(ICD, "S93.401A")]).diseases
    assert first
    assert meaning([(ICD, "S93.401D")]).diseases == first


def test_every_disease_is_named_by_the_codings_it_is_exported_with() -> None:
    labels = context().labels
    for disease in context().knowledge.diseases:
        pairs = [(coding["system"], coding["code"]) for coding in codings(disease, labels)]
        assert labels.meaning(pairs).disease == disease.id


def test_a_confirmed_diagnosis_in_the_window_is_the_label() -> None:
    assert label(diagnosis(hours=24 * 20)) == "acute-appendicitis"
    assert label(diagnosis(hours=24 * 40)) == "no-confirmed-diagnosis"
    assert label(diagnosis(hours=24 * 40), window_days=60) == "acute-appendicitis"


@pytest.mark.parametrize("status", ["provisional", "differential", "refuted", "unconfirmed"])
def test_what_is_not_confirmed_is_no_label(status: str) -> None:
    told = diagnosis(verificationStatus={"coding": [{"code": status}]})
    assert label(told) == "no-confirmed-diagnosis"


def test_a_problem_list_entry_is_no_label() -> None:
    listed = diagnosis(category=[{"coding": [{"code": "problem-list-item"}]}])
    assert label(listed) == "no-confirmed-diagnosis"


def test_a_diagnosis_without_a_category_counts_when_it_names_its_visit_or_is_listed_by_it() -> None:
    assert label(diagnosis(category=[])) == "acute-appendicitis"
    assert label(diagnosis(category=[], encounter=None)) == "no-confirmed-diagnosis"
    listed = encounter(diagnosis=[{"condition": {"reference": "Condition/dx"}}])
    assert label(diagnosis(category=[], encounter=None), visit=listed) == "acute-appendicitis"


def test_of_several_diagnoses_the_one_ranked_first_counts_else_the_visit_is_rejected() -> None:
    two = (diagnosis(), condition("dy", "N20.1", recordedDate=at(8), encounter=VISIT))
    assert label(*two) == "several-diagnoses"
    ranked = [
        {"condition": {"reference": "Condition/dx"}, "rank": 2},
        {"condition": {"reference": "Condition/dy"}, "rank": 1},
    ]
    assert label(*two, visit=encounter(diagnosis=ranked)) == "renal-colic-stone"


def test_a_symptom_code_gives_way_to_a_definite_diagnosis() -> None:
    symptom = condition("dy", "R10.84", recordedDate=at(8), encounter=VISIT)
    assert label(diagnosis(), symptom) == "acute-appendicitis"
    assert label(symptom) == "nonspecific-abdominal-pain"


def test_a_diagnosis_that_the_knowledge_lacks_is_not_replaced_by_a_lesser_one() -> None:
    rare = condition("dy", "E84.0", recordedDate=at(8), encounter=VISIT)
    ranked = [{"condition": {"reference": "Condition/dy"}, "rank": 1}]
    assert label(diagnosis(), rare, visit=encounter(diagnosis=ranked)) == "diagnosis-not-in-knowledge"


def test_the_diagnosis_of_a_later_visit_counts_only_when_it_is_asked_for() -> None:
    follow_up = [
        encounter("w", 24 * 3),
        condition("dw", "K35.80", recordedDate=at(24 * 3 + 1), encounter={"reference": "Encounter/w"}),
    ]
    assert label(*follow_up) == "no-confirmed-diagnosis"
    assert label(*follow_up, follow_ups=True) == "acute-appendicitis"


def test_a_diagnosis_that_names_no_visit_belongs_to_the_one_before_it() -> None:
    loose = condition("dz", "J06.9", recordedDate=at(24 * 4))
    assert label(loose) == "common-cold"
    assert label(encounter("w", 24 * 3), loose) == "no-confirmed-diagnosis"


def test_visits_that_did_not_happen_or_have_no_start_are_rejected() -> None:
    assert label(diagnosis(), visit=encounter(status="cancelled")) == "visit-did-not-happen"
    assert label(diagnosis(), visit=encounter(period={})) == "visit-without-start"
    assert label(diagnosis(), settings=("ambulatory",)) == "setting-not-wanted"


def test_a_visit_of_which_nothing_is_recorded_is_rejected() -> None:
    empty = [patient(), encounter(reasonCode=[]), diagnosis()]
    assert outcomes(empty)["Encounter/v"] == "nothing-recorded"


def test_severity_is_the_most_probable_class_of_the_disease() -> None:
    by_id = {disease.id: disease for disease in context().knowledge.diseases}
    assert row(appendicitis()).severity == usual_severity(by_id["acute-appendicitis"]) == "acute-disease"
    assert all(usual_severity(disease) in SEVERITIES for disease in by_id.values())


def triage(loinc: str = "75636-1", **value: object) -> Resource:
    """A triage level at the door."""
    return {
        "resourceType": "Observation",
        "id": "t",
        "status": "final",
        "subject": {"reference": "Patient/p"},
        "effectiveDateTime": at(0),
        "code": {"coding": [{"system": LOINC, "code": loinc}]},
        **value,
    }


@pytest.mark.parametrize(
    ("observation", "expected"),
    [
        (triage(valueInteger=2), True),
        (triage(valueInteger=3), False),
        (triage(valueInteger=7), None),
        (triage(valueQuantity={"value": 1}), True),
        (triage(valueCodeableConcept={"coding": [{"system": LOINC, "code": "LA21752-3"}]}), True),
        (triage("75910-0", valueCodeableConcept={"text": "CTAS 4 (less urgent)"}), False),
        (triage("x", code={"text": "Manchester triage category"}, valueString="Naranja"), True),
        (triage("x", code={"text": "KTAS level"}, valueString="3"), False),
        (triage("x", code={"text": "Pain score"}, valueInteger=2), None),
        (triage(status="entered-in-error", valueInteger=1), None),
    ],
)
def test_the_triage_level_tells_who_needed_attention_and_is_no_feature(
    observation: Resource, expected: bool | None
) -> None:
    found = row([*appendicitis(), observation])
    assert found.immediate is expected
    if expected is not None:
        assert evidence(found) == evidence(row(appendicitis()))


def test_intensive_care_or_death_within_a_day_outweighs_the_triage_level() -> None:
    base = [*appendicitis(), triage(valueInteger=4)]
    icu: Resource = {
        "resourceType": "Procedure",
        "id": "icu",
        "status": "completed",
        "subject": {"reference": "Patient/p"},
        "code": {"coding": [{"system": SNOMED, "code": "305351004"}]},
    }
    assert row([*base, {**icu, "performedDateTime": at(20)}]).immediate is True
    assert row([*base, {**icu, "performedDateTime": at(30)}]).immediate is False
    assert row([patient(deceasedDateTime=at(12)), *base[1:]]).immediate is True
    assert row([patient(deceasedDateTime=at(100)), *base[1:]]).immediate is False
    assert row(appendicitis()).immediate is None
