"""The chart speaks canonical codes only: a rule that asks for any other code would never be met."""

import csv
import re
from importlib import resources

import pytest
from rule_charts import data

ANALYTES = {
    row["loinc"]: row
    for row in csv.DictReader(
        resources.files("fhir_adapters.terminology")
        .joinpath("data", "analytes.csv")
        .read_text(encoding="utf-8")
        .splitlines()
    )
}
ALIASES = {
    row["code"]
    for row in csv.DictReader(
        resources.files("fhir_adapters.terminology")
        .joinpath("data", "analyte_codes.csv")
        .read_text(encoding="utf-8")
        .splitlines()
    )
    if row["code"] not in ANALYTES
}


def table(name: str) -> list[dict[str, str]]:
    text = resources.files("models.rules").joinpath("data", name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def spelt(name: str) -> set[tuple[str, str]]:
    """The codes of the measurement and coded terms of a rule file, with the kind of answer they expect."""
    text = resources.files("models.rules").joinpath("data", name).read_text(encoding="utf-8")
    found = {(code, "quantity") for code in re.findall(r"measurement:(\d+-\d) ", text)}
    return found | {(code, "coded") for code in re.findall(r"coded:([0-9-]+)=", text)}


@pytest.mark.parametrize("file", ["red_flags.toml", "order_rules.toml"])
def test_the_terms_of_the_rules_ask_for_canonical_codes(file: str) -> None:
    terms = spelt(file)
    assert terms
    for code, kind in terms:
        assert code in ANALYTES, f"{code} is folded into another code by the chart"
        assert ANALYTES[code]["kind"] == kind


@pytest.mark.parametrize("file", ["measurements.csv", "score_parameters.csv", "critical_values.csv"])
def test_the_tables_of_the_rules_name_canonical_codes_first(file: str) -> None:
    for row in table(file):
        assert row["loinc"].split()[0] in ANALYTES, row


def test_what_answers_an_action_can_be_found_in_a_chart() -> None:
    for action in data("actions.toml")["action"]:
        known = [code for code in action.get("answered_by", ()) if code in ANALYTES]
        dead = [code for code in action.get("answered_by", ()) if code in ALIASES]
        assert not dead, (action["id"], "the chart folds these into another code", dead)
        assert known or not action.get("answered_by"), (action["id"], action.get("answered_by"))


def test_the_units_of_the_rules_are_reachable_from_the_unit_of_the_chart() -> None:
    for row in table("measurements.csv"):
        units = {item.partition("=")[0] for item in row["units"].split()}
        for code in (row["loinc"], *row["also"].split()):
            if code in ANALYTES:
                assert ANALYTES[code]["unit"] in units, (code, ANALYTES[code]["unit"], units)
