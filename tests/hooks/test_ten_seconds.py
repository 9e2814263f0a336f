"""A card is read in ten seconds: what leads, how long it is, and that nothing is said twice."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from hook_values import AT, assessment, assessments, chart, charts, finding, measured, news2
from hypothesis import HealthCheck, Phase, given, settings

from fhir_adapters.chart import Encounter, Finding, Measurement, Order
from hooks.diagnostic_assessment import cards
from models.assessment import CriticalValue, Fact, Missing, Recommendation, RedFlag, Score, ScorePart

RR = measured("9279-1", "Respiratory rate", 28, "/min")
SPO2 = measured("59408-5", "Oxygen saturation", 88, "%")
TEMPERATURE = measured("8310-5", "Body temperature", 39.2, "Cel")
LACTATE = measured("2524-7", "Lactate", 4.3, "mmol/L")
CHEST_PAIN = finding("HP:0100749", "Chest pain")
EMERGENCY = Encounter("Encounter/e", "emergency", AT - timedelta(hours=3))


def flag(name, *facts, urgency="immediate", suspects=(), actions=(), source="NICE NG51 (grade A)"):
    return RedFlag(name, urgency, facts, suspects, actions, source)


def score(name, value, band, urgency, *facts):
    parts = tuple(ScorePart(f"p{n}", 1, fact) for n, fact in enumerate(facts))
    return Score(name, value, None, band, True, parts, (), urgency, False, None, "source")


def ask(action, *because, urgency="immediate", already=None):
    return Recommendation(action, urgency, because, already)


def show(on=None, language="en", **changes):
    return cards(on or chart(), assessment(**changes), language=language, seed="s")


def section(card, title):
    """The lines below a title of the detail."""
    blocks = card.detail.split("\n\n")
    for number, block in enumerate(blocks):
        if block == f"**{title}**":
            return blocks[number + 1].splitlines()
    return []


def line(card, title):
    """What stands behind a ``**Title:**``."""
    found = [block for block in card.detail.split("\n\n") if block.startswith(f"**{title}:** ")]
    return found[0].removeprefix(f"**{title}:** ") if found else ""


# -- what leads -----------------------------------------------------------------------------------


def test_an_urgent_disease_leads_before_an_immediate_score_and_the_card_stays_critical():
    (card,) = show(
        red_flags=(flag("chest-pain-acs", CHEST_PAIN, urgency="urgent"),),
        scores=(news2(9, "high", "immediate", RR, SPO2),),
    )
    assert card.summary.startswith("Possible acute coronary syndrome: NEWS2 9 (high), chest pain")
    assert card.indicator == "critical"
    assert card.source.topic.code == "red-flag"


def test_a_disease_leads_before_the_state_it_explains_even_with_fewer_facts():
    (card,) = show(
        red_flags=(
            flag("respiratory-failure", RR, SPO2, finding("HP:0001289", "Confusion", "Condition/1")),
            flag("septic-shock", RR, LACTATE),
        ),
    )
    assert card.summary.startswith("Possible septic shock")
    assert "**Acute respiratory failure**" in card.detail


def test_of_two_diseases_the_one_with_more_independent_facts_leads():
    more = flag("pulmonary-embolism", RR, SPO2, CHEST_PAIN)
    fewer = flag("chest-pain-acs", CHEST_PAIN)
    assert show(red_flags=(fewer, more))[0].summary.startswith("Possible pulmonary embolism")


def test_age_and_a_fact_in_two_vocabularies_are_no_independent_facts():
    age = Fact("demographic", "age", "Age", (), 70, "a")
    problem = Fact("problem", "R07.9", "Chest pain", ("Condition/c",))
    padded = flag("pulmonary-embolism", CHEST_PAIN, problem, age)
    real = flag("aortic-dissection", CHEST_PAIN, RR)
    assert show(red_flags=(padded, real))[0].summary.startswith("Possible aortic dissection")


def test_of_equal_diseases_the_order_is_that_of_the_data_whatever_the_engine_sends():
    sepsis, embolism = flag("sepsis-suspected", RR), flag("pulmonary-embolism", RR)
    for flags in ((sepsis, embolism), (embolism, sepsis)):
        assert show(red_flags=flags)[0].summary.startswith("Possible sepsis")


def test_what_kills_in_minutes_leads_whatever_else_is_there():
    (card,) = show(red_flags=(flag("sepsis-suspected", RR, LACTATE), flag("anaphylaxis", RR)))
    assert card.summary.startswith("Possible anaphylaxis")


# -- which scores make a card ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "band", "urgency"),
    [
        ("ctas-modifiers", "level-3", "soon"),
        ("ctas-modifiers", "level-2", "urgent"),
        ("shock-index", "shock", "urgent"),
        ("gcs", "mild", "urgent"),
        ("paediatric-vitals", "extreme", "soon"),
        ("news2", "low", "routine"),
    ],
)
def test_a_score_that_only_restates_or_is_low_makes_no_card(name, band, urgency):
    assert show(scores=(score(name, 2, band, urgency, TEMPERATURE),)) == ()


@pytest.mark.parametrize(
    ("name", "band", "urgency"),
    [
        ("news2", "low-medium", "urgent"),
        ("news2", "medium", "urgent"),
        ("meows", "trigger", "urgent"),
        ("pews", "medium", "urgent"),
        ("gcs", "severe", "immediate"),
        ("shock-index", "severe-shock", "immediate"),
    ],
)
def test_a_score_that_asks_for_a_review_makes_a_card(name, band, urgency):
    assert len(show(scores=(score(name, 5, band, urgency, RR),))) == 1


def test_a_score_is_about_the_patient_and_makes_no_second_card():
    (card,) = show(
        red_flags=(flag("thunderclap-headache", finding("HP:0030907", "Thunderclap headache")),),
        scores=(
            news2(6, "medium", "urgent", RR, SPO2),
            score("shock-index", 1.1, "shock", "urgent", RR),
        ),
    )
    assert "**NEWS2 6 of 20 (medium)**" in card.detail
    assert line(card, "Also") == "shock index 1.1 (shock likely)"


def test_a_score_that_leads_names_the_vital_signs_behind_it():
    (card,) = show(scores=(news2(5, "medium", "urgent", RR, SPO2),))
    assert card.summary == "NEWS2 5 (medium): respiratory rate 28/min, oxygen saturation 88 %"


def test_a_score_with_a_slow_problem_is_a_card_of_its_own():
    shown = show(
        red_flags=(flag("breast-lump", finding("HP:0032408", "Breast mass"), urgency="soon"),),
        scores=(news2(5, "medium", "urgent", RR),),
    )
    assert [card.indicator for card in shown] == ["warning", "info"]


# -- nothing twice --------------------------------------------------------------------------------


def test_one_complaint_in_two_vocabularies_is_one_row_and_one_name():
    twin = Fact("problem", "R07.9", "Chest pain", ("Condition/c",))
    (card,) = show(red_flags=(flag("chest-pain-acs", CHEST_PAIN, twin, SPO2),))
    assert card.detail.count("| Chest pain |") == 1
    assert card.summary.lower().count("chest pain") == 1


def test_two_names_of_one_condition_are_one_row():
    first = Fact("problem", "E11.9", "Type 2 diabetes mellitus", ("Condition/d",))
    second = Fact("finding", "HP:0005978", "Type II diabetes mellitus", ("Condition/d",))
    (card,) = show(red_flags=(flag("hyperosmolar-state", first, second),))
    assert "| Type 2 diabetes mellitus |" in card.detail
    assert "Type II" not in card.detail


def test_two_complaints_in_one_free_text_stay_two():
    one = Fact("problem", "R07.9", "Pain in chest", ("Condition/t",))
    other = Fact("finding", "HP:0002094", "Dyspnea", ("Condition/t",))
    record = chart(
        findings=tuple(
            Finding(code, "x", "present", "complaint", ("Condition/t",), True)
            for code in ("HP:0002094", "HP:0100749")
        )
    )
    (card,) = show(record, red_flags=(flag("chest-pain-acs", one, other),))
    assert "| Pain in chest |" in card.detail
    assert "| Breathlessness |" in card.detail


def test_a_word_beside_its_number_is_left_out_but_not_against_it():
    fever = finding("HP:0001945", "Fever")
    (card,) = show(red_flags=(flag("fever-infant-3-months", fever, TEMPERATURE),))
    assert card.summary == "Fever under 3 months of age: body temperature 39.2 °C"
    assert "| Fever |" not in card.detail
    cold = measured("8310-5", "Body temperature", 35.1, "Cel")
    (card,) = show(
        red_flags=(flag("sepsis-suspected", fever, LACTATE),),
        scores=(news2(5, "medium", "urgent", cold, RR),),
    )
    assert "| Fever |" in card.detail
    assert "| Body temperature | 35.1 °C" in card.detail


def test_suspicions_are_named_once_and_not_when_the_headline_says_them():
    (card,) = show(
        red_flags=(flag("septic-shock", RR, suspects=("R65.21", "A86", "G04.90", "I21.9", "I21.4")),)
    )
    assert line(card, "Think of") == "viral encephalitis; acute myocardial infarction"


def test_a_critical_value_of_the_leading_pattern_is_marked_in_the_table_and_not_explained_again():
    (card,) = show(
        red_flags=(flag("septic-shock", LACTATE),),
        critical_values=(CriticalValue("lactate-high", LACTATE, "high", 4.0, "immediate", (), "SSC"),),
    )
    assert "| Lactate | 4.3 mmol/L (critical) |" in card.detail
    assert "Critically high" not in card.detail


# -- what to do -----------------------------------------------------------------------------------


def test_only_the_leading_problem_is_recommended_with_one_click():
    (card,) = show(
        red_flags=(
            flag("septic-shock", RR, LACTATE, actions=("blood-cultures",)),
            flag("encephalitis", RR, actions=("lumbar-puncture", "ct-head", "referral-neurology")),
        ),
        recommendations=(
            ask("lumbar-puncture", "encephalitis"),
            ask("ct-head", "encephalitis"),
            ask("referral-neurology", "encephalitis"),
            ask("blood-cultures", "septic-shock"),
        ),
    )
    assert [s.label for s in card.suggestions if s.isRecommended] == ["Order: Blood cultures, two sets"]
    assert card.suggestions[0].isRecommended


def test_the_steps_of_the_leading_problem_come_first_and_what_they_hold_is_not_repeated():
    (card,) = show(
        red_flags=(
            flag("respiratory-failure", RR, actions=("oxygen-to-target",)),
            flag("septic-shock", RR, LACTATE, actions=("sepsis-bundle-1h", "antibiotics-within-1h")),
        ),
        recommendations=(
            ask("oxygen-to-target", "respiratory-failure"),
            ask("sepsis-bundle-1h", "septic-shock"),
            ask("antibiotics-within-1h", "septic-shock"),
        ),
    )
    steps = section(card, "Do now")
    assert [re.search(r"\*\*(.+?)\*\*", step)[1] for step in steps] == [
        "Sepsis bundle within 1 h",
        "Oxygen to target saturation",
    ]


def test_what_is_already_there_is_one_line_with_value_and_time():
    time = AT - timedelta(minutes=42)
    record = chart(
        measurements={
            "2524-7": (Measurement("2524-7", 4.3, "mmol/L", time, "Observation/l"),),
            "718-7": (Measurement("718-7", 12.9, "g/dL", time, "Observation/h"),),
        },
        orders=(Order("ServiceRequest", "ServiceRequest/1", "Troponin", False),),
    )
    because = ("septic-shock",)
    (card,) = show(
        record,
        red_flags=(flag("septic-shock", RR),),
        recommendations=(
            ask("lactate", *because, already="Observation/l"),
            ask("full-blood-count", *because, already="Observation/h"),
            ask("troponin", *because, already="ServiceRequest/1"),
        ),
    )
    assert line(card, "Already there") == (
        "Lactate 4.3 mmol/L (42 min ago); Full blood count (42 min ago); High-sensitivity troponin (ordered)"
    )
    assert card.suggestions == ()


# -- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "time", "english", "spanish"),
    [
        ("problem", datetime(2012, 5, 1, tzinfo=UTC), "since 2012", "desde 2012"),
        ("problem", datetime(2026, 6, 3, tzinfo=UTC), "since 2026-06", "desde 06/2026"),
        ("finding", datetime(2026, 11, 20, tzinfo=UTC), "since 2026-11-20", "desde 20/11/2026"),
        ("finding", AT - timedelta(hours=4), "4 h ago", "hace 4 h"),
        ("measurement", AT - timedelta(minutes=30), "30 min ago", "hace 30 min"),
        ("measurement", AT - timedelta(days=3), "2026-11-18 (3 days ago)", "18/11/2026 (hace 3 días)"),
        ("measurement", AT - timedelta(days=300), "2026-01-25 (9 months ago)", "25/01/2026 (hace 9 meses)"),
        ("measurement", datetime(2026, 11, 20, tzinfo=UTC), "2026-11-20", "20/11/2026"),
    ],
)
def test_times_are_as_exact_as_the_record_and_as_needed(kind, time, english, spanish):
    value = 5.0 if kind == "measurement" else None
    fact = Fact(kind, "c1", "Thing", ("Observation/1",), value, time=time)
    for language, expected in (("en", english), ("es", spanish)):
        (card,) = show(language=language, red_flags=(flag("breast-lump", fact, urgency="soon"),))
        assert f"| {expected} | Observation/1 |" in card.detail
        assert "00:00" not in card.detail.partition("*Record")[0].partition("*Historia")[0]


@pytest.mark.parametrize(
    ("on", "band", "urgency", "hours", "shown"),
    [
        (EMERGENCY, "medium", "urgent", 30, 1),
        (None, "medium", "urgent", 30, 0),
        (None, "high", "immediate", 30, 1),
        (EMERGENCY, "high", "immediate", 100, 0),
    ],
)
def test_old_vital_signs_are_asked_for_again_only_when_it_matters(on, band, urgency, hours, shown):
    old = measured("9279-1", "Respiratory rate", 28, "/min", hours=hours)
    record = chart(encounter=on, measurements={"9279-1": ()})
    assert len(show(record, scores=(news2(6, band, urgency, old, stale=True),))) == shown


# -- how long -------------------------------------------------------------------------------------

MANY = tuple(
    flag(
        name,
        RR,
        *[finding(f"HP:{n}{m}", f"Finding {n}{m}", f"Condition/{n}{m}") for m in range(4)],
        actions=tuple(f"referral-{s}" for s in ("cardiology", "neurology", "surgery", "urology")),
        suspects=("A41.9", "G03.9", "I26.99", "K85.90", "E27.2", "I33.0"),
        source=f"Guideline {n}",
    )
    for n, name in enumerate(
        ["septic-shock", "aortic-dissection", "meningism", "pulmonary-embolism", "pancreatitis", "malaria"]
    )
)
ACTIONS = [
    "ecg", "troponin", "lactate", "blood-cultures", "crp", "echo", "ctpa", "ct-head", "ct-abdomen",
    "coagulation", "group-and-save", "chest-x-ray", "urinalysis", "ketones", "lipase",
]  # fmt: skip


def limits(card):
    blocks = card.detail.split("\n\n")
    statements = blocks[0].splitlines()
    rows = [block for block in blocks if block.startswith("| ")]
    assert len(statements) <= 4
    for title in ("Do now", "Do within the hour", "Do next"):
        assert len(section(card, title)) <= 6
    assert len(card.suggestions) <= 6
    assert all(len(table.splitlines()) <= 2 + 8 for table in rows)
    assert len(section(card, "Not known")) <= 4


def test_the_worst_chart_still_fits_the_screen():
    (card,) = show(
        chart(sections_missing=("AllergyIntolerance",)),
        red_flags=MANY,
        scores=(news2(15, "high", "immediate", RR, SPO2, missing=("oxygen",)),),
        recommendations=tuple(ask(action, "septic-shock", "malaria") for action in ACTIONS),
        missing=tuple(Missing(name, ("septic-shock",)) for name in ("height", "pain")),
    )
    limits(card)
    assert len(section(card, "Do now")) == 6
    then = line(card, "Then").split("; ")
    assert len(then) == 7
    assert re.fullmatch(r"and \d+ more", then[-1])
    assert len(line(card, "Also").split("; ")) == 3
    assert len(line(card, "Think of").split("; ")) <= 5
    assert len(re.search(r"Sources: (.*?)\. ", card.detail)[1].split("; ")) <= 4
    assert "Not sent and not readable: allergies" in card.detail
    assert len(card.detail) < 2600


@given(chart=charts, assessment=assessments)
@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
def test_no_card_is_longer_than_its_limits(chart, assessment):
    for card in cards(chart, assessment, language="en", seed="s"):
        if card.source.topic.code in {"red-flag", "critical-value", "early-warning"}:
            limits(card)


def test_sources_are_short_and_an_estimate_of_ours_is_always_called_one():
    long = "Royal College of Physicians. National Early Warning Score (NEWS) 2. London: RCP, 2017"
    (card,) = show(
        red_flags=(
            flag("septic-shock", RR, source="Surviving Sepsis Campaign 2021 (grade A)"),
            flag("malaria", RR, source="UKHSA; window: grade C estimate of this project"),
        ),
        scores=(Score("news2", 9, 20, "high", True, (), (), "immediate", source=long),),
    )
    sources = re.search(r"Sources: (.*?)\. Supports", card.detail)[1]
    assert sources == (
        "Surviving Sepsis Campaign 2021; UKHSA; window (estimate of this project, grade C); RCP NEWS2 2017"
    )


def test_a_measured_temperature_is_no_more_exact_than_a_thermometer():
    converted = measured("8310-5", "Body temperature", 38.7222, "Cel")
    (card,) = show(red_flags=(flag("sepsis-suspected", converted),))
    assert "38.7 °C" in card.summary


def test_a_ph_is_not_given_a_unit():
    ph = measured("2744-1", "pH, arterial", 7.12, "[pH]")
    (card,) = show(red_flags=(flag("diabetic-ketoacidosis", ph),))
    assert card.summary == "Diabetic ketoacidosis: pH, arterial 7.12"


def test_a_state_that_a_disease_may_explain_is_on_the_card_of_the_disease():
    confusion = finding("HP:0001289", "Confusion")
    (card,) = show(
        red_flags=(
            flag("delirium-acute", confusion, urgency="urgent", source="NICE CG103"),
            flag("septic-shock", LACTATE),
        ),
    )
    assert card.summary.startswith("Possible septic shock")
    assert "**Acute confusion**" in card.detail
    shown = show(
        red_flags=(
            flag("weight-loss-unexplained", finding("HP:0001824", "Weight loss"), urgency="soon"),
            flag("septic-shock", LACTATE),
        ),
    )
    assert [card.indicator for card in shown] == ["critical", "info"]


def test_a_headline_does_not_repeat_itself():
    (card,) = show(red_flags=(flag("delirium-acute", finding("HP:0001289", "Confusion"), urgency="urgent"),))
    assert card.summary == "Acute confusion"


def test_what_can_wait_is_drafted_without_haste_and_said_without_alarm():
    def draft(urgency):
        (card,) = show(
            red_flags=(
                flag("marfan-criteria", CHEST_PAIN, urgency=urgency, actions=("ecg", "referral-cardiology")),
            )
        )
        return card.suggestions[0].actions[0].resource["priority"], card.detail

    priority, detail = draft("immediate")
    assert priority == "stat"
    assert "By telephone" in detail
    priority, detail = draft("soon")
    assert priority == "urgent"
    assert "By telephone" not in detail
