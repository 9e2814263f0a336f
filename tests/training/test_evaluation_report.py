"""The report: a page that needs nothing else, the same bytes each time, misses marked, words kept."""

import base64
import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from evaluation_data import seeded
from typer.testing import CliRunner

from training.evaluation import command, run
from training.evaluation.goals import GoalsInvalid, figure_at, judge, load_goals
from training.evaluation.internal import evaluate_internal
from training.evaluation.markdown import BEGIN, END, MarkersMissing, markdown, write_markdown
from training.evaluation.page import render
from training.evaluation.predictions import save_heldout
from training.evaluation.report import build_report, flat_metrics, read_report, report_json, summary


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """A report with an internal part and external sets that are skipped or tiny."""
    external = {
        "ktas": {"skipped": "ktas_bundles.ndjson.gz is not <there>"},
        "synthea": {
            "n": 2,
            "failures": 1,
            "failure_reasons": {"ValueError": 1},
            "atypical_share": 0.0,
            "with_differential": 1,
            "with_severity": 1,
            "alert_rate": 0.5,
            "severity": {"no-disease": 1},
        },
    }
    internal = evaluate_internal(seeded(), times=20)
    return build_report(model="common-1.0.0+abc", internal=internal, external=external)


@pytest.fixture(scope="module")
def page_text(report: dict[str, Any]) -> str:
    return render(report)


class Page(HTMLParser):
    """Collects what a browser would load, and where misses are marked."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.missed_rows = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        self.missed_rows += tag == "tr" and given.get("class") == "missed"


def test_the_page_is_well_formed_and_loads_nothing_from_elsewhere(page_text: str) -> None:
    text = page_text
    ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))
    page = Page(text)
    assert page.loads and all(load.startswith("data:image/svg+xml;base64,") for load in page.loads)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "@import" not in text and "url(" not in text
    for load in page.loads:
        picture = base64.b64decode(load.partition(",")[2]).decode()
        ElementTree.fromstring(picture)
        assert not re.search(r'(?:href|src)="(?!#)', picture)


def test_the_same_report_gives_the_same_bytes(report: dict[str, Any], page_text: str) -> None:
    again = json.loads(report_json(report))
    assert again == report
    assert render(again) == page_text
    assert str(datetime.now(UTC).year) not in re.sub(r"base64,[^\"]*", "", page_text)


def test_misses_are_marked_and_counted(report: dict[str, Any], page_text: str) -> None:
    missed = [row for row in report["goals"] if row["verdict"] == "missed"]
    assert missed
    assert Page(page_text).missed_rows == len(missed)
    assert f"{len(missed)} missed" in summary(report)


def test_what_was_not_measured_is_said_with_its_reason_and_escaped(
    report: dict[str, Any], page_text: str
) -> None:
    assert "ktas_bundles.ndjson.gz is not &lt;there&gt;" in page_text
    assert any("1 cases were not answered" in note for note in report["notes"])
    assert all(row["verdict"] == "not measured" for row in report["goals"] if row["key"].startswith("ktas."))


def test_the_page_says_that_the_patients_are_simulated(report: dict[str, Any], page_text: str) -> None:
    assert "SIMULATED" in page_text
    assert "SIMULATED" in markdown(report)


def test_a_goal_is_reached_aimed_or_missed() -> None:
    goals = {goal.key: goal for goal in load_goals()}
    auroc, ece = goals["ktas.critical.auroc"], goals["ktas.critical.ece"]
    assert [auroc.verdict(value) for value in (0.9, 0.8, 0.79, None)] == [
        "aim",
        "reached",
        "missed",
        "not measured",
    ]
    assert [ece.verdict(value) for value in (0.05, 0.07, 0.09)] == ["aim", "reached", "missed"]


def test_every_internal_goal_names_a_figure_that_is_made(report: dict[str, Any]) -> None:
    for goal in load_goals():
        if goal.part == "internal":
            assert figure_at(report["internal"], goal.key) is not None, goal.key


def test_intervals_stand_beside_the_figures_of_goals(report: dict[str, Any]) -> None:
    rows = {row["key"]: row for row in report["goals"]}
    low, high = rows["figures.critical_patient_recall"]["interval"]
    assert low <= rows["figures.critical_patient_recall"]["value"] <= high
    beside = judge(
        {"internal": None, "external": {"ktas": {"critical": {"auroc": 0.8, "auroc_ci95": [0.7, 0.9]}}}}
    )
    assert next(row for row in beside if row["key"] == "ktas.critical.auroc")["interval"] == [0.7, 0.9]


def test_goals_that_are_not_numbers_are_refused_with_their_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "goals.csv").write_text(
        "part,key,label,better,reach,aim,orientation\ninternal,a,A,higher,much,,\n", encoding="utf-8"
    )
    monkeypatch.setattr("training.evaluation.goals.files", lambda _: tmp_path)
    with pytest.raises(GoalsInvalid, match="row 2: reach and aim must be numbers"):
        load_goals()


def test_flat_metrics_are_numbers_by_name(report: dict[str, Any]) -> None:
    metrics = flat_metrics(report)
    assert metrics["internal.figures.top1"] == report["internal"]["figures"]["top1"]
    assert all(isinstance(value, float) for value in metrics.values())
    assert not any(name.startswith("external.ktas") for name in metrics)


def test_tables_go_between_the_markers_and_keep_the_words_around(
    tmp_path: Path, report: dict[str, Any]
) -> None:
    path = tmp_path / "performance.md"
    write_markdown(report, path)
    assert path.read_text(encoding="utf-8").startswith("# ")
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    write_markdown(report, path)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "\nold\n" not in text
    write_markdown(report, path)
    assert path.read_text(encoding="utf-8") == text
    path.write_text(f"only {BEGIN}", encoding="utf-8")
    with pytest.raises(MarkersMissing):
        write_markdown(report, path)


def test_a_report_can_be_read_again_and_nothing_else_passes_for_one(
    tmp_path: Path, report: dict[str, Any], page_text: str
) -> None:
    page, data = run.write(report, tmp_path / "out")
    assert page.read_text(encoding="utf-8") == page_text
    assert read_report(data) == report
    other = tmp_path / "other.json"
    other.write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="not an evaluation report"):
        read_report(other)


def test_the_command_evaluates_saved_predictions_and_says_what_is_absent(tmp_path: Path) -> None:
    held, out = tmp_path / "held.npz", tmp_path / "out"
    save_heldout(held, seeded(count=200))
    arguments = [
        "--bundle",
        "none",
        "--predictions",
        str(held),
        "--clinical",
        str(tmp_path),
        "--out",
        str(out),
    ]
    done = CliRunner().invoke(command.app, arguments)
    assert done.exit_code == 0, done.output
    assert "ktas was not measured" in done.output
    assert "missed: " in done.output
    read = read_report(out / "evaluation.json")
    assert read["internal"]["about"]["predictions"] == "as training saved them in held.npz"
    assert (out / "evaluation.html").is_file()


def test_the_command_refuses_a_bundle_that_does_not_hold(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    keys = tmp_path / "keys.json"
    keys.write_text('{"keys": []}', encoding="utf-8")
    done = CliRunner().invoke(command.app, ["--bundle", str(tmp_path / "bundle"), "--keys", str(keys)])
    assert done.exit_code == 1
    assert "Nothing was evaluated" in done.output
