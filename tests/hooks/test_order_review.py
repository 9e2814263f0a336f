"""What a clinician reads while picking orders."""

from datetime import timedelta

from hook_values import AT, assessment, chart

from fhir_adapters.chart import Order
from hooks.order_review import cards
from models.assessment import Fact, OrderConcern, Recommendation, RedFlag, Score

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


def names(fact, language):
    spanish = {"J01CA04": "amoxicilina", "M01AE01": "ibuprofeno", "J01C": "penicilina"}
    return spanish.get(fact.code, fact.label) if language == "es" else fact.label


def test_orders_are_called_what_they_are_called_in_the_language():
    orders = (
        Order("MedicationRequest", AMOXICILLIN, "Amoxicillin 500 mg", True, atc=("J01CA04",)),
        Order("ServiceRequest", CBC, "CBC panel - Blood", True, codes=("http://loinc.org|58410-2",)),
    )
    found = assessment(order_concerns=(ALLERGY, DUPLICATE))
    allergy, duplicate = cards(chart(orders=orders), found, language="es", seed="s", names=names)
    assert allergy.summary == "amoxicilina: alergia registrada a penicilina"
    assert allergy.suggestions[0].label == "Retirar: amoxicilina"
    assert duplicate.summary.startswith("Hemograma: ya hay un resultado reciente")
    english = cards(chart(orders=orders), found, language="en", seed="s", names=names)
    assert english[0].summary.startswith("Amoxicillin 500 mg: ")
    assert english[1].suggestions[0].label == "Remove: Full blood count"


def test_every_problem_with_a_drug_is_in_the_headline_with_the_fact_it_rests_on():
    egfr = Fact("measurement", "62238-1", "eGFR", ("Observation/e",), 24, "mL/min/{1.73_m2}")
    warfarin = Fact("medication", "B01AA03", "warfarin", ("MedicationRequest/w",))
    (card,) = show(
        concern("contraindicated", "nsaid-renal-failure", AMOXICILLIN, "Ibuprofen", "urgent", (egfr,)),
        concern("contraindicated", "nsaid-anticoagulant", AMOXICILLIN, "Ibuprofen", "urgent", (warfarin,)),
    )
    assert card.summary == (
        "Ibuprofen: kidney failure (eGFR 24 mL/min/1.73 m²); on an anticoagulant (warfarin)"
    )
    assert "| warfarin |" in card.detail
    assert "| eGFR |" in card.detail


FLAG = RedFlag("chest-pain-acs", "urgent", (), (), ("ecg", "troponin"), "ESC 2023")


def missing(*actions, urgency="urgent"):
    return tuple(concern("missing", "missing-test", "", "", urgency, actions=(action,)) for action in actions)


def test_a_missing_test_says_for_what_suspicion_it_is_asked():
    found = assessment(
        order_concerns=missing("ecg", "troponin"),
        red_flags=(FLAG,),
        recommendations=tuple(Recommendation(a, "urgent", ("chest-pain-acs",)) for a in ("ecg", "troponin")),
    )
    (card,) = cards(chart(orders=DRAFTS), found, language="en", seed="s")
    assert card.summary == (
        "Not drafted: 12-lead ECG, high-sensitivity troponin (possible acute coronary syndrome)"
    )


def test_missing_tests_are_at_most_three_and_never_what_can_wait():
    (card,) = show(*missing("ecg", "troponin", "lactate", "ketones", "lipase"))
    assert len(card.suggestions) == 3
    assert show(*missing("ecg", urgency="soon")) == ()


def test_a_test_that_only_a_restating_score_asks_for_is_not_missing():
    score = Score("shock-index", 1.1, None, "shock", True, (), (), "urgent")
    found = assessment(
        order_concerns=missing("lactate"),
        scores=(score,),
        recommendations=(Recommendation("lactate", "urgent", ("shock-index",)),),
    )
    assert cards(chart(orders=DRAFTS), found, language="en", seed="s") == ()
