"""Enrolling a confirmed case and taking it back, through the command a person uses."""

import base64
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cds_server.cli import app
from cds_server.privacy import Cipher, SiteKeys
from cds_server.rare.record import FILE, Entry, identity, read_record
from cds_server.rare.store import Counting, EnrolmentStore


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
    (case,) = store(tmp_path).counting().cases
    assert case.disease == "SITE:1" and case.reference == "enrolled:000001" and case.name == "Ours"
    assert case.phenotype.observed == ("HP:0001250",) and case.phenotype.excluded == ("HP:0000505",)
    assert run("undo", "enrolled:000001")[0] == 0
    assert store(tmp_path).counting().cases == ()
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


def key(number: int) -> str:
    return base64.b64encode(bytes([number]) * 32).decode()


def test_the_key_given_by_the_settings_is_used_and_another_one_is_refused_clearly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDS_CIPHER_KEY", key(1))
    assert run("enroll", "SITE:1", "-o", "HP:0001250")[0] == 0
    assert not list((tmp_path / "keys").glob("cipher-*")), "no key is made beside the one that was given"
    before = (tmp_path / FILE).read_bytes()
    monkeypatch.setenv("CDS_CIPHER_KEY", key(2))
    for command in (("list",), ("enroll", "SITE:1", "-o", "HP:0001250")):
        code, said = run(*command)
        assert code == 1 and "enrolled:000001" in said and "CDS_CIPHER_KEY" in said
        assert key(1) not in said and key(2) not in said
    assert (tmp_path / FILE).read_bytes() == before, "a record under two keys would be lost by halves"
    monkeypatch.setenv("CDS_CIPHER_KEY", "not a key")
    code, said = run("list")
    assert code == 1 and "cipher key" in said and "not a key" not in said
    monkeypatch.setenv("CDS_CIPHER_KEY", key(1))
    code, said = run("list")
    assert code == 0 and "SITE:1" in said


def test_settings_that_do_not_hold_together_end_the_command_like_every_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CDS_PORT", "0")
    code, said = run("list")
    assert code == 2 and "settings" in said


def counting(tmp_path: Path) -> Counting:
    return store(tmp_path).counting()


def diseases(tmp_path: Path) -> list[str]:
    return [case.disease for case in counting(tmp_path).cases]


def three(tmp_path: Path) -> list[bytes]:
    """Three enrolments, the second taken back; the lines of the record."""
    for number in (1, 2, 3):
        run("enroll", f"SITE:{number}", "-o", "HP:0001250")
    run("undo", "enrolled:000002")
    assert diseases(tmp_path) == ["SITE:1", "SITE:3"]
    return (tmp_path / FILE).read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize(
    ("spoilt", "left"),
    [
        (lambda lines: [lines[0][:60] + b"\n", *lines[1:]], ["SITE:3"]),
        (lambda lines: [*lines[:3], lines[3][:-20] + b"\n"], ["SITE:1", "SITE:3"]),
        (lambda lines: [*lines, lines[3].replace(b"2", b"3", 1)[:40]], ["SITE:1"]),
        (lambda lines: [lines[0], b"\0\0\0\0\n", *lines[1:]], ["SITE:3"]),
        (lambda lines: [*lines, b'{"id":"enro'], ["SITE:1", "SITE:3"]),
        (lambda lines: [*lines, b"\xff\xfe not json\n"], []),
        (lambda lines: [*lines, lines[3].replace(b"000002", b"000009")], []),
    ],
    ids=["enrolment", "undo", "torn-undo", "block-of-zeros", "never-finished", "anything", "undo-of-nothing"],
)
def test_nothing_counts_that_a_damaged_line_may_have_taken_back(
    tmp_path: Path, spoilt: Callable[[list[bytes]], list[bytes]], left: list[str]
) -> None:
    (tmp_path / FILE).write_bytes(b"".join(spoilt(three(tmp_path))))
    found = counting(tmp_path)
    assert [case.disease for case in found.cases] == left
    assert len(found.damaged) == 1 and not found.whole
    assert run("list")[0] == 1, "a person is told and nothing is added to it"


def test_empty_lines_are_no_damage(tmp_path: Path) -> None:
    lines = three(tmp_path)
    (tmp_path / FILE).write_bytes(b"\n".join([b"", *lines, b" \n"]))
    assert counting(tmp_path).whole and diseases(tmp_path) == ["SITE:1", "SITE:3"]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_is_cut_from_a_line_or_put_into_it_no_case_that_was_taken_back_counts(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, 4))
    undone = data.draw(st.sets(st.integers(1, count)))
    entries = [Entry(f"enrolled:{n:06d}", "2026-01-01", "enroll", f"c1.{n}") for n in range(1, count + 1)]
    entries += [Entry(f"enrolled:{n:06d}", "2026-01-02", "undo") for n in sorted(undone)]
    lines = [msgspec.json.encode(entry) for entry in entries]
    place = data.draw(st.integers(0, len(lines) - 1))
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(lines[place]))] * 2)))
    noise = data.draw(st.binary(max_size=6).filter(lambda drawn: not set(drawn) & set(b"\n0123456789")))
    lines[place] = lines[place][:start] + noise + lines[place][end:]
    assume(lines[place].strip())  # a line that is gone altogether leaves no trace
    path = tmp_path_factory.mktemp("record") / "enrolled.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    active = {entry.id for entry in read_record(path).active()}
    assert not active & {f"enrolled:{number:06d}" for number in undone}


def test_each_state_of_the_record_has_a_name_that_comes_back_with_it(tmp_path: Path) -> None:
    assert identity(()) == ""
    three(tmp_path)
    code, said = run("states")
    names = [line.rpartition("  ")[2] for line in said.splitlines()]
    assert code == 0 and len(set(names)) == 4
    assert names[-1] == counting(tmp_path).identity and names[-1].startswith("enrolled.2.")
    run("enroll", "SITE:4", "-o", "HP:0001250")
    run("undo", "enrolled:000004")
    assert counting(tmp_path).identity == names[-1]


def test_a_full_disk_leaves_no_half_a_line(tmp_path: Path) -> None:
    run("enroll", "SITE:1", "-o", "HP:0001250")
    before = (tmp_path / FILE).read_bytes()
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + 40}, {len(before) + 40}));"
        "from cds_server.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "rare", "enroll", "SITE:2", "-o", "HP:0001250"],
        env=os.environ | {"CDS_VAR_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "cannot be written" in done.stderr
    assert (tmp_path / FILE).read_bytes() == before
