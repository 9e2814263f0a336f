"""`$assess`, the capability statement and the simple form: contract, validity, same answer as the hook."""

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from audit_helpers import rows
from differential_values import ill, ill_chart, names
from fhir.resources.R4B import get_fhir_model_class
from server_helpers import ASSESSMENT, Running, empty_members, example, minimal, outcome

from cds_server.api.answer import simple_answer
from cds_server.api.schemas import PredictResponse
from cds_server.fhir_api.capability import operation_definition
from cds_server.fhir_api.parameters import assessment_parameters
from hooks.texts import texts_for

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
    served = {one["type"]: one["interaction"] for one in body["rest"][0]["resource"]}
    assert served["RiskAssessment"] == [{"code": "read"}]
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


# -- the differential ---------------------------------------------------------------------------


def assessed(language: str = "en", **changes: Any) -> dict[str, Any]:
    found = assessment_parameters(ill_chart(), ill(**changes), language=language, names=names)
    body: dict[str, Any] = json.loads(msgspec.json.encode(found))
    return body


def all_named(body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [parameter for parameter in body["parameter"] if parameter["name"] == name]


@pytest.mark.parametrize("language", ["en", "es"])
def test_the_differential_is_valid_r4_and_holds_nothing_empty(language: str) -> None:
    body = assessed(language)
    get_fhir_model_class("Parameters").model_validate(body)
    assert empty_members(body) == []
    defined = {
        p["name"] for p in operation_definition("https://cds.example")["parameter"] if p["use"] == "out"
    }
    assert {p["name"] for p in body["parameter"]} <= defined


def test_the_differential_is_a_risk_assessment_by_falling_probability() -> None:
    risk = parameters(assessed("es"))["common"]["resource"]
    assert [p["probabilityDecimal"] for p in risk["prediction"]] == [0.62, 0.18, 0.06, 0.03, 0.021]
    first = risk["prediction"][0]
    assert first["outcome"]["text"] == "Neumonía adquirida en la comunidad"
    assert [(c["system"], c["code"]) for c in first["outcome"]["coding"]] == [
        ("http://hl7.org/fhir/sid/icd-10", "J18"),
        ("http://hl7.org/fhir/sid/icd-10-cm", "J18.9"),
        ("http://snomed.info/sct", "233604007"),
    ]
    assert first["rationale"] == (
        "A favor: temperatura corporal 39,4 °C (lo que más pesa), crepitantes y tos. "
        "En contra: ausencia de dolor torácico pleurítico"
    )
    assert "rationale" not in risk["prediction"][4]
    assert risk["note"] == [{"text": "Modelo entrenado con pacientes simulados."}]
    english = parameters(assessed())["common"]["resource"]["prediction"][1]
    assert english["rationale"] == "For: cough. Against: C-reactive protein 120 mg/L (30 h ago)"


def test_a_contribution_names_its_disease_its_fact_and_the_resources_behind_it() -> None:
    explanation = parameters(assessed())["explanation"]
    found = [p for p in explanation["part"] if p["name"] == "contribution"]
    assert len(found) == len(ill().explanation)
    assert part(found[1], "target") == "community-acquired-pneumonia"
    assert part(found[1], "target-text") == "community-acquired pneumonia"
    assert part(found[1], "amount") == 1.4
    [fact] = [p for p in found[1]["part"] if p["name"] == "fact"]
    assert part(fact, "source") == "Observation/8310-5"
    assert part(fact, "value") == {
        "value": 39.4,
        "unit": "Cel",
        "system": "http://unitsofmeasure.org",
        "code": "Cel",
    }


def test_the_set_what_would_change_it_and_what_to_find_out_are_parameters() -> None:
    body = assessed()
    [told] = all_named(body, "differential-set")
    assert part(told, "coverage") == 0.9
    assert part(told, "size") == 3
    assert part(told, "other-probability") == 0.089
    listed = [p["valueCoding"]["code"] for p in told["part"] if p["name"] == "listed"]
    assert listed == ["J18", "J20", "J11"]
    changes = all_named(body, "counterfactual")
    assert part(changes[0], "text") == (
        "With oxygen saturation 97 % instead of 93 %: community-acquired pneumonia 41 % instead of 62 %"
    )
    assert part(changes[0], "value")["value"] == 97.0
    assert (part(changes[0], "before"), part(changes[0], "after")) == (0.62, 0.41)
    assert part(changes[1], "state") == "absent"
    steps = all_named(body, "next-step")
    assert [part(step, "text") for step in steps] == [
        "productive cough",
        "rebound tenderness",
        "procalcitonin",
        "chest X-ray",
    ]
    assert part(steps[1], "code") == {"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "R10.82"}
    assert part(steps[3], "code") == {"system": "urn:cds-server:action", "code": "chest-x-ray"}
    assert [p["valueString"] for p in steps[3]["part"] if p["name"] == "separates"] == [
        "community-acquired-pneumonia",
        "acute-bronchitis",
    ]


def test_without_a_learned_engine_nothing_is_said_of_a_differential() -> None:
    body = assessed(common=(), counterfactuals=(), next_steps=(), coverage=None, set_size=None)
    assert all_named(body, "differential-set") == []
    assert "note" not in parameters(body)["common"]["resource"]
    assert simple_answer(ill_chart(), ill(common=()), texts_for("en"), names)["differential"] is None


@pytest.mark.parametrize("language", ["en", "es"])
def test_the_simple_form_shows_the_differential(language: str) -> None:
    body = simple_answer(ill_chart(), ill(), texts_for(language), names)
    answer = PredictResponse.model_validate(body)
    assert answer.differential is not None
    assert answer.common[0].in_set
    assert answer.common[0].rationale is not None
    assert answer.differential.not_known == []
    assert len(answer.differential.what_changes) == 3
    if language == "en":
        assert answer.differential.text == (
            "Model trained on simulated patients; in 90 % of such patients the true diagnosis is among the "
            "first 3."
        )
    else:
        assert answer.common[1].name == "Bronquitis aguda"
        assert answer.differential.what_next[3].text == "radiografía de tórax"


def test_the_documentation_shows_what_the_form_answers(server: Running) -> None:
    page = server.client.get("/docs").text
    for name in ("The answer", "Differential", "what_changes", "other_probability", "in_set"):
        assert name in page
