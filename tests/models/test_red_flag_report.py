"""The page clinicians read says what the rules do: the committed one is the generated one."""

from pathlib import Path

from rule_charts import RED_FLAGS

from models.rules.report import report

PAGE = Path(__file__).parents[2] / "docs" / "rules-red-flags.md"


def test_the_committed_page_of_red_flags_is_the_generated_one() -> None:
    committed = PAGE.read_text(encoding="utf-8")
    assert committed == report(), "run: python -m models.rules.report > docs/rules-red-flags.md"


def test_every_red_flag_and_group_is_on_the_page_in_words() -> None:
    page = report()
    for flag in RED_FLAGS["red_flag"]:
        row = next(line for line in page.splitlines() if line.startswith(f"| `{flag['id']}` |"))
        assert flag["source"].replace("|", "\\|") in row
        assert flag["urgency"] in row
        assert "HP:" not in row and "measurement:" not in row and "group:" not in row
    for name in RED_FLAGS["group"]:
        assert f"| *{name.replace('-', ' ')}* |" in page


def test_a_limit_is_said_with_its_analyte_and_unit() -> None:
    row = next(line for line in report().splitlines() if line.startswith("| `hyperosmolar-state` |"))
    assert "glucose ≥ 540 mg/dL" in row
