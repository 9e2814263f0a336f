"""What the server says of rare diseases: `$assess`, cards, the examples, evidence left out."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class
from rare_bundles import both
from server_helpers import EXAMPLES, Running, cards, example, start

from cds_server.deployment.loading import try_out
from cds_server.state import Knowledge

CALM = ("healthy-checkup", "influenza", "hypertension", "chest-pain", "sepsis", "dka", "febrile-infant")
OMIM, ORPHA = "https://omim.org", "http://www.orpha.net"
CARD = "rare-disease"


@pytest.fixture(scope="module")
def loaded(knowledge: Knowledge) -> Knowledge:
    return knowledge.with_bundle(both())


@pytest.fixture(scope="module")
def rare(
    loaded: Knowledge, tmp_path_factory: pytest.TempPathFactory, _sqlite_template: Path
) -> Iterator[Running]:
    """A server whose bundle carries the rare-disease engine."""
    with start(loaded, tmp_path_factory.mktemp("rare"), _sqlite_template) as running:
        yield running


def bundle(name: str, *excluded: str) -> dict[str, Any]:
    entries: list[dict[str, Any]] = []
    for value in example(name)["prefetch"].values():
        if value:
            entries += value.get("entry", []) if value["resourceType"] == "Bundle" else [{"resource": value}]
    tags = [{"system": "urn:exclude-evidence", "code": one} for one in excluded]
    return {
        "resourceType": "Bundle",
        "type": "collection",
        **({"meta": {"tag": tags}} if tags else {}),
        "entry": entries,
    }


def assess(server: Running, sent: dict[str, Any], language: str = "en") -> dict[str, Any]:
    answer = server.post("/fhir/$assess", json.dumps(sent).encode(), headers={"Accept-Language": language})
    assert answer.status_code == 200, answer.text
    get_fhir_model_class("Parameters").model_validate(answer.json())
    return {parameter["name"]: parameter for parameter in answer.json()["parameter"]}


def parts(parameter: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [part for part in parameter["part"] if part["name"] == name]


def test_a_hundred_diseases_are_ranked_with_the_codes_of_both_registries(rare: Running) -> None:
    found = assess(rare, bundle("rare-disease"))
    predictions = found["rare"]["resource"]["prediction"]
    shares = [one["probabilityDecimal"] for one in predictions]
    assert len(predictions) >= 100 and shares == sorted(shares, reverse=True)
    codes = [{c["system"]: c["code"] for c in one["outcome"]["coding"]} for one in predictions]
    assert {OMIM: "154700", ORPHA: "558"} in codes[:5]
    assert all(code.isdigit() for one in codes for code in one.values())
    assert {system for one in codes for system in one} == {OMIM, ORPHA}
    (decision,), (probability,) = (parts(found["rare-alarm"], n) for n in ("decision", "probability"))
    assert decision["valueBoolean"] is True and probability["valueDecimal"] > 0.7


@pytest.mark.parametrize("name", CALM)
def test_everyday_and_acute_patients_ring_no_alarm_and_are_ranked_all_the_same(
    rare: Running, name: str
) -> None:
    found = assess(rare, bundle(name))
    assert parts(found["rare-alarm"], "decision")[0]["valueBoolean"] is False
    assert len(found["rare"]["resource"].get("prediction", [])) in (0, 150)
    for language in ("en", "es"):
        assert not [c for c in cards(rare, name, language) if c["source"]["topic"]["code"] == CARD]


def test_a_chart_without_a_phenotype_gets_no_candidates_and_stays_valid(rare: Running) -> None:
    patient = {"resourceType": "Patient", "id": "p", "gender": "female", "birthDate": "1990-01-01"}
    found = assess(rare, {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": patient}]})
    assert "prediction" not in found["rare"]["resource"] and "rare-explanation" not in found
    assert parts(found["rare-alarm"], "probability")[0]["valueDecimal"] == 0


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.json")))
def test_only_the_rare_example_gets_the_card(rare: Running, name: str) -> None:
    topics = [card["source"]["topic"]["code"] for card in cards(rare, name)]
    assert topics.count(CARD) == (name == "rare-disease")


@pytest.mark.parametrize("language", ["en", "es"])
def test_the_rare_example_shows_a_marfan_like_family_and_a_way_to_genetics(
    rare: Running, language: str
) -> None:
    found = cards(rare, "rare-disease", language)
    (card,) = [card for card in found if card["source"]["topic"]["code"] == CARD]
    assert "Marfan" in card["summary"] and "2025-01-16" in card["detail"]
    title = {"en": "Clinical genetics", "es": "Genética clínica"}[language]
    drafts = [s["label"] for one in found for s in one.get("suggestions", [])]
    assert sum(title in label for label in drafts) == 1


def test_contributions_of_a_leading_disease_and_of_the_alarm_add_up(rare: Running) -> None:
    found = assess(rare, bundle("rare-disease"))
    candidates = parts(found["rare-explanation"], "candidate")
    assert len(candidates) == 5
    for one in candidates:
        score, baseline = (parts(one, name)[0]["valueDecimal"] for name in ("score", "baseline"))
        assert baseline + _amounts(one) == pytest.approx(score, abs=1e-3)
        assert parts(one, "matched")


def _amounts(parameter: dict[str, Any]) -> float:
    return sum(parts(share, "amount")[0]["valueDecimal"] for share in parts(parameter, "share"))


def test_evidence_named_by_a_tag_is_not_read(rare: Running) -> None:
    sent = bundle("rare-disease")
    before = assess(rare, sent)
    first = parts(before["rare-explanation"], "candidate")[0]
    cited = [
        reference["valueString"]
        for match in parts(first, "matched")
        for reported in parts(match, "reported")
        for reference in parts(reported, "reference")
    ]
    paper = next(each.partition(";")[0] for each in cited if each.startswith("PMID:"))
    for name in (paper, paper.removeprefix("PMID:")):
        after = assess(rare, bundle("rare-disease", name))
        told = [part["valueString"] for part in parts(after["rare-explanation"], "excluded-evidence")]
        assert told == [paper]
        leading = json.dumps(parts(after["rare-explanation"], "candidate"))
        assert f'"{paper}"' in json.dumps(parts(before["rare-explanation"], "candidate"))
        assert f'"{paper}"' not in leading
    assert assess(rare, sent) == before, "nothing of it stays"


def test_the_audit_and_the_answer_name_the_release_of_hpo(rare: Running) -> None:
    found = assess(rare, bundle("rare-disease"))
    assert "+hpo.2025-01-16" in parts(found["model"], "knowledge")[0]["valueString"]


def test_a_new_bundle_is_tried_with_its_rare_engine(loaded: Knowledge) -> None:
    try_out(loaded)
    assert loaded.engine.rare is not None
