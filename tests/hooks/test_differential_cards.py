"""The differential a doctor reads in ten seconds: when it is told, where, and what it says."""

import csv
import re
import tomllib
from datetime import timedelta
from importlib import resources
from pathlib import Path

import msgspec
import pytest
from differential_show import SEPSIS, Read, show
from differential_values import (
    AGE,
    AT,
    BRONCHITIS,
    COMMON,
    COUGH,
    CRACKLES,
    CROHN,
    EXPLANATION,
    HEALTHY,
    INFLUENZA,
    NEXT_STEPS,
    PNEUMONIA,
    SPO2,
    disease,
    ill,
    ill_chart,
)
from hook_values import chart, labels
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rare_show import suspected

from fhir_adapters.chart import Encounter, Finding, Measurement, Order, Problem, ReadIssue
from fhir_adapters.chart_builder import ChartBuilder
from hooks.diagnostic_assessment import cards
from hooks.differential import Limits, differential_of, read_table, table
from hooks.errors import DataInvalid
from hooks.suggestions import catalogue
from hooks.texts import texts_for
from models.assessment import (
    Contribution,
    Counterfactual,
    Escalation,
    Fact,
    NextStep,
    Prediction,
    RedFlag,
)

KNOWLEDGE = Path(__file__).parents[2] / "models" / "knowledge" / "data"
MARKDOWN = MarkdownIt("gfm-like", {"linkify": False})


# -- a card of its own --------------------------------------------------------------------------


def test_without_a_rule_the_differential_is_one_information_card():
    (card,) = show()
    assert card.indicator == "info"
    assert card.summary == (
        "Differential: community-acquired pneumonia 62 %, acute bronchitis 18 %, influenza 6 %, "
        "pulmonary embolism 3 %, Crohn disease 2 %"
    )
    assert card.source.topic.code == "model-assessment"
    assert card.source.label == "CDS Server: model trained on simulated patients"


def test_the_leading_diseases_have_the_facts_for_and_against_with_their_values():
    (card,) = show()
    assert card.detail.split("\n\n")[0].splitlines() == [
        "- **Community-acquired pneumonia 62 %**. For: body temperature 39.4 °C (raised it most), "
        "crackles and cough. Against: no pleuritic chest pain.",
        "- **Acute bronchitis 18 %**. For: cough. Against: C-reactive protein 120 mg/L (30 h ago).",
        "- **Influenza 6 %**. For: body temperature. Against: crackles.",
    ]


def test_the_same_in_spanish():
    (card,) = show("es")
    assert card.summary.startswith(
        "Diagnóstico diferencial: neumonía adquirida en la comunidad 62 %, bronquitis aguda 18 %, gripe 6 %"
    )
    assert card.detail.split("\n\n")[0].splitlines()[0] == (
        "- **Neumonía adquirida en la comunidad 62 %**. A favor: temperatura corporal 39,4 °C "
        "(lo que más pesa), crepitantes y tos. En contra: ausencia de dolor torácico pleurítico."
    )
    read = Read(card.detail)
    assert read.line("Qué lo cambiaría") == (
        "la probabilidad de neumonía adquirida en la comunidad sería 41 % con saturación de oxígeno 97 % en "
        "lugar de 93 %; 30 % sin crepitantes; 50 % si no constara tos"
    )
    assert read.list("Qué averiguar ahora")[0] == (
        "- **¿Neumonía adquirida en la comunidad o bronquitis aguda?** Preguntar o explorar: tos productiva. "
        "Prueba: radiografía de tórax y procalcitonina"
    )
    assert "pacientes simulados; en el 90 % de estos pacientes" in card.detail
    assert card.suggestions[0].label == "Solicitar: Radiografía de tórax"


def test_it_says_what_would_change_it_and_what_to_find_out_best_first():
    (card,) = show()
    read = Read(card.detail)
    assert read.line("What would change it") == (
        "the chance of community-acquired pneumonia would be 41 % with oxygen saturation 97 % instead of "
        "93 %; 30 % without crackles; 50 % if cough were not recorded"
    )
    assert read.list("What to find out next") == [
        "- **Community-acquired pneumonia or acute bronchitis?** Ask or look for productive cough. "
        "Test: chest X-ray and procalcitonin",
        "- **Community-acquired pneumonia or influenza?** Ask or look for rebound tenderness",
    ]
    assert read.line("Consider first").startswith("C-reactive protein; Blood cultures, two sets; ")
    assert "Chest X-ray" not in read.line("Consider first")


def test_tests_are_one_click_drafts_and_none_is_recommended():
    (card,) = show()
    assert [s.label for s in card.suggestions] == [
        "Order: Chest X-ray",
        "Order: Procalcitonin",
        "Order: C-reactive protein",
        "Order: Blood cultures, two sets",
    ]
    assert not any(s.isRecommended for s in card.suggestions)
    draft = card.suggestions[0].actions[0].resource
    assert draft["status"] == "draft"
    assert draft["priority"] in {"routine", "urgent"}
    assert draft["reasonCode"] == [
        {"text": "Differential diagnosis: community-acquired pneumonia; acute bronchitis"}
    ]


def test_a_test_that_is_done_or_ordered_is_neither_named_nor_drafted():
    time = AT - timedelta(hours=1)
    on = ill_chart(
        measurements={"1988-5": (Measurement("1988-5", 120, "mg/L", time, "Observation/crp"),)},
        orders=(Order("ServiceRequest", "ServiceRequest/x", "X-ray", False, loinc=None, time=time,
                      codes=tuple(f"{s}|{c}" for s, c, _ in catalogue()["chest-x-ray"].codings)),),
    )  # fmt: skip
    (card,) = show(on=on)
    assert "chest X-ray" not in card.detail
    assert "C-reactive protein" not in Read(card.detail).line("Consider first")
    assert [s.label for s in card.suggestions] == ["Order: Procalcitonin", "Order: Blood cultures, two sets"]


# -- when it is told ----------------------------------------------------------------------------


def problem(code, role, status="active"):
    return Problem(code, "x", status, role, ("Condition/p",))


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, 1),
        ({"severity": "mild-disease"}, 1),
        ({"severity": "mild-discomfort"}, 1),
        ({"severity": "no-disease"}, 0),
        ({"common": ()}, 0),
        ({"common": (HEALTHY, INFLUENZA)}, 0),
        ({"severity": "mild-discomfort", "common": (BRONCHITIS,)}, 0),
        ({"common": (INFLUENZA,)}, 0),
    ],
)
def test_a_card_is_shown_only_when_there_is_something_worth_telling(changes, shown):
    assert len(show(**changes)) == shown


def test_without_a_complaint_there_is_no_card():
    assert show(on=chart()) == ()
    derived = Finding("HP:0001945", "Fever", "present", "derived", ("Observation/1",))
    denied = Finding("HP:0012735", "Cough", "absent", "complaint", ("Condition/1",))
    assert show(on=chart(findings=(derived, denied))) == ()
    assert len(show(on=chart(problems=(problem("S93.4", "complaint"),)))) == 1


def test_a_diagnosis_that_is_made_already_is_not_told():
    cough = ill_chart().findings
    assert show(on=ill_chart(findings=cough, problems=(problem("J18.9", "encounter"),))) == ()
    known = ill_chart(findings=cough, problems=(problem("J18.1", "problem-list"),))
    assert len(show(on=known)) == 1
    assert show(on=known, severity="chronic-disease") == ()
    over = ill_chart(findings=cough, problems=(problem("J18.1", "encounter", "resolved"),))
    assert len(show(on=over)) == 1


@pytest.mark.parametrize("code", ["precaution", "atypical-case"])
def test_a_healthy_chart_gives_no_card_when_the_engines_only_disagree(code):
    healthy = {"common": (HEALTHY,), "severity": "mild-discomfort", "escalation": Escalation(code, "x")}
    assert show(on=chart(), **healthy) == ()


def test_a_disagreement_is_said_on_the_differential_and_makes_no_card_beside_it():
    (card,) = show(escalation=Escalation("precaution", "engines-disagree"))
    assert card.summary.startswith("Differential")
    assert "The assessments disagree" in card.detail


# -- on the card that leads ---------------------------------------------------------------------


def test_a_red_flag_still_leads_and_holds_the_differential():
    (card,) = show(**SEPSIS)
    assert card.indicator == "critical"
    assert card.summary.startswith("Possible sepsis: NEWS2 9 (high)")
    assert Read(card.detail).line("Differential") == (
        "community-acquired pneumonia 62 %; acute bronchitis 18 %; influenza 6 %; pulmonary embolism 3 %; "
        "Crohn disease 2 %; all others 9 %. *Model trained on simulated patients; in 90 % of such patients "
        "the true diagnosis is among the first 3.*"
    )
    assert card.detail.index("**Do now**") < card.detail.index("**Differential:**")


@pytest.mark.parametrize(
    ("language", "first", "then"),
    [("en", "Not to miss", "Differential"), ("es", "No pasar por alto", "Diagnóstico diferencial")],
)
def test_beside_an_alarm_a_common_harmless_disease_does_not_hide_the_dangerous(language, first, then):
    common = (
        Prediction("harmless", "Harmless thing", 0.63, (), label_es="Cosa inofensiva", immediate=0.02),
        Prediction("grave", "Grave thing", 0.15, (), label_es="Cosa grave", immediate=0.6),
        Prediction("graver", "Graver thing", 0.05, (), label_es="Cosa peor", immediate=0.9),
    )
    (card,) = show(language, **SEPSIS, common=common, other_probability=0.17)
    names = [one.label.lower() if language == "en" else one.label_es.lower() for one in common]
    assert card.detail.index(f"**{first}:**") < card.detail.index(names[1])
    assert card.detail.index(names[1]) < card.detail.index(names[2]) < card.detail.index(f"**{then}:**")
    assert card.detail.index(f"**{then}:**") < card.detail.index(names[0])
    # Where the likeliest is itself dangerous, or nothing presses, the list stays in its order.
    (calm,) = show(language, common=common, other_probability=0.17)
    assert f"**{first}:**" not in calm.detail


def test_a_value_that_the_table_shows_is_not_written_again():
    (card,) = show(**SEPSIS)
    assert card.detail.count("39.4") == 1
    assert "For: body temperature (raised it most), crackles and cough" in card.detail
    (card,) = show()
    assert card.detail.count("39.4") == 1


def test_a_disease_of_the_list_is_not_also_something_to_think_of():
    (card,) = show(**SEPSIS)
    assert Read(card.detail).line("Think of") == "meningitis"
    (alone,) = show(**SEPSIS, common=())
    assert Read(alone.detail).line("Think of") == "pulmonary embolism; meningitis"


def test_what_the_rules_ask_for_is_not_asked_for_again():
    steps = (*NEXT_STEPS, NextStep("test", "lactate", "lactate", 0.9, (PNEUMONIA.id, BRONCHITIS.id)))
    (card,) = show(**SEPSIS, next_steps=steps)
    assert "lactate" not in Read(card.detail).line("What to find out next")
    labels = [s.label for s in card.suggestions]
    assert len(set(labels)) == len(labels)
    assert labels[0] == "Order: Blood cultures, two sets"
    assert [s.isRecommended for s in card.suggestions] == [True, True, False, False]


def test_attention_without_a_rule_leads_and_holds_the_differential():
    (card,) = show(immediate=True, immediate_probability=0.4)
    assert card.indicator == "warning"
    assert card.summary.startswith("May need attention now")
    assert "**Differential:** community-acquired pneumonia 62 %" in card.detail
    assert "| Oxygen saturation | 93 % |" in card.detail
    assert "with oxygen saturation 97 %;" in card.detail
    assert [s.label for s in card.suggestions] == ["Order: Chest X-ray", "Order: Procalcitonin"]


def test_a_slow_problem_and_a_rare_disease_leave_room_for_three_cards():
    lump = RedFlag("breast-lump", "soon", (Fact("finding", "HP:0032408", "Breast mass"),), (), (), "x")
    shown = show(
        immediate=True,
        immediate_probability=0.4,
        red_flags=(lump,),
        **suspected("Fabry disease"),
    )
    assert [card.indicator for card in shown] == ["warning", "warning", "info"]
    assert ["**Differential:**" in card.detail for card in shown] == [True, False, False]


def test_a_rare_disease_leaves_the_differential_a_card_of_its_own():
    shown = show(**suspected("Fabry disease"))
    assert [card.summary.partition(":")[0] for card in shown] == [
        "A rare disease is worth considering",
        "Differential",
    ]


def test_what_is_missing_from_the_record_is_still_said_beside_the_differential():
    waiting = ill_chart(encounter=Encounter("Encounter/e", "emergency", AT - timedelta(hours=2)))
    shown = show(on=waiting)
    assert [card.summary.partition(":")[0] for card in shown] == [
        "Differential",
        "No usable vital signs in this encounter",
    ]
    unread = ill_chart(issues=(ReadIssue("unknown-unit", "Observation/9"),))
    (card,) = show(on=unread)
    assert "1 item of the record could not be read" in card.detail


# -- what it does not know ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "common", "english"),
    [
        (1, COMMON, "in 90 % of such patients the first is the true diagnosis."),
        (3, COMMON, "the true diagnosis is among the first 3."),
        (12, COMMON, "the true diagnosis is among 12 diseases, of which the likeliest are named here."),
        (0, COMMON, "no disease fits this patient well."),
        (None, COMMON, "*Model trained on simulated patients.*"),
    ],
)
def test_how_far_the_list_reaches(size, common, english):
    (card,) = show(**SEPSIS, common=common, set_size=size)
    assert english in Read(card.detail).line("Differential").removesuffix("*") + "*"


@pytest.mark.parametrize(
    ("explanation", "english", "spanish"),
    [
        ((), "Nothing in the record tells these diseases apart", "Ningún dato de la historia distingue"),
        (
            (Contribution(PNEUMONIA.id, COUGH, 0.5), Contribution(PNEUMONIA.id, AGE, 0.9)),
            "Only 1 fact of the record tells these diseases apart",
            "Solo 1 dato de la historia distingue",
        ),
        (
            (Contribution(PNEUMONIA.id, COUGH, 0.5), Contribution(BRONCHITIS.id, SPO2, -0.5)),
            "Only 2 facts of the record tell these diseases apart",
            "Solo 2 datos de la historia distinguen",
        ),
    ],
)
def test_few_facts_are_said(explanation, english, spanish):
    for language, expected, title in (("en", english, "Not known"), ("es", spanish, "No se sabe")):
        (card,) = show(language, explanation=explanation)
        assert expected in Read(card.detail).list(title)[0]
    assert Read(show()[0].detail).list("Not known") == []


def test_an_unfamiliar_patient_is_said():
    (card,) = show(similarity=0.05)
    assert "does not resemble those the model was trained on" in Read(card.detail).list("Not known")[0]
    (card,) = show(escalation=Escalation("atypical-case", "resembles-nothing-known"))
    assert card.summary.startswith("Atypical presentation")
    assert "**Differential:**" in card.detail
    assert "does not resemble" in card.detail


def test_every_card_with_a_differential_says_that_the_patients_were_simulated():
    for changes in ({}, SEPSIS, {"immediate": True, "immediate_probability": 0.4}):
        assert "simulated patients" in show(**changes)[0].detail
        assert "pacientes simulados" in show("es", **changes)[0].detail


# -- words --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fact", "english", "spanish"),
    [
        (AGE, "age 67 years", "edad 67 años"),
        (Fact("demographic", "sex", "Sex", text_value="female"), "female sex", "sexo femenino"),
        (Fact("demographic", "pregnancy", "Pregnancy"), "pregnancy", "embarazo"),
        (Fact("medication", "A10BA02", "Metformin"), "taking metformin", "en tratamiento con metformin"),
        (Fact("family", "I21", "Infarct"), "family history of infarct", "antecedente familiar de infarct"),
        (Fact("finding", "HP:0001945", "Fever", state="absent"), "no fever", "ausencia de fever"),
        (Fact("coded", "72166-2", "Tobacco", text_value="current"), "tobacco (smokes)", "tobacco (fuma)"),
    ],
)  # fmt: skip
def test_a_fact_is_said_as_at_the_bedside(fact, english, spanish):
    explanation = (Contribution(PNEUMONIA.id, fact, 0.5),)
    assert f"For: {english}." in show(explanation=explanation)[0].detail
    assert f"A favor: {spanish}." in show("es", explanation=explanation)[0].detail


@pytest.mark.parametrize(
    ("probability", "english", "spanish"),
    [(0.9999, "over 99 %", "más del 99 %"), (0.123, "12 %", "12 %")],
)
def test_no_probability_is_certain(probability, english, spanish):
    common = (disease("x", "Migraine", "Migraña", probability, "G43"),)
    assert show(common=common)[0].summary.endswith(f": migraine {english}")
    assert show("es", common=common)[0].summary.endswith(f": migraña {spanish}")


def test_a_counterfactual_of_the_attention_and_of_a_result_reads_right():
    test = Fact("coded", "92142-9", "Influenza A test", ("Observation/f",), text_value="positive")
    changes = (
        Counterfactual(SPO2, "immediate-attention", 0.4, 0.1, 97.0),
        Counterfactual(test, INFLUENZA.id, 0.4, 0.004, state="absent"),
        Counterfactual(CRACKLES, "not-listed", 0.4, 0.1, state="absent"),
        Counterfactual(CRACKLES, PNEUMONIA.id, 0.401, 0.402, state="absent"),
    )
    assert Read(show(counterfactuals=changes)[0].detail).list("What would change it") == [
        "- the chance of needing attention now would be 10 % with oxygen saturation 97 % instead of 93 %",
        "- the chance of influenza would be under 1 % with a negative influenza A test",
    ]


def test_names_of_persons_keep_their_capital_and_spanish_conjunctions_change():
    common = (
        disease("o", "Otitis externa", "Otitis externa", 0.4, "H60"),
        disease("i", "Impetigo", "Impétigo", 0.3, "L01"),
        CROHN,
    )
    steps = (
        NextStep("ask", "HP:1", "Otalgia", 0.3, ("i", "o")),
        NextStep("ask", "HP:2", "Ictericia", 0.2, ("i", "o")),
        NextStep("test", "crp", "crp", 0.2, ("i", "unlisted")),
    )
    # A test that tells a disease apart which nobody named is no help here.
    found = Read(show("es", common=common, next_steps=steps)[0].detail).line("Qué averiguar ahora")
    assert found == "**¿Impétigo u otitis externa?** Preguntar o explorar: otalgia e ictericia"
    (card,) = show(common=(*common[:2], msgspec.structs.replace(CROHN, probability=0.1)))
    assert card.summary.endswith("impetigo 30 %, Crohn disease 10 %")


def test_the_conjunction_follows_the_sound():
    spanish, english = texts_for("es"), texts_for("en")
    for word, following, expected in (
        ("and", "infección", "e"), ("and", "hipotensión", "e"), ("and", "hielo", "y"), ("and", "tos", "y"),
        ("or", "otitis", "u"), ("or", "hongos", "u"), ("or", "asma", "o"),
    ):  # fmt: skip
        assert spanish.link(word, following) == expected
    assert english.link("and", "infection") == "and"


# -- ten seconds, safety, determinism -----------------------------------------------------------

MANY = tuple(
    disease(f"d{n}", f"Disease number {n} with a long name", f"Enfermedad {n}", 0.2 - n / 100, f"A{n:02}")
    for n in range(12)
)  # fmt: skip


def limits(card):
    assert len(card.summary) < 140
    assert len(card.suggestions) <= 6
    blocks = card.detail.split("\n\n")
    for block in blocks:
        if block.startswith("- "):
            assert len(block.splitlines()) <= 6
    assert len(Read(card.detail).list("Not known")) <= 6


def test_the_longest_differential_still_fits_the_screen():
    explanation = tuple(
        Contribution(one.id, Fact("finding", f"HP:{n}{m}", f"Finding {n} {m}"), 1 - m / 5)
        for n, one in enumerate(MANY)
        for m in range(8)
    )
    steps = tuple(
        NextStep("ask", f"HP:{n}", f"Question {n}", 1 - n / 100, ("d0", f"d{n}")) for n in range(12)
    )
    changes = tuple(
        Counterfactual(Fact("finding", f"HP:{n}", f"Finding {n}"), "d0", 0.2, 0.1, state="absent")
        for n in range(9)
    )
    long = {
        "common": MANY, "explanation": explanation, "next_steps": steps, "counterfactuals": changes,
        "set_size": 9,
    }  # fmt: skip
    for language in ("en", "es"):
        (alone,) = show(language, **long)
        (hosted,) = show(language, **SEPSIS, **long)
        limits(alone)
        limits(hosted)
        assert len(alone.detail) < 1800
        assert len(hosted.detail) < 2900
    assert alone.detail.split("\n\n")[0].count("\n") == 2
    assert len(Read(show(**long)[0].detail).line("What would change it").split("; ")) == 3


def test_a_set_of_six_is_named_whole():
    common = tuple(msgspec.structs.replace(one, in_set=n < 6) for n, one in enumerate(MANY))
    (card,) = show(common=common, set_size=6)
    assert "the true diagnosis is among the first 6" in card.detail
    assert len(differential_of(ill_chart(), ill(common=common, set_size=6)).named) == 6


nasty_differentials = st.builds(
    lambda a, b, c: {
        "common": (Prediction("p-a", a, 0.5, (), label_es=b), Prediction("p-b", b, 0.3, ())),
        "explanation": (
            Contribution("p-a", Fact("finding", "HP:1", c, (a,)), 1.0),
            Contribution("p-a", Fact("measurement", "1-1", a, (), 3.0, b), 0.6),
            Contribution("p-b", Fact("coded", "2-2", b, (), text_value=c), -1.0),
        ),
        "counterfactuals": (
            Counterfactual(Fact("measurement", "1-2", c, (), 3.0, a), "p-a", 0.5, 0.1, 2.0),
            Counterfactual(Fact("finding", "HP:2", b), "p-b", 0.5, 0.1, state="absent"),
        ),
        "next_steps": (
            NextStep("ask", c, a, 0.5, ("p-a", "p-b")),
            NextStep("test", a, b, 0.4, ("p-b", "p-a")),
        ),
    },
    labels,
    labels,
    labels,
)


@given(nasty_differentials, st.sampled_from(["en", "es"]), st.booleans())
def test_nothing_but_text_comes_out_of_labels(values, language, hosted):
    allowed = {
        "paragraph_open", "paragraph_close", "inline", "text", "text_special", "strong_open", "strong_close",
        "em_open", "em_close", "softbreak", "bullet_list_open", "bullet_list_close", "list_item_open",
        "list_item_close", "table_open", "table_close", "thead_open", "thead_close", "tbody_open",
        "tbody_close", "tr_open", "tr_close", "th_open", "th_close", "td_open", "td_close",
    }  # fmt: skip
    changes = values | (SEPSIS if hosted else {})
    first = cards(ill_chart(), ill(**changes), language=language, seed="s")
    assert first
    for card in first:
        for token in MARKDOWN.parse(card.detail):
            assert token.type in allowed
            assert {child.type for child in token.children or ()} <= allowed
    again = cards(ill_chart(), ill(**changes), language=language, seed="s")
    assert msgspec.json.encode(first) == msgspec.json.encode(again)


def test_facts_that_hardly_count_are_not_named():
    explanation = (*EXPLANATION, Contribution(PNEUMONIA.id, SPO2, 0.01), Contribution(CROHN.id, SPO2, -0.05))
    assert show(explanation=explanation) == show()


# -- the data -----------------------------------------------------------------------------------


def test_what_is_no_disease_is_exactly_what_the_knowledge_grades_so():
    well = set()
    for path in (KNOWLEDGE / "diseases").glob("*.toml"):
        entry = tomllib.loads(path.read_text("utf-8"))
        if any(grade["severity"] == "no-disease" for grade in entry["grades"]):
            well.add(entry["id"])
    assert well == table().well


def test_every_eponym_begins_a_name_of_the_knowledge():
    known = [tomllib.loads(p.read_text("utf-8"))["name"] for p in (KNOWLEDGE / "diseases").glob("*.toml")]
    first = {label.partition(" ")[0] for name in known for label in name.values()}
    assert {word for word in table().eponyms if word not in first} <= {"Henoch-Schönlein"}


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('name = "leading"', 'name = "leaden"', "leaden"),
        ("value = 0.1\n", "value = 0\n", "above 0"),
        ("value = 0.5", "value = 5", "below 1"),
        ('name = "certain"', 'name = "leading"', "certain|twice"),
        ('source = "names of persons and places"', 'source = ""', "source"),
        ("[well]", "[unwell]", "unwell"),
    ],
)
def test_a_wrong_table_is_refused_with_its_entry_named(old, new, named):
    text = resources.files("hooks").joinpath("data", "differential.toml").read_text(encoding="utf-8")
    assert isinstance(read_table(text).limits, Limits)
    with pytest.raises(DataInvalid, match=named):
        read_table(text.replace(old, new, 1))


def test_every_finding_that_may_be_asked_for_has_spanish_words():
    tables = ChartBuilder.load().tables
    texts = texts_for("es")
    missing = []
    for row in csv.DictReader((KNOWLEDGE / "findings.csv").read_text("utf-8").splitlines()):
        key = row["key"]
        known = f"finding.{key}" in texts
        if not known and key.startswith("ICD:"):
            concept = tables.concepts.lookup("http://hl7.org/fhir/sid/icd-10-cm", key[4:])
            known = concept is not None and bool(concept.label_es)
        elif not known:
            known = key in tables.ontology and bool(tables.ontology.label_es(key))
        if not known:
            missing.append(f"{key} {row['label']}")
    assert missing == []


def test_bedside_names_are_in_both_languages_and_short():
    for language in ("en", "es"):
        text = resources.files("hooks").joinpath("texts", language, "finding_names.toml").read_text("utf-8")
        for key, name in tomllib.loads(text)["finding"].items():
            assert re.fullmatch(r"HP:\d{7}|ICD:[A-Z]\d\d(\.\d+)?", key)
            assert len(name) <= 60
