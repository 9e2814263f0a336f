# ruff: noqa: N802 - the names carry the ids of the checklist
"""One test per line of the CDS Hooks checklist that binds a service (2.0.1, 3.0 where both can hold).

The name carries the line's id.  Lines that bind only the client are tested by their counterpart: that
the service copes or refuses.  Section I is here as far as browsers need it (I12); the rest is in
`test_cds_hooks_security`.
"""

import json
import re
import time
import uuid
from typing import Any
from urllib.parse import urlsplit

import pytest
from audit_helpers import rows
from fhir.resources.R4B import get_fhir_model_class
from fhir_standin import Standin, bundle, condition, redirecting, serving, slow, status
from markdown_it import MarkdownIt
from server_helpers import (
    ASSESSMENT,
    REVIEW,
    Running,
    empty_members,
    example,
    minimal,
    outcome,
    with_member,
    without,
)
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cds_server.audit import CardFeedback
from cds_server.audit.events import decode
from cds_server.clock import utc_now
from cds_server.db.engine import create_engine
from cds_server.decisions.keys import DataKeys
from cds_server.feedback import FeedbackStore
from cds_server.privacy import Cipher
from cds_server.site_keys import site_keys
from hooks.services import SERVICES

ALL_EXAMPLES = [
    "chest-pain",
    "dka",
    "febrile-infant",
    "healthy-checkup",
    "odd-units",
    "pregnant",
    "rare-disease",
    "sepsis",
    "order-select-drugs",
    "order-select-tests",
]
DAY = "2026-11-20T10:00:00Z"


def path_of(request: dict[str, Any]) -> str:
    return ASSESSMENT if request["hook"] == "patient-view" else REVIEW


@pytest.fixture(scope="module")
def answers(server: Running) -> list[dict[str, Any]]:
    """The answers to all examples, in both languages."""
    found = []
    for name in ALL_EXAMPLES:
        request = example(name)
        for language in ("en", "es"):
            answer = server.post(path_of(request), request, headers={"Accept-Language": language})
            assert answer.status_code == 200, (name, answer.text)
            found.append(answer.json())
    return found


@pytest.fixture(scope="module")
def cards(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [card for answer in answers for card in answer["cards"]]
    assert len(found) >= 10, "the examples no longer make cards: the tests below would prove nothing"
    return found


@pytest.fixture(scope="module")
def suggestions(cards: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [suggestion for card in cards for suggestion in card.get("suggestions", [])]
    assert found, "the examples no longer make suggestions"
    return found


@pytest.fixture(scope="module")
def services(server: Running) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.client.get("/cds-services").json()["services"]
    return found


# -- A. JSON and transport


def test_A1_json_in_and_out(server: Running) -> None:
    answer = server.post(ASSESSMENT, minimal())
    assert answer.headers["content-type"] == "application/json"
    assert server.client.get("/cds-services").headers["content-type"] == "application/json"
    for accepted in ("application/json; charset=utf-8", "application/fhir+json", "APPLICATION/JSON"):
        body = json.dumps(minimal()).encode()
        assert server.post(ASSESSMENT, body, headers={"Content-Type": accepted}).status_code == 200


def test_A2_links_carry_the_public_https_address(start_server: Any) -> None:
    running = start_server(public_base_url="https://cds.hospital.example")
    [card, *_] = running.post(ASSESSMENT, example("sepsis")).json()["cards"]
    assert card["source"]["url"].startswith("https://cds.hospital.example")


def test_A3_A4_A5_nothing_null_and_nothing_empty_but_cards(
    answers: list[dict[str, Any]], server: Running
) -> None:
    assert empty_members(server.client.get("/cds-services").json()) == []
    for answer in answers:
        assert [path for path in empty_members(answer) if path != "$.cards"] == []


def test_A6_A7_bodies_are_strict_json(server: Running) -> None:
    def refuse(text: str) -> None:
        raise AssertionError(text)

    for answer in (server.post(ASSESSMENT, example("sepsis")), server.client.get("/cds-services")):
        json.loads(answer.content.decode("utf-8"), parse_constant=refuse)


# -- B. Discovery


def test_B1_B13_discovery_is_always_there(server: Running) -> None:
    assert server.client.get("/cds-services").status_code == 200
    assert server.client.get("/cds-services", headers={"Authorization": "Bearer x.y.z"}).status_code == 200


def test_B2_B3_services_is_an_array(services: list[dict[str, Any]]) -> None:
    assert isinstance(services, list)
    assert {service["id"] for service in services} == {"diagnostic-assessment", "order-review"}


@pytest.mark.parametrize("member", ["hook", "description", "id", "title", "usageRequirements", "version"])
def test_B4_B5_B6_B7_B9_B10_each_service_has(services: list[dict[str, Any]], member: str) -> None:
    assert all(isinstance(service[member], str) and service[member] for service in services)


def test_B6_the_id_is_the_last_segment_of_a_url_that_answers(
    server: Running, services: list[dict[str, Any]]
) -> None:
    for service in services:
        assert server.post(f"/cds-services/{service['id']}", b"{}").status_code == 400


def test_B8_prefetch_is_an_object_of_texts(services: list[dict[str, Any]]) -> None:
    for service in services:
        assert all(isinstance(key, str) and isinstance(t, str) for key, t in service["prefetch"].items())


def test_B10_version_is_semantic(services: list[dict[str, Any]]) -> None:
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", service["version"]) for service in services)


def test_B12_no_id_and_hook_twice(services: list[dict[str, Any]]) -> None:
    pairs = [(service["id"], service["hook"]) for service in services]
    assert len(set(pairs)) == len(pairs)


def test_B14_extensions_are_objects_where_there_are_any(services: list[dict[str, Any]]) -> None:
    assert all(isinstance(service.get("extension", {}), dict) for service in services)


def test_B15_hooks_are_published_ones(services: list[dict[str, Any]]) -> None:
    assert {service["hook"] for service in services} == {"patient-view", "order-select"}


# -- C. Prefetch templates

TEMPLATES = [
    (service.id, template.key, template.template) for service in SERVICES for template in service.templates
]
_SEARCH = re.compile(r"[A-Z][A-Za-z]+(/\{\{context\.[a-zA-Z]+\}\}|\?[^/]+)")


@pytest.mark.parametrize(("service", "key", "template"), TEMPLATES)
def test_C1_C2_C3_C5_C6_C7_C8_a_template_keeps_to_the_recommended_subset(
    service: str, key: str, template: str
) -> None:
    assert _SEARCH.fullmatch(template)
    tokens = re.findall(r"\{\{(.*?)\}\}", template)
    assert tokens
    assert set(tokens) <= {"context.patientId", "context.userId", "context.encounterId"}
    for parameter in template.partition("?")[2].split("&"):
        name, _, value = parameter.partition("=")
        if not name:
            continue
        assert name in {"patient", "category", "code", "date", "_count", "_sort"}
        assert "," not in value


def test_C7_templates_are_understood_as_a_client_resolves_them(server: Running, ehr: Standin) -> None:
    """The searches the service runs itself are its own templates (E9)."""
    request = without(minimal(fhirServer=f"{ehr.url}/fhir"), "prefetch")

    async def patient(_: Request) -> Response:
        return JSONResponse(minimal()["prefetch"]["patient"])

    ehr.on("Patient", patient)
    assert server.post(ASSESSMENT, request).status_code == 200
    asked = {url.removeprefix(f"{ehr.url}/fhir/") for url, _ in ehr.requests}
    assert asked == {t.template.replace("{{context.patientId}}", "p") for t in SERVICES[0].templates}


# -- D. The call


def test_D1_a_call_is_answered(server: Running) -> None:
    assert server.post(ASSESSMENT, minimal()).status_code == 200


@pytest.mark.parametrize("member", ["hook", "hookInstance", "context"])
def test_D2_D3_D6_a_missing_required_member_is_named(server: Running, member: str) -> None:
    issue = outcome(server.post(ASSESSMENT, without(minimal(), member)), 400)
    assert issue["expression"] == [member]


@pytest.mark.parametrize("hook", ["order-select", "patient-views", "", 7, None])
def test_D2_another_hook_is_refused(server: Running, hook: Any) -> None:
    assert outcome(server.post(ASSESSMENT, minimal(hook=hook)), 400)["expression"] == ["hook"]


@pytest.mark.parametrize("instance", ["", "1", "not-a-uuid", "d1577c69-dfbe-44ad-ba6d-3e05e953b2e", 12, None])
def test_D3_a_hook_instance_is_a_uuid(server: Running, instance: Any) -> None:
    assert outcome(server.post(ASSESSMENT, minimal(hookInstance=instance)), 400)["expression"] == [
        "hookInstance"
    ]


def test_D4_D5_authorization_without_a_server_and_no_prefetch_are_tolerated(server: Running) -> None:
    assert server.post(ASSESSMENT, minimal(fhirAuthorization={"access_token": "t"})).status_code == 200
    outcome(server.post(ASSESSMENT, without(minimal(), "prefetch")), 412)


@pytest.mark.parametrize("field", ["userId", "patientId"])
@pytest.mark.parametrize("value", [None, "", " ", 5, ["p"], "a\u0000b", "x" * 300])
def test_D6_D8_patient_view_needs_user_and_patient(server: Running, field: str, value: Any) -> None:
    issue = outcome(server.post(ASSESSMENT, with_member(minimal(), value, "context", field)), 400)
    assert issue["expression"] == [f"context.{field}"]
    issue = outcome(server.post(ASSESSMENT, without(minimal(), "context", field)), 400)
    assert issue["expression"] == [f"context.{field}"]


@pytest.mark.parametrize("field", ["userId", "patientId", "selections", "draftOrders"])
def test_D8_order_select_needs_selections_and_draft_orders(server: Running, field: str) -> None:
    issue = outcome(server.post(REVIEW, without(example("order-select-tests"), "context", field)), 400)
    assert issue["expression"] == [f"context.{field}"]


def test_D7_unknown_members_and_extensions_are_ignored(server: Running) -> None:
    plain = example("sepsis")
    noisy = with_member(plain, {"org.example.x": {"a": [1, None]}}, "surprise")
    noisy["extension"] = {**noisy.get("extension", {}), "com.example": {"x": True}, "odd": 3}
    noisy["context"]["surprise"] = {"deep": []}
    noisy["prefetch"]["patient"]["extension"] = [{"url": "http://x.example", "valueBoolean": True}]
    first, second = server.post(ASSESSMENT, plain), server.post(ASSESSMENT, noisy)
    assert second.status_code == 200
    assert [c["summary"] for c in first.json()["cards"]] == [c["summary"] for c in second.json()["cards"]]


def test_D9_the_selections_are_judged_and_details_may_be_missing(server: Running) -> None:
    request = example("order-select-tests")
    for entry in request["context"]["draftOrders"]["entry"]:
        for member in ("intent", "authoredOn", "requester"):
            entry["resource"].pop(member, None)
    assert server.post(REVIEW, request).status_code == 200


def test_D10_resources_of_another_fhir_version_are_reported_not_fatal(server: Running) -> None:
    request = example("order-select-tests")
    dstu2 = {"resourceType": "MedicationOrder", "id": "m", "patient": {"reference": "Patient/x"}}
    request["context"]["draftOrders"]["entry"].append({"resource": dstu2})
    assert server.post(REVIEW, request).status_code == 200


def test_D11_status_codes(server: Running) -> None:
    body = json.dumps(minimal()).encode()
    outcome(server.post("/cds-services/unknown", body), 404)
    outcome(server.client.get("/nothing-here"), 404)
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        refusal = server.client.request(method, ASSESSMENT)
        outcome(refusal, 405)
        assert "POST" in refusal.headers["allow"]
    outcome(server.client.post("/cds-services"), 405)
    for wrong in (
        "text/plain",
        "application/xml",
        "multipart/form-data",
        "application/json; charset=latin-1",
    ):
        outcome(server.post(ASSESSMENT, body, headers={"Content-Type": wrong}), 415)
    for malformed in (b"", b"{", b"[]", b"null", b'"x"', b"{]", b"\xff\xfe", body[:-3]):
        outcome(server.post(ASSESSMENT, malformed), 400)


def test_D11_too_large_is_413(start_server: Any) -> None:
    running = start_server(max_body_bytes=20_000)
    large = minimal(padding="x" * 20_000)
    outcome(running.post(ASSESSMENT, large), 413)

    def chunks() -> Any:
        yield from (json.dumps(large).encode()[i : i + 1000] for i in range(0, 21_000, 1000))

    answer = running.client.post(ASSESSMENT, content=chunks(), headers={"Content-Type": "application/json"})
    outcome(answer, 413)
    assert running.post(ASSESSMENT, minimal()).status_code == 200


# -- E. Prefetched data


def serve_record(ehr: Standin, request: dict[str, Any]) -> None:
    """Let the EHR's FHIR server hold what an example request prefetches."""

    async def answer(asked: Request) -> Response:
        for template in SERVICES[0].templates:
            wanted = template.template.replace("{{context.patientId}}", request["context"]["patientId"])
            if str(asked.url) == f"{ehr.url}/fhir/{wanted}":
                return JSONResponse(request["prefetch"][template.key], media_type="application/fhir+json")
        return Response(status_code=404)

    for template in SERVICES[0].templates:
        ehr.on(template.resource_types[0], answer)


def test_E1_E2_E9_prefetch_and_fhir_access_give_the_same_cards(server: Running, ehr: Standin) -> None:
    request = example("sepsis")
    serve_record(ehr, request)
    sent = server.post(ASSESSMENT, request).json()["cards"]
    fetched = without(request, "prefetch") | {
        "fhirServer": f"{ehr.url}/fhir",
        "fhirAuthorization": {"access_token": "t-1", "token_type": "Bearer"},
    }
    got = server.post(ASSESSMENT, fetched).json()["cards"]
    assert sent
    assert [card["summary"] for card in got] == [card["summary"] for card in sent]


def test_E2_only_what_is_missing_is_fetched(server: Running, ehr: Standin) -> None:
    request = with_member(example("sepsis"), f"{ehr.url}/fhir", "fhirServer")
    serve_record(ehr, example("sepsis"))
    server.post(ASSESSMENT, without(request, "prefetch", "conditions"))
    assert [urlsplit(url).path for url, _ in ehr.requests] == ["/fhir/Condition"]


def test_E3_required_data_that_cannot_be_had_is_412(server: Running, ehr: Standin) -> None:
    issue = outcome(server.post(ASSESSMENT, minimal(prefetch={})), 412)
    assert issue["expression"] == ["prefetch.patient"]
    ehr.on("Patient", status(404))
    outcome(server.post(ASSESSMENT, minimal(prefetch={}, fhirServer=f"{ehr.url}/fhir")), 412)


def test_E3_another_patient_is_never_assessed(server: Running) -> None:
    request = with_member(example("sepsis"), "somebody-else", "prefetch", "patient", "id")
    outcome(server.post(ASSESSMENT, request), 422)


def test_E4_null_is_no_data_and_asks_for_nothing(server: Running, ehr: Standin) -> None:
    keys = [template.key for template in SERVICES[0].templates if template.key != "patient"]
    request = minimal(fhirServer=f"{ehr.url}/fhir")
    request["prefetch"] |= dict.fromkeys(keys)
    assert server.post(ASSESSMENT, request).status_code == 200
    assert ehr.requests == []
    outcome(server.post(ASSESSMENT, minimal(prefetch={"patient": None})), 412)


def test_E5_a_missing_key_is_not_provided_and_said_so(server: Running) -> None:
    request = without(example("sepsis"), "prefetch", "allergies")
    [card, *_] = server.post(ASSESSMENT, request).json()["cards"]
    complete = server.post(ASSESSMENT, example("sepsis")).json()["cards"][0]
    assert "llerg" in card["detail"]
    assert card["detail"] != complete["detail"]


def test_E6_an_operation_outcome_in_prefetch_is_not_data(server: Running, ehr: Standin) -> None:
    refusal = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "forbidden"}]}
    outcome(server.post(ASSESSMENT, minimal(prefetch={"patient": refusal})), 412)
    request = with_member(example("sepsis"), refusal, "prefetch", "conditions")
    assert server.post(ASSESSMENT, request).status_code == 200
    serve_record(ehr, example("sepsis"))
    server.post(ASSESSMENT, request | {"fhirServer": f"{ehr.url}/fhir"})
    assert [urlsplit(url).path for url, _ in ehr.requests] == ["/fhir/Condition"]


def test_E7_a_paged_bundle_is_read_on_with_the_token(server: Running, ehr: Standin) -> None:
    async def second(_: Request) -> Response:
        return bundle([condition("second")])

    ehr.on("Condition", second)
    paged = {
        "resourceType": "Bundle",
        "type": "searchset",
        "link": [{"relation": "next", "url": f"{ehr.url}/fhir/Condition?page=2"}],
        "entry": [{"resource": condition("first")}],
    }
    request = with_member(example("sepsis"), paged, "prefetch", "conditions")
    request |= {"fhirServer": f"{ehr.url}/fhir", "fhirAuthorization": {"access_token": "t-7"}}
    assert server.post(ASSESSMENT, request).status_code == 200
    assert ehr.requests == [(f"{ehr.url}/fhir/Condition?page=2", "Bearer t-7")]


def test_E8_empty_bundles_are_fine(server: Running) -> None:
    request = example("sepsis")
    request["prefetch"]["conditions"] = {"resourceType": "Bundle", "type": "searchset", "total": 0}
    request["prefetch"]["allergies"] = {"resourceType": "Bundle", "type": "searchset", "entry": []}
    assert server.post(ASSESSMENT, request).status_code == 200


def test_E10_a_call_is_answered_in_well_under_500_ms(server: Running) -> None:
    body = json.dumps(example("sepsis")).encode()
    server.post(ASSESSMENT, body)
    seconds = []
    for _ in range(9):
        began = time.perf_counter()
        server.post(ASSESSMENT, body)
        seconds.append(time.perf_counter() - began)
    assert sorted(seconds)[4] < 0.5


# -- F. FHIR access


def test_F1_F2_the_token_is_presented_as_bearer_with_each_call(server: Running, ehr: Standin) -> None:
    serve_record(
        ehr, minimal() | {"prefetch": {t.key: None for t in SERVICES[0].templates} | minimal()["prefetch"]}
    )
    access = {
        "access_token": "tok-123",
        "token_type": "Bearer",
        "expires_in": 300,
        "scope": "x",
        "subject": "c",
    }
    server.post(ASSESSMENT, minimal(prefetch={}, fhirServer=f"{ehr.url}/fhir", fhirAuthorization=access))
    assert len(ehr.requests) == len(SERVICES[0].templates)
    assert {header for _, header in ehr.requests} == {"Bearer tok-123"}


async def test_F3_the_token_is_in_no_log_and_no_database_and_not_reused(
    start_server: Any, ehr: Standin, capfd: pytest.CaptureFixture[str]
) -> None:
    running = start_server()
    secret = f"secret-{uuid.uuid4()}"
    request = minimal(fhirServer=f"{ehr.url}/fhir", fhirAuthorization={"access_token": secret})
    assert running.post(ASSESSMENT, request).status_code == 200
    used = len(ehr.requests)
    assert used
    assert running.post(ASSESSMENT, without(request, "fhirAuthorization")).status_code == 200
    assert {header for _, header in ehr.requests[used:]} == {None}
    out, err = capfd.readouterr()
    assert secret not in out + err
    state = b"".join(p.read_bytes() for p in running.house.settings.var_dir.rglob("*") if p.is_file())
    assert secret.encode() not in state
    assert "Practitioner/1" not in json.dumps(
        await rows(running.database_url, "SELECT * FROM events"), default=str
    )


@pytest.mark.parametrize("authorization", [{}, {"access_token": None}, {"token_type": "Bearer"}])
def test_F4_authorization_without_a_token_reads_without_one(
    server: Running, ehr: Standin, authorization: dict[str, Any]
) -> None:
    request = minimal(fhirServer=f"{ehr.url}/fhir", fhirAuthorization=authorization)
    assert server.post(ASSESSMENT, request).status_code == 200
    assert {header for _, header in ehr.requests} == {None}


def test_F5_scopes_of_smart_2_are_taken_as_they_come(server: Running) -> None:
    access = {"access_token": "t", "scope": "user/Observation.rs patient/Patient.r", "expires_in": "300"}
    assert server.post(ASSESSMENT, minimal(fhirAuthorization=access)).status_code == 200


def test_F6_a_server_that_is_not_on_the_allow_list_is_not_asked(start_server: Any, ehr: Standin) -> None:
    running = start_server(fhir_server_allowlist="https://fhir.hospital.example/r4")
    request = minimal(prefetch={}, fhirServer=f"{ehr.url}/fhir", fhirAuthorization={"access_token": "t"})
    assert "allow list" in outcome(running.post(ASSESSMENT, request), 412)["diagnostics"]
    assert running.post(ASSESSMENT, request | {"prefetch": minimal()["prefetch"]}).status_code == 200
    assert ehr.requests == []


def test_F6_neither_a_redirect_nor_a_foreign_next_link_is_followed(server: Running, ehr: Standin) -> None:
    elsewhere = Standin()
    with serving(elsewhere.app) as other:
        ehr.on("Observation", redirecting(lambda: other))
        paged = {
            "resourceType": "Bundle",
            "type": "searchset",
            "link": [{"relation": "next", "url": f"{other}/fhir/Condition?page=2"}],
            "entry": [{"resource": condition("first")}],
        }
        request = with_member(minimal(), paged, "prefetch", "conditions")
        request |= {"fhirServer": f"{ehr.url}/fhir", "fhirAuthorization": {"access_token": "t-9"}}
        assert server.post(ASSESSMENT, request).status_code == 200
    assert any("/Observation" in url for url, _ in ehr.requests)
    assert elsewhere.requests == []


def test_F6_a_slow_server_costs_the_time_budget_and_no_more(start_server: Any, ehr: Standin) -> None:
    running = start_server(fhir_time_budget_ms=300)
    for template in SERVICES[0].templates:
        ehr.on(template.resource_types[0], slow(5))
    began = time.perf_counter()
    answer = running.post(ASSESSMENT, minimal(fhirServer=f"{ehr.url}/fhir"))
    assert time.perf_counter() - began < 2.5
    assert answer.status_code == 200


# -- G. Response


def test_G1_every_answer_has_an_array_of_cards(answers: list[dict[str, Any]]) -> None:
    assert all(isinstance(answer["cards"], list) for answer in answers)


def test_G2_nothing_to_say_is_an_empty_array(server: Running) -> None:
    answer = server.post(ASSESSMENT, example("healthy-checkup"))
    assert answer.content == b'{"cards":[]}'


def test_G4_every_refusal_is_an_operation_outcome(server: Running) -> None:
    outcome(server.post(ASSESSMENT, b"{"), 400)
    outcome(server.client.get("/cds-services/diagnostic-assessment/x/y"), 404)
    outcome(server.client.delete("/cds-services"), 405)
    outcome(server.client.delete("/api/v1/predict"), 405)


def test_G5_summary_is_one_line_under_140_characters(cards: list[dict[str, Any]]) -> None:
    assert all(0 < len(card["summary"]) < 140 and "\n" not in card["summary"] for card in cards)


def test_G6_indicator_is_one_of_three(cards: list[dict[str, Any]]) -> None:
    assert {card["indicator"] for card in cards} <= {"info", "warning", "critical"}
    assert "critical" in {card["indicator"] for card in cards}


def test_G6_the_gravest_card_comes_first_and_there_are_at_most_three(answers: list[dict[str, Any]]) -> None:
    rank = {"critical": 0, "warning": 1, "info": 2}
    for answer in answers:
        ranks = [rank[card["indicator"]] for card in answer["cards"]]
        assert ranks == sorted(ranks)
        assert len(ranks) <= 3


def test_G7_G8_source_has_a_label_a_topic_and_absolute_addresses(cards: list[dict[str, Any]]) -> None:
    for card in cards:
        source = card["source"]
        assert source["label"]
        assert source["topic"]["code"]
        assert source["topic"]["system"]
        for member in ("url", "icon"):
            if member in source:
                assert urlsplit(source[member]).scheme in ("http", "https")


def test_G9_detail_is_markdown_without_html(cards: list[dict[str, Any]]) -> None:
    parser = MarkdownIt("commonmark").enable("table")
    for card in cards:
        for token in parser.parse(card.get("detail", "")):
            assert token.type != "html_block"
            assert not any(child.type == "html_inline" for child in token.children or ())


def test_G10_cards_have_a_uuid_of_their_own(cards: list[dict[str, Any]]) -> None:
    ids = [card["uuid"] for card in cards]
    assert all(str(uuid.UUID(i)) == i for i in ids)
    assert len(set(ids)) == len(ids)


def test_G11_selection_behavior_stands_exactly_with_suggestions(cards: list[dict[str, Any]]) -> None:
    for card in cards:
        assert ("selectionBehavior" in card) == ("suggestions" in card)
        assert card.get("selectionBehavior", "any") in {"at-most-one", "any"}


def test_G12_suggestions_have_label_and_uuid(suggestions: list[dict[str, Any]]) -> None:
    for suggestion in suggestions:
        assert suggestion["label"]
        assert uuid.UUID(suggestion["uuid"])
        assert isinstance(suggestion.get("isRecommended", False), bool)


def test_G13_several_are_recommended_only_where_any_may_be_chosen(cards: list[dict[str, Any]]) -> None:
    for card in cards:
        recommended = sum(s.get("isRecommended", False) for s in card.get("suggestions", []))
        assert recommended <= 1 or card["selectionBehavior"] == "any"


def test_G14_G15_G16_actions_are_complete(suggestions: list[dict[str, Any]]) -> None:
    kinds = set()
    for suggestion in suggestions:
        for action in suggestion["actions"]:
            kinds.add(action["type"])
            assert action["description"]
            if action["type"] == "create":
                assert "id" not in action["resource"]
                get_fhir_model_class(action["resource"]["resourceType"]).model_validate(action["resource"])
            elif action["type"] == "update":
                assert action["resource"]["id"]
            else:
                assert re.fullmatch(r"[A-Z][A-Za-z]+/[A-Za-z0-9.-]+", action["resourceId"])
                assert "resource" not in action
    assert "create" in kinds


def test_G17_G24_override_reasons_are_codings(cards: list[dict[str, Any]]) -> None:
    reasons = [reason for card in cards for reason in card.get("overrideReasons", [])]
    assert reasons
    assert all(reason["code"] and reason["system"] and reason["display"] for reason in reasons)


def test_G18_G19_G20_links_are_labelled_and_typed(cards: list[dict[str, Any]]) -> None:
    for link in [link for card in cards for link in card.get("links", [])]:
        assert link["label"]
        assert urlsplit(link["url"]).scheme in ("http", "https")
        assert link["type"] in {"absolute", "smart"}
        assert link["type"] == "smart" or "appContext" not in link


def test_G21_G22_no_action_behaviour_and_no_system_action_is_assumed(answers: list[dict[str, Any]]) -> None:
    text = json.dumps(answers)
    assert "actionSelectionBehavior" not in text
    assert "systemActions" not in text


def test_G23_extensions_are_objects(answers: list[dict[str, Any]]) -> None:
    def check(value: Any) -> None:
        if isinstance(value, dict):
            assert isinstance(value.get("extension", {}), dict | list)
            for inner in value.values():
                check(inner)
        elif isinstance(value, list):
            for inner in value:
                check(inner)

    check(answers)


# -- H. Feedback


def feedback(*items: dict[str, Any]) -> dict[str, Any]:
    return {"feedback": list(items)}


def accepted(card: str, **changes: Any) -> dict[str, Any]:
    return {"card": card, "outcome": "accepted", "outcomeTimestamp": DAY} | changes


async def stored(server: Running, card: str) -> list[tuple[Any, ...]]:
    query = "SELECT outcome, reason_code, comment FROM feedback WHERE card = :card ORDER BY seq"
    return await rows(server.database_url, query, card=card)


async def test_H1_H4_acceptance_of_a_shown_card_is_stored(server: Running) -> None:
    [card, *_] = server.post(ASSESSMENT, example("sepsis")).json()["cards"]
    item = accepted(card["uuid"], acceptedSuggestions=[{"id": card["suggestions"][0]["uuid"]}])
    answer = server.post(f"{ASSESSMENT}/feedback", feedback(item))
    assert answer.is_success
    assert await stored(server, card["uuid"]) == [("accepted", None, None)]
    shown = await rows(
        server.database_url, "SELECT count(*) FROM shown_cards WHERE uuid = :u", u=card["uuid"]
    )
    assert shown == [(1,)]


async def test_H5_an_override_is_stored_with_its_reason_and_the_comment_encrypted(server: Running) -> None:
    card = str(uuid.uuid4())
    reason = {
        "reason": {"code": "disagree", "system": "urn:cds-server:override-reason"},
        "userComment": "patient is palliative",
    }
    item = accepted(card, outcome="overridden", overrideReason=reason)
    assert server.post(f"{ASSESSMENT}/feedback", feedback(item)).is_success
    [(result, code, comment)] = await stored(server, card)
    assert (result, code) == ("overridden", "disagree")
    assert "palliative" not in comment
    for partial in ({"userComment": "x"}, {"reason": {"code": "r1", "system": "urn:x"}}, {}):
        item = accepted(card, outcome="overridden", overrideReason=partial)
        assert server.post(f"{ASSESSMENT}/feedback", feedback(item)).is_success


OURS = "urn:cds-server:override-reason"


@pytest.mark.parametrize(
    ("sent", "plain"),
    [
        ({"code": "disagree", "system": OURS}, ("disagree", OURS, None)),
        ({"code": "disagree"}, ("disagree", None, None)),
        (
            {"code": "disagree", "system": OURS, "display": "No estoy de acuerdo con la valoración"},
            ("disagree", OURS, "No estoy de acuerdo con la valoración"),
        ),
        ({"code": "disagree", "system": OURS, "display": "Mr Doe is my uncle"}, ("disagree", OURS, None)),
        ({"code": "r1", "system": "urn:x", "display": "No"}, (None, None, None)),
        ({"code": "disagree", "system": "urn:x"}, (None, None, None)),
        ({"code": "Mr Doe is my uncle"}, (None, None, None)),
    ],
    ids=str,
)
async def test_H5_a_reason_beyond_the_card_s_own_is_encrypted_like_a_comment(
    server: Running, sent: dict[str, str], plain: tuple[str | None, ...]
) -> None:
    card = str(uuid.uuid4())
    item = accepted(card, outcome="overridden", overrideReason={"reason": sent})
    assert server.post(f"{ASSESSMENT}/feedback", feedback(item)).is_success
    query = "SELECT reason_code, reason_system, reason_display, payload FROM feedback WHERE card = :card"
    [row] = await rows(server.database_url, query, card=card)
    assert row[:3] == plain
    for name, text in sent.items():
        if text not in plain:
            assert f'"{text}"' not in row[3], name
    record = decode(row[3])
    assert isinstance(record, CardFeedback)
    engine, site = create_engine(server.database_url), site_keys(server.house.settings)
    keys = DataKeys(site.master, now=utc_now)
    store = FeedbackStore(server.house.trail, Cipher(site.cipher), keys, engine=engine)
    whole = await store.opened(record)
    await engine.dispose()
    assert (whole.reason_code, whole.reason_system, whole.reason_display) == tuple(
        sent.get(name) for name in ("code", "system", "display")
    )


def test_H2_an_empty_array_is_taken_and_anything_else_is_not(server: Running) -> None:
    assert server.post(f"{ASSESSMENT}/feedback", feedback()).is_success
    for body in (b"", b"[]", b"{}", b'{"feedback": {}}', b'{"feedback": [1]}', b'{"feedback": null}'):
        outcome(server.post(f"{ASSESSMENT}/feedback", body), 400)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("card", None),
        ("card", "not-a-uuid"),
        ("outcome", "ignored"),
        ("outcome", None),
        ("outcomeTimestamp", "yesterday"),
        ("outcomeTimestamp", "2026-11-20T10:00:00"),
        ("outcomeTimestamp", None),
    ],
)
def test_H3_required_members_are_checked_and_named(server: Running, member: str, value: Any) -> None:
    item = accepted(str(uuid.uuid4()))
    for wrong in (item | {member: value}, without(item, member)):
        issue = outcome(server.post(f"{ASSESSMENT}/feedback", feedback(wrong)), 400)
        assert issue["expression"][0].endswith(member)


async def test_H6_the_same_card_may_come_several_times_and_several_cards_at_once(server: Running) -> None:
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    body = feedback(accepted(first), accepted(second), accepted(first, outcome="overridden"))
    assert server.post(f"{ASSESSMENT}/feedback", body).is_success
    assert [row[0] for row in await stored(server, first)] == ["accepted", "overridden"]
    assert len(await stored(server, second)) == 1


async def test_H7_feedback_on_a_card_we_never_showed_is_recorded_and_2xx(server: Running) -> None:
    unknown = str(uuid.uuid4())
    assert server.post(f"{REVIEW}/feedback", feedback(accepted(unknown))).is_success
    assert len(await stored(server, unknown)) == 1
    assert await rows(server.database_url, "SELECT uuid FROM shown_cards WHERE uuid = :u", u=unknown) == []


def test_H1_feedback_for_an_unknown_service_is_404(server: Running) -> None:
    outcome(server.post("/cds-services/unknown/feedback", feedback()), 404)


# -- I. Security: browsers


@pytest.mark.parametrize(
    "origin", ["https://sandbox.cds-hooks.org", "http://localhost:3000", "http://127.0.0.1:8081"]
)
@pytest.mark.parametrize("path", ["/cds-services", ASSESSMENT, f"{ASSESSMENT}/feedback"])
def test_I12_a_preflight_needs_no_token(server: Running, origin: str, path: str) -> None:
    answer = server.client.options(
        path,
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
            "Access-Control-Request-Private-Network": "true",
        },
    )
    assert answer.status_code in (200, 204)
    assert answer.headers["access-control-allow-origin"] == origin
    assert "POST" in answer.headers["access-control-allow-methods"]
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert "authorization" in allowed
    assert "content-type" in allowed
    assert answer.headers["access-control-allow-private-network"] == "true"


def test_I12_answers_and_refusals_can_be_read_by_the_browser(server: Running) -> None:
    headers = {"Origin": "https://sandbox.cds-hooks.org"}
    for answer in (
        server.client.get("/cds-services", headers=headers),
        server.post(ASSESSMENT, minimal(), headers=headers),
        server.post(ASSESSMENT, b"{", headers=headers),
        server.client.get("/nowhere", headers=headers),
    ):
        assert answer.headers["access-control-allow-origin"] == headers["Origin"]
        assert answer.headers.get_list("access-control-allow-origin") == [headers["Origin"]]


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost.evil.example", "null"])
def test_I12_other_origins_get_no_access(server: Running, origin: str) -> None:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in server.client.options(ASSESSMENT, headers=headers).headers
    assert "access-control-allow-origin" not in server.client.get("/cds-services", headers=headers).headers


def test_I12_a_site_names_its_own_origins(start_server: Any) -> None:
    running = start_server(cors_origins="https://ehr.hospital.example")
    for origin, expected in (
        ("https://ehr.hospital.example", True),
        ("https://sandbox.cds-hooks.org", False),
    ):
        answer = running.client.get("/cds-services", headers={"Origin": origin})
        assert ("access-control-allow-origin" in answer.headers) is expected
