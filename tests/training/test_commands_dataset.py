"""Datasets from the command line: built from records, looked at, and refused with the reason."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets_support import appendicitis, context, write_export
from typer.testing import CliRunner

from cds_server.cli import app
from training.datasets.context import DatasetContext
from training.datasets.load import read_info

MAPPING = """version = 1
setting = { constant = "emergency" }
age = { column = "age", unit = "years" }
label = { column = "dx", system = "icd-10-cm" }
[[finding]]
column = "complaint"
role = "complaint"
"""


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The terminology is read once for all tests; relative paths are the test's."""
    for name in [name for name in os.environ if name.startswith("CDS_")]:
        monkeypatch.delenv(name)
    loaded = context()
    monkeypatch.setattr(DatasetContext, "load", lambda: loaded)
    monkeypatch.chdir(tmp_path)
    yield


def run(*words: object) -> Any:
    return CliRunner().invoke(app, ["dataset", *(str(word) for word in words)])


def test_an_export_becomes_a_dataset_that_says_what_is_in_it(tmp_path: Path) -> None:
    write_export(tmp_path / "export", appendicitis())
    (tmp_path / "key").write_bytes(b"0123456789abcdef\n")
    done = run("fhir", "export", "site", "--key-file", "key")
    assert done.exit_code == 0, done.output
    assert "site: 1 visits of 1 patients, 1 diseases" in done.stdout
    assert "diagnosis-of-visit" in done.stdout or "label" in done.stdout
    shown = run("show", "site")
    assert "acute-appendicitis" in shown.stdout
    assert run("fhir", "export", "again", "--key-file", "key").exit_code == 0
    assert read_info(Path("again")).digest == read_info(Path("site")).digest
    # A window that ends before the diagnosis was made leaves nothing to learn from.
    none = run("fhir", "export", "short", "--decision-hours", 0, "--window-days", 0)
    assert none.exit_code == 0, none.output


def test_a_table_becomes_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text(MAPPING)
    (tmp_path / "visits.csv").write_text("age,dx,complaint\n34,K35.80,abdominal pain\n50,?,cough\n")
    done = run("csv", "visits.csv", "site", "--mapping", "map.toml")
    assert done.exit_code == 0, done.output
    assert "site: 1 visits of 1 patients" in done.stdout and "rejected: " in done.stdout


def test_what_cannot_be_built_is_said(tmp_path: Path) -> None:
    write_export(tmp_path / "export", appendicitis())
    assert run("fhir", "export", "site").exit_code == 0
    again = run("fhir", "export", "site")
    assert again.exit_code == 1 and "is not empty" in again.output
    assert run("fhir", "export", "site", "--replace").exit_code == 0
    assert run("fhir", "absent", "other").exit_code == 1
    (tmp_path / "key").write_bytes(b"short")
    assert "give 16 or more" in run("fhir", "export", "other", "--key-file", "key").output
    absent = run("fhir", "export", "other", "--key-file", "nokey")
    assert absent.exit_code == 1 and "nokey cannot be used" in absent.output
    (tmp_path / "map.toml").write_text("version = 1\n")
    (tmp_path / "visits.csv").write_text("age\n1\n")
    assert "Nothing was built" in run("csv", "visits.csv", "other", "--mapping", "map.toml").output
    assert "not a dataset directory" in run("show", ".").output
    assert not (tmp_path / "other").exists()
