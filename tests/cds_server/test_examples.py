"""Every shipped example is answered the way a doctor would expect, in English and Spanish."""

import json
import re
from typing import Any

import pytest
from server_helpers import EXAMPLES, Running, cards, example

# (indicator of the gravest card, what its summary must say in English, in Spanish, orders one click away)
CRITICAL: dict[str, tuple[str, str, set[str]]] = {
    "sepsis": (r"sep(sis|tic)", r"s[eé]p(sis|tico)", {"Blood cultures"}),
    "chest-pain": (r"coronary", r"coronario", {"ECG", "troponin"}),
    "febrile-infant": (r"under 3 months", r"3 meses", {"Blood cultures", "Urine culture"}),
    "dka": (r"ketoacidosis", r"cetoacidosis", set()),
    "pregnant": (r"pre-?eclampsia", r"preeclampsia", {"Urine protein"}),
    "odd-units": (r"hyperkal(a)?emia|sepsis", r"hiperpotasemia|sepsis", {"Lactate"}),
    "dolor-toracico": (r"coronary", r"coronario", {"ECG", "troponin"}),
}
QUIET = ("healthy-checkup", "hypertension", "influenza")


@pytest.mark.parametrize("name", sorted(CRITICAL))
def test_a_grave_example_gets_a_critical_card_that_names_the_problem(server: Running, name: str) -> None:
    english, spanish, orders = CRITICAL[name]
    first = cards(server, name)[0]
    assert first["indicator"] == "critical"
    assert re.search(english, first["summary"], re.I), first["summary"]
    translated = cards(server, name, "es")[0]
    assert re.search(spanish, translated["summary"], re.I), translated["summary"]
    labels = " | ".join(s["label"] for card in cards(server, name) for s in card.get("suggestions", []))
    for order in orders:
        assert order.lower() in labels.lower(), labels


@pytest.mark.parametrize("name", QUIET)
@pytest.mark.parametrize("language", ["en", "es"])
def test_a_well_or_mildly_ill_patient_gets_no_card(server: Running, name: str, language: str) -> None:
    assert cards(server, name, language) == []


def test_odd_units_are_converted_and_what_could_not_be_read_is_said(server: Running) -> None:
    answer = server.post("/fhir/$assess", _bundle("odd-units"))
    unreadable = next(p for p in answer.json()["parameter"] if p["name"] == "unreadable")
    text = json.dumps(unreadable)
    assert "impossible-value" in text and "unknown-unit" in text
    all_cards = " ".join(card["summary"] + card["detail"] for card in cards(server, "odd-units"))
    assert "370" not in all_cards
    assert "6.7 mmol/L" in all_cards
    assert re.search("sepsis", all_cards, re.I), "the potassium must not hide the infection"


def test_the_allergy_comes_before_the_interaction_and_both_drafts_can_be_removed(server: Running) -> None:
    found = cards(server, "order-select-drugs")
    assert "amoxicillin" in found[0]["summary"].lower() and found[0]["indicator"] == "critical"
    assert any("ibuprofen" in card["summary"].lower() for card in found)
    removed = {
        action["resourceId"]
        for card in found
        for suggestion in card.get("suggestions", [])
        for action in suggestion["actions"]
        if action["type"] == "delete"
    }
    assert removed == {"MedicationRequest/draft-ibuprofen", "MedicationRequest/draft-amoxicillin"}
    assert "amoxicilina" in cards(server, "order-select-drugs", "es")[0]["summary"].lower()


def test_the_test_that_was_done_is_said_and_the_missing_one_is_drafted(server: Running) -> None:
    found = cards(server, "order-select-tests")
    text = json.dumps(found)
    assert "ECG" in text and "ServiceRequest/draft-cbc" in text
    created = [
        a for c in found for s in c.get("suggestions", []) for a in s["actions"] if a["type"] == "create"
    ]
    assert any("29303009" in json.dumps(a["resource"]) for a in created)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.json")), ids=lambda path: path.stem)
def test_an_example_shows_few_short_cards_that_say_what_they_rest_on(server: Running, path: Any) -> None:
    for language, limits in (("en", "does not replace"), ("es", "no lo sustituye")):
        found = cards(server, path.stem, language)
        assert len(found) <= 3
        for card in found:
            assert len(card["summary"]) < 140
            assert len(card["detail"]) < 4_500, len(card["detail"])
            assert limits in card["detail"]
            assert len(card.get("suggestions", [])) <= 8


def test_every_example_is_described(server: Running) -> None:
    described = set(re.findall(r"`([a-z-]+)\.json`", (EXAMPLES / "README.md").read_text(encoding="utf-8")))
    assert described == {path.stem for path in EXAMPLES.glob("*.json")}


def _bundle(name: str) -> dict[str, Any]:
    entries = []
    for value in example(name)["prefetch"].values():
        resources = (
            [e["resource"] for e in value.get("entry", [])] if value["resourceType"] == "Bundle" else [value]
        )
        entries += [{"resource": resource} for resource in resources]
    return {
        "resourceType": "Bundle",
        "type": "collection",
        "timestamp": "2026-11-20T09:30:00Z",
        "entry": entries,
    }
