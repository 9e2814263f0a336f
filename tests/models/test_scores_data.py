"""The tables of the scores: real codes, known actions, errors that name file and row, cheap evaluation."""

import csv
import gzip
import time
import tomllib
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import pytest

from fhir_adapters.chart import Measurement, PatientChart, Subject
from models.rules import data_rows
from models.rules.errors import RulesInvalid
from models.rules.scores import ScoreRules
from models.rules.scores.evidence import Evidence
from models.rules.scores.points import PointsTable

DATA = resources.files("models.rules").joinpath("data")
RULES = ScoreRules.load()
TERMINOLOGY = Path(__file__).parents[2] / "fhir_adapters" / "terminology" / "data"
TABLES = ("news2", "qsofa", "pews", "paediatric_vitals", "meows", "ctas", "score_bands", "score_evidence")


def rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(DATA.joinpath(f"{name}.csv").read_text(encoding="utf-8").splitlines()))


def check_digit(loinc: str) -> int:
    """LOINC's Mod 10 (Luhn) check digit."""
    total = 0
    for place, digit in enumerate(reversed(loinc)):
        doubled = int(digit) * 2 if place % 2 == 0 else int(digit)
        total += doubled // 10 + doubled % 10
    return -total % 10


def loincs() -> set[str]:
    used = {code for row in rows("critical_values") for code in row["loinc"].split()}
    return used | {code for row in rows("score_parameters") for code in row["loinc"].split()}


@pytest.mark.parametrize("code", sorted(code for code in loincs() if "-" in code))
def test_loinc_codes_carry_their_check_digit(code: str) -> None:
    number, _, digit = code.partition("-")
    assert check_digit(number) == int(digit)


def test_icd_codes_of_the_evidence_exist() -> None:
    icd = pytest.importorskip("simple_icd_10_cm", reason="the ICD-10-CM release is a development package")
    for row in rows("score_evidence"):
        if row["system"] == "icd10cm":
            assert icd.is_valid_item(row["code"]), row


def test_hpo_codes_of_the_evidence_exist() -> None:
    path = TERMINOLOGY / "hpo.tsv.gz"
    if not path.exists():
        pytest.skip("the terminology's HPO table is not built in this checkout")
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        terms = {line.split("\t", 1)[0].strip() for line in stream}
    for row in rows("score_evidence"):
        if row["system"] == "hpo":
            assert row["code"] in terms or row["code"].removeprefix("HP:") in terms, row


def test_every_row_has_a_source() -> None:
    for name in (*TABLES, "critical_values", "score_risk", "age_bands", "score_parameters"):
        for row in rows(name):
            assert row["source"].strip(), (name, row)


def test_every_action_that_is_asked_for_exists() -> None:
    known = {
        action["id"] for action in tomllib.loads(DATA.joinpath("actions.toml").read_text("utf-8"))["action"]
    }
    asked = {action for row in rows("score_bands") for action in row["actions"].split()}
    asked |= {action for row in rows("critical_values") for action in row["actions"].split()}
    assert asked <= known, asked - known


def test_codes_and_units_are_the_canonical_ones_of_the_terminology() -> None:
    path = TERMINOLOGY / "analytes.csv"
    if not path.exists():
        pytest.skip("the terminology's analyte table is not built in this checkout")
    with path.open(encoding="utf-8") as stream:
        analytes = {row["loinc"]: row for row in csv.DictReader(stream)}
    for limit in RULES.critical_values.limits:
        canonical = [code for code in limit.loincs if code in analytes]
        assert canonical, f"{limit.analyte}: no code of it is canonical"
        for code in canonical:
            assert limit.in_unit(analytes[code]["unit"]) is not None, (
                limit.analyte,
                code,
                analytes[code]["unit"],
            )


def test_evidence_holds_for_the_codes_below_and_the_longest_prefix_wins() -> None:
    evidence = Evidence.load()
    assert any(topic == "infection" for topic, _, _ in evidence._by_problem("J18.9"))
    assert not evidence._by_problem("E11.9")


BROKEN = {
    "a gap": "heart-rate,,,40,,3,x\nheart-rate,,42,,,0,x",
    "an overlap": "heart-rate,,,40,,3,x\nheart-rate,,40,,,0,x",
    "an open end": "heart-rate,,,40,,3,x\nheart-rate,,41,50,,0,x",
    "an unknown parameter": "height,,,,,0,x",
    "no source": "heart-rate,,,,,0,",
    "a word for a number": "heart-rate,,low,,,0,x",
    "a missing cell": "heart-rate,,,,0,x",
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_points_table_is_refused_with_its_name(
    body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    table = "parameter,variant,low,high,key,points,source\n" + body + "\n"
    (tmp_path / "data" / "broken.csv").write_text(table, encoding="utf-8")
    monkeypatch.setattr(data_rows.resources, "files", lambda _package: tmp_path)
    with pytest.raises(RulesInvalid, match=r"broken\.csv"):
        PointsTable.load("broken.csv", {"heart-rate": 0})


def test_an_adult_with_full_vital_signs_and_forty_results_takes_well_under_a_millisecond() -> None:
    at = datetime(2026, 1, 15, 12, tzinfo=UTC)
    values = {
        "9279-1": 16,
        "8867-4": 70,
        "8480-6": 120,
        "8462-4": 70,
        "8310-5": 37,
        "59408-5": 98,
        "9269-2": 15,
    }
    units = {limit.loincs[0]: limit.unit for limit in RULES.critical_values.limits}
    measurements = {
        code: (Measurement(code, float(v), units[code], at, "Observation/v"),) for code, v in values.items()
    }
    for code, unit in list(units.items())[:45]:
        measurements.setdefault(code, (Measurement(code, 30.0, unit, at, "Observation/l"),))
    chart = PatientChart(Subject("p", "male", 20000, "day"), at, None, (), (), measurements, {})
    best = min(_timed(chart) for _ in range(20))
    # About 0.07 ms on an idle core; the bound leaves room for a busy shared one.
    assert best < 0.0005


def _timed(chart: PatientChart) -> float:
    start = time.perf_counter()
    for _ in range(20):
        RULES.evaluate(chart)
    return (time.perf_counter() - start) / 20
