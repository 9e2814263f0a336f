"""What a clinician reads when opening the chart."""

import re
from datetime import timedelta

import msgspec
import pytest
from hook_values import AT, assessment, assessments, chart, finding, measured, news2
from hypothesis import HealthCheck, Phase, given, settings
from rare_show import suspected

from fhir_adapters.chart import Encounter, ReadIssue
from hooks.diagnostic_assessment import cards
from models.assessment import (
    CriticalValue,
    Escalation,
    Fact,
    Recommendation,
    RedFlag,
    Score,
    ScorePart,
)

RR = measured("9279-1", "Respiratory rate", 28, "/min")
SBP = measured("8480-6", "Systolic blood pressure", 88, "mm[Hg]")
TEMPERATURE = measured("8310-5", "Body temperature", 39.1, "Cel")
LACTATE = measured("2524-7", "Lactate", 4.2, "mmol/L")
POTASSIUM = measured("2823-3", "Potassium", 6.9, "mmol/L")
FEVER = finding("HP:0001945", "Fever", "Observation/8310-5")
EMERGENCY = Encounter("Encounter/e", "emergency")


def flag(name, *facts, urgency="immediate", suspects=("A41.9",), actions=(), stale=False):
    return RedFlag(name, urgency, facts, suspects, actions, "NICE NG51", stale)


def critical(name, fact, *, urgency="immediate", actions=(), stale=False, limit=6.5):
    return CriticalValue(name, fact, "high", limit, urgency, actions, "UKKA 2023", stale)


def show(language="en", on=None, **changes):
    return cards(on or chart(), assessment(**changes), language=language, seed="s")


SEPSIS = {
    "scores": (news2(9, "high", "immediate", RR, SBP, TEMPERATURE),),
    "red_flags": (
        flag(
            "sepsis-suspected",
            FEVER,
            RR,
            LACTATE,
            suspects=("A41.9", "G03.9"),
            actions=("blood-cultures", "lactate"),
        ),
    ),
    "critical_values": (critical("lactate-high", LACTATE, limit=4.0),),
    "recommendations": (
        Recommendation("blood-cultures", "immediate", ("sepsis-suspected",)),
        Recommendation("lactate", "immediate", ("sepsis-suspected",), "Observation/2524-7"),
        Recommendation("emergency-review", "immediate", ("news2",)),
    ),
}


def test_sepsis_with_its_score_and_lactate_is_one_critical_card():
    (card,) = show(**SEPSIS)
    assert card.indicator == "critical"
    assert card.summary.startswith("Possible sepsis: NEWS2 9 (high)")
    assert "lactate 4.2 mmol/L" in card.summary
    assert card.source.topic.code == "red-flag"


def test_the_same_in_spanish_with_a_decimal_comma():
    (card,) = show("es", **SEPSIS)
    assert card.summary.startswith("Posible sepsis: NEWS2 9 (alto)")
    assert "4,2 mmol/L" in card.summary
    assert "Qué hacer ahora" in card.detail
    assert "Apoya el juicio clínico" in card.detail


def test_a_card_says_why_what_to_do_what_it_may_be_and_what_it_rests_on():
    (card,) = show(**SEPSIS)
    for part in (
        "**Why**",
        "**Do now**",
        "**Think of:** meningitis",
        "2026-11-21 05:40 UTC",
        "NICE NG51",
        "RCP NEWS2 2017",
    ):
        assert part in card.detail
    assert "| Respiratory rate | 28/min (+3) | 30 min ago | Observation/9279-1 |" in card.detail


def test_a_finding_derived_from_a_shown_measurement_is_not_a_second_row():
    (card,) = show(**SEPSIS)
    assert "| Body temperature |" in card.detail
    assert "| Fever |" not in card.detail


def test_what_is_already_answered_is_said_and_not_ordered_again():
    (card,) = show(**SEPSIS)
    assert [s.label for s in card.suggestions] == ["Order: Blood cultures, two sets"]
    assert card.suggestions[0].isRecommended
    assert "Already there" in card.detail
    assert "Observation/2524-7" in card.detail


def test_a_critical_potassium_in_ketoacidosis_is_on_the_ketoacidosis_card():
    glucose = measured("2345-7", "Glucose", 540, "mg/dL")
    (card,) = show(
        red_flags=(flag("diabetic-ketoacidosis", glucose, suspects=("E10.10",)),),
        critical_values=(critical("potassium-high-severe", POTASSIUM),),
    )
    assert card.summary.startswith("Diabetic ketoacidosis: glucose 540 mg/dL, potassium 6.9 mmol/L")
    assert "Critically high potassium 6.9 mmol/L" in card.detail


def test_unrelated_problems_are_two_cards_gravest_first():
    shown = show(
        red_flags=(
            flag("breast-lump", finding("HP:0032408", "Breast mass"), urgency="soon"),
            flag("thunderclap-headache", finding("HP:0030907", "Thunderclap headache")),
        ),
    )
    assert [card.indicator for card in shown] == ["critical", "info"]
    assert shown[0].summary.startswith("Thunderclap headache")


def test_a_common_age_or_sex_does_not_merge_problems():
    age = Fact("demographic", "age", "Age")
    shown = show(
        red_flags=(
            flag("thunderclap-headache", finding("HP:0030907", "Thunderclap headache"), age),
            flag("testicular-torsion", finding("HP:0034031", "Scrotal pain"), age),
        ),
    )
    assert len(shown) == 2


def test_more_problems_than_cards_lose_nothing():
    flags = [
        "thunderclap-headache",
        "testicular-torsion",
        "acute-limb-ischaemia",
        "acute-angle-closure",
        "breast-lump",
    ]
    shown = show(
        red_flags=tuple(flag(name, finding(f"HP:{n}", f"Finding {n}")) for n, name in enumerate(flags)),
    )
    assert len(shown) == 3
    whole = "".join(card.detail for card in shown)
    for n in range(5):
        assert f"| Finding {n} |" in whole
    assert "Breast lump: exclude cancer" in shown[2].detail


@pytest.mark.parametrize(
    ("urgency", "indicator"), [("immediate", "critical"), ("urgent", "warning"), ("soon", "info")]
)
def test_the_indicator_follows_the_urgency(urgency, indicator):
    (card,) = show(red_flags=(flag("chest-pain-acs", finding("HP:0100749", "Chest pain"), urgency=urgency),))
    assert card.indicator == indicator


def test_a_healthy_check_up_gives_no_card():
    assert show(scores=(news2(0, "low", None, RR),)) == ()
    assert show(scores=(news2(1, "low", "routine", RR),)) == ()
    visit = chart(
        encounter=Encounter("Encounter/e", "ambulatory"), issues=(ReadIssue("unknown-unit", "Observation/1"),)
    )
    assert show(on=visit) == ()


def test_an_incomplete_score_says_what_is_missing_and_that_it_may_be_higher():
    (card,) = show(scores=(news2(7, "high", "immediate", RR, SBP, missing=("consciousness", "spo2")),))
    assert "at least 7" in card.summary
    assert "level of consciousness and oxygen saturation not recorded" in card.detail


def test_a_stale_score_is_a_warning_that_asks_to_measure_again():
    old = measured("9279-1", "Respiratory rate", 28, "/min", hours=50)
    (card,) = show(scores=(news2(9, "high", "immediate", old, stale=True),))
    assert card.indicator == "warning"
    assert card.summary == "Repeat the vital signs: NEWS2 9 (high), measured 2 days ago"
    assert card.suggestions == ()


def test_values_of_last_month_are_history():
    old = measured("9279-1", "Respiratory rate", 28, "/min", hours=24 * 20)
    assert show(scores=(news2(9, "high", "immediate", old, stale=True),)) == ()


def test_an_old_score_is_not_mentioned_beside_a_new_one_on_the_same_parameter():
    shown = show(
        red_flags=(flag("respiratory-failure", RR),),
        scores=(news2(9, "high", "immediate", RR, stale=True),),
    )
    assert len(shown) == 1
    assert "Repeat" not in shown[0].summary


def test_a_cancer_sign_recorded_weeks_ago_is_still_worth_a_card():
    lump = Fact("finding", "HP:0032408", "Breast mass", ("Condition/1",), time=AT - timedelta(days=21))
    (card,) = show(red_flags=(flag("breast-lump", lump, urgency="soon", stale=True),))
    assert card.indicator == "info"


def test_what_could_not_be_read_is_said_on_the_first_card():
    record = chart(
        issues=(ReadIssue("unknown-unit", "Observation/9"),), sections_missing=("AllergyIntolerance",)
    )
    (card,) = show(on=record, **SEPSIS)
    assert "1 item of the record could not be read: unit not known (1)" in card.detail
    assert "Not sent and not readable: allergies" in card.detail


def test_unreadable_values_in_an_emergency_are_an_info_card_of_their_own():
    record = chart(
        encounter=EMERGENCY, measurements={"x": ()}, issues=(ReadIssue("impossible-value", "Observation/9"),)
    )
    (card,) = show(on=record)
    assert card.indicator == "info"
    assert card.source.topic.code == "data-quality"
    assert "Observation/9" in card.detail


def test_a_rare_disease_alarm_names_the_candidates():
    (card,) = show(
        **suspected("Fabry disease", "Gaucher disease"), escalation=Escalation("rare-disease-alarm", "x")
    )
    assert card.summary == "A rare disease is worth considering: Fabry disease, Gaucher disease"
    assert "**Fabry disease** (60 %)" in card.detail


def test_attention_without_a_red_flag_is_said_with_its_probability():
    (card,) = show(immediate=True, immediate_probability=0.62)
    assert "62 % probability" in card.summary
    assert card.indicator == "warning"


def test_names_come_from_the_caller():
    shown = cards(
        chart(),
        assessment(**SEPSIS),
        language="es",
        seed="s",
        names=lambda fact, language: {"2524-7": "Lactato"}.get(fact.code, fact.label),
    )
    assert "lactato 4,2 mmol/L" in shown[0].summary


def test_an_action_is_asked_for_on_one_card_only():
    shown = show(
        red_flags=(
            flag("thunderclap-headache", finding("HP:1", "A"), actions=("ct-head",)),
            flag("head-injury-danger", finding("HP:2", "B"), actions=("ct-head",)),
        ),
    )
    assert [len(card.suggestions) for card in shown] == [1, 0]


@given(assessment=assessments)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
def test_no_fact_is_said_on_two_cards(assessment):
    facts = {}
    plain = msgspec.structs.replace(assessment, rare_alarm=False, immediate=False)
    named = 0

    def name(fact, language):
        key = (fact.kind, fact.code)
        return facts.setdefault(key, f"Q{len(facts)}Q")

    shown = [
        card
        for card in cards(chart(), plain, language="en", seed="s", names=name)
        if card.source.topic.code != "outdated-values"
    ]
    for token in facts.values():
        rows = [
            card for card in shown if re.search(rf"^\| (allergy to )?{token} \|", card.detail, re.MULTILINE)
        ]
        named += len(rows)
        assert len(rows) <= 1


def test_vital_signs_are_asked_for_when_overdue_and_not_at_the_door():
    arrived = chart(encounter=Encounter("Encounter/e", "emergency", AT - timedelta(minutes=10)))
    waiting = chart(encounter=Encounter("Encounter/e", "emergency", AT - timedelta(hours=2)))
    assert show(on=arrived) == ()
    (card,) = show(on=waiting)
    assert card.indicator == "info"
    assert card.summary.startswith("No usable vital signs")


def test_age_is_named_in_the_language_of_the_card():
    age = Fact("demographic", "age", "Age", (), 54, "a")
    (card,) = show("es", red_flags=(flag("thunderclap-headache", finding("HP:1", "Cefalea"), age),))
    assert "| Edad | 54 años |" in card.detail


def test_a_glasgow_score_is_not_called_a_minimum_when_a_part_is_missing():
    eye = measured("9267-6", "Eye opening", 2, "{score}")
    score = Score(
        "gcs", 9, 15, "moderate", False, (ScorePart("gcs-eye", 2, eye),), ("gcs-verbal",), "immediate"
    )
    (card,) = show(scores=(score,))
    assert card.summary == "Glasgow Coma Scale 9 (moderately reduced)"
    assert "higher" not in card.detail
