"""Enrolling a confirmed case and taking it back, through the command a person uses."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cds_server.cli import app
from cds_server.privacy import Cipher, SiteKeys
from cds_server.rare.store import EnrolmentStore


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["rare", *arguments])
    return result.exit_code, result.output


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDS_VAR_DIR", str(tmp_path))


def store(tmp_path: Path) -> EnrolmentStore:
    return EnrolmentStore(tmp_path, Cipher(SiteKeys.open(tmp_path / "keys").cipher))


def test_a_case_is_enrolled_listed_and_taken_back(tmp_path: Path) -> None:
    code, said = run("enroll", "SITE:1", "-o", "HP:0001250", "-x", "HP:0000505", "--name", "Ours")
    assert code == 0 and "enrolled:000001" in said
    (case,) = store(tmp_path).cases()
    assert case.disease == "SITE:1" and case.reference == "enrolled:000001" and case.name == "Ours"
    assert case.phenotype.observed == ("HP:0001250",) and case.phenotype.excluded == ("HP:0000505",)
    assert run("undo", "enrolled:000001")[0] == 0
    assert store(tmp_path).cases() == ()
    code, said = run("list")
    assert code == 0 and "undone" in said and "SITE:1" in said


def test_the_record_is_only_added_to_and_shows_no_findings(tmp_path: Path) -> None:
    run("enroll", "OMIM:1", "-o", "HP:0001250")
    before = (tmp_path / "rare" / "enrolled.jsonl").read_bytes()
    run("undo", "enrolled:000001")
    run("enroll", "OMIM:1", "-o", "HP:0001250")
    after = (tmp_path / "rare" / "enrolled.jsonl").read_bytes()
    assert after.startswith(before) and len(after.splitlines()) == 3
    assert b"HP:" not in after


def test_what_cannot_be_done_is_said() -> None:
    code, said = run("enroll", "OMIM:1", "-o", "HP:0000000")
    assert code == 1 and "Nothing was enrolled" in said
    code, said = run("undo", "enrolled:000009")
    assert code == 1 and "no such enrolment" in said


def test_a_damaged_record_is_told_by_its_line(tmp_path: Path) -> None:
    run("enroll", "OMIM:1", "-o", "HP:0001250")
    with (tmp_path / "rare" / "enrolled.jsonl").open("ab") as file:
        file.write(b"not json\n")
    code, said = run("list")
    assert code == 1 and "line 2" in said
