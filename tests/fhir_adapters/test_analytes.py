"""Analytes: what every known code means, and that the tables are what they claim to be."""

import csv
import gzip
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from fhir_adapters.terminology.analytes import AnalyteTable
from fhir_adapters.terminology.codes import is_sctid
from fhir_adapters.terminology.tables import LOINC, SNOMED, loinc_is_valid
from fhir_adapters.units import ucum_measure

DATA = resources.files("fhir_adapters.terminology").joinpath("data")
DEV = Path(__file__).resolve().parents[2].parent / "shared" / "clinical"
TABLE = AnalyteTable.load()
OWN_FILES = (
    "analytes.csv",
    "analyte_codes.csv",
    "analyte_conversions.csv",
    "coded_answers.csv",
    "answer_texts.csv",
    "unit_aliases.csv",
    "unit_conversions.csv",
    "drugs.csv",
    "atc_classes.csv",
    "allergens.csv",
    "allergen_codes.csv",
)


def rows(file: str) -> list[dict[str, str]]:
    return list(csv.DictReader(DATA.joinpath(file).read_text(encoding="utf-8").splitlines()))


@pytest.mark.parametrize("file", OWN_FILES)
def test_every_row_says_where_it_is_from(file: str) -> None:
    assert all(row["source"].strip() for row in rows(file))


def test_enough_codes_and_analytes_are_known() -> None:
    assert len(TABLE.by_loinc) >= 220
    assert len({analyte.loinc for analyte in TABLE.by_loinc.values()}) >= 110


@pytest.mark.parametrize("file", ["analyte_codes.csv", "coded_answers.csv"])
def test_every_code_ends_in_its_check_digit(file: str) -> None:
    for row in rows(file):
        if row["system"] == LOINC:
            assert loinc_is_valid(row["code"]), row
        if row["system"] == SNOMED:
            assert is_sctid(row["code"]), row


def test_a_mistyped_code_has_no_valid_check_digit() -> None:
    assert loinc_is_valid("8310-5") and not loinc_is_valid("8310-6") and not loinc_is_valid("3810-5")
    assert loinc_is_valid("LA6576-8") and not loinc_is_valid("LA6567-8")


def test_every_canonical_unit_is_ucum() -> None:
    for analyte in TABLE.by_loinc.values():
        bare = analyte.unit.split("{", maxsplit=1)[0].rstrip("/")
        if analyte.kind == "quantity" and bare not in ("", "[pH]"):
            assert ucum_measure(bare) is not None, analyte.loinc


@pytest.mark.parametrize(
    ("sent", "canonical"),
    [
        ("8331-1", "8310-5"),
        ("2708-6", "59408-5"),
        ("14749-6", "2345-7"),
        ("38483-4", "2160-0"),
        ("80288-4", "67775-7"),
    ],
)
def test_synonyms_fold_into_the_canonical_analyte(sent: str, canonical: str) -> None:
    assert TABLE.by_loinc[sent].loinc == canonical


def test_different_troponin_and_d_dimer_assays_stay_apart() -> None:
    assert len({TABLE.by_loinc[c].loinc for c in ("10839-9", "89579-7", "6598-7", "67151-1")}) == 4
    assert TABLE.by_loinc["48065-7"].loinc != TABLE.by_loinc["48066-5"].loinc


def test_impossible_and_possible_temperatures() -> None:
    temperature = TABLE.by_loinc["8310-5"]
    assert temperature.low <= 24 <= temperature.high
    assert not temperature.low <= 370 <= temperature.high


def test_codes_of_other_systems_are_known() -> None:
    assert TABLE.by_code[SNOMED, "364075005"].loinc == "8867-4"
    assert TABLE.by_code["urn:iso:std:iso:11073:10101", "147842"].loinc == "8867-4"


@pytest.mark.parametrize(
    ("loinc", "system", "code", "key"),
    [
        ("67775-7", SNOMED, "422768004", "unresponsive"),
        ("67775-7", LOINC, "LA9340-6", "alert"),
        ("82810-3", SNOMED, "77386006", "pregnant"),
        ("82810-3", SNOMED, "60001007", "not-pregnant"),
        ("72166-2", SNOMED, "8517006", "former"),
        ("5802-4", SNOMED, "10828004", "positive"),
        ("*", SNOMED, "373067005", "no"),
    ],
)
def test_coded_answers_have_keys(loinc: str, system: str, code: str, key: str) -> None:
    assert TABLE.answer(loinc, system, code) == key


def test_an_unknown_answer_is_not_guessed() -> None:
    assert TABLE.answer("67775-7", SNOMED, "73211009") is None
    assert TABLE.answer_text("67775-7", "quite odd") is None


@pytest.mark.parametrize(
    ("loinc", "text", "key"),
    [
        ("67775-7", "Alert", "alert"),
        ("67775-7", "responde al DOLOR", "pain"),
        ("5802-4", "positivo", "positive"),
        ("5802-4", "Not detected.", "negative"),
        ("72166-2", "Non-smoker", "non-smoker"),
        ("82810-3", "Sí", "pregnant"),
        ("2514-8", "++", "2+"),
    ],
)
def test_answers_are_read_from_text_in_both_languages(loinc: str, text: str, key: str) -> None:
    assert TABLE.answer_text(loinc, text) == key


def _dev_observations() -> Iterator[dict[str, Any]]:
    for file in sorted(DEV.glob("*.ndjson.gz")) + sorted(DEV.glob("synthea/*.json.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines if file.name.endswith("ndjson.gz") else [lines.read()]:
                for entry in json.loads(line)["entry"]:
                    if entry["resource"]["resourceType"] == "Observation":
                        yield entry["resource"]
                        yield from entry["resource"].get("component", ())


@pytest.mark.skipif(not DEV.is_dir(), reason="the shared development bundles are not on this machine")
def test_every_code_unit_and_answer_of_the_development_bundles_is_known() -> None:
    unknown = set()
    for observation in _dev_observations():
        for coding in observation["code"].get("coding", ()):
            analyte = TABLE.by_code.get((coding["system"], coding["code"]))
            if analyte is None:
                unknown.add((coding["system"], coding["code"]))
                continue
            quantity = observation.get("valueQuantity")
            if quantity and TABLE.unit_conversion(analyte, quantity.get("code") or quantity["unit"]) is None:
                unknown.add((coding["code"], quantity.get("code")))
            answers = (observation.get("valueCodeableConcept") or {}).get("coding", ())
            known = any(TABLE.answer(analyte.loinc, a["system"], a["code"]) for a in answers)
            if analyte.kind == "coded" and answers and not known:
                unknown.add((coding["code"], str(answers)))
    assert unknown == set()
