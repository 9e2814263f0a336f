"""The order-select examples with a differential, read through the real chart and rules, in both languages.

The differential is written by hand here, so that the examples say what they are for whatever model is
shipped.
"""

import json
from datetime import datetime
from functools import cache
from pathlib import Path

import msgspec
import pytest

from fhir_adapters.chart_builder import ChartBuilder
from fhir_adapters.decode import read_bundle
from hooks import order_review
from hooks.texts import LANGUAGES, texts_for
from models.assessment import NextStep, Prediction
from models.engine import Engine
from models.order_guidance import OrderGuidance
from models.rules.actions import Actions
from models.rules.analytes import load_analytes
from models.rules.currency import Currency, Windows
from models.rules.order_rules import OrderRules
from models.rules.red_flags import RedFlagRules
from models.rules.terms import TermTable

EXAMPLES = Path(__file__).parents[2] / "examples"


@cache
def _rooms():
    builder = ChartBuilder.load()
    ontology = builder.tables.ontology
    actions = Actions.load()
    terms = TermTable(ontology, load_analytes())
    RedFlagRules.load(terms, actions)
    guidance = OrderGuidance.load(actions, OrderRules.load(terms, actions))
    return builder, Engine.load(ontology), guidance, terms


def chart_of(name):
    """The chart of an example and the names of its facts."""
    builder = _rooms()[0]
    request = json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    resources = []
    for value in request["prefetch"].values():
        entries = value.get("entry", ()) if value["resourceType"] == "Bundle" else [{"resource": value}]
        resources += [{"resource": entry["resource"]} for entry in entries]
    sent = json.dumps({"resourceType": "Bundle", "type": "collection", "entry": resources}).encode()
    context = request["context"]
    return builder.build(
        read_bundle(sent),
        at=datetime.fromisoformat(request["extension"]["org.cds-server.as-of"]["instant"]),
        patient_id=context["patientId"],
        encounter_id=context["encounterId"],
        draft_orders=read_bundle(json.dumps(context["draftOrders"]).encode()),
        selections=context["selections"],
    )


def cards_of(name, language, common, steps):
    builder, engine, guidance, terms = _rooms()
    chart = chart_of(name)
    bare = engine.assess(chart)
    kept = tuple(c for c in bare.order_concerns if c.kind not in ("harmful-in-diagnosis", "separating-test"))
    bare = msgspec.structs.replace(bare, common=common, next_steps=steps, order_concerns=kept)
    assessment = guidance.complete(bare, chart, terms.match(chart, Currency(chart, Windows.load())))
    return order_review.cards(chart, assessment, language=language, seed="s", names=builder.name_of)


CHEST = (
    Prediction(
        "aortic-dissection",
        "Acute aortic dissection",
        0.34,
        (),
        label_es="Disección aórtica aguda",
        immediate=0.95,
    ),
    Prediction(
        "nstemi",
        "Non-ST-elevation myocardial infarction",
        0.3,
        (),
        label_es="Infarto sin elevación del ST",
        immediate=0.9,
    ),
)
CHEST_STEPS = (
    NextStep("test", "ct-angiography-aorta", "x", 0.7, ("aortic-dissection", "nstemi")),
    NextStep("test", "d-dimer", "x", 0.3, ("aortic-dissection", "nstemi")),
)
BREATH = (
    Prediction(
        "pulmonary-embolism", "Pulmonary embolism", 0.28, (), label_es="Embolia pulmonar", immediate=0.9
    ),
    Prediction("viral-pleurisy", "Viral pleurisy", 0.33, (), label_es="Pleuritis vírica", immediate=0.1),
)
BREATH_STEPS = (NextStep("test", "d-dimer", "x", 0.2, ("pulmonary-embolism", "viral-pleurisy")),)


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_anticoagulant_before_a_possible_dissection_is_stopped_and_the_aorta_imaged(language):
    found = cards_of("order-select-harm", language, CHEST, CHEST_STEPS)
    harm = found[0]
    disease = {"en": "acute aortic dissection (34 %)", "es": "disección aórtica aguda (34 %)"}[language]
    drug = {"en": "enoxaparin", "es": "enoxaparina"}[language]
    assert harm.indicator == "critical"
    assert disease in harm.summary and harm.summary.lower().startswith(drug)
    made = {action.type for suggestion in harm.suggestions for action in suggestion.actions}
    assert made == {"create", "delete"}
    # The image is offered with the drug, not a second time.
    assert "order-separating" not in {card.source.topic.code for card in found}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_x_ray_that_was_reported_an_hour_ago_need_not_be_repeated(language):
    found = cards_of("order-select-harm", language, CHEST, CHEST_STEPS)
    duplicate = next(card for card in found if card.source.topic.code == "order-duplicate")
    title = texts_for(language)["action.chest-x-ray.title"]
    assert duplicate.summary.startswith(title)
    assert "DiagnosticReport/" in duplicate.detail
    assert [a.resourceId for s in duplicate.suggestions for a in s.actions] == [
        "ServiceRequest/draft-chest-x-ray"
    ]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_test_that_tells_embolism_from_pleurisy_is_one_click_away(language):
    found = cards_of("order-select-decide", language, BREATH, BREATH_STEPS)
    card = next(card for card in found if card.source.topic.code == "order-separating")
    names = {
        "en": ("pulmonary embolism", "viral pleurisy"),
        "es": ("embolia pulmonar", "pleuritis vírica"),
    }[language]
    assert all(name in card.summary for name in names)
    assert texts_for(language)["order_guidance.strength.clear"] in card.detail
    (suggestion,) = card.suggestions
    resource = suggestion.actions[0].resource
    assert resource["code"]["coding"][0]["code"] == "48065-7"
    assert resource["subject"] == {"reference": "Patient/order-select-decide"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_without_a_differential_nothing_of_this_is_said(language):
    for name in ("order-select-harm", "order-select-decide"):
        topics = {card.source.topic.code for card in cards_of(name, language, (), ())}
        assert topics.isdisjoint({"order-harm", "order-separating"})
