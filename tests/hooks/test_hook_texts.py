"""Every id the rules publish has its words in both languages."""

import csv
import re
import tomllib

import pytest
from hook_values import RULES

from hooks.texts import LANGUAGES, TextsInvalid, compare, load, texts_for
from models.assessment import SEVERITIES

ALL = load()


def toml(name: str):
    return tomllib.loads((RULES / name).read_text("utf-8"))


def rows(name: str):
    with (RULES / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_action_has_a_title_and_a_line(language):
    for row in toml("actions.toml")["action"]:
        assert f"action.{row['id']}.title" in ALL[language], row["id"]
        assert f"action.{row['id']}.line" in ALL[language], row["id"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_red_flag_and_every_disease_it_suspects_has_words(language):
    for row in toml("red_flags.toml")["red_flag"]:
        assert f"red-flag.{row['id']}.summary" in ALL[language], row["id"]
        assert f"red-flag.{row['id']}.detail" in ALL[language], row["id"]
        for code in row["suspects"]:
            assert f"suspect.{code}" in ALL[language], code


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_order_rule_has_words(language):
    made_in_code = [
        "allergy-same-drug",
        "allergy-same-class",
        "duplicate-test",
        "duplicate-drug",
        "duplicate-drug-class",
        "missing-test",
    ]
    source = (RULES.parent / "order_rules.py").read_text("utf-8")
    assert all(f'"{name}"' in source for name in made_in_code)
    for name in [row["id"] for row in toml("order_rules.toml")["rule"]] + made_in_code:
        assert f"order.{name}.summary" in ALL[language], name
        assert f"order.{name}.detail" in ALL[language], name


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_critical_value_says_what_it_means(language):
    for row in rows("critical_values.csv"):
        assert ALL[language].nearest("critical", row["id"]), row["id"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_score_band_and_parameter_has_a_name(language):
    for row in rows("score_bands.csv"):
        assert f"score.{row['score']}.name" in ALL[language], row["score"]
        assert f"score.{row['score']}.band.{row['band']}" in ALL[language], row
    for row in rows("score_parameters.csv"):
        assert f"parameter.{row['parameter']}" in ALL[language], row["parameter"]
    for name in ("news2.csv", "qsofa.csv", "pews.csv", "meows.csv", "ctas.csv"):
        for row in rows(name):
            assert f"parameter.{row['parameter']}" in ALL[language], row["parameter"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_canonical_unit_of_the_rules_is_written_as_people_write_it(language):
    units = {row["unit"] for row in rows("critical_values.csv")} | {
        r["unit"] for r in rows("score_parameters.csv")
    }
    for unit in units - {""}:
        shown = ALL[language].unit(unit)
        assert not set(shown) & set("[]{}*"), unit


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_severity_has_its_name(language):
    assert all(f"severity.{code}" in ALL[language] for code in SEVERITIES)


def test_severities_in_spanish_are_the_agreed_ones():
    assert [ALL["es"][f"severity.{code}"] for code in SEVERITIES] == [
        "no enfermo",
        "molestias leves",
        "enfermedad leve",
        "enfermedad aguda",
        "enfermedad crónica",
    ]


def test_no_text_of_ours_holds_markdown_that_could_break_a_card():
    for language in LANGUAGES:
        for key in ALL[language].keys():  # noqa: SIM118 (not a dict)
            text = ALL[language][key]
            assert not re.search(r"[<>`|\\]|\]\(|^[#>-]|\n", text), (language, key)


def test_headlines_of_red_flags_leave_room_for_the_patients_facts():
    for language in LANGUAGES:
        for row in toml("red_flags.toml")["red_flag"]:
            assert len(ALL[language][f"red-flag.{row['id']}.summary"]) <= 90, row["id"]


def test_spanish_is_not_a_copy_of_english():
    def words(text):
        return re.findall(r"[a-z]{3,}", re.sub(r"[{]\w+[}]", "", text))

    english, spanish = ALL["en"], ALL["es"]
    same = [key for key in english.keys() if len(words(english[key])) > 2 and english[key] == spanish[key]]  # noqa: SIM118
    assert same == []


def test_a_missing_key_or_placeholder_is_found_at_load():
    with pytest.raises(TextsInvalid, match=r"a\.b"):
        compare({"a.b": "x"}, {})
    with pytest.raises(TextsInvalid, match=r"a\.b"):
        compare({"a.b": "x {n}"}, {"a.b": "x {m}"})


@pytest.mark.parametrize(
    ("value", "unit", "english", "spanish"),
    [
        (4.2, "mmol/L", "4.2 mmol/L", "4,2 mmol/L"),
        (28.0, "/min", "28/min", "28/min"),
        (88.0, "mm[Hg]", "88 mmHg", "88 mmHg"),
        (39.1, "Cel", "39.1 °C", "39,1 °C"),
        (0.035, "ng/mL", "0.035 ng/mL", "0,035 ng/mL"),
        (-0.001, None, "-0.001", "-0,001"),
        (7.119999, "[pH]", "7.12 pH", "7,12 pH"),
        (150000.0, None, "150000", "150000"),
        (0.00000012, None, "0.00000012", "0,00000012"),
        (float("nan"), "mmol/L", "? mmol/L", "? mmol/L"),
    ],
)
def test_numbers_and_units_are_written_as_people_write_them(value, unit, english, spanish):
    assert texts_for("en").quantity(value, unit) == english
    assert texts_for("es").quantity(value, unit) == spanish


def test_language_tags_fall_back_to_english():
    assert texts_for("es-MX").language == "es"
    assert texts_for("fr").language == texts_for("").language == "en"
