"""The page about the knowledge base: honest counts, both languages, nothing from elsewhere."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fhir_adapters.hpo import load_ontology
from models.knowledge.loader import load_knowledge
from training.cli import knowledge as commands
from training.knowledge_report import FIELDS, evidence, report
from training.page_parts import bars, percent, table

KNOWLEDGE = load_knowledge(load_ontology())
PAGE = report(KNOWLEDGE)
VOID = {"meta"}


class Tags(HTMLParser):
    """Collects what is open, and every address that a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing() -> None:
    tags = Tags()
    tags.feed(PAGE)
    assert tags.open == []
    assert tags.addresses == []
    assert "script" not in tags.seen
    assert not re.search(r"https?://|url\(|@import", PAGE)


def test_it_says_first_that_no_clinician_has_reviewed_it() -> None:
    assert "No clinician has reviewed this knowledge base" in PAGE
    assert PAGE.index("Not reviewed.") < PAGE.index("<table>")


def test_every_disease_is_there_in_both_languages_with_its_codes() -> None:
    cells = set(re.findall(r"<td[^>]*>([^<]*)</td>", PAGE))
    for disease in KNOWLEDGE.diseases:
        assert disease.name.en.replace("'", "&#x27;") in cells
        assert disease.name.es in cells
        assert " ".join(disease.icd10cm) in cells


def test_evidence_counts_every_row_once() -> None:
    found = evidence(KNOWLEDGE)
    rows = sum(len(getattr(disease, name)) for disease in KNOWLEDGE.diseases for name in FIELDS)
    assert found.total.total() == rows + 2 * len(KNOWLEDGE.diseases)  # rate and severity mix
    assert sum(count.total() for count in found.diseases.values()) == found.total.total()
    assert set(found.total) == {"A", "B", "C"}
    assert f"{found.total.total():,}" in PAGE


def test_the_same_knowledge_gives_the_same_page() -> None:
    assert report(KNOWLEDGE) == PAGE


def test_text_is_escaped_and_markup_only_where_it_is_said() -> None:
    assert "<td>&lt;b&gt;</td>" in table(("x",), [("<b>",)], numeric=())
    assert "<td><b></td>" in table(("x",), [("<b>",)], numeric=(), raw=(0,))
    assert "&lt;b&gt;" in bars([("<b>", (1.0,))], ("#000",))


@pytest.mark.parametrize(("part", "whole", "words"), [(1, 8, "12.5 %"), (0, 3, "0.0 %"), (0, 0, "–")])
def test_shares_are_said_in_percent(part: float, whole: float, words: str) -> None:
    assert percent(part, whole) == words


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    done = CliRunner().invoke(commands, ["report", "--out", str(tmp_path / "page.html")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == PAGE


def test_a_page_that_cannot_be_written_is_said_in_words(tmp_path: Path) -> None:
    done = CliRunner().invoke(commands, ["report", "--out", str(tmp_path / "no" / "page.html")])
    assert done.exit_code == 1
    assert "cannot be written: No such file or directory" in done.output
