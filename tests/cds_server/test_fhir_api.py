"""`$assess`, the capability statement and the simple form: contract, validity, same answer as the hook."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from audit_helpers import rows
from fhir.resources.R4B import get_fhir_model_class
from server_helpers import ASSESSMENT, Running, empty_members, example, minimal, outcome

from cds_server.api.schemas import PredictResponse

SHARED = Path(__file__).resolve().parents[3] / "shared" / "clinical"


def bundle_of(request: dict[str, Any], kind: str = "collection") -> dict[str, Any]:
    """An example's prefetched resources as one Bundle, dated at its moment."""
    entries = []
    for value in request["prefetch"].values():
        if value is None:
            continue
        found = (
            [e["resource"] for e in value.get("entry", [])] if value["resourceType"] == "Bundle" else [value]
        )
        entries += [{"resource": resource} for resource in found]
    moment = request["extension"]["org.cds-server.as-of"]["instant"]
    return {"resourceType": "Bundle", "type": kind, "timestamp": moment, "entry": entries}


def parameters(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {parameter["name"]: parameter for parameter in body["parameter"]}


def part(parameter: dict[str, Any], name: str) -> Any:
    [found] = [p for p in parameter["part"] if p["name"] == name]
    [value] = [v for k, v in found.items() if k.startswith("value")]
    return value


def test_assess_answers_the_parameters_of_the_contract(server: Running) -> None:
    answer = server.post("/fhir/$assess", bundle_of(example("sepsis")), headers={"Accept-Language": "es"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/fhir+json"
    found = parameters(answer.json())
    assert list(found)[:6] == [
        "severity",
        "immediate-attention",
        "common",
        "rare",
        "rare-alarm",
        "escalation",
    ]
    assert found["severity"]["valueCoding"] == {
        "system": "urn:cds-server:severity",
        "code": "acute-disease",
        "display": "enfermedad aguda",
    }
    assert part(found["immediate-attention"], "decision") is True
    assert 0 <= part(found["immediate-attention"], "probability") <= 1
    assert found["escalation"]["valueCoding"]["code"] == "red-flag"
    assert {"explanation", "unreadable", "model"} <= set(found)
    assert part(found["model"], "knowledge").startswith("rules-")
    for name in ("common", "rare"):
        assert found[name]["resource"]["resourceType"] == "RiskAssessment"
        assert found[name]["resource"]["subject"]["reference"] == "Patient/sepsis"


@pytest.mark.parametrize(
    "name", ["sepsis", "dka", "healthy-checkup", "rare-disease", "odd-units", "pregnant"]
)
def test_the_answer_is_valid_r4_and_holds_nothing_empty(server: Running, name: str) -> None:
    body = server.post("/fhir/$assess", bundle_of(example(name))).json()
    get_fhir_model_class("Parameters").model_validate(body)
    assert empty_members(body) == []


@pytest.mark.parametrize("kind", ["collection", "searchset", "batch-response", "transaction", "batch"])
def test_any_kind_of_bundle_is_read(server: Running, kind: str) -> None:
    answer = server.post("/fhir/$assess", bundle_of(example("dka"), kind))
    assert parameters(answer.json())["severity"]["valueCoding"]["code"] == "acute-disease"


def test_the_same_bundle_gives_the_same_bytes(server: Running) -> None:
    body = bundle_of(example("chest-pain"))
    assert server.post("/fhir/$assess", body).content == server.post("/fhir/$assess", body).content


def test_what_is_not_a_bundle_is_400_and_no_patient_is_422(server: Running) -> None:
    outcome(server.post("/fhir/$assess", b"{"), 400)
    outcome(server.post("/fhir/$assess", {"resourceType": "Patient", "id": "p"}), 400)
    outcome(server.post("/fhir/$assess", {"resourceType": "Bundle", "type": "collection"}), 422)
    two = [{"resource": {"resourceType": "Patient", "id": i}} for i in ("a", "b")]
    outcome(server.post("/fhir/$assess", {"resourceType": "Bundle", "entry": two}), 422)


async def test_an_assessment_is_in_the_audit_trail_without_the_patients_id(server: Running) -> None:
    body = bundle_of(example("febrile-infant"))
    body["entry"][0]["resource"]["id"] = "febrile-infant-audited"
    query = "SELECT count(*) FROM events WHERE service = '$assess'"
    [(before,)] = await rows(server.database_url, query)
    assert server.post("/fhir/$assess", body).status_code == 200
    assert await rows(server.database_url, query) == [(before + 1,)]
    everything = json.dumps(await rows(server.database_url, "SELECT * FROM events"), default=str)
    assert "febrile-infant-audited" not in everything


def test_the_capability_statement_is_valid_and_true(server: Running) -> None:
    body = server.client.get("/fhir/metadata").json()
    assert body["fhirVersion"] == "4.0.1"
    get_fhir_model_class("CapabilityStatement").model_validate(body)
    [operation] = body["rest"][0]["operation"]
    path = operation["definition"].partition("/fhir/")[2]
    definition = server.client.get(f"/fhir/{path}").json()
    get_fhir_model_class("OperationDefinition").model_validate(definition)
    assert definition["url"] == operation["definition"]
    answered = {
        p["name"] for p in server.post("/fhir/$assess", bundle_of(example("sepsis"))).json()["parameter"]
    }
    defined = {p["name"] for p in definition["parameter"] if p["use"] == "out"}
    assert answered <= defined


FORM = {
    "age": 67,
    "sex": "female",
    "setting": "emergency",
    "symptoms": [{"name": "fever", "intensity": 7}, {"name": "chest pain", "intensity": 0}],
    "history": [{"code": "E11.9"}],
    "vitals": {
        "temperature_c": 39.4,
        "heart_rate": 131,
        "respiratory_rate": 28,
        "systolic_bp": 84,
        "diastolic_bp": 50,
        "spo2": 89,
        "consciousness": "confused",
    },
}


def test_the_simple_form_goes_the_same_way(server: Running) -> None:
    answer = server.post("/api/v1/predict", FORM | {"language": "es"})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["severity"] == {"code": "acute-disease", "text": "enfermedad aguda"}
    assert body["immediate_attention"]["decision"] is True
    assert body["escalation"]["code"] == "red-flag"
    [news2] = [score for score in body["explanation"]["scores"] if score["id"] == "news2"]
    # NEWS2 (RCP 2017): respiratory rate 28 = 3, SpO2 89 = 3, systolic 84 = 3, heart rate 131 = 3,
    # new confusion = 3, temperature 39.4 = 2; air or oxygen was not said.
    assert news2["value"] == 17
    assert body["unreadable"] == []
    assert abs(sum(body["severity_probabilities"].values()) - 1) < 1e-6


def test_the_simple_form_keeps_the_documented_shape(server: Running) -> None:
    PredictResponse.model_validate(server.post("/api/v1/predict", FORM).json())
    PredictResponse.model_validate(server.post("/api/v1/predict", {}).json())
    paths = server.client.get("/openapi.json").json()["paths"]
    assert "post" in paths["/api/v1/predict"]


def test_a_symptom_of_intensity_0_is_absent(server: Running) -> None:
    quiet = {"age": 40, "sex": "male", "symptoms": [{"name": "thunderclap headache", "intensity": 0}]}
    loud = {"age": 40, "sex": "male", "symptoms": [{"name": "thunderclap headache", "intensity": 9}]}
    assert server.post("/api/v1/predict", quiet).json()["escalation"]["code"] == "none"
    assert server.post("/api/v1/predict", loud).json()["escalation"]["code"] == "red-flag"


@pytest.mark.parametrize(
    ("form", "expression"),
    [
        ({"age": -1}, "age"),
        ({"age": 200}, "age"),
        ({"sex": "f"}, "sex"),
        ({"symptoms": [{"name": "fever"}, {"name": "cough", "intensity": 11}]}, "symptoms[1].intensity"),
        ({"symptoms": [{}]}, "symptoms[0]"),
        ({"vitals": {"consciousness": "sleepy"}}, "vitals.consciousness"),
        ({"language": "fr"}, "language"),
    ],
)
def test_the_form_says_which_field_is_wrong(server: Running, form: dict[str, Any], expression: str) -> None:
    assert outcome(server.post("/api/v1/predict", form), 400)["expression"] == [expression]


def test_accept_language_chooses_the_language(server: Running) -> None:
    for header, expected in (
        ("es", "es"),
        ("es-MX,en;q=0.5", "es"),
        ("fr, en;q=0.2, es;q=0.1", "en"),
        ("de", "en"),
    ):
        answer = server.post(ASSESSMENT, minimal(), headers={"Accept-Language": header})
        assert answer.headers["content-language"] == expected


@pytest.mark.skipif(not SHARED.exists(), reason="the development data is not beside this checkout")
@pytest.mark.parametrize("name", ["ktas", "ddxplus"])
def test_development_bundles_pass(server: Running, name: str) -> None:
    with gzip.open(SHARED / f"{name}_bundles.ndjson.gz") as lines:
        for number, line in enumerate(lines):
            if number % 25:
                continue
            answer = server.post("/fhir/$assess", line, headers={"Content-Type": "application/fhir+json"})
            assert answer.status_code == 200, (number, answer.text[:300])
