"""What a clinician reads while picking orders."""

from datetime import timedelta

from hook_values import AT, assessment, chart

from fhir_adapters.chart import Order
from hooks.order_review import cards
from models.assessment import Fact, OrderConcern

AMOXICILLIN = "MedicationRequest/a"
CBC = "ServiceRequest/b"
DRAFTS = (
    Order("MedicationRequest", AMOXICILLIN, "Amoxicillin 500 mg", True, selected=True),
    Order("ServiceRequest", CBC, "Full blood count", True),
)
PENICILLIN = Fact("allergy", "J01C", "Penicillin", ("AllergyIntolerance/1",))
HAEMOGLOBIN = Fact(
    "measurement", "718-7", "Haemoglobin", ("Observation/h",), 131, "g/L", time=AT - timedelta(hours=3)
)


def concern(kind, rule, order, label, urgency="immediate", facts=(), actions=()):
    return OrderConcern(kind, rule, order, label, urgency, facts, actions, "BNF")


ALLERGY = concern(
    "allergy", "penicillin-allergy-beta-lactam", AMOXICILLIN, "Amoxicillin 500 mg", facts=(PENICILLIN,)
)
DUPLICATE = concern("duplicate", "duplicate-test", CBC, "Full blood count", "soon", (HAEMOGLOBIN,))
MISSING = concern("missing", "missing-test", "", "", "urgent", actions=("ecg",))


def show(*concerns, language="en", orders=DRAFTS):
    return cards(chart(orders=orders), assessment(order_concerns=concerns), language=language, seed="s")


def test_a_drug_against_an_allergy_is_critical_and_can_be_removed_with_one_click():
    (card,) = show(ALLERGY)
    assert card.indicator == "critical"
    assert card.summary == "Amoxicillin 500 mg: recorded allergy to penicillin"
    (suggestion,) = card.suggestions
    assert suggestion.isRecommended
    assert [(a.type, a.resourceId) for a in suggestion.actions] == [("delete", AMOXICILLIN)]
    assert "AllergyIntolerance/1" in card.detail


def test_two_reasons_against_one_drug_are_one_card():
    (card,) = show(
        ALLERGY,
        concern("contraindicated", "warfarin-interaction", AMOXICILLIN, "Amoxicillin 500 mg", "urgent"),
    )
    assert card.detail.count("**Amoxicillin 500 mg**") == 2
    assert len(card.suggestions) == 1


def test_a_contraindication_names_the_problem():
    (card,) = show(concern("contraindicated", "nsaid-renal-failure", AMOXICILLIN, "Ibuprofen", "urgent"))
    assert card.summary == "Ibuprofen: kidney failure"
    assert card.indicator == "warning"


def test_a_duplicate_test_shows_the_result_and_when_it_was():
    (card,) = show(DUPLICATE)
    assert card.indicator == "info"
    assert "haemoglobin 131 g/L (3 h ago)" in card.summary
    assert [a.resourceId for s in card.suggestions for a in s.actions] == [CBC]
    assert not card.suggestions[0].isRecommended


def test_a_missing_test_can_be_added():
    (card,) = show(MISSING)
    assert card.summary == "Not drafted: 12-lead ECG (the record asks for it)"
    (action,) = card.suggestions[0].actions
    assert action.resource["resourceType"] == "ServiceRequest"


def test_gravest_first_and_in_spanish():
    shown = show(DUPLICATE, MISSING, ALLERGY, language="es")
    assert [card.indicator for card in shown] == ["critical", "warning", "info"]
    assert shown[0].summary.startswith("Amoxicillin 500 mg: alergia registrada")
    assert shown[0].suggestions[0].label == "Retirar: Amoxicillin 500 mg"


def test_more_unsafe_orders_than_room_lose_none():
    unsafe = [
        concern("allergy", "sulfonamide-allergy", f"MedicationRequest/{n}", f"Drug {n}") for n in range(5)
    ]
    shown = show(*unsafe, DUPLICATE, MISSING)
    assert len(shown) == 3
    assert all(f"Drug {n}" in "".join(card.detail for card in shown) for n in range(5))


def test_a_draft_without_an_id_cannot_be_removed_by_reference():
    (card,) = show(concern("allergy", "sulfonamide-allergy", "entry[0]", "Drug"), orders=())
    assert card.suggestions == ()
    assert card.selectionBehavior is None
