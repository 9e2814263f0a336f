"""docs/security.md promises nothing that is not there: boundaries, modules, and tests by name."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
BOUNDARIES = (
    "EHR (CDS client)",
    "FHIR server",
    "Browser (SMART app, console)",
    "Database",
    "Model bundle",
    "Operator",
)
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL))
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", DOCUMENT)


@cache
def names_in(path: str) -> frozenset[str]:
    """The names of the test functions of a file, methods of test classes as well; nothing is run."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))]
    return frozenset(
        node.name
        for body in bodies
        for node in body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


def rows(section: str) -> list[list[str]]:
    """The cells of a section's threats."""
    lines = [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| |")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if "---" not in line]


def test_every_boundary_has_its_section_and_no_other_is_there() -> None:
    assert tuple(SECTIONS) == BOUNDARIES


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_section_has_threats_of_each_kind_with_tests_and_says_what_is_open(boundary: str) -> None:
    section = SECTIONS[boundary]
    found = rows(section)
    assert {row[0] for row in found} == set("STRIDE")
    for row in found:
        assert len(row) == 4, row
        assert re.search(r"`tests/[\w/]+\.py::test_\w+`", row[3]), row
    _, marked, left = section.partition("\nOpen:\n")
    assert marked
    assert left.strip().startswith("- ")


def test_every_named_test_exists() -> None:
    assert len(NAMED) > 100
    missing = [f"{path}::{name}" for path, name in NAMED if name not in names_in(path)]
    assert missing == []


def test_every_named_module_exists() -> None:
    named = re.findall(
        r"`((?:cds_server|fhir_adapters|models|hooks|training|migrations|docs)/[\w/.-]+)`", DOCUMENT
    )
    assert len(named) > 60
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_a_test_that_is_gone_would_be_noticed() -> None:
    assert "test_every_named_test_exists" in names_in("tests/test_security_document.py")
    assert "names_in" not in names_in("tests/test_security_document.py")
    assert "test_that_never_was" not in names_in("tests/test_security_document.py")
