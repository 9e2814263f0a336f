"""Diseases that are weighed as one are named as one, and a list that says little says that."""

import tomllib
from importlib import resources
from pathlib import Path

import msgspec
import pytest
from differential_show import SEPSIS, Read, show
from differential_values import BRONCHITIS, CRACKLES, CROHN, PNEUMONIA, disease

from hooks.errors import DataInvalid
from hooks.families import families, read_families
from models.assessment import Contribution, NextStep

KNOWLEDGE = Path(__file__).parents[2] / "models" / "knowledge" / "data"


def test_a_list_without_a_leading_diagnosis_says_so():
    common = (PNEUMONIA, BRONCHITIS, CROHN)
    weak = tuple(
        msgspec.structs.replace(one, probability=p) for one, p in zip(common, (0.3, 0.1, 0.03), strict=True)
    )
    (card,) = show(common=weak)
    assert card.summary == (
        "No diagnosis stands out: community-acquired pneumonia 30 %, acute bronchitis 10 %"
    )
    (card,) = show("es", common=weak)
    assert card.summary.startswith("Ningún diagnóstico destaca: neumonía")
    # On the card of a rule it is one line: reasons and counterfactuals would make it look like a finding.
    (hosted,) = show(**SEPSIS, common=weak)
    read = Read(hosted.detail)
    assert read.line("No diagnosis stands out").startswith(
        "community-acquired pneumonia 30 %; acute bronchitis 10 %; all others 60 %."
    )
    assert "For:" not in hosted.detail
    assert not read.line("What would change it")


ACS = (
    disease("nstemi", "Myocardial infarction without ST elevation", "Infarto sin elevación", 0.2, "I21"),
    disease("stemi", "Myocardial infarction with ST elevation", "Infarto con elevación del ST", 0.15, "I21"),
    disease("unstable-angina", "Unstable angina", "Angina inestable", 0.1, "I20"),
)


def test_diseases_that_are_weighed_as_one_are_named_as_one():
    wall = disease("nonspecific-chest-wall-pain", "Chest wall pain", "Dolor de la pared torácica", 0.4, "R07")
    common = (wall, *ACS)
    explanation = (Contribution("nstemi", CRACKLES, 1.0),)
    (card,) = show(common=common, explanation=explanation)
    assert card.summary == "Differential: acute coronary syndrome 45 %, chest wall pain 40 %"
    assert card.detail.split("\n\n")[0].splitlines()[0] == (
        "- **Acute coronary syndrome 45 %** (myocardial infarction without ST elevation 20 %, myocardial "
        "infarction with ST elevation 15 %, unstable angina 10 %). For: crackles."
    )
    (card,) = show("es", common=common, explanation=explanation)
    assert card.summary == (
        "Diagnóstico diferencial: síndrome coronario agudo 45 %, dolor de la pared torácica 40 %"
    )
    # One member alone is a disease like any other.
    (card,) = show(common=(wall, ACS[0]))
    assert "acute coronary syndrome" not in card.summary


def test_a_family_that_is_dangerous_is_not_to_miss_beside_an_alarm():
    wall = disease("nonspecific-chest-wall-pain", "Chest wall pain", "Dolor de la pared torácica", 0.6, "R07")
    grave = tuple(msgspec.structs.replace(one, immediate=0.5) for one in ACS[:2])
    (card,) = show(**SEPSIS, common=(wall, *grave))
    assert "**Not to miss:** acute coronary syndrome 35 % (" in card.detail


def test_a_set_is_not_said_to_hold_the_first_where_the_dangerous_stand_first():
    wall = disease("w", "Chest wall pain", "Dolor de la pared torácica", 0.7, "R07", in_set=True)
    grave = msgspec.structs.replace(ACS[1], probability=0.06, immediate=0.7)
    (card,) = show(**SEPSIS, common=(wall, grave), set_size=1)
    assert "**Not to miss:** myocardial infarction" in card.detail
    assert "the first is the true diagnosis" not in card.detail


def test_in_a_flat_list_the_dangerous_stays():
    grave = msgspec.structs.replace(ACS[1], probability=0.04, immediate=0.7)
    weak = disease("w", "Chest wall pain", "Dolor de la pared torácica", 0.3, "R07")
    (card,) = show(**SEPSIS, common=(weak, grave))
    assert "**Not to miss:** myocardial infarction with ST elevation 4 %" in card.detail


def test_a_family_counts_members_that_are_too_improbable_to_be_named():
    rest = msgspec.structs.replace(ACS[2], probability=0.015)
    (card,) = show(common=(*ACS[:2], rest))
    assert card.summary.endswith("acute coronary syndrome 36 %")
    assert "unstable angina" not in card.detail.splitlines()[0]


def test_what_is_weighed_as_one_is_not_asked_to_be_told_apart():
    steps = (NextStep("ask", "HP:1", "Question", 0.5, ("nstemi", "stemi")),)
    assert "Question" not in show(common=ACS, next_steps=steps)[0].detail


def test_every_member_of_a_family_is_a_disease_of_the_knowledge_and_in_one_family_only():
    known = {path.stem for path in (KNOWLEDGE / "diseases").glob("*.toml")}
    assert set(families()) <= known


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (
            'members = ["stemi", "nstemi", "unstable-angina"]',
            'members = ["stemi"]',
            "acute-coronary-syndrome",
        ),
        (
            'members = ["panic-attack", "generalised-anxiety"]',
            'members = ["panic-attack", "stemi"]',
            "anxiety",
        ),
        ('es = "Neumonía"', 'es = ""', "pneumonia"),
        ("[[family]]", "[[familiar]]", "familiar"),
    ],
)
def test_a_wrong_table_is_refused_with_the_family_named(old, new, named):
    text = resources.files("hooks").joinpath("data", "families.toml").read_text(encoding="utf-8")
    assert read_families(text) == families()
    with pytest.raises(DataInvalid, match=named):
        read_families(text.replace(old, new, 1))


@pytest.mark.parametrize("language", ["en", "es"])
def test_the_largest_family_of_the_knowledge_is_named_whole(language):
    known = {
        path.stem: tomllib.loads(path.read_text("utf-8"))["name"]
        for path in (KNOWLEDGE / "diseases").glob("*.toml")
    }
    for family in dict.fromkeys(families().values()):
        common = tuple(
            disease(name, known[name]["en"], known[name]["es"], 0.9 / len(family.members), "R69")
            for name in family.members
        )
        (card,) = show(language, common=common)
        (hosted,) = show(language, **SEPSIS, common=common)
        assert "…" not in card.detail and "…" not in hosted.detail
