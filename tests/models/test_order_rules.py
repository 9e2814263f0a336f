"""Order review: each rule speaks for its own chart only; duplicates, allergies and missing tests."""

from datetime import timedelta
from typing import Any

import pytest
from rule_charts import (
    AT,
    ONTOLOGY,
    chart,
    data,
    draft,
    drug,
    finding,
    fitting_subject,
    met,
    satisfying,
    value,
)

from fhir_adapters.chart import Allergy, Order, PatientChart, Subject
from models.assessment import OrderConcern
from models.engine import Engine
from models.rules.actions import Actions
from models.rules.analytes import load_analytes
from models.rules.errors import RulesInvalid
from models.rules.order_rules import OrderRules
from models.rules.red_flags import RedFlagRules
from models.rules.terms import TermTable

RULES: list[dict[str, Any]] = data("order_rules.toml")["rule"]
ACTIONS = Actions.load()
ENGINE = Engine.load(ONTOLOGY)
MRI = ("http://snomed.info/sct|241645008",)


def concerns(patient: PatientChart) -> dict[str, OrderConcern]:
    return {concern.rule: concern for concern in ENGINE.assess(patient).order_concerns}


def order_for(rule: dict[str, Any]) -> Order:
    """A draft the rule is about."""
    if rule.get("drugs"):
        return draft("drug", atc=(rule["drugs"][0],))
    system, code, _ = ACTIONS.by_id[rule["tests"][0]].codings[0]
    return draft("test", codes=(f"{system}|{code}",))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["id"])
def test_a_rule_speaks_for_its_own_chart_and_is_silent_without_the_reason(rule: dict[str, Any]) -> None:
    order = order_for(rule)
    subject = fitting_subject(rule.get("population"))
    items = satisfying(rule["when"]) if "when" in rule else []
    found = ENGINE.assess(chart(*items, subject=subject, orders=(order,))).order_concerns
    said = {concern.rule for concern in found if concern.order == order.reference}
    if rule["kind"] == "allergy" and said & {"allergy-same-drug", "allergy-same-class"}:
        assert rule["id"] not in said  # the built-in question has said it already, with the same fact
    else:
        assert rule["id"] in said
    stranger = Subject("p", "male", 45 * 365, "day", pregnant=False)
    if "when" not in rule:
        assert rule["id"] not in {
            c.rule for c in ENGINE.assess(chart(subject=stranger, orders=(order,))).order_concerns
        }
        return
    for gone in range(len(items)):
        patient = chart(*items[:gone], *items[gone + 1 :], subject=subject, orders=(order,))
        if not met(rule["when"], patient):
            assert rule["id"] not in {c.rule for c in ENGINE.assess(patient).order_concerns}
    assert not met(rule["when"], chart(subject=subject))
    assert rule["id"] not in {
        c.rule for c in ENGINE.assess(chart(subject=subject, orders=(order,))).order_concerns
    }


def test_there_are_at_least_forty_rules_with_sources() -> None:
    assert len(RULES) >= 40
    assert all(rule["source"] for rule in RULES)


def test_nothing_is_said_when_nothing_is_drafted() -> None:
    patient = chart(finding("Chest pain"), finding("Dyspnea"))
    assert ENGINE.assess(patient).order_concerns == ()


def test_amoxicillin_for_a_penicillin_allergy_is_an_allergy_and_said_once() -> None:
    allergy = Allergy("Penicillin", ("AllergyIntolerance/1",), ("J01CE01",), "high")
    found = ENGINE.assess(
        chart(allergies=(allergy,), orders=(draft("amoxicillin", atc=("J01CA04",)),))
    ).order_concerns
    assert [(c.kind, c.urgency) for c in found] == [("allergy", "immediate")]
    assert found[0].facts[0].sources == ("AllergyIntolerance/1",)


def test_a_cephalosporin_for_a_penicillin_allergy_is_a_caution() -> None:
    allergy = Allergy("Penicillin", ("AllergyIntolerance/1",), ("J01C",))
    found = concerns(chart(allergies=(allergy,), orders=(draft("cefuroxime", atc=("J01DC02",)),)))
    assert found["penicillin-allergy-cephalosporin"].urgency == "urgent"


def test_no_known_allergy_is_no_allergy() -> None:
    none = Allergy("Penicillin", ("AllergyIntolerance/1",), ("J01CA04",), absent=True)
    assert concerns(chart(allergies=(none,), orders=(draft("amoxicillin", atc=("J01CA04",)),))) == {}


def test_a_recent_result_makes_a_drafted_test_a_duplicate_and_an_old_one_does_not() -> None:
    recent = value("2823-3", 4.1, "mmol/L", time=AT - timedelta(hours=1))
    old = value("2823-3", 4.1, "mmol/L", time=AT - timedelta(days=3))
    order = draft("potassium", loinc="2823-3", codes=("http://loinc.org|2823-3",))
    assert concerns(chart(recent, orders=(order,)))["duplicate-test"].facts[0].sources == (
        "Observation/2823-3",
    )
    assert "duplicate-test" not in concerns(chart(old, orders=(order,)))


def test_an_open_order_makes_a_drafted_test_a_duplicate() -> None:
    placed = Order("ServiceRequest", "ServiceRequest/1", "MRI", False, MRI, time=AT - timedelta(hours=2))
    found = concerns(chart(orders=(placed, draft("mri", codes=MRI))))
    assert found["duplicate-test"].facts[0].sources == ("ServiceRequest/1",)


def test_the_same_drug_and_the_same_class_are_told_apart() -> None:
    same = concerns(chart(drug("C10AA05"), orders=(draft("atorvastatin", atc=("C10AA05",)),)))
    alike = concerns(chart(drug("C10AA01"), orders=(draft("atorvastatin", atc=("C10AA05",)),)))
    insulin = concerns(chart(drug("A10AB01"), orders=(draft("insulin", atc=("A10AB01",)),)))
    assert "duplicate-drug" in same
    assert "duplicate-drug-class" in alike
    assert insulin == {}


def test_only_selected_drafts_are_judged_and_the_others_are_context() -> None:
    chosen = draft("ibuprofen", atc=("M01AE01",))
    other = draft("warfarin", atc=("B01AA03",), selected=False)
    found = ENGINE.assess(chart(orders=(chosen, other))).order_concerns
    assert {concern.order for concern in found} == {chosen.reference}
    assert "nsaid-anticoagulant" in {concern.rule for concern in found}


def test_without_a_selection_all_drafts_are_judged() -> None:
    orders = (
        draft("ibuprofen", atc=("M01AE01",), selected=False),
        draft("warfarin", atc=("B01AA03",), selected=False),
    )
    assert {concern.order for concern in ENGINE.assess(chart(orders=orders)).order_concerns} >= {
        orders[0].reference
    }


def test_a_drug_is_no_reason_against_itself() -> None:
    assert concerns(chart(orders=(draft("fentanyl", atc=("N02AB03",)),))) == {}


def test_a_missing_test_is_named_unless_drafted_or_answered() -> None:
    picture = (finding("Chest pain"), finding("Hyperhidrosis"))
    ecg = draft("ecg", codes=("http://snomed.info/sct|29303009",))
    troponin = value("89579-7", 5.0, "ng/L", time=AT - timedelta(minutes=30))
    asked = ENGINE.assess(chart(*picture, orders=(ecg,))).order_concerns
    assert [c.actions for c in asked if c.kind == "missing"] == [("troponin",)]
    answered = ENGINE.assess(chart(*picture, troponin, orders=(ecg,))).order_concerns
    assert [c for c in answered if c.kind == "missing"] == []


def test_a_calm_chart_misses_no_test() -> None:
    assert concerns(chart(finding("Cough"), orders=(draft("paracetamol", atc=("N02BE01",)),))) == {}


@pytest.mark.parametrize(
    "broken",
    [
        {"drugs": ["aspirin"]},
        {"drugs": [], "tests": []},
        {"tests": ["no-such-action"]},
        {"kind": "duplicate"},
        {"source": ""},
        {"when": {"all": ["problem:??"]}},
        {"id": "duplicate-test"},
    ],
)
def test_the_loader_names_file_and_id_of_a_wrong_rule(broken: dict[str, Any]) -> None:
    terms = TermTable(ONTOLOGY, load_analytes())
    RedFlagRules.load(terms, ACTIONS)
    rule = {**RULES[0], **broken}
    with pytest.raises(RulesInvalid, match=r"order_rules\.toml: ") as caught:
        OrderRules.from_data({"rule": [rule]}, terms, ACTIONS)
    assert rule["id"] in str(caught.value)


def test_a_rule_that_would_hold_for_everybody_is_refused() -> None:
    terms = TermTable(ONTOLOGY, load_analytes())
    rule = {key: item for key, item in RULES[0].items() if key not in ("when", "population")}
    with pytest.raises(RulesInvalid, match="every patient"):
        OrderRules.from_data({"rule": [rule]}, terms, ACTIONS)
