"""Whatever is sent: never a 500, always an OperationOutcome, never an echo of what was sent."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_helpers import ASSESSMENT, REVIEW, Running, example, minimal, outcome, with_member

POSTED = [ASSESSMENT, REVIEW, f"{ASSESSMENT}/feedback", "/fhir/$assess", "/api/v1/predict"]
MARK = "Zz-patient-text-zZ"

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
resources = st.fixed_dictionaries(
    {
        "resourceType": st.sampled_from(
            ["Patient", "Condition", "Observation", "Encounter", "Bundle", "Nonsense"]
        )
    },
    optional={
        "id": json_values,
        "subject": json_values,
        "code": json_values,
        "status": json_values,
        "valueQuantity": json_values,
        "entry": json_values,
        "birthDate": json_values,
        "gender": json_values,
        "effectiveDateTime": json_values,
        "period": json_values,
        "component": json_values,
        "verificationStatus": json_values,
    },
)
fuzz = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def fine(answer: Any) -> None:
    assert answer.status_code < 500, answer.text[:300]
    if answer.status_code >= 400:
        assert answer.json()["resourceType"] == "OperationOutcome"


@fuzz
@given(path=st.sampled_from(POSTED), body=st.binary(max_size=200))
def test_random_bytes_are_refused_politely(server: Running, path: str, body: bytes) -> None:
    fine(server.post(path, body))


@fuzz
@given(path=st.sampled_from(POSTED), value=json_values)
def test_random_json_is_refused_politely(server: Running, path: str, value: Any) -> None:
    fine(server.post(path, json.dumps(value).encode()))


@fuzz
@given(
    member=st.sampled_from(
        ["hook", "hookInstance", "context", "fhirAuthorization", "prefetch", "extension", "fhirServer"]
    ),
    value=json_values,
)
def test_any_member_may_be_anything(server: Running, member: str, value: Any) -> None:
    if member == "fhirServer" and isinstance(value, str):
        value = None  # no test calls a made-up host
    fine(server.post(ASSESSMENT, minimal(**{member: value})))


@fuzz
@given(
    key=st.sampled_from(["patient", "conditions", "observations-vitals", "encounters", "own"]),
    value=resources,
)
def test_any_prefetch_value_may_be_anything(server: Running, key: str, value: Any) -> None:
    fine(server.post(ASSESSMENT, with_member(minimal(), value, "prefetch", key)))


@fuzz
@given(entries=st.lists(resources, max_size=4), where=st.sampled_from(["$assess", "drafts"]))
def test_any_bundle_may_hold_anything(server: Running, entries: list[Any], where: str) -> None:
    bundle = {"resourceType": "Bundle", "entry": [{"resource": entry} for entry in entries]}
    if where == "$assess":
        fine(server.post("/fhir/$assess", bundle))
    else:
        fine(
            server.post(REVIEW, with_member(example("order-select-tests"), bundle, "context", "draftOrders"))
        )


@pytest.mark.parametrize("path", POSTED)
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"prefetch":' + b"[" * 100_000,
        b'{"context":' + b'{"x":' * 100_000,
    ],
    ids=["arrays", "objects", "prefetch", "context"],
)
def test_a_nesting_bomb_is_refused(server: Running, path: str, body: bytes) -> None:
    outcome(server.post(path, body), 400)


def test_a_nesting_bomb_inside_a_resource_costs_only_the_resource(server: Running) -> None:
    bomb = b'{"resourceType":"Condition","code":' + b'{"x":' * 50_000 + b"1" + b"}" * 50_001
    body = (
        json.dumps(minimal()).encode().replace(b'"prefetch": {', b'"prefetch": {"conditions":' + bomb + b",")
    )
    fine(server.post(ASSESSMENT, body))


@pytest.mark.parametrize("path", POSTED)
@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
def test_numbers_that_json_does_not_have_are_refused(server: Running, path: str, number: bytes) -> None:
    outcome(server.post(path, b'{"x": ' + number + b"}"), 400)


def test_nan_deep_in_the_prefetch_is_refused(server: Running) -> None:
    body = json.dumps(with_member(minimal(), float("nan"), "prefetch", "patient", "x")).encode()
    outcome(server.post(ASSESSMENT, body), 400)


@pytest.mark.parametrize(
    "request_body",
    [
        minimal(hook=MARK),
        minimal(hookInstance=MARK),
        minimal(context={"userId": "u", "patientId": [MARK]}),
        minimal(prefetch={"patient": {"resourceType": "Patient", "id": MARK}}),
        minimal(prefetch={"patient": {"resourceType": MARK, "id": "p"}}),
        minimal(prefetch={MARK: 1}),
        minimal(fhirServer=[MARK]),
        minimal(extension={"org.cds-server.as-of": {"instant": MARK}}),
    ],
)
def test_a_refusal_never_repeats_what_was_sent(server: Running, request_body: dict[str, Any]) -> None:
    answer = server.post(ASSESSMENT, request_body)
    assert answer.status_code >= 400
    assert MARK not in answer.text + str(answer.headers)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v1/predict", {"age": MARK}),
        ("/api/v1/predict", {MARK: 1}),
        ("/api/v1/predict", {"symptoms": [{"name": "x", MARK: 1}]}),
        ("/api/v1/predict", {"sex": MARK}),
        ("/api/v1/predict", {"symptoms": [{"code": MARK}]}),
        (f"{ASSESSMENT}/feedback", {"feedback": [{"card": MARK, "outcome": MARK, "outcomeTimestamp": MARK}]}),
        ("/fhir/$assess", {"resourceType": MARK}),
        ("/fhir/$assess", {"resourceType": "Bundle", "entry": MARK}),
    ],
)
def test_a_refusal_of_the_other_paths_never_repeats_it_either(server: Running, path: str, body: Any) -> None:
    answer = server.post(path, body)
    assert answer.status_code in (400, 422)
    assert MARK not in answer.text
    outcome(answer, answer.status_code)


def test_a_bad_resource_among_good_ones_costs_only_itself(server: Running) -> None:
    request = example("sepsis")
    vitals = request["prefetch"]["observations-vitals"]["entry"]
    vitals.append({"resource": {"resourceType": "Observation", "id": "bad", "code": 7}})
    vitals.append(
        {"resource": {"resourceType": "Observation", "id": "bad-2", "valueQuantity": {"value": "high"}}}
    )
    good = server.post(ASSESSMENT, example("sepsis")).json()["cards"]
    mixed = server.post(ASSESSMENT, request).json()["cards"]
    assert [card["summary"] for card in mixed] == [card["summary"] for card in good]
    assert mixed[0]["detail"] != good[0]["detail"]


@pytest.mark.parametrize(
    ("instant", "status"),
    [
        ("2026-11-20T09:30:00Z", 200),
        ("2026-11-20T09:30:00+05:30", 200),
        ("2026-11-20T09:30:00", 400),
        ("2026-11-20", 400),
        ("2199-01-01T00:00:00Z", 400),
        ("0001-01-01T00:00:00+23:59", 400),
        ("", 400),
        (7, 400),
    ],
)
def test_the_moment_of_assessment_needs_an_offset_and_lies_not_ahead(
    server: Running, instant: Any, status: int
) -> None:
    request = minimal(extension={"org.cds-server.as-of": {"instant": instant}})
    answer = server.post(ASSESSMENT, request)
    assert answer.status_code == status, answer.text
    if status == 400:
        assert outcome(answer, 400)["expression"] == ["extension.org.cds-server.as-of.instant"]


def test_lone_surrogates_and_control_characters_in_ids_are_handled(server: Running) -> None:
    body = json.dumps(minimal()).encode().replace(b'"Practitioner/1"', b'"Practitioner/\\ud800"')
    fine(server.post(ASSESSMENT, body))
    fine(server.post(ASSESSMENT, body.replace(b"\\ud800", b"\\u0000")))


def test_a_request_id_is_kept_when_plain_and_replaced_when_not(server: Running) -> None:
    kept = server.client.get("/cds-services", headers={"X-Request-Id": "ehr-call-000017"})
    assert kept.headers["x-request-id"] == "ehr-call-000017"
    replaced = server.client.get("/cds-services", headers={"X-Request-Id": "a b<script>"})
    assert replaced.headers["x-request-id"] not in ("", "a b<script>")


def test_every_answer_forbids_sniffing_storing_and_framing(server: Running) -> None:
    for answer in (
        server.client.get("/cds-services"),
        server.client.get("/nowhere"),
        server.post(ASSESSMENT, b"{"),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("timestamp", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00", "nonsense"])
def test_a_bundle_from_the_edge_of_the_calendar_is_assessed_now(server: Running, timestamp: str) -> None:
    patient = minimal()["prefetch"]["patient"]
    dated = {"resourceType": "Condition", "id": "c", "code": {"text": "fever"}, "onsetDateTime": timestamp}
    bundle = {
        "resourceType": "Bundle",
        "timestamp": timestamp,
        "entry": [{"resource": patient}, {"resource": dated}],
    }
    assert server.post("/fhir/$assess", bundle).status_code == 200
