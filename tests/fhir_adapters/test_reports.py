"""A DiagnosticReport says what was examined and when; a listed draft is not an order."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from fhir_adapters.chart import PatientChart
from fhir_adapters.chart_builder import ChartBuilder
from fhir_adapters.decode import read_bundle

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
CT = {"coding": [{"system": "http://loinc.org", "code": "24725-4", "display": "CT Head"}]}


@pytest.fixture(scope="module")
def builder() -> ChartBuilder:
    return ChartBuilder.load()


def chart(builder: ChartBuilder, *resources: dict[str, Any]) -> PatientChart:
    patient = {"resourceType": "Patient", "id": "p", "gender": "female", "birthDate": "1980-01-01"}
    entries = [{"resource": item} for item in (patient, *resources)]
    found = read_bundle(json.dumps({"resourceType": "Bundle", "entry": entries}).encode())
    return builder.build(found, at=AT, patient_id=None)


def report(**changes: Any) -> dict[str, Any]:
    return {
        "resourceType": "DiagnosticReport",
        "id": "r",
        "status": "final",
        "subject": {"reference": "Patient/p"},
        "code": CT,
        "effectiveDateTime": "2026-03-01T09:00:00Z",
        **changes,
    }


def test_an_imaging_report_is_a_study_that_was_done(builder: ChartBuilder) -> None:
    (done,) = chart(builder, report()).procedures
    assert done.codes == ("http://loinc.org|24725-4",)
    assert (done.label, done.sources) == ("CT Head", ("DiagnosticReport/r",))
    assert done.time == datetime(2026, 3, 1, 9, 0, tzinfo=UTC)


def test_the_time_is_the_end_of_the_study_or_when_it_was_issued(builder: ChartBuilder) -> None:
    period = report(
        effectiveDateTime=None,
        effectivePeriod={"start": "2026-03-01T07:00:00Z", "end": "2026-03-01T08:00:00Z"},
    )
    issued = report(effectiveDateTime=None, issued="2026-03-01T10:00:00Z")
    assert chart(builder, period).procedures[0].time == datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
    assert chart(builder, issued).procedures[0].time == datetime(2026, 3, 1, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize("status", ["registered", "partial", "cancelled", "entered-in-error", "unknown"])
def test_a_report_without_its_result_answers_nothing(builder: ChartBuilder, status: str) -> None:
    assert chart(builder, report(status=status)).procedures == ()


def test_a_report_of_somebody_else_is_not_used_and_said_once(builder: ChartBuilder) -> None:
    built = chart(builder, report(subject={"reference": "Patient/other"}))
    assert built.procedures == ()
    assert [issue.code for issue in built.issues] == ["other-patient"]


def test_the_conclusion_is_still_a_finding(builder: ChartBuilder) -> None:
    conclusion = [{"coding": [{"system": "http://snomed.info/sct", "code": "386661006"}]}]
    built = chart(builder, report(conclusionCode=conclusion))
    assert [finding.label for finding in built.findings] == ["Fever"]
    assert len(built.procedures) == 1


def test_a_draft_among_the_orders_of_the_record_has_not_been_ordered(builder: ChartBuilder) -> None:
    request = {
        "resourceType": "ServiceRequest",
        "id": "s",
        "status": "draft",
        "intent": "order",
        "subject": {"reference": "Patient/p"},
        "code": CT,
    }
    assert chart(builder, request).orders == ()
    (order,) = chart(builder, {**request, "status": "active"}).orders
    assert not order.draft
