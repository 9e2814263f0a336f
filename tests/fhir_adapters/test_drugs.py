"""Drugs: found by code, class and name in English and Spanish."""

import csv
import re
from importlib import resources

import pytest

from fhir_adapters.terminology.drugs import ATC, RXNORM, DrugTable
from fhir_adapters.terminology.tables import SNOMED

TABLE = DrugTable.load()
FILE = resources.files("fhir_adapters.terminology").joinpath("data", "drugs.csv")
ROWS = list(csv.DictReader(FILE.read_text(encoding="utf-8").splitlines()))


def test_enough_ingredients_are_known_and_codes_have_their_form() -> None:
    assert len(ROWS) >= 450
    for row in ROWS:
        assert all(re.fullmatch(r"[A-Z]\d\d[A-Z]([A-Z](\d\d)?)?", code) for code in row["atc"].split()), row


@pytest.mark.parametrize("column", ["name", "name_es"])
def test_every_ingredient_is_found_by_its_name(column: str) -> None:
    for row in ROWS:
        found = TABLE.lookup((), f"{row[column].upper()} 10 mg")
        assert found is not None and found.label == row["name"], row


@pytest.mark.parametrize(
    ("text", "atc"),
    [
        ("Ibuprofen 200 MG Oral Tablet", ("M01AE01",)),
        ("amoxicilina 500 mg", ("J01CA04",)),
        ("Amoxicillin 250 MG / Clavulanate 125 MG Oral Tablet", ("J01CA04", "J01CR02")),
        ("Ácido acetilsalicílico 100 mg", ("B01AC06", "N02BA01")),
        ("acido acetilsalicilico", ("B01AC06", "N02BA01")),
        ("Penicillin V Potassium 500 MG Oral Tablet", ("J01CE02",)),
        ("insulina glargina", ("A10AE04",)),
        ("Sintrom 4 mg comprimidos", ("B01AA07",)),
    ],
)
def test_text_names_the_drug(text: str, atc: tuple[str, ...]) -> None:
    found = TABLE.lookup((), text)
    assert found is not None and found.atc == atc


def test_a_combination_has_the_codes_of_all_its_ingredients() -> None:
    found = TABLE.lookup((), "Levonorgestrel 0.15 / EE 0.03")
    assert found is not None and found.rxnorm is None
    assert {code[:4] for code in found.atc} >= {"G03A", "G03C"}


def test_names_match_whole_words_only() -> None:
    assert TABLE.lookup((), "ibuprofenoid paste") is None


@pytest.mark.parametrize("code", ["B01A", "N02A", "J01", "N05A", "M01A"])
def test_a_class_stands_for_itself(code: str) -> None:
    found = TABLE.lookup([(ATC, code)], None)
    assert found is not None and found.atc == (code,) and found.label_es


def test_codes_win_over_text() -> None:
    found = TABLE.lookup([(RXNORM, "11289")], "ibuprofen")
    assert found is not None and found.label == "warfarin" and found.rxnorm == "11289"


def test_allergens_by_code_and_name() -> None:
    penicillin = TABLE.lookup([(SNOMED, "91936005")], None)
    peanut = TABLE.lookup((), "Cacahuetes")
    assert penicillin is not None and penicillin.atc == ("J01C",)
    assert peanut is not None and peanut.label == "peanut" and peanut.atc == ()


def test_the_unknown_stays_unknown() -> None:
    assert TABLE.lookup([("urn:x", "1"), (ATC, "nonsense")], "unobtainium 5 mg") is None
