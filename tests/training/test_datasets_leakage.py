"""Nothing of the future gets into a row: not a result, not a diagnosis, not how it ended."""

from typing import Any

import pytest
from datasets_support import (
    HPO,
    Resource,
    appendicitis,
    at,
    condition,
    diagnosis,
    encounter,
    evidence,
    named,
    observation,
    outcomes,
    patient,
    problem,
    row,
)
from hypothesis import given, settings
from hypothesis import strategies as st

LATE = st.floats(6.01, 2000, allow_nan=False)
CODES = st.sampled_from(["K35.80", "K37", "R10.31", "J45.909", "I10", "A41.9", "Z33.1"])


@st.composite
def later(draw: st.DrawFn) -> Resource:  # noqa: PLR0911 one kind after the other
    """Something that became known after the decision, whatever date it is about."""
    hours = draw(LATE)
    identity = f"late{draw(st.integers(0, 10**6))}"
    kind = draw(st.sampled_from(["value", "result", "finding", "problem", "drug", "report", "procedure"]))
    about = {"subject": {"reference": "Patient/p"}, "encounter": {"reference": "Encounter/v"}}
    if kind == "value":
        return observation(identity, draw(st.sampled_from(["8310-5", "6690-2", "8867-4"])), 40, "Cel", hours)
    if kind == "result":
        # Drawn before the decision, issued after it.
        return observation(identity, "1988-5", draw(st.floats(1, 300)), "mg/L", 1, issued=at(hours))
    if kind == "finding":
        return condition(
            identity, draw(st.sampled_from(["HP:0001945", "HP:0002014"])), HPO, recordedDate=at(hours)
        )
    if kind == "problem":
        return problem(identity, draw(CODES), recordedDate=at(hours), onsetDateTime=at(-24 * 900))
    concept = {"coding": [{"system": "http://www.whocc.no/atc", "code": "A10BA02"}]}
    if kind == "drug":
        ordered = {"status": "active", "medicationCodeableConcept": concept, "authoredOn": at(hours)}
        return {"resourceType": "MedicationRequest", "id": identity, **about, **ordered}
    if kind == "report":
        said = {"conclusionCode": [{"coding": [{"system": HPO, "code": "HP:0001945"}]}], "issued": at(hours)}
        return {"resourceType": "DiagnosticReport", "id": identity, "status": "final", **about, **said}
    done = {"status": "completed", "code": {"text": "Appendectomy"}, "performedDateTime": at(hours)}
    return {"resourceType": "Procedure", "id": identity, **about, **done}


@given(st.lists(later(), max_size=5))
@settings(max_examples=60, deadline=None)
def test_what_becomes_known_after_the_decision_changes_no_feature(future: list[Resource]) -> None:
    assert evidence(row([*appendicitis(), *future])) == evidence(row(appendicitis()))


@given(
    end=LATE,
    status=st.sampled_from(["finished", "in-progress"]),
    code=st.sampled_from(["EMER", "IMP"]),
    died=st.none() | LATE,
    ended=LATE,
)
@settings(max_examples=30, deadline=None)
def test_how_the_visit_and_the_illness_went_on_changes_no_feature(
    end: float, status: str, code: str, died: float | None, ended: float
) -> None:
    over: dict[str, Any] = {
        "clinicalStatus": {"coding": [{"code": "resolved"}]}, "abatementDateTime": at(ended)
    }  # fmt: skip
    visit = encounter(
        status=status,
        period={"start": at(0), "end": at(end)},
        classHistory=[
            {"class": {"code": "EMER"}, "period": {"start": at(0)}},
            {"class": {"code": code}, "period": {"start": at(7)}},
        ],
        diagnosis=[{"condition": {"reference": "Condition/dx"}, "rank": 1}],
        **{"class": {"code": code}},
    )
    changed = [
        patient(**({"deceasedDateTime": at(died)} if died is not None else {})),
        visit,
        condition("s1", "HP:0002013", HPO, recordedDate=at(1), **over),
        *appendicitis()[3:],
    ]
    assert evidence(row(changed)) == evidence(row(appendicitis()))


def test_the_labels_own_condition_is_no_feature_even_when_it_was_recorded_at_once() -> None:
    early = [*appendicitis()[:-1], diagnosis(hours=0.5)]
    assert row(early).disease == "acute-appendicitis"
    assert evidence(row(early)) == evidence(row(appendicitis()))


@pytest.mark.parametrize("status", ["confirmed", "provisional", "differential"])
def test_a_second_spelling_of_the_diagnosis_at_the_visit_is_no_feature(status: str) -> None:
    twin = condition("twin", "74400008", "http://snomed.info/sct", status, recordedDate=at(2))
    assert evidence(row([*appendicitis(), twin])) == evidence(row(appendicitis()))


def test_a_reason_for_the_visit_that_names_the_diagnosis_is_left_out_and_a_complaint_kept() -> None:
    told = encounter(
        reasonCode=[
            *encounter()["reasonCode"],
            {"coding": [{"system": "http://snomed.info/sct", "code": "74400008"}]},
        ]
    )
    resources = appendicitis()
    assert evidence(row([resources[0], told, *resources[2:]])) == evidence(row(resources))
    assert named(row(resources))["HP:0002027"] == 1.5


def test_history_from_before_the_visit_counts() -> None:
    assert named(row(appendicitis()))["risk:asthma"] == 1.0
    without = [resource for resource in appendicitis() if resource["id"] != "h1"]
    assert "risk:asthma" not in named(row(without))


def test_history_entered_at_the_visit_counts_when_it_began_long_before() -> None:
    entered = problem("h2", "I10", recordedDate=at(1), onsetDateTime="2015-01-01")
    assert named(row([*appendicitis(), entered]))["risk:hypertension"] == 1.0
    new = problem("h2", "I10", recordedDate=at(1))
    assert "risk:hypertension" not in named(row([*appendicitis(), new]))


def test_what_has_no_date_at_all_is_left_out_and_the_servers_date_is_the_last_resort() -> None:
    undated = condition("s2", "HP:0002014", HPO)
    assert evidence(row([*appendicitis(), undated])) == evidence(row(appendicitis()))
    for hours, expected in ((2, True), (7, False)):
        changed = condition("s2", "HP:0002014", HPO, meta={"lastUpdated": at(hours)})
        assert ("HP:0002014" in named(row([*appendicitis(), changed]))) is expected


def test_a_date_without_a_time_counts_as_its_end() -> None:
    day = condition("s2", "HP:0002014", HPO, recordedDate=at(0)[:10])
    assert "HP:0002014" not in named(row([*appendicitis(), day]))
    before = condition("s2", "HP:0002014", HPO, recordedDate=at(-24)[:10])
    assert "HP:0002014" in named(row([*appendicitis(), before]))


def test_the_decision_moves_with_the_option() -> None:
    late = observation("late", "1988-5", 120, "mg/L", 7)
    assert "measured:crp" not in named(row([*appendicitis(), late]))
    assert "measured:crp" in named(row([*appendicitis(), late], decision_hours=8))


def test_each_visit_of_a_patient_has_a_row_of_its_own_that_knows_the_earlier_one() -> None:
    again = [
        encounter("w", 24 * 100),
        observation("w1", "8310-5", 36.8, "Cel", 24 * 100 + 1),
        condition("dx2", "J06.9", recordedDate=at(24 * 100 + 2), encounter={"reference": "Encounter/w"}),
    ]
    found = outcomes([*appendicitis(), *again])
    assert [found[f"Encounter/{name}"].disease for name in "vw"] == ["acute-appendicitis", "common-cold"]  # type: ignore[union-attr]
    assert evidence(found["Encounter/v"]) == evidence(row(appendicitis()))  # type: ignore[arg-type]
