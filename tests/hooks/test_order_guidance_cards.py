"""What a clinician reads while ordering when a disease is suspected: harm, and the test that would decide."""

import re

import msgspec
import pytest
from hook_values import assessment, assessments, chart, charts, finding, labels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fhir_adapters.chart import Order
from hooks.cards import CardSettings
from hooks.order_review import cards
from hooks.texts import LANGUAGES, load, texts_for
from models.assessment import Fact, NextStep, OrderConcern, Prediction
from models.knowledge.drug_harms import packaged
from models.order_guidance import limits

HEPARIN = Order("MedicationRequest", "MedicationRequest/h", "Heparin 5000 units", True, atc=("B01AB01",))
DISSECTION = Prediction(
    "aortic-dissection",
    "Acute aortic dissection",
    0.22,
    (),
    label_es="Disección aórtica aguda",
    immediate=0.95,
)
STEMI = Prediction(
    "stemi",
    "ST-elevation myocardial infarction",
    0.41,
    (),
    label_es="Infarto con elevación del ST",
    immediate=0.97,
)
TORN = finding("HP:0003418", "Back pain")
HARM = OrderConcern(
    "harmful-in-diagnosis",
    "harm-anticoagulant-aortic-dissection",
    HEPARIN.reference,
    HEPARIN.label,
    "immediate",
    (TORN,),
    ("ct-angiography-aorta",),
    "grade C: estimate of this project",
    ("aortic-dissection",),
)
DECIDING = OrderConcern(
    "separating-test",
    "separating-test",
    "",
    "",
    "soon",
    (),
    ("ct-angiography-aorta",),
    "grade C: estimate of this project",
    ("aortic-dissection", "stemi"),
)


def step(gain=0.6, code="ct-angiography-aorta"):
    return NextStep("test", code, code, gain, ("aortic-dissection", "stemi"))


STEPS = (step(),)


def show(*concerns, language="en", common=(STEMI, DISSECTION), steps=STEPS, orders=(HEPARIN,), **changes):
    found = assessment(order_concerns=concerns, common=common, next_steps=steps)
    return cards(chart(orders=orders), found, language=language, seed="s", **changes)


def changed(concern, **fields):
    return msgspec.structs.replace(concern, **fields)


# -- harm ------------------------------------------------------------------------------------------------


def test_a_drug_that_harms_in_a_suspected_disease_is_named_with_disease_chance_and_reason():
    (card,) = show(HARM)
    assert card.summary == "Heparin 5000 units: dangerous bleeding if this is acute aortic dissection (22 %)"
    assert card.indicator == "critical"
    assert "Anticoagulation promotes bleeding into pericardium and pleura" in card.detail
    assert "| Back pain |" in card.detail
    assert card.source.topic.code == "order-harm"


def test_the_same_in_spanish():
    (card,) = show(HARM, language="es")
    assert card.summary == (
        "Heparin 5000 units: hemorragia peligrosa si se trata de disección aórtica aguda (22 %)"
    )
    assert "La anticoagulación favorece el sangrado a pericardio y pleura" in card.detail
    assert [s.label for s in card.suggestions] == [
        "Retirar: Heparin 5000 units",
        f"Solicitar: {texts_for('es')['action.ct-angiography-aorta.title']}",
    ]


def test_the_drug_can_be_removed_and_the_image_to_do_first_ordered_with_one_click():
    (card,) = show(HARM)
    removal, creation = card.suggestions
    assert [(a.type, a.resourceId) for a in removal.actions] == [("delete", HEPARIN.reference)]
    resource = creation.actions[0].resource
    assert resource["resourceType"] == "ServiceRequest"
    assert resource["reasonCode"][0]["text"] == (
        "dangerous bleeding if this is acute aortic dissection (22 %)"
    )


def test_the_removal_is_offered_first_only_when_the_disease_is_likely_or_the_allergy_on_record():
    assert not show(HARM)[0].suggestions[0].isRecommended
    likely = msgspec.structs.replace(DISSECTION, probability=0.7)
    assert show(HARM, common=(likely,))[0].suggestions[0].isRecommended
    allergy = OrderConcern(
        "allergy",
        "allergy-same-drug",
        HEPARIN.reference,
        HEPARIN.label,
        "immediate",
        (Fact("allergy", "B01AB01", "Heparin", ("AllergyIntolerance/1",)),),
    )
    (card,) = show(HARM, allergy)
    assert card.suggestions[0].isRecommended
    assert card.summary.startswith("Heparin 5000 units: recorded allergy to heparin; dangerous bleeding if")


def test_other_diseases_in_which_the_same_holds_are_added():
    bleeding = Prediction("upper-gi-bleeding", "Upper gastrointestinal bleeding", 0.5, (), immediate=0.9)
    tear = Prediction("mallory-weiss-tear", "Mallory-Weiss tear", 0.2, (), immediate=0.9)
    concern = changed(HARM, rule="harm-anticoagulant-gi-bleeding", diagnoses=(bleeding.id, tear.id))
    (card,) = show(concern, common=(bleeding, tear))
    assert "upper gastrointestinal bleeding (50 %)" in card.summary
    assert re.search(r"The same holds if it is mallory-weiss tear \(20 %\)\.", card.detail, re.I)
    (card,) = show(concern, common=(bleeding, tear), language="es")
    assert "Lo mismo vale si se trata de" in card.detail


def test_harm_and_contraindication_of_one_drug_are_one_card_and_other_drugs_keep_their_own():
    recorded = OrderConcern(
        "contraindicated", "anticoagulant-bleeding", HEPARIN.reference, HEPARIN.label, "immediate", ()
    )
    other = changed(HARM, order="MedicationRequest/x", order_label="Enoxaparin")
    shown = show(recorded, HARM, other)
    assert len(shown) == 2
    assert shown[0].detail.count("**Heparin 5000 units**") == 2
    assert shown[0].source.topic.code == "order-contraindication"


def test_a_rule_newer_than_the_texts_and_a_disease_that_is_not_listed_are_still_said():
    (card,) = show(changed(HARM, rule="harm-of-tomorrow"))
    assert card.summary.startswith("Heparin 5000 units: possible harm if this is")
    (card,) = show(HARM, common=())
    assert card.summary == "Heparin 5000 units: dangerous bleeding"


# -- the test that would decide --------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_deciding_test_is_one_click_and_says_which_diseases_it_separates_and_how_well(language):
    (card,) = show(DECIDING, language=language)
    texts = texts_for(language)
    title = texts["action.ct-angiography-aorta.title"]
    diseases = {
        "en": ("acute aortic dissection", "ST-elevation myocardial infarction"),
        "es": ("disección aórtica aguda", "infarto con elevación del ST"),
    }[language]
    assert card.summary.startswith(title)
    assert all(name in card.summary for name in diseases)
    assert all(name in card.detail for name in diseases)
    assert "22 %" in card.detail and "41 %" in card.detail
    assert texts["order_guidance.strength.strong"] in card.detail
    assert card.indicator == "info"
    (suggestion,) = card.suggestions
    assert not suggestion.isRecommended
    resource = suggestion.actions[0].resource
    assert (resource["resourceType"], resource["status"]) == ("ServiceRequest", "draft")
    assert all(name in resource["reasonCode"][0]["text"] for name in diseases)
    assert card.source.topic.code == "order-separating"


@pytest.mark.parametrize("language", LANGUAGES)
def test_how_much_it_tells_is_said_in_three_strengths(language):
    texts = texts_for(language)
    known = limits()
    for gain, name in (
        (known.least_gain, "some"),
        (known.clear_gain, "clear"),
        (known.strong_gain, "strong"),
    ):
        (card,) = show(DECIDING, steps=(step(gain),), language=language)
        assert texts[f"order_guidance.strength.{name}"] in card.detail


def test_to_tell_harmless_diseases_apart_the_test_is_not_pressing():
    mild = tuple(msgspec.structs.replace(p, immediate=0.05) for p in (STEMI, DISSECTION))
    priority = [
        show(DECIDING, common=common)[0].suggestions[0].actions[0].resource["priority"]
        for common in (mild, (STEMI, DISSECTION))
    ]
    assert priority[0] not in ("stat", "asap")
    assert priority[1] in ("stat", "asap")


def test_a_test_that_another_card_proposes_is_not_proposed_twice():
    assert len(show(HARM, DECIDING)) == 1
    missing = OrderConcern(
        "missing", "missing-test", "", "", "immediate", (), ("ct-angiography-aorta",), "ESC 2023"
    )
    assert [card.source.topic.code for card in show(missing, DECIDING)] == ["order-missing"]
    other = changed(missing, actions=("troponin",))
    assert [card.source.topic.code for card in show(other, DECIDING)] == ["order-missing", "order-separating"]


def test_what_is_unsafe_missing_or_done_comes_before_the_test_that_would_decide():
    duplicate = OrderConcern("duplicate", "duplicate-test", "ServiceRequest/d", "ECG", "soon", ())
    missing = OrderConcern("missing", "missing-test", "", "", "urgent", (), ("troponin",), "ESC 2023")
    harm = changed(HARM, actions=())
    topics = [
        card.source.topic.code
        for card in show(DECIDING, duplicate, missing, harm, settings=CardSettings(max_cards=4))
    ]
    assert topics == ["order-harm", "order-missing", "order-duplicate", "order-separating"]
    assert len(show(DECIDING, duplicate, missing, harm)) == 3


def test_without_its_diseases_or_its_step_nothing_is_said():
    assert show(DECIDING, common=(STEMI,)) == ()
    assert show(DECIDING, steps=()) == ()
    assert show(DECIDING, steps=(step(code="echo"),)) == ()


# -- texts and hostile labels ----------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_harm_has_its_words_and_its_headline_fits(language):
    texts = load()[language]
    for row in packaged().values():
        effect = texts[f"harm.{row.effect}"]
        assert len(effect) <= 50, row.effect
        assert row.sentence(language) == getattr(row, language)
    assert {key.removeprefix("harm.") for key in texts.keys() if key.startswith("harm.")} == {  # noqa: SIM118
        "unknown",
        *(row.effect for row in packaged().values()),
    }


nasty_predictions = st.lists(
    st.builds(
        Prediction,
        id=st.sampled_from(["p-a", "p-b", "p-c", "aortic-dissection"]),
        label=labels,
        probability=st.floats(0, 1),
        codings=st.just(()),
        label_es=st.one_of(st.just(""), labels),
        immediate=st.floats(0, 1),
    ),
    max_size=4,
    unique_by=lambda p: p.id,
).map(tuple)


@given(charts, assessments, nasty_predictions, st.sampled_from(LANGUAGES))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_name_of_a_disease_breaks_a_card(patient, found, common, language):
    concerns = (changed(HARM, diagnoses=tuple(p.id for p in common)), DECIDING, *found.order_concerns)
    steps = (NextStep("test", "ct-angiography-aorta", "x", 0.5, tuple(p.id for p in common[:2])),)
    given_deciding = changed(DECIDING, diagnoses=tuple(p.id for p in common[:2]))
    found = msgspec.structs.replace(
        found, common=common, next_steps=steps, order_concerns=(*concerns, given_deciding)
    )
    for card in cards(patient, found, language=language, seed="s"):
        assert len(card.summary) < 140 and "\n" not in card.summary
        assert not re.search(r"(?<!\\)\]\(|<[a-z]|(?<![\w. ])https?://\w", card.detail or "")


def test_the_same_call_gives_the_same_cards():
    assert show(HARM, DECIDING) == show(HARM, DECIDING)
