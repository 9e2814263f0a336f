"""Decoding loses nothing: good resources survive bad neighbours, and faults are named without content."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_adapters import resources as r
from fhir_adapters.collected import PrefetchValue, Resources
from fhir_adapters.decode import MalformedJSON, read_bundle, read_decoded, read_page, read_prefetch


def bundle(*resources: Any, **members: Any) -> bytes:
    entries = [{"resource": resource} for resource in resources]
    return json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries, **members}).encode()


PATIENT = {"resourceType": "Patient", "id": "p", "gender": "female", "birthDate": "1980-02-03"}
HEART_RATE = {
    "resourceType": "Observation",
    "id": "hr",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
    "valueQuantity": {"value": 88, "unit": "/min"},
}


def test_a_mixed_bundle_is_read_and_types_without_use_are_counted() -> None:
    found = read_bundle(bundle(PATIENT, HEART_RATE, {"resourceType": "Claim", "id": "c"}))
    assert [ref for ref, _ in found.of[r.Observation]] == ["Observation/hr"]
    assert found.patients[0].gender == "female"
    assert found.ignored == {"Claim": 1}
    assert found.count == 3 and not found.issues


def test_resource_type_need_not_come_first() -> None:
    late = dict(reversed(list(PATIENT.items())))
    assert read_bundle(bundle(late)).patients[0].id == "p"


def test_a_bad_resource_is_named_and_its_neighbours_count() -> None:
    bad = {**HEART_RATE, "id": "bad", "valueQuantity": {"value": "eighty-eight, Mr Smith"}}
    found = read_bundle(bundle(PATIENT, bad, HEART_RATE))
    assert [i.reference for i in found.issues] == ["Observation/bad"]
    assert found.issues[0].path == "$.valueQuantity.value"
    assert "Smith" not in str(found.issues)
    assert [ref for ref, _ in found.of[r.Observation]] == ["Observation/hr"]
    assert found.patients


@pytest.mark.parametrize(
    "entry", [5, "x", [], {"resource": 7}, {"resource": {"resourceType": 3}}, {"resource": {}}]
)
def test_an_entry_that_is_no_resource_is_reported_by_its_position(entry: Any) -> None:
    body = json.dumps({"resourceType": "Bundle", "entry": [entry, {"resource": PATIENT}]}).encode()
    found = read_bundle(body)
    assert found.patients
    assert [i.reference for i in found.issues] == ["entry[0]"]


def test_an_unknown_resource_type_is_counted_not_lost() -> None:
    found = read_bundle(bundle(PATIENT, {"resourceType": "FutureThing", "id": "f"}))
    assert found.ignored == {"FutureThing": 1} and found.patients and not found.issues


def test_unknown_members_extensions_and_nulls_are_ignored() -> None:
    odd = {
        **PATIENT,
        "extension": [{"url": "x", "valueCode": "y"}],
        "zork": {"deep": [1, None]},
        "_gender": None,
    }
    assert read_bundle(bundle(odd, None)).patients[0].birthDate == "1980-02-03"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b'{"resourceType":"Patient"}',
        b'{"resourceType":"Bundle","entry":{}}',
        b'{"resourceType":"Bundle","entry":[{"resource":{"x":NaN}}]}',
        b'{"resourceType":"Bundle","entry":' + b"[" * 100_000,
        b'{"resourceType":"Bundle","x":' + b'{"a":' * 100_000,
        b"\xff\xfe",
    ],
)
def test_what_is_not_a_bundle_is_refused_with_a_path(body: bytes) -> None:
    with pytest.raises(MalformedJSON) as refusal:
        read_bundle(body)
    assert refusal.value.path.startswith("$") and refusal.value.reason


def test_prefetch_tells_null_from_missing_from_refused() -> None:
    outcome = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "forbidden"}]}
    values = {
        "patient": PATIENT,
        "conditions": None,
        "labs": outcome,
        "vitals": {"resourceType": "Bundle", "type": "searchset"},
        "orders": bundle(outcome),
        "broken": 17,
    }
    raw = {
        key: msgspec.Raw(value if isinstance(value, bytes) else json.dumps(value).encode())
        for key, value in values.items()
    }
    found = read_prefetch(raw)
    assert found.answered == {"patient", "conditions", "vitals"}
    assert found.failed == {"labs", "orders", "broken"}
    assert [(i.code, i.reference, i.detail) for i in found.issues if i.code == "operation-outcome"] == [
        ("operation-outcome", "prefetch.labs", "forbidden"),
        ("operation-outcome", "prefetch.orders.entry[0]", "forbidden"),
    ]


@given(
    st.dictionaries(
        st.sampled_from(["patient", "conditions", "labs", "vitals"]),
        st.none()
        | st.sampled_from(["Patient", "Claim", "OperationOutcome", "Observation"]).map(
            lambda t: {"resourceType": t}
        )
        | st.lists(
            st.sampled_from(
                [PATIENT, HEART_RATE, {"resourceType": "Claim"}, {"resourceType": "OperationOutcome"}, None]
            ),
            max_size=4,
        ).map(lambda resources: json.loads(bundle(*resources, link=[{"relation": "next", "url": "u"}]))),
        max_size=4,
    )
)
def test_reading_in_one_pass_or_key_by_key_gives_the_same(prefetch: dict[str, Any]) -> None:
    body = json.dumps(prefetch).encode()
    fast = read_decoded(msgspec.json.decode(body, type=dict[str, PrefetchValue]))
    slow = read_prefetch(msgspec.json.decode(body, type=dict[str, msgspec.Raw]))
    assert {name: getattr(fast, name) for name in Resources.__slots__} == {
        name: getattr(slow, name) for name in Resources.__slots__
    }


def test_a_page_keeps_its_next_link_and_warnings_beside_data() -> None:
    outcome = {"resourceType": "OperationOutcome", "issue": [{"severity": "warning", "code": "incomplete"}]}
    links = [
        {"relation": "self", "url": "a"},
        {"relation": "next", "url": "https://ehr.example.org/fhir?page=2"},
    ]
    found = read_page(bundle(HEART_RATE, outcome, link=links), "vitals")
    assert found.next_links == {"vitals": "https://ehr.example.org/fhir?page=2"}
    assert found.answered == {"vitals"} and len(found.issues) == 1


def test_the_tags_that_leave_out_evidence_and_the_timestamp_are_kept_on_both_paths() -> None:
    meta = {"tag": [{"system": "urn:exclude-evidence", "code": "PMID:1"}, {"system": "x", "code": "y"}]}
    for extra in ([], [{"resourceType": "Patient", "gender": 5}]):
        found = read_bundle(bundle(PATIENT, *extra, meta=meta, timestamp="2026-01-15T10:00:00Z"))
        assert found.exclude_evidence == ("PMID:1",)
        assert found.timestamp == "2026-01-15T10:00:00Z"


def test_a_name_or_address_never_becomes_a_value() -> None:
    named = {**PATIENT, "name": [{"family": "Marked"}], "address": [{"city": "Marked"}]}
    assert "Marked" not in repr(read_bundle(bundle(named)).patients)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["id", "code", "coding", "valueQuantity", "value", "subject", "status", "component", "period"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.lists(
        st.tuples(st.sampled_from([t.__name__ for t in r.READ_TYPES] + ["Zork"]), json_values), max_size=6
    )
)
def test_every_resource_sent_is_read_ignored_or_reported(parts: list[tuple[str, Any]]) -> None:
    resources = [
        {**(value if isinstance(value, dict) else {"code": value}), "resourceType": kind}
        for kind, value in parts
    ]
    found = read_bundle(bundle(*resources, PATIENT))
    read = sum(len(pairs) for pairs in found.of.values())
    assert found.count == len(resources) + 1
    assert read + sum(found.ignored.values()) + len(found.issues) == found.count
    assert found.patients[-1].id == "p"
