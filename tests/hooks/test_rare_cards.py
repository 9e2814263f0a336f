"""The rare-disease card: why the patient stands out, what fits, what to check, a referral."""

import msgspec
import pytest
from hook_values import assessment, chart
from rare_show import AORTA, LENS, TALL, suspected

from hooks.cards import Card
from hooks.diagnostic_assessment import cards
from models.assessment import Assessment, Recommendation
from models.rare.assessment import Relative


def show(language: str = "en", **changes: object) -> tuple[Card, ...]:
    return cards(chart(), assessment(**changes), language=language, seed="s")


def test_the_card_names_families_with_what_fits_what_is_missing_and_what_speaks_against() -> None:
    (card,) = show(**suspected())
    assert card.summary == "A rare disease is worth considering: Marfan syndrome, Loeys-Dietz syndrome 1"
    assert card.indicator == "warning"
    line = next(line for line in card.detail.splitlines() if line.startswith("- **Marfan"))
    assert "(60 %): fits: ectopia lentis, aortic root aneurysm" in line
    assert "not known here: dural ectasia (in 16 of 21 patients)" in line
    assert "speaks against it: intellectual disability" in line
    assert "tall stature" not in line, "what the disease is not known for does not fit it"
    assert "- **Loeys-Dietz syndrome 1** (30 %)" in card.detail.splitlines()


def test_what_speaks_most_for_the_leading_disease_stands_first_with_its_source() -> None:
    (card,) = show(**suspected())
    rows = [line for line in card.detail.splitlines() if "Condition/" in line]
    assert ["Condition/l" in rows[0], "Condition/a" in rows[1]] == [True, True]
    assert not any("Condition/m" in row for row in rows), "a denied finding is no reason to stand out"


def test_the_card_says_what_to_check_and_drafts_a_referral() -> None:
    (card,) = show(**suspected())
    assert "Look for or exclude: dural ectasia" in card.detail
    (suggestion,) = card.suggestions
    resource = suggestion.actions[0].resource
    assert resource is not None
    assert (resource["resourceType"], resource["status"]) == ("ServiceRequest", "draft")
    assert resource["code"]["coding"][0]["code"] == "306279004"
    assert resource["reasonCode"][0]["text"].startswith("Suspected rare disease: Marfan syndrome")


def test_a_referral_that_another_card_asks_for_is_not_drafted_twice() -> None:
    asked = (Recommendation("referral-genetics", "soon", ("marfan-criteria",)),)
    shown = show(**suspected(), recommendations=asked)
    rare = next(card for card in shown if card.summary.startswith("A rare disease"))
    assert not rare.suggestions


def test_the_release_of_hpo_its_attribution_and_its_address_are_shown() -> None:
    (card,) = show(**suspected())
    assert "Human Phenotype Ontology (HPO) and its annotations, release 2025-01-16" in card.detail
    assert "Orphanet" in card.detail
    assert [link.url for link in card.links] == ["https://hpo.jax.org"]
    assert "not reviewed by a clinician" in card.detail


def test_a_patient_whom_no_known_disease_explains_is_told_so() -> None:
    (card,) = show(**suspected(none_known=True))
    assert card.summary.startswith("A rare disease is suspected, but none that is known here")
    assert "a new or unlisted disease is possible" in card.detail
    (suggestion,) = card.suggestions
    assert suggestion.actions[0].resource["reasonCode"][0]["text"] == "Suspected rare disease, not identified"


def test_the_card_is_spanish_where_the_clinician_is() -> None:
    (card,) = show("es", **suspected())
    assert card.summary.startswith("Conviene considerar una enfermedad rara: Marfan syndrome")
    assert "ectasia dural (en 16 de 21 pacientes)" in card.detail
    assert "talla alta" in card.detail.lower()
    for english in ("fits", "Look for", "patients", "Ranked", "Tall stature"):
        assert english not in card.detail


def test_what_an_emergency_explains_is_named_as_not_counted() -> None:
    (card,) = show(**suspected(set_aside=(TALL,)))
    assert "because an urgent problem rests on them: tall stature" in card.detail


@pytest.mark.parametrize("missing", ["alarm", "opinion"])
def test_without_an_alarm_or_without_reasons_there_is_no_card(missing: str) -> None:
    changes = suspected()
    changes |= {"rare_alarm": False} if missing == "alarm" else {"rare_opinion": None}
    assert show(**changes) == ()


def test_a_name_that_a_site_enrolled_does_nothing_in_markdown() -> None:
    (card,) = show(**suspected("<img src=x> [a](http://evil.example) **b**"))
    assert "<img" not in card.detail and "[a](" not in card.detail
    assert len(card.summary) < 140


def test_an_opinion_travels_as_json_and_back() -> None:
    before = assessment(**suspected())
    assert msgspec.json.decode(msgspec.json.encode(before), type=Assessment) == before
    assert {LENS, AORTA} <= {fact.code for fact in before.rare_opinion.findings}


def family(**changes: object) -> dict[str, object]:
    found = suspected()
    return found | {"rare_opinion": msgspec.structs.replace(found["rare_opinion"], **changes)}


MOTHER = Relative("mother", "Marfan syndrome", ("FamilyMemberHistory/x",), ("OMIM:154700",), (TALL,))
UNCLE = Relative("uncle", "tall and short-sighted", ("FamilyMemberHistory/y",), (), (LENS,))


def test_what_relatives_have_stands_beside_the_candidates_and_marks_theirs() -> None:
    (card,) = show(**family(relatives=(UNCLE, MOTHER)))
    lines = card.detail.splitlines()
    marked = next(line for line in lines if line.startswith("- **Marfan"))
    assert marked.endswith("in the family: mother")
    assert "in the family" not in next(line for line in lines if line.startswith("- **Loeys"))
    told = [line for line in lines if "FamilyMemberHistory/" in line]
    assert told == [
        "- mother: Marfan syndrome, recorded in FamilyMemberHistory/x; "
        "in common with the patient: tall stature",
        "- uncle: tall and short-sighted, recorded in FamilyMemberHistory/y; "
        "in common with the patient: ectopia lentis",
    ]


def test_relatives_are_told_in_spanish_and_do_nothing_in_markdown() -> None:
    odd = msgspec.structs.replace(MOTHER, name="<b>x</b> [a](http://evil.example)")
    (card,) = show("es", **family(relatives=(odd,), related_parents=("Condition/z",)))
    assert "En la familia" in card.detail and "en la familia: madre" in card.detail
    assert (
        "- madre: " in card.detail
        and "Los padres son consanguíneos, registrado en Condition/z" in card.detail
    )
    assert "<b>" not in card.detail and "[a](" not in card.detail


def test_parents_related_by_blood_are_shown() -> None:
    (card,) = show(**family(related_parents=("Condition/z",)))
    assert "- The parents are related by blood, recorded in Condition/z" in card.detail
    (plain,) = show(**suspected())
    assert "In the family" not in plain.detail


def test_cases_that_the_site_enrolled_are_named_as_such() -> None:
    found = suspected()
    opinion = found["rare_opinion"]
    first, *rest = opinion.assessed.candidates
    enrolled = (msgspec.structs.replace(first, enrolled=3), *rest)
    assessed = msgspec.structs.replace(opinion.assessed, candidates=enrolled)
    (card,) = show(**found | {"rare_opinion": msgspec.structs.replace(opinion, assessed=assessed)})
    assert "3 confirmed cases of this site count" in card.detail
